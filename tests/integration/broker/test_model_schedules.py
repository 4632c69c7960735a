"""Schedules of faults that the model of the protocol has been verified with, played against real daemons and real Redis: what
real pods get must be judged as the model judges its own.

Every class of the model is played, each deed at its time. What is another thing here than there:

* A Redis or a broker that starts takes some milliseconds, a schedule's deed waits for the one before it.
* "refuse" hangs up on who connects; a Redis that answers NOAUTH or NOPERM, or that it has too many clients, is not played.
* What is under way when a connection is reset is what the relay has not handed on, not drawn at random.
* A message has one room or channel; the model's messages on two partitions (enter_room) are in test_entry.py.
* The interest of a broker is in channels, one for each partition of the model (which has six); a SUBSCRIBE that was answered after
  its second of waiting need not be joined, so nothing is promised to it.
* A pod's path is cut for 0.7 s at least: the model's broker knows at the pod's return that the old connection is dead, a real
  one when bytes were sent twice without an answer. What a pod has read for 0.3 s counts as acknowledged, for the model what is.
* The publishers of a broker that is killed are not judged: the model does not either.

One short schedule in the short form; in the full one every class of faults with several seeds (SIDRAIL_SEEDS=10-20: these)."""
import collections
import os
import random
import sys
import time

import pytest
from broker_tools import wait_settled, wait_up
from daemons import ROOT, figure, is_full, wait_until
from resp_client import Pod
from schedule_people import ChoosyPod, Publisher, ReturningPod, can_cut_paths
from schedule_player import Player, export, judged_by_model

sys.path.append(str(ROOT / "tests" / "model"))
import faults  # noqa: E402

ROOMS = [f"room {i}" for i in range(8)]
CHANNELS = [f"channel {i}" for i in range(6)]  # one for each partition of the model
SEEDS = range(*map(int, os.environ.get("SIDRAIL_SEEDS", "0-3").split("-")))  # of each class, in the full form
SCHEDULES = figure([("mixed", 0), ("pods", 0)], [(name, seed) for name in faults.FAULTS if name not in faults.MODEL_ONLY
                                                           for seed in SEEDS])


class Stage:
    def __init__(self, servers, fault, seed, schedule):
        self.fault, self.seed = fault, seed
        self.publishers, self.pods = [], []
        self.tail = "overlap" if fault.startswith("pods") and seed % 3 == 2 else "acked"  # as the model does
        self.player = Player(servers, self, schedule, {"replay": {"tail": self.tail}})
        wait_up(*self.player.slots)
        for slot in range(3):
            self.add_pod(slot)
        for slot in range(3):
            self.add_publisher(slot)

    def add_pod(self, slot):
        broker = self.player.slots[slot]
        if self.fault == "interest":
            pod = ChoosyPod(broker.port, random.Random(f"{self.seed}/{slot}").sample(CHANNELS, 3))
            wait_until(lambda: all(spans[-1][0] is not None for spans in pod.spans.values()), "it is subscribed")
        elif self.fault.startswith("pods"):
            pod = ReturningPod(broker.port, f"pod-{slot}")
        else:
            pod = Pod(broker.port)
        pod.is_from_the_beginning = not self.publishers
        self.pods.append((slot, broker, pod))

    def add_publisher(self, slot):
        rooms = CHANNELS if self.fault == "interest" else ROOMS
        self.publishers.append((slot, Publisher(self.player.slots[slot], f"{slot}.{len(self.publishers)}", rooms,
                                                has_channels=self.fault == "interest")))

    # --- deeds of the schedule ---

    def arrive(self, slot):
        """A pod and a publisher at the broker that runs there now."""
        self.add_pod(slot)
        self.add_publisher(slot)

    def burst(self, slot, count):
        [publisher for at, publisher in self.publishers if at == slot][-1].bursts.put(count)

    def need(self, slot, partition):
        self.pods[slot][2].need(CHANNELS[partition])

    def leave(self, slot, partition):
        self.pods[slot][2].leave(CHANNELS[partition])

    def end_pod(self, slot, how, away):
        self.pods[slot][2].end(how, away)

    # --- the verdict ---

    def living(self):
        """Pods of brokers that still run, all of them from the beginning but for those of relaunched brokers."""
        return [(slot, pod) for slot, broker, pod in self.pods if self.player.slots[slot] is broker]

    def expected(self, pod):
        """{(room, publisher): numbers} that the pod must have got, of publishers whose broker never died."""
        wanted = collections.defaultdict(list)
        if pod.is_from_the_beginning:
            for slot, publisher in self.publishers:
                if slot not in self.player.crashed:
                    for room, number, sent_at in publisher.accepted:
                        if self.fault != "interest" or pod.is_promised(room, sent_at):
                            wanted[room, publisher.name].append(number)
        return wanted

    def received(self, pod):
        got = collections.defaultdict(list)
        for room, (name, number) in list(pod.received):
            got[room, name].append(number)
        return got

    def verdict(self):
        """What is wrong, as lines; nothing is awaited."""
        found = []
        for slot, pod in self.living():
            if isinstance(pod, ReturningPod):
                found += pod.verdict(self.expected(pod), self.tail == "acked")
                continue
            got = self.received(pod)
            for key, numbers in got.items():
                if len(set(numbers)) != len(numbers):
                    found.append(f"pod of {slot}: doubled, {key}")
                if numbers != sorted(numbers):
                    found.append(f"pod of {slot}: out of order, {key}")
            for key, numbers in self.expected(pod).items():
                if missing := set(numbers) - set(got[key]):
                    found.append(f"pod of {slot}: {len(missing)} lost, {key}")
        return found

    def check_rest(self):
        """After quiet: the newest map alone is in use, and nobody is subscribed at a shard that is in none."""
        wait_up(*self.player.slots)
        names = self.player.maps[self.player.map]
        wait_settled(self.player.slots, names, 40)
        for shard, server in self.player.redis.items():
            if shard not in names:
                with server.client() as client:
                    wait_until(lambda client=client: not client.pubsub_channels("*"), f"nothing is subscribed at {shard}")

    def describe(self):
        told = f"{sum(len(p.accepted) for _, p in self.publishers)} messages accepted, latest deed {self.player.lag:.2f} s late"
        for _, _, pod in self.pods:
            if isinstance(pod, ReturningPod):
                told += f"; {pod.name} ended {pod.ends} times, may double {len(pod.doublable)}, may lose {len(pod.losable)}"
            elif isinstance(pod, ChoosyPod):
                told += f"; {sum(map(len, pod.spans.values()))} interests, {pod.late} late"
        return told

    def close(self):
        for _, publisher in self.publishers:
            publisher.stop()
        for _, _, pod in self.pods:
            if isinstance(pod, ReturningPod):
                pod.close()
        self.player.close()


@pytest.fixture
def stage(servers):
    stages = []

    def make(*facts):
        stages.append(Stage(servers, *facts))
        return stages[0]

    yield make
    for made in stages:
        made.close()


@pytest.mark.parametrize("fault, seed", SCHEDULES)
def test_real_brokers_are_judged_as_those_of_the_model(stage, fault, seed):
    if fault.startswith("pods") and not can_cut_paths():
        pytest.skip("no filter can be attached to a socket here")
    schedule = export(fault, seed)
    if not is_full():  # the first half, which has each kind of deed
        schedule = [each for each in schedule if each["at"] < 6000]
    modelled = judged_by_model(fault, seed)
    on = stage(fault, seed, schedule)
    on.player.play(schedule, figure(6, 12))
    on.player.end_faults()
    time.sleep(0.3)
    for _, publisher in on.publishers:
        publisher.stop()
    on.check_rest()
    try:
        wait_until(lambda: not any("lost" in line for line in on.verdict()), "everything has arrived", 20)
    except AssertionError:
        pass  # judged below
    time.sleep(0.5)
    print(f"{fault} {seed}: {len(schedule)} deeds; {on.describe()}")
    assert sum(len(publisher.accepted) for _, publisher in on.publishers) > 300
    assert on.verdict() == modelled == []

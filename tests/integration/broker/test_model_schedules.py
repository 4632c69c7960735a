"""Schedules of faults that the model of the protocol has been verified with, played against real daemons and real Redis: what
real pods get must be judged as the model judges its own.

One short schedule in the short form; in the full one every class of faults that can be played, with several seeds."""
import collections
import queue
import threading
import time

import pytest
from broker_tools import wait_up
from daemons import figure, is_full, wait_until
from resp_client import Pod, Raw, emit
from schedule_player import DEEDS, Player, export, judged_by_model

ROOMS = [f"room {i}" for i in range(8)]
PACE = 0.02  # seconds between two messages of a publisher

CLASSES = ["none", "shard_kill", "shard_stop", "shard_flap", "both_shards", "link_reset", "link_stall", "partition", "cut_off",
           "refusal", "demotion", "broker_pause", "broker_pause_and_kill", "broker_crash", "broker_crash_and_kill", "mixed"]
SCHEDULES = figure([("mixed", 0)], [(name, seed) for name in CLASSES for seed in range(3)])


class Publisher:
    """Of one broker of a slot, while that broker lives: numbered messages at a steady pace, and bursts."""

    def __init__(self, broker, name):
        self.broker, self.name = broker, name
        self.accepted = []   # (room, number) that were answered
        self.uncertain = []  # sent and not answered when the broker died
        self.bursts = queue.SimpleQueue()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        number = 0
        try:
            with Raw(self.broker.port) as raw:
                while not self.stopping.is_set():
                    try:
                        count = self.bursts.get(timeout=PACE)
                    except queue.Empty:
                        count = 1
                    for _ in range(count):
                        room = ROOMS[number % len(ROOMS)]
                        self.uncertain.append((room, number))
                        reply = raw.call("PUBLISH", "flask-socketio", emit(room, [self.name, number]))
                        if isinstance(reply, int):
                            self.accepted.append(self.uncertain.pop())
                        number += 1
        except (EOFError, OSError):
            pass

    def stop(self):
        self.stopping.set()
        self.thread.join()


class Stage:
    def __init__(self, servers, broker):
        self.publishers, self.pods = [], []
        self.player = Player(servers, broker, self.people, self.burst)
        wait_up(*self.player.slots)
        for slot in range(3):
            self.add_pod(slot)
        for slot in range(3):
            self.add_publisher(slot)

    def add_pod(self, slot):
        broker = self.player.slots[slot]
        pod = Pod(broker.port)
        pod.is_from_the_beginning = not self.publishers
        self.pods.append((slot, broker, pod))

    def add_publisher(self, slot):
        self.publishers.append((slot, Publisher(self.player.slots[slot], f"{slot}.{len(self.publishers)}")))

    def people(self, slot):
        """A pod and a publisher at the broker that runs there now."""
        self.add_pod(slot)
        self.add_publisher(slot)

    def burst(self, slot, count):
        [publisher for at, publisher in self.publishers if at == slot][-1].bursts.put(count)

    def living(self):
        """Pods of brokers that still run, all of them from the beginning but for those of relaunched brokers."""
        return [(slot, pod) for slot, broker, pod in self.pods if self.player.slots[slot] is broker]

    def expected(self, pod):
        """{(room, publisher): numbers} that the pod must have got, of publishers whose broker never died."""
        wanted = collections.defaultdict(list)
        if pod.is_from_the_beginning:
            for slot, publisher in self.publishers:
                if slot not in self.player.crashed:
                    for room, number in publisher.accepted:
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

    def close(self):
        for _, publisher in self.publishers:
            publisher.stop()
        self.player.close()


@pytest.fixture
def stage(servers, broker):
    stages = []

    def make():
        stages.append(Stage(servers, broker))
        return stages[0]

    yield make
    for made in stages:
        made.close()


@pytest.mark.parametrize("fault, seed", SCHEDULES)
def test_real_brokers_are_judged_as_those_of_the_model(stage, fault, seed):
    schedule = export(fault, seed)
    assert {each["do"] for each in schedule} <= DEEDS and schedule
    if not is_full():  # the first half, which has each kind of deed
        schedule = [each for each in schedule if each["at"] < 6000]
    modelled = judged_by_model(fault, seed)
    on = stage()
    on.player.play(schedule)
    on.player.end_faults()
    time.sleep(0.3)
    for _, publisher in on.publishers:
        publisher.stop()
    wait_up(*on.player.slots)
    try:
        wait_until(lambda: not any("lost" in line for line in on.verdict()), "everything has arrived", 20)
    except AssertionError:
        pass  # judged below
    time.sleep(0.5)
    total = sum(len(publisher.accepted) for _, publisher in on.publishers)
    print(f"{fault} {seed}: {len(schedule)} deeds, {total} messages accepted")
    assert total > 300
    assert on.verdict() == modelled == []

"""The oracle: what is promised, checked after faults.

    python3 tests/model/world.py --seeds 1000                     all fault classes
    python3 tests/model/world.py --fault shard_kill --seed 7 --trace       one run, step by step
    python3 tests/model/world.py --fault shard_kill --seed 7 --export      its faults as JSON lines

A run: Redis servers, three brokers whose pods publish numbered messages; the faults of one schedule;
quiet; then every message accepted by a broker that lives must have been delivered exactly once to every
broker that was ready (and needed its partition) when it was accepted and lives, in order per (origin,
partition); nothing may be left in a FIFO, a hold or a subscription.
"""

import argparse
import collections
import gc
import json
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import broker as model  # noqa: E402
import faults  # noqa: E402
import pods as pod_model  # noqa: E402
import simulation  # noqa: E402
from simulation import DOWN, UP  # noqa: E402

WARM_UP = 1_500.0
FAULTY = 12_000.0
SETTLE = 18_000.0


class World:
    def __init__(self, seed, off=frozenset(), trace=False, needs=None, with_pods=False, brokers=3, tail="acked",
                 local_fast=False, shards=faults.SHARDS):
        self.simulation = simulation.Simulation(seed)
        self.random = self.simulation.random
        self.off, self.trace = off, trace
        self.servers = {n: simulation.Redis(self.simulation, n) for n in "abcde"}
        self.map = model.Map("m1", shards)
        self.maps = {"m1": self.map}
        self.paths = {}
        self.needs = needs
        self.local_fast = local_fast   # at some brokers: each decides for its own pods
        self.all = []            # every broker that ever ran
        self.slots = {}
        self.needed = {}         # (receiver, partition) -> [[from, to], ...]
        self.accepted = {}       # (origin, partition, sequence) -> Message
        self.copies_of = {}      # message -> its keys, if several
        self.log = collections.defaultdict(list)   # receiver -> [(origin, partition, sequence, message)]
        self.slowest = {}        # receiver -> the longest way of a message, from measure_from on
        self.measure_from = 0.0  # messages accepted earlier do not count
        self.late_after = None
        self.unpromised = (0.0, 0.0)   # needs that began then: some origin was not heard
        self.given_up = collections.defaultdict(set)   # receiver -> keys
        self.reasons = collections.Counter()
        self.expired_keys = set()
        self.aged = collections.defaultdict(set)       # receiver -> keys that had left the ring of a living origin
        self.expected_seen = {}   # receiver -> (origin, partition) -> the highest
        self.refused = 0
        self.publishing = True
        self.rings_may_end = self.spill_may_end = False
        self.gap = self.random.choice((10.0, 30.0, 80.0))
        self.pods = []
        self.rings = {}
        self.message_ids = 0
        for slot in range(brokers):
            self.launch(slot)
        if with_pods:
            for slot in range(brokers):
                self.pods.append(pod_model.Pod(self, slot, tail))

    def say(self, *words):
        if self.trace:
            print(f"{self.simulation.now:10.1f}", *words)

    # ── what brokers ask and tell ────────────────────────────────────────────────────────────

    def server_for(self, who, shard):
        path = self.paths.setdefault((who.slot, shard), simulation.Path())
        return self.servers[shard], path

    def is_ready(self, who):
        self.say(who.origin, "ready")
        for partition in who.needs:
            self.joined(who, partition)

    def joined(self, who, partition):
        if who.ready_at is not None:
            spans = self.needed.setdefault((who.origin, partition), [])
            if not spans or spans[-1][1] is not None:
                spans.append([self.simulation.now, None])

    def delivered(self, receiver, origin, partition, sequence, message, is_copy=False):
        delay = self.simulation.now - message.accepted_at
        if delay > self.slowest.get(receiver.origin, 0.0) and message.accepted_at >= self.measure_from:
            self.slowest[receiver.origin] = delay
        self.log[receiver.origin].append((origin, partition, sequence if not is_copy else None, message))
        if self.pods:
            self.rings[receiver.origin].add(message)

    def gave_up(self, receiver, reason, keys):
        self.given_up[receiver.origin].update(keys)
        if reason == "gone" and self.rings_may_end:
            self.aged[receiver.origin].update(
                key for key in keys
                if key in self.accepted and self.simulation.now - self.accepted[key].accepted_at > model.RING_AGE)
        self.reasons[reason] += len(keys)
        if self.trace:
            self.say(receiver.origin, "gives up", reason, keys[:6])

    def expired(self, who, entry):
        self.expired_keys.add((who.origin, entry.partition, entry.sequence))
        self.reasons["spill_age"] += 1

    # ── brokers and their pods ───────────────────────────────────────────────────────────────

    def launch(self, slot, shard_map=None):
        origin = f"B{len(self.all) + 1}"
        needs = None
        if self.needs is not None:
            needs = self.random.sample(range(model.PARTITIONS), self.needs)
        who = model.Broker(self, slot, origin, shard_map or self.map, needs, self.off,
                           self.local_fast and self.random.random() < 0.7)
        self.rings[origin] = pod_model.DeliveryRing(self, who)
        self.all.append(who)
        self.slots[slot] = who
        self.say(origin, "starts in slot", slot)
        self.simulation.at(self.random.random() * 10, self._publish_some, who)
        return who

    def _publish_some(self, who):
        if not who.alive or not self.publishing:
            return
        if not who.stopped:
            for _ in range(self.random.choice((1, 1, 1, 2, 8))):
                self.publish(who)
        self.simulation.at(self.random.expovariate(1 / self.gap), self._publish_some, who)

    def publish(self, who, partition=None, twice=None):
        self.message_ids += 1
        message = model.Message(self.message_ids, self.simulation.now, twice)
        if twice is None and partition is None:
            partition = self.random.randrange(model.PARTITIONS)
            if partition == 0 and self.random.random() < 0.9:
                partition = 1                      # 0 is mostly idle: tails matter
            if self.random.random() < 0.03:
                twice = message.twice = tuple(self.random.sample(range(model.PARTITIONS), 2))
        for each in twice or (partition,):
            sequence = who.accept(each, message)
            if sequence is None:
                self.refused += 1
            else:
                key = (who.origin, each, sequence)
                self.accepted[key] = message
                self.copies_of.setdefault(message, []).append(key)

    # ── faults ───────────────────────────────────────────────────────────────────────────────

    def play(self, schedule):
        for each in schedule:
            self.simulation.at(each["at"], self._do, each)

    def _do(self, each):
        self.say("──", {k: v for k, v in each.items() if k != "at"})
        getattr(self, "do_" + each["do"])(each)

    def _wire(self, each):
        link = self.slots[each["broker"]].links.get(each["shard"])
        return getattr(link, each["side"]) if link is not None else None

    def do_kill(self, each):
        self.servers[each["shard"]].kill()

    def do_start(self, each):
        self.servers[each["shard"]].start()

    def do_stop(self, each):
        self.servers[each["shard"]].stop()

    def do_continue(self, each):
        self.servers[each["shard"]].go_on()

    def do_refuse(self, each):
        self.servers[each["shard"]].refuses = True

    def do_admit(self, each):
        self.servers[each["shard"]].refuses = False

    def do_demote(self, each):
        old = self.servers[each["shard"]]
        self.servers[each["shard"]] = simulation.Redis(self.simulation, old.name + "+")
        old.is_master = False
        if not each["kept"]:
            for wire in list(old.wires):
                old.disconnect(wire)

    def do_reset(self, each):
        wire = self._wire(each)
        if wire is not None:
            wire.reset()

    def do_stall(self, each):
        wire = self._wire(each)
        if wire is not None:
            direction = UP if each["direction"] == "up" else DOWN
            wire.stall(direction)
            each["wire"] = wire
            self.stalled = getattr(self, "stalled", []) + [(wire, direction)]

    def do_flow(self, each):
        for wire, direction in getattr(self, "stalled", []):
            wire.flow(direction)
        self.stalled = []

    def do_block(self, each):
        path = self.paths.setdefault((each["broker"], each["shard"]), simulation.Path())
        path.block(UP if each["direction"] == "up" else DOWN)

    def do_unblock(self, each):
        self.paths[(each["broker"], each["shard"])].unblock(UP if each["direction"] == "up" else DOWN)

    def do_pause(self, each):
        who = self.slots[each["broker"]]
        if who.alive and not who.stopped:
            who.pause()

    def do_wake(self, each):
        who = self.slots[each["broker"]]
        if who.alive and who.stopped:
            who.wake()

    def do_crash(self, each):
        self.slots[each["broker"]].kill()

    def do_launch(self, each):
        if not self.slots[each["broker"]].alive:
            wrong = model.Map("a1", each["shards"], routing=each["routing"]) if "shards" in each else None
            self.launch(each["broker"], wrong)

    def do_load(self, each):
        if each["map"] not in self.maps:
            self.maps[each["map"]] = model.Map(each["map"], each["shards"], each.get("names"))
        loaded = self.maps[each["map"]]
        if loaded.name > self.map.name:
            self.map = loaded
        who = self.slots[each["broker"]]
        without = [self.slots[s].origin for s in each["without"]]
        if who.alive and loaded.name >= who.loaded.name:
            who.later(0.0, self._load, who, loaded, without)      # a stopped one reads it when it wakes

    def _load(self, who, loaded, without):
        if loaded.name >= who.loaded.name:             # the file on its disk never goes back
            who.load(loaded, without)

    def do_burst(self, each):
        who = self.slots[each["broker"]]
        if who.alive and not who.stopped and self.publishing:
            for _ in range(each["count"]):
                self.publish(who)

    def do_say(self, each):
        who = self.slots[each["broker"]]
        if who.alive and not who.stopped:
            self.publish(who, each["partition"])

    def do_need(self, each):
        who = self.slots[each["broker"]]
        if who.alive and not who.stopped and who.ready_at is not None:
            who.need(each["partition"])

    def do_leave(self, each):
        who = self.slots[each["broker"]]
        if who.alive and not who.stopped and who.ready_at is not None and each["partition"] in who.needs:
            who.need_no_more(each["partition"])
            spans = self.needed.get((who.origin, each["partition"]))
            if spans and spans[-1][1] is None:
                spans[-1][1] = self.simulation.now

    def do_end_pod(self, each):
        if each["pod"] < len(self.pods):
            self.pods[each["pod"]].end(each["how"], each["away"])

    def end_faults(self):
        """Whatever the schedule left."""
        for path in self.paths.values():
            path.unblock(UP)
            path.unblock(DOWN)
        self.do_flow({})
        for server in self.servers.values():
            server.refuses = False
            if server.stopped:
                server.go_on()
            server.start()
        for slot, who in list(self.slots.items()):
            if who.stopped:
                who.wake()
            if not who.alive:
                self.launch(slot)
        for who in list(self.slots.values()):
            self._load(who, self.map, [])

    # ── the run and its judgement ────────────────────────────────────────────────────────────

    def run(self, milliseconds, step=100.0):
        end = self.simulation.now + milliseconds
        while self.simulation.now < end:
            self.simulation.run_until(min(end, self.simulation.now + step))
            for who in self.slots.values():
                if who.alive and not who.stopped:
                    who.check()

    def _was_wanted(self, receiver, key, message):
        origin, partition, sequence = key
        for since, to in self.needed.get((receiver.origin, partition), ()):
            if self.unpromised[0] < since < self.unpromised[1]:
                continue
            if message.accepted_at >= since and to is None:
                return True
        return False

    def verdict(self, is_orderly=False):
        """Lines that say which promise was broken; none: all were kept."""
        found = []
        living = [b for b in self.slots.values() if b.alive]
        alive = {b.origin for b in living}
        for receiver in living:
            name = receiver.origin
            seen = collections.Counter(m for _, _, _, m in self.log[name])
            doubled = [m.id for m, n in seen.items() if n > 1]
            if doubled:
                found.append(f"{name} got twice: {doubled[:5]} of {len(doubled)}")
            last = {}
            for origin, partition, sequence, message in self.log[name]:
                if sequence is None:
                    continue
                if sequence <= last.get((origin, partition), 0):
                    found.append(f"{name} got {(origin, partition, sequence)} out of order")
                    break
                last[(origin, partition)] = sequence
            keys_seen = {(o, p, s) for o, p, s, _ in self.log[name] if s is not None}
            wrongly = [key for key in self.given_up[name] if key in keys_seen]
            if wrongly:
                found.append(f"{name} counts {len(wrongly)} as lost that were delivered: {sorted(wrongly)[:5]}")
            lost, silent = [], []
            for key, message in self.accepted.items():
                if (key[0] in alive and message not in seen and key not in self.aged[name]
                        and not (self.spill_may_end and key in self.expired_keys)
                        and self._was_wanted(receiver, key, message)):
                    lost.append(key)
                    if key not in self.given_up[name] and key not in self.expired_keys:
                        silent.append(key)
            if lost:
                found.append(f"{name} misses {len(lost)}: {lost[:5]}")
            if silent:
                found.append(f"{name} misses without a count {len(silent)}: {silent[:5]}")
            found += self._left_over(receiver)
            found += self._order_of_twice(receiver, is_orderly)
        if is_orderly:
            found += self._one_order(living)
        for pod in self.pods:
            found += pod.verdict()
        if self.late_after is not None:
            found += [f"{name} got a message after {delay:.0f} ms" for name, delay in self.slowest.items()
                      if name in alive and delay > self.late_after]
        return found

    def _left_over(self, who):
        """After quiet nothing waits, and the subscriptions are those of the map in use."""
        found = []
        for link in who.links.values():
            if link.fifo or any(isinstance(e, model.Entry) for e, _ in link.in_flight) or not link.up or not link.is_complete():
                found.append(f"{who.origin}'s link {link.shard} is not at rest")
        if any(s.gap_since is not None for s in who.receiving.values()):
            found.append(f"{who.origin} still holds behind a gap")
        if self.publishing is False and set(who.links) != set(who.used.shards):
            found.append(f"{who.origin} keeps links {sorted(who.links)} for map {who.used.name}")
        if who.used is not self.map:
            found.append(f"{who.origin} uses {who.used.name}, not {self.map.name}")
        if who.ready_at is None:
            found.append(f"{who.origin} never became ready")
        for name in who.used.shards:
            channels = {c for c, wires in self.servers[name].channels.items()
                        if any(w.owner is who and w.open for w in wires)}
            link = who.links.get(name)
            if link is not None and channels != set(link.wanted):
                found.append(f"{who.origin}'s subscriptions on {name} differ: {sorted(channels ^ set(link.wanted))}")
        return found

    def _order_of_twice(self, receiver, is_orderly):
        """enter_room and what follows it in the room, of one origin; without faults also what precedes it."""
        position = {}
        for index, (_, _, _, message) in enumerate(self.log[receiver.origin]):
            position.setdefault(message, index)
        by_partition = collections.defaultdict(list)
        for key in self.accepted:
            by_partition[key[0], key[1]].append(key)
        for keys in by_partition.values():
            for at, key in enumerate(keys):
                message = self.accepted[key]
                if message.twice is None or message.twice[0] != key[1] or message not in position:
                    continue
                if key in self.given_up[receiver.origin] or key in self.expired_keys:
                    continue                         # the room's copy was lost, and counted; the sid's came alone
                for earlier in keys[max(0, at - 3):at] if is_orderly else ():
                    before = position.get(self.accepted[earlier])
                    if before is not None and before > position[message] and self.accepted[earlier].twice is None:
                        return [f"{receiver.origin}: {key}, which enters the room, came before {earlier}"]
                for later in keys[at + 1:at + 4]:
                    after = position.get(self.accepted[later])
                    if (after is not None and after < position[message]
                            and self._was_wanted(receiver, key, message) and self.accepted[later].twice is None):
                        return [f"{receiver.origin}: {later} came before {key}, which enters the room"]
        return []

    def _one_order(self, living):
        """Without faults a room has one order for all."""
        orders = collections.defaultdict(list)
        ready = max(b.ready_at for b in living)
        for receiver in living:
            order = collections.defaultdict(list)
            for origin, partition, sequence, message in self.log[receiver.origin]:
                if message.accepted_at > ready and message.twice is None:
                    order[partition].append((origin, sequence))
            for partition, keys in order.items():
                orders[partition].append(keys)
        return [f"partition {p}: receivers saw different orders" for p, all_of in orders.items()
                if any(o != all_of[0] for o in all_of)]


# With a broker stopped, or cut off, for many seconds the promise is "0 within the ring": at the slowest rate of
# recovery that is drawn, what is asked for again may be older than that.
RINGS_MAY_END = ("broker_pause", "broker_pause_and_kill", "cut_off", "cut_off_long", "map_change_and_pause", "everything")
LENGTHS = {"cut_off_long": 140_000.0}
LATE_AFTER = 10_000.0        # a cut: connections are tried again each 5 s, or 7.5 s
LATE = 3_000.0


def run_one(name, seed, off=frozenset(), trace=False):
    world = World(f"{name}/{seed}", off, trace, needs=3 if name == "interest" or (name == "local_fast" and seed % 2) else None,
                  with_pods=name.startswith("pods"), tail="overlap" if seed % 3 == 2 else "acked", local_fast=name == "local_fast",
                  shards=faults.SHARDS[:1 + seed % 3] if name in ("quiet", "cut_off_long") else "a" if name == "url_change_alone" else faults.SHARDS)
    world.rings_may_end = name in RINGS_MAY_END
    world.spill_may_end = name == "cut_off_long"
    if name == "quiet":
        world.gap = 1e9
    elif name in LENGTHS:
        world.gap = 300.0
    world.run(WARM_UP)
    if name == "quiet":
        world.publish(world.slots[0], 1)
    schedule = faults.make(name, random.Random(f"faults/{name}/{seed}"), FAULTY)
    world.play(schedule)
    if name == "cut_off_long":
        ended = max((each["at"] for each in schedule if each["do"] in ("unblock", "wake")), default=0.0)
        world.measure_from, world.late_after = world.simulation.now + ended + LATE_AFTER, LATE
        world.unpromised = (world.simulation.now, world.measure_from)
    world.run(LENGTHS.get(name, FAULTY), 100.0 if name not in LENGTHS else 500.0)
    world.end_faults()
    world.run(300)
    world.publishing = False
    world.run(SETTLE if not name.startswith(("map", "url", "everything", "local_fast")) else SETTLE * 2, 500.0)
    return world


def judge(name, seed, off=frozenset(), trace=False):
    """The lines of the verdict, and the world."""
    world = None
    gc.disable()                 # nothing of a run is garbage before its end
    try:
        world = run_one(name, seed, off, trace)
        found = world.verdict(is_orderly=name == "none")
    except AssertionError as broken:
        found = [f"invariant {broken}"]
        if trace:
            raise
    finally:
        gc.enable()
    return found, world


def export(name, seed, out):
    for each in faults.make(name, random.Random(f"faults/{name}/{seed}"), FAULTY):
        print(json.dumps(each), file=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fault", choices=sorted(faults.FAULTS))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--off", default="", help="rules to switch off, with commas")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--export", action="store_true")
    options = parser.parse_args()
    if options.export:
        export(options.fault, options.seed, sys.stdout)
        return 0
    off = frozenset(filter(None, options.off.split(",")))
    failed = 0
    for name in [options.fault] if options.fault else list(faults.FAULTS):
        bad = accepted = 0
        reasons = collections.Counter()
        seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
        for seed in seeds:
            found, world = judge(name, seed, off, options.trace)
            if world is not None:
                accepted += len(world.accepted)
                reasons += world.reasons
            if found:
                bad += 1
                if bad <= 3:
                    print(f"{name} seed {seed}: " + "; ".join(found[:4]))
        failed += bad
        print(f"{name}: {len(seeds)} seeds, {accepted} messages, given up {dict(reasons)}, {bad} bad", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

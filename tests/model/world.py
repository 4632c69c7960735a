"""The oracle and the faults: what is promised, and what is done to the brokers.

    python3 tests/model/world.py --seeds 1000                all fault classes
    python3 tests/model/world.py --fault shard_kill --seed 7  one run, told step by step with --trace

A run: three Redis, three brokers, each with pods that publish numbered messages to all partitions;
faults of one class for some seconds; quiet; then every message accepted by a broker that lived must have been
delivered exactly once to every broker that was ready when it was accepted and lived, in order per
(origin, partition).
"""

import argparse
import collections
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import broker as model  # noqa: E402
import simulation  # noqa: E402

FAULTS = {}


def fault(function):
    FAULTS[function.__name__] = function
    return function


class World:
    def __init__(self, seed, trace=False, shards=3, brokers=3):
        self.simulation = simulation.Simulation(seed)
        self.random = self.simulation.random
        self.trace = trace
        self.servers = {n: simulation.Redis(self.simulation, n) for n in "abcde"}
        self.map = model.Map("m1", "abc"[:shards])
        self.brokers = {}
        self.started_at = {}
        self.ready = {}          # origin -> time
        self.accepted = {}       # (origin, partition, sequence) -> (time, message)
        self.log = collections.defaultdict(list)   # receiver -> [(origin, partition, sequence, message)]
        self.given_up = []
        self.publishing = True
        self.numbers = collections.Counter()
        self.origins = 0
        for _ in range(brokers):
            self.start_broker()

    def say(self, *words):
        if self.trace:
            print(f"{self.simulation.now:10.1f}", *words)

    def start_broker(self):
        self.origins += 1
        origin = f"B{self.origins}"
        self.started_at[origin] = self.simulation.now
        newcomer = model.Broker(self.simulation, self.servers, self.map, origin, self)
        self.brokers[origin] = newcomer
        self.simulation.at(self.random.random() * 10, self._publish, newcomer)
        return newcomer

    def is_ready(self, who):
        self.ready[who.origin] = self.simulation.now
        self.say(who.origin, "ready")

    def _publish(self, who):
        if not who.alive:
            return
        if self.publishing and who.ready_at is not None:
            for _ in range(self.random.choice((1, 1, 1, 2, 8))):
                partition = self.random.randrange(model.PARTITIONS)
                if partition == 0 and self.random.random() < 0.9:
                    continue                   # a partition that is mostly idle: tails matter
                sequence = who.next_sequence[partition]
                message = (who.origin, partition, sequence)
                self.accepted[message] = self.simulation.now
                who.accept(partition, message)
        self.simulation.at(self.random.expovariate(1 / 30.0), self._publish, who)

    def delivered(self, receiver, origin, partition, sequence, message):
        assert message == (origin, partition, sequence), "another message's payload"
        self.log[receiver.origin].append(message)

    def gave_up(self, receiver, reason, what):
        self.given_up.append((self.simulation.now, receiver.origin, reason, what))
        self.say(receiver.origin, "gives up", reason, what)

    def run(self, milliseconds):
        end = self.simulation.now + milliseconds
        while self.simulation.now < end:
            self.simulation.run_until(min(end, self.simulation.now + 50))
            for who in self.brokers.values():
                if who.alive:
                    who.check()

    def verdict(self):
        """Lines that say which promise was broken; none: all were kept."""
        faults = []
        living = [b for b in self.brokers.values() if b.alive]
        for receiver in living:
            seen = collections.Counter(self.log[receiver.origin])
            doubled = [m for m, n in seen.items() if n > 1]
            if doubled:
                faults.append(f"{receiver.origin} got twice: {doubled[:5]} of {len(doubled)}")
            last = {}
            for origin, partition, sequence in self.log[receiver.origin]:
                if sequence <= last.get((origin, partition), 0):
                    faults.append(f"{receiver.origin} got {(origin, partition, sequence)} out of order")
                    break
                last[(origin, partition)] = sequence
            since = self.ready.get(receiver.origin, float("inf"))
            lost = [m for m, at in self.accepted.items()
                    if m not in seen and self.brokers[m[0]].alive and at >= since + 1_500]
            if lost:
                faults.append(f"{receiver.origin} misses {len(lost)}: {lost[:5]}")
        return faults


# ── faults: each starts a schedule that ends by itself before `until` ──────────────────────────────


def during(world, until, gap, function):
    """Calls function() at random intervals of about `gap` ms."""
    def again():
        if world.simulation.now < until:
            function()
            world.simulation.at(world.random.expovariate(1 / gap), again)
    world.simulation.at(world.random.expovariate(1 / gap), again)


def wires(world):
    found = []
    for who in world.brokers.values():
        for link in who.links.values():
            found += [w for w in (link.publishing, link.subscribing) if w is not None and who.alive]
    return found


@fault
def none(world, until):
    pass


@fault
def shard_kill(world, until):
    """kill -9 of one shard at a time, back (empty) after a while or at once."""
    def kill():
        if any(not s.alive for s in world.servers.values()):
            return
        server = world.servers[world.random.choice(world.map.shards)]
        world.say("kill", server.name)
        server.kill()
        world.simulation.at(world.random.choice((1, 50, 800, 3_000, 9_000)), back, server)

    def back(server):
        world.say("start", server.name)
        server.start()
    during(world, until, 4_000, kill)


@fault
def shard_stop(world, until):
    """SIGSTOP and SIGCONT of one shard at a time."""
    def stop():
        if any(s.stopped for s in world.servers.values()):
            return
        server = world.servers[world.random.choice(world.map.shards)]
        world.say("stop", server.name)
        server.stop()
        world.simulation.at(world.random.choice((100, 900, 1_100, 2_500, 10_000)), go_on, server)

    def go_on(server):
        world.say("go on", server.name)
        server.go_on()
    during(world, until, 4_000, stop)


@fault
def link_reset(world, until):
    """Any connection is reset, often several at once."""
    def reset():
        found = wires(world)
        for wire in world.random.sample(found, min(len(found), world.random.choice((1, 1, 2, 6, 18)))):
            wire.break_now()
        world.say("reset")
    during(world, until, 700, reset)


@fault
def link_stall(world, until):
    """One direction of one connection stalls, without a reset; some path stays between any two."""
    def stall():
        found = wires(world)
        if any(w.stalled[0] or w.stalled[1] for w in found):
            return
        wire = world.random.choice(found)
        direction = world.random.randrange(2)
        world.say("stall", wire.redis.name, ("up", "down")[direction])
        wire.stall(direction)
        world.simulation.at(world.random.choice((50, 500, 1_500, 4_000, 8_000)), wire.flow, direction)
    during(world, until, 2_500, stall)


@fault
def refusal(world, until):
    """A shard refuses new connections for a while (maxclients, NOAUTH) and is killed or reset meanwhile."""
    def refuse():
        if any(s.refuses for s in world.servers.values()):
            return
        server = world.servers[world.random.choice(world.map.shards)]
        server.refuses = True
        world.say("refuse", server.name)
        for wire in list(server.wires):
            if world.random.random() < 0.5:
                wire.break_now()
        world.simulation.at(world.random.choice((200, 2_000, 6_000)), accept, server)

    def accept(server):
        server.refuses = False
    during(world, until, 4_000, refuse)


@fault
def map_change(world, until):
    """Shards are added and removed; brokers load the change at different times."""
    changes = [model.Map("m2", "abcd"), model.Map("m3", "bcd"), model.Map("m4", "abcde")]
    delay = 3_000
    for change in changes[:2]:
        for who in list(world.brokers.values()):
            world.simulation.at(delay + world.random.random() * 3_000, who.load, change)
        delay += 15_000


@fault
def map_change_with_kills(world, until):
    map_change(world, until)
    shard_kill(world, until)


@fault
def broker_kill(world, until):
    """kill -9 of a broker; a new one starts."""
    def kill():
        living = [b for b in world.brokers.values() if b.alive]
        if len(living) < 3:
            return
        victim = world.random.choice(living)
        world.say("kill", victim.origin)
        victim.kill()
        world.simulation.at(world.random.choice((10, 1_000, 6_000)), world.start_broker)
    during(world, until, 8_000, kill)


@fault
def mixed(world, until):
    """Resets and one shard at a time killed or stopped."""
    link_reset(world, until)
    def trouble():
        if any(s.stopped or not s.alive for s in world.servers.values()):
            return
        server = world.servers[world.random.choice(world.map.shards)]
        if world.random.random() < 0.5:
            server.kill()
            world.simulation.at(world.random.choice((1, 800, 4_000)), server.start)
        else:
            server.stop()
            world.simulation.at(world.random.choice((500, 1_500, 5_000)), server.go_on)
    during(world, until, 5_000, trouble)


def run_one(name, seed, trace=False):
    world = World(seed, trace)
    world.run(4_000)
    until = world.simulation.now + 25_000
    FAULTS[name](world, until)
    world.run(25_000)
    world.publishing = False
    for server in world.servers.values():
        server.refuses = False
    world.run(22_000)
    return world


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fault", choices=sorted(FAULTS))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    failed = 0
    for name in [options.fault] if options.fault else list(FAULTS):
        bad = 0
        accepted = given_up = 0
        seeds = [options.seed] if options.seed is not None else range(options.seeds)
        for seed in seeds:
            world = run_one(name, seed, options.trace)
            accepted += len(world.accepted)
            given_up += len(world.given_up)
            faults = world.verdict()
            if faults:
                bad += 1
                if bad <= 3:
                    print(f"{name} seed {seed}: " + "; ".join(faults[:3]))
        failed += bad
        print(f"{name}: {len(seeds)} seeds, {accepted} messages, {given_up} given up, {bad} bad")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

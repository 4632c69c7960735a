"""Scripted regressions: the counterexamples, each as the smallest schedule that shows it.

Each returns the lines that say what went wrong; none: all is well.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import broker as model  # noqa: E402
import faults  # noqa: E402
import simulation  # noqa: E402
import world as worlds  # noqa: E402

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def played(schedule, off=frozenset(), seed=1, length=12_000.0, settle=16_000.0, gap=10.0, **facts):
    """Plays a schedule of (at, do, facts) and judges."""
    world = worlds.World(seed, off, **facts)
    world.simulation.latencies = (0.1, 0.2, 0.3, 2.0)
    world.gap = gap
    world.run(1_500.0)
    world.play([{"at": at, "do": do, **each} for at, do, each in schedule])
    world.run(length)
    world.end_faults()
    world.run(300.0)
    world.publishing = False
    world.run(settle, 500.0)
    return world


def home_of(partition):
    return model.Map("m1", faults.SHARDS).best[partition]


@scenario
def paused_shard_pushes_old_messages_after_failover(off=frozenset()):
    home = home_of(1)[0]
    return played([(500, "stop", {"shard": home}), (6_000, "continue", {"shard": home})], off).verdict()


@scenario
def fail_back_before_others_resubscribed(off=frozenset()):
    """The shard is back for one broker seconds before it is for another."""
    home = home_of(1)[0]
    return played([(500, "kill", {"shard": home}), (600, "block", {"broker": 2, "shard": home, "direction": "up"}),
                   (900, "start", {"shard": home}),
                   (9_000, "unblock", {"broker": 2, "shard": home, "direction": "up"})], off).verdict()


@scenario
def tail_lost_with_no_message_after_it(off=frozenset()):
    """The last message goes into a connection that has stalled, then silence."""
    found = []
    for side in ("publishing", "subscribing"):
        home = home_of(0)[0]
        world = worlds.World(5, off)
        world.publishing = False
        world.run(1_500.0)
        world.do_stall({"broker": 1, "shard": home, "side": "subscribing", "direction": "down"})
        world.publish(world.slots[0], partition=0)
        world.run(2_500.0)
        wire = world.slots[1].links[home].subscribing
        if wire is not None:
            wire.reset()
        world.end_faults()
        world.run(10_000.0)
        found += world.verdict()
    return found


@scenario
def receivers_link_reset_while_the_origins_stays(off=frozenset()):
    schedule = []
    for at in range(300, 11_000, 150):
        schedule.append((at, "reset", {"broker": 1, "shard": "abc"[at // 150 % 3], "side": "subscribing"}))
    return played(schedule, off).verdict()


@scenario
def both_shards_flap_in_turn(off=frozenset()):
    schedule, (home, standby) = [], home_of(1)
    for turn, at in enumerate(range(300, 11_000, 400)):
        shard = (home, standby)[turn % 2]
        schedule += [(at, "kill", {"shard": shard}), (at + 390, "start", {"shard": shard})]
    return played(schedule, off).verdict()


@scenario
def reload_during_failover(off=frozenset()):
    schedule = [(300, "kill", {"shard": "b"}), (5_000, "start", {"shard": "b"})]
    for broker in range(3):
        schedule.append((500 + 700 * broker, "load",
                         {"broker": broker, "map": "m2", "shards": "abcd", "without": []}))
    return played(schedule, off, settle=30_000.0).verdict()


@scenario
def reload_that_replaces_one_not_yet_in_use(off=frozenset()):
    """One broker skips a change that the others wait with."""
    schedule = [(500, "load", {"broker": 0, "map": "m2", "shards": "abcd", "without": []}),
                (600, "load", {"broker": 1, "map": "m2", "shards": "abcd", "without": []}),
                (900, "load", {"broker": 2, "map": "m3", "shards": "bcd", "without": []}),
                (3_000, "load", {"broker": 0, "map": "m3", "shards": "bcd", "without": []}),
                (4_000, "load", {"broker": 1, "map": "m3", "shards": "bcd", "without": []})]
    return played(schedule, off, settle=30_000.0).verdict()


@scenario
def broker_that_never_loads_is_named_and_left_out(off=frozenset()):
    """Named after 60 s; --without goes on; it misses nothing, by asking."""
    schedule = [(500, "load", {"broker": b, "map": "m2", "shards": "abcd", "without": []}) for b in (0, 1)]
    world = worlds.World(3, off)
    world.gap = 200.0
    world.run(1_500.0)
    world.play([{"at": at, "do": do, **each} for at, do, each in schedule])
    world.run(62_000.0)
    found = []
    if world.slots[0].late_named != {world.slots[2].origin}:
        found.append(f"named late: {world.slots[0].late_named}")
    if world.slots[0].used.name != "m1":
        found.append("went on without all")
    for broker in (0, 1):
        world.do_load({"broker": broker, "map": "m2", "shards": "abcd", "without": [2]})
    world.run(5_000.0)
    if world.slots[0].used.name != "m2":
        found.append("did not go on with --without")
    world.end_faults()
    world.publishing = False
    world.run(20_000.0, 500.0)
    return found + world.verdict()


@scenario
def starting_broker_that_hears_another_map(off=frozenset()):
    """Not ready; what its pods publish waits, and arrives."""
    world = worlds.World(4, off, brokers=2)
    world.gap = 50.0
    world.run(1_500.0)
    world.map = model.Map("m2", "abcd")
    world.maps["m2"] = world.map
    newcomer = world.launch(2)
    world.run(5_000.0)
    found = ["became ready under another map"] if newcomer.ready_at is not None else []
    world.end_faults()
    world.run(2_000.0)
    world.publishing = False
    world.run(20_000.0, 500.0)
    return found + world.verdict()


@scenario
def second_cluster_of_the_same_name_is_refused(off=frozenset()):
    """Two brokers of another map start beside two that are ready: they refuse within a second, and the first do not; when
    the first have ended, what was accepted before is delivered. Where both start at once one of them goes on."""
    world, found = worlds.World(4, off, brokers=2), []
    world.publishing = False
    world.run(1_500.0)
    other = model.Map("x1", "abc", routing="x")
    world.map = other
    late = [world.launch(slot, other) for slot in (2, 3)]
    for who in late:
        world.publish(who, partition=1)
    world.run(1_000.0)
    for who in world.slots.values():
        world.publish(who, partition=1)
    if [who.refused for who in world.slots.values()] != [0, 0, 1, 1]:
        found.append(f"refused {[who.refused for who in world.slots.values()]}")
    world.run(10_000.0)
    for slot in (0, 1):
        world.slots.pop(slot).kill()
    world.run(20_000.0, 500.0)
    found += world.verdict()
    names = [who.origin for who in late]
    if any(sum(origin in names for origin, *_ in world.log[name]) != 2 for name in names):
        found.append("what was accepted before did not come")
    both = worlds.World(4, off, brokers=1)
    both.launch(1, other)
    both.run(3_000.0)
    ready = [who.ready_at is not None for who in both.slots.values()]
    return found if sorted(ready) == [False, True] else found + [f"ready: {ready}"]


@scenario
def broker_cut_off_for_6_s_and_back(off=frozenset()):
    schedule = []
    for shard in "abc":
        for direction in ("up", "down"):
            schedule += [(500, "block", {"broker": 1, "shard": shard, "direction": direction}),
                         (6_500, "unblock", {"broker": 1, "shard": shard, "direction": direction})]
    return played(schedule, off).verdict()


@scenario
def broker_stopped_while_it_holds_behind_a_gap(off=frozenset()):
    """The pause is not counted: nothing is given up on waking before it was asked for."""
    schedule = []
    for turn in range(2):
        at = 500 + 5_500 * turn
        schedule += [(at + t, "reset", {"broker": 1, "shard": s, "side": "subscribing"})
                     for t in (0, 5) for s in "abc"]
        schedule += [(at + 1, "burst", {"broker": b, "count": 30}) for b in (0, 2)]
        schedule += [(at + 8, "pause", {"broker": 1}), (at + 5_308, "wake", {"broker": 1})]
    return played(schedule, off, gap=5.0).verdict()


@scenario
def origin_restarted_with_a_new_id(off=frozenset()):
    schedule = []
    for at in (500, 3_000, 6_000):
        schedule += [(at, "crash", {"broker": 0}), (at + 1, "launch", {"broker": 0})]
    schedule += [(at + t, "reset", {"broker": 1, "shard": s, "side": "subscribing"})
                 for at in (500, 3_000, 6_000) for t in range(500, 700, 10) for s in "abc"]
    return played(schedule, off).verdict()


@scenario
def stopped_shard_speaks_for_a_dead_origin(off=frozenset()):
    """A shard wakes 100 s later, with messages and heartbeats of a broker that ended long ago."""
    world = worlds.World(6, off)
    world.gap = 5.0
    world.run(1_500.0)
    world.servers["a"].stop()
    world.run(4_000.0)
    world.slots[0].kill()
    world.publishing = False
    world.run(100_000.0, 1_000.0)
    world.launch(0)
    world.run(3_000.0)
    world.servers["a"].go_on()
    world.end_faults()
    world.run(15_000.0, 500.0)
    return world.verdict()


@scenario
def cut_off_until_its_positions_are_forgotten(off=frozenset()):
    """Beyond the bound of what rests its positions say where it is: nothing comes twice, nothing that came is counted as
    lost, and what is said afterwards comes."""
    kept, model.RESTING_MAX = model.RESTING_MAX, 0
    try:
        world = worlds.World(6, off)
        world.gap = 200.0
        world.run(3_000.0)
        world.end_faults()
        for shard in faults.SHARDS:
            for direction in ("up", "down"):
                world.do_block({"broker": 1, "shard": shard, "direction": direction})
        world.publishing = False
        world.run(90_000.0, 1_000.0)
        if len(world.slots[0].tombs) != 1 or len(world.slots[1].tombs) != 2:
            return ["nobody is buried"]
        world.end_faults()
        world.run(15_000.0, 500.0)
        after = len(world.accepted)
        for who in world.slots.values():
            for partition in range(model.PARTITIONS):
                world.publish(who, partition)
        world.run(3_000.0)
        came = {key for log in world.log.values() for key in [(o, p, s) for o, p, s, _ in log]}
        missed = [key for key in list(world.accepted)[after:] if key not in came]
        return world.verdict() + ([f"said afterwards and missed: {missed[:5]}"] if missed else [])
    finally:
        model.RESTING_MAX = kept


@scenario
def second_starts_while_the_first_is_not_ready(off=frozenset()):
    """What the first one held for its pods reaches the second, which has never asked it anything."""
    world = worlds.World(10, off, brokers=1)
    world.gap = 1e9
    world.run(1_500.0)
    first = world.launch(1)
    for shard in "ab":
        world.do_block({"broker": 1, "shard": shard, "direction": "up"})
    world.run(1_000.0)
    second = world.launch(2)
    for turn in range(30):
        world.publish(first, partition=turn % 6)
        world.run(50.0)
    found = [] if first.ready_at is None and second.ready_at is not None else ["the first was ready first"]
    world.run(4_000.0)
    world.end_faults()
    world.publishing = False
    world.run(10_000.0, 500.0)
    return found + world.verdict()


@scenario
def enter_room_then_emit(off=frozenset()):
    """One message on two partitions is delivered once, and before what follows it in the room."""
    world = worlds.World(7, off)
    world.publishing = False
    world.run(1_500.0)
    for turn in range(200):
        if turn % 40 == 20:
            world.servers["abc"[turn // 40 % 3]].kill()
        if turn % 40 == 30:
            for server in world.servers.values():
                server.start()
        world.publish(world.slots[0], twice=(turn % 6, (turn + 1) % 6))
        world.publish(world.slots[0], partition=turn % 6)
        world.run(20.0)
    world.end_faults()
    world.run(10_000.0, 500.0)
    return world.verdict()


@scenario
def all_shards_down_spills_then_refuses(off=frozenset()):
    """Own pods get everything at once; the others later, in order; over the bound a publish is refused."""
    world = worlds.World(8, off)
    world.publishing = False
    world.run(1_500.0)
    for server in world.servers.values():
        server.kill()
    world.run(200.0)
    who = world.slots[0]
    before = len(world.log[who.origin])
    for _ in range(model.SPILL_MAX + 50):
        world.publish(who, partition=1)
    found = []
    if world.refused != 50:
        found.append(f"refused {world.refused}, not 50")
    if len(world.log[who.origin]) - before != model.SPILL_MAX:
        found.append("own pods did not get all at once")
    world.run(8_000.0)
    world.end_faults()
    world.run(12_000.0, 500.0)
    return found + world.verdict()


@scenario
def spill_older_than_its_age_is_counted(off=frozenset()):
    """Shards down for longer than spill.age: lost elsewhere, counted, and what follows is in order."""
    world = worlds.World(9, off)
    world.gap = 200.0
    world.run(1_500.0)
    for server in world.servers.values():
        server.kill()
    world.run(40_000.0, 500.0)
    world.end_faults()
    world.publishing = False
    world.run(20_000.0, 500.0)
    found = [line for line in world.verdict() if " misses " not in line or "without a count" in line]
    return found if world.reasons["spill_age"] else found + ["nothing was counted"]


@scenario
def demoted_master_is_left(off=frozenset()):
    return played([(500, "demote", {"shard": "a", "kept": True}), (520, "reset", {"broker": 1, "shard": "a", "side": "subscribing"}),
                   (520, "reset", {"broker": 1, "shard": "a", "side": "publishing"})], off).verdict()


def losing(world, keys_once=(), keys_ever=()):
    """Broker 1 does not get these (origin, partition, sequence): not once, or never."""
    who, receive, once = world.slots[1], world.slots[1].receive, set(keys_once)

    def lossy(origin, partition, sequence, message):
        key = (origin, partition, sequence)
        if key in once:
            once.discard(key)
        elif key not in keys_ever:
            receive(origin, partition, sequence, message)
    who.receive = lossy


def one_lost_then(seed, off, do, settle=12_000.0):
    """Broker 1 loses one message of broker 0, and 3 ms after the next one `do(world)` happens."""
    world = worlds.World(seed, off)
    world.simulation.latencies = (0.2, 0.3)
    world.publishing = False
    world.run(1_500.0)
    losing(world, [(world.slots[0].origin, 1, 1)])
    for _ in range(3):
        world.publish(world.slots[0], partition=1)
    world.run(3.0, 1.0)
    do(world)
    world.run(settle)
    world.end_faults()
    world.run(10_000.0, 500.0)
    return world.verdict()


@scenario
def receiver_stopped_behind_a_gap(off=frozenset()):
    """The pause is not counted: nothing is given up on waking before it was asked for."""
    def stop(world):
        world.slots[1].pause()
        world.simulation.at(7_000.0, world.slots[1].wake)
    return [line for seed in range(4) for line in one_lost_then(seed, off, stop)]


@scenario
def origin_stopped_when_it_is_asked(off=frozenset()):
    def stop(world):
        world.slots[0].pause()
        world.simulation.at(8_000.0, world.slots[0].wake)
    return one_lost_then(1, off, stop)


@scenario
def origin_stopped_for_3_s_when_it_is_asked(off=frozenset()):
    def stop(world):
        world.slots[0].pause()
        world.simulation.at(3_000.0, world.slots[0].wake)
    return one_lost_then(1, off, stop)


@scenario
def origin_cut_off_when_it_is_asked(off=frozenset()):
    """For 6.5 s; it is heard again before any ask can reach it."""
    def cut(world):
        for shard in faults.SHARDS:
            for direction in ("up", "down"):
                world.do_block({"broker": 0, "shard": shard, "direction": direction})
        world.simulation.at(6_500.0, world.end_faults)
    return [line for seed in range(8) for line in one_lost_then(seed, off, cut)]


@scenario
def all_shards_down_behind_a_gap(off=frozenset()):
    """For 6 s, or 15 s: when the shards are back the origin is asked before anything is given up."""
    found = []
    for lasting in (6_000.0, 15_000.0):
        def kill(world):
            for shard in faults.SHARDS:
                world.servers[shard].kill()
                world.simulation.at(lasting, world.servers[shard].start)
        found += [line for seed in range(4) for line in one_lost_then(seed, off, kill, 16_000.0)]
    return found


@scenario
def all_shards_down_for_longer_than_the_ring_keeps(off=frozenset()):
    """For 30 s, when one has been cut off for a moment: what it missed is still in the ring when the shards are back."""
    def cut(world):
        for shard in faults.SHARDS:
            for direction in ("up", "down"):
                world.do_block({"broker": 1, "shard": shard, "direction": direction})
            world.simulation.at(500.0, world.servers[shard].kill)
        world.simulation.at(30_000.0, world.end_faults)
    return [line for seed in range(2) for line in one_lost_then(seed, off, cut, 31_000.0)]


@scenario
def a_wire_that_stalls_keeps_its_order(off=frozenset()):
    """What is under way when a direction stalls stays ahead of what is sent into the stall."""
    world = worlds.World(1, off)
    world.run(1_500.0)
    wire, got = world.slots[0].links["a"].subscribing, []
    wire.on_item = got.append
    wire.send(simulation.DOWN, "under way")
    wire.stall(simulation.DOWN)
    wire.send(simulation.DOWN, "sent into the stall")
    world.run(100.0, 1.0)
    wire.flow(simulation.DOWN)
    world.run(100.0)
    told = [item for item in got if isinstance(item, str)]
    return [] if told == ["under way", "sent into the stall"] else [f"came as {told}"]


@scenario
def only_the_first_run_is_given_up(off=frozenset()):
    """One message never comes; one behind it is lost just before the first is given up."""
    world = worlds.World(2, off)
    world.simulation.latencies = (0.2, 0.3)
    world.publishing = False
    world.run(1_500.0)
    origin = world.slots[0].origin
    losing(world, [(origin, 1, 30)], [(origin, 1, 1)])
    for _ in range(29):
        world.publish(world.slots[0], partition=1)
    world.run(4_980.0, 5.0)
    for _ in range(3):
        world.publish(world.slots[0], partition=1)
    world.run(20_000.0)
    lost = {key for keys in world.given_up.values() for key in keys}
    return [] if lost == {(origin, 1, 1)} else [f"given up: {sorted(lost)}"]


@scenario
def steady_partition_where_one_is_not_subscribed(off=frozenset()):
    """Broker 1 reaches neither home nor standby of a busy partition: it gets all within seconds."""
    world = worlds.World(3, off)
    world.simulation.latencies = (0.2, 0.3)
    world.gap = 1e9
    world.run(1_500.0)
    world.slowest.clear()
    for shard in home_of(1):
        world.do_block({"broker": 1, "shard": shard, "direction": "down"})
    for _ in range(220):
        world.publish(world.slots[0], partition=1)
        world.run(50.0)
    world.end_faults()
    world.run(10_000.0, 500.0)
    found = [f"a message took {d:.0f} ms" for d in world.slowest.values() if d > 3_500.0]
    return found + world.verdict()


@scenario
def shard_that_one_cannot_reach_is_left(off=frozenset()):
    """Broker 1 is cut off from a home: after it has said so nothing of that home is late."""
    world = worlds.World(4, off)
    world.simulation.latencies = (0.2, 0.3)
    world.gap = 1e9
    world.run(1_500.0)
    for direction in ("up", "down"):
        world.do_block({"broker": 1, "shard": home_of(1)[0], "direction": direction})
    for wire in (world.slots[1].links[home_of(1)[0]].subscribing,):
        world.slots[1].links[home_of(1)[0]].broken("subscribing", wire)
    world.slowest.clear()
    world.measure_from = world.simulation.now + 2_500.0
    for _ in range(150):
        world.publish(world.slots[0], partition=1)
        world.run(50.0)
    found = [f"a message took {d:.0f} ms" for d in world.slowest.values() if d > 150.0]
    world.end_faults()
    world.run(10_000.0, 500.0)
    return found + world.verdict()


@scenario
def shard_dies_between_reply_and_push(off=frozenset()):
    """What it had confirmed and not pushed comes again at the move, not with the next tail."""
    world = worlds.World(5, off)
    world.simulation.latencies = (0.2, 0.3)
    world.gap = 1e9
    world.run(1_500.0)
    world.slowest.clear()
    home = home_of(1)[0]
    for who in (1, 2):
        world.do_stall({"broker": who, "shard": home, "side": "subscribing", "direction": "down"})
    for _ in range(5):
        world.publish(world.slots[0], partition=1)
    world.run(3.0, 1.0)
    world.servers[home].kill()
    world.run(3_000.0)
    found = [f"a message took {d:.0f} ms" for d in world.slowest.values() if d > 100.0]
    world.end_faults()
    world.run(10_000.0, 500.0)
    return found + world.verdict()


if __name__ == "__main__":
    bad = 0
    for name, function in SCENARIOS.items():
        found = function()
        bad += bool(found)
        print(f"{name}: {'; '.join(found[:3]) or 'kept'}", flush=True)
    sys.exit(1 if bad else 0)

"""Fault classes: each makes a schedule, a list of timed faults as plain data, from a seed.

    python3 tests/model/world.py --fault shard_kill --seed 7 --export      the schedule as JSON lines

A schedule knows brokers by their slot (0, 1, 2: whoever runs there), shards by name, and times in ms
from its beginning. It can be played against the model (World.play) or against real daemons and servers:

    {"at": 812.0, "do": "kill", "shard": "a"}      and "start": kill -9 and a new, empty Redis
    "stop", "continue"      shard: SIGSTOP, SIGCONT
    "refuse", "admit"       shard: closes new connections; admits them again
    "demote"                shard: its name leads to another, empty Redis; "kept": old connections stay
    "reset"                 broker, shard, side (publishing, subscribing): that connection
    "stall", "flow"         broker, shard, side, direction (up, down): that connection, without a reset
    "block", "unblock"      broker, shard, direction: old and new connections
    "pause", "wake"         broker: SIGSTOP, SIGCONT
    "crash", "launch"       broker: kill -9; a new one in the slot, with the newest map, or with a wrong one (shards, routing)
    "load"                  broker, map, shards, without (slots): ctl reload
    "burst"                 broker, count: so many publishes at once
    "say"                   broker, partition: one publish
    "need", "leave"         broker, partition: a first local interest; the last one ends
    "end_pod"               pod, how (fin, half, reset, die, cut), away: its connection; back after `away` ms
"""

import itertools

SHARDS = "abc"
BROKERS = 3
MAPS = {"m1": "abc", "m2": "abcd", "m3": "bcd", "m4": "bcde"}
FAULTS = {}
# Not played against real daemons: they take minutes, or need other servers and files than the stage has.
MODEL_ONLY = ("quiet", "cut_off_long", "maps_differ", "url_change", "url_change_alone", "url_change_and_kill",
              "url_change_and_links")


class Schedule(list):
    def __init__(self, random_source, length):
        super().__init__()
        self.random = random_source
        self.length = length
        self.promise_base = True

    def add(self, at, do, **facts):
        if at <= self.length:
            self.append({"at": round(at, 1), "do": do, **facts})

    def pair(self, at, lasting, do, undo, **facts):
        """A fault and its end, within the schedule."""
        if at < self.length:
            self.add(at, do, **facts)
            self.add(min(at + lasting, self.length), undo, **facts)

    def times(self, gap):
        """Random times, about `gap` ms apart."""
        at = self.random.expovariate(1 / gap)
        while at < self.length:
            yield at
            at += self.random.expovariate(1 / gap)

    def alone(self, gap, durations, rest=1.0):
        """(time, duration) of faults that do not overlap each other; `rest` ms between them."""
        free = 0.0
        for at in self.times(gap):
            if at >= free:
                lasting = self.random.choice(durations)
                free = at + lasting + rest
                yield at, lasting


def fault(function):
    FAULTS[function.__name__] = function
    return function


@fault
def none(s):
    """Nothing but load."""
    for at in s.times(2_000):
        s.add(at, "burst", broker=s.random.randrange(BROKERS), count=40)


@fault
def shard_kill(s):
    """kill -9 of one shard at a time, back (empty) after a while or at once."""
    for at, lasting in s.alone(3_000, (1, 50, 800, 3_000, 7_000)):
        if s.random.random() < 0.5:
            s.add(at - s.random.choice((0, 0.4, 3)), "burst", broker=s.random.randrange(BROKERS), count=30)
        s.pair(at, lasting, "kill", "start", shard=s.random.choice(SHARDS))


@fault
def shard_stop(s):
    """SIGSTOP and SIGCONT of one shard at a time."""
    for at, lasting in s.alone(2_500, (100, 900, 1_100, 2_500, 9_000)):
        if s.random.random() < 0.5:
            s.add(at + 1, "burst", broker=s.random.randrange(BROKERS), count=30)
        s.pair(at, lasting, "stop", "continue", shard=s.random.choice(SHARDS))


@fault
def shard_flap(s):
    """One shard comes and goes, slower and faster than fail-back."""
    shard = s.random.choice(SHARDS)
    period = s.random.choice((150, 700, 2_000, 6_000))
    do = s.random.choice((("kill", "start"), ("stop", "continue")))
    for at, _ in s.alone(period, (1,)):
        s.pair(at, period * s.random.random(), *do, shard=shard)


@fault
def both_shards(s):
    """Home and standby of a partition are down together, or all shards are, or two flap in turn."""
    for at, lasting in s.alone(3_000, (30, 500, 2_000, 5_000)):
        for shard in s.random.sample(SHARDS, s.random.choice((2, 2, 3))):
            do = s.random.choice((("kill", "start"), ("stop", "continue")))
            s.pair(at + s.random.random() * 400, lasting, *do, shard=shard)


@fault
def link_reset(s):
    """Any connection is reset, often several at once."""
    links = list(itertools.product(range(BROKERS), SHARDS, ("publishing", "subscribing")))
    for at in s.times(700):
        for broker, shard, side in s.random.sample(links, s.random.choice((1, 1, 2, 6, 18))):
            s.add(at, "reset", broker=broker, shard=shard, side=side)


@fault
def link_stall(s):
    """One direction of connections stalls, without a reset; sometimes the shard's other fault comes in it."""
    for at, lasting in s.alone(1_500, (50, 500, 1_500, 4_000, 8_000)):
        s.pair(at, lasting, "stall", "flow", broker=s.random.randrange(BROKERS), shard=s.random.choice(SHARDS),
               side=s.random.choice(("publishing", "subscribing")), direction=s.random.choice(("up", "down")))
        if s.random.random() < 0.5:
            s.add(at + s.random.random() * lasting, "burst", broker=s.random.randrange(BROKERS), count=30)


def has_paths(blocked):
    """A shard that both reach, for each two brokers (and for one alone)."""
    reach = [{x for x in SHARDS if (b, x) not in blocked} for b in range(BROKERS)]
    return all(reach[a] & reach[b] for a in range(BROKERS) for b in range(a, BROKERS))


@fault
def partition(s):
    """Several one-sided partitions at once; some shard stays common to each two brokers, or returns within 2 s."""
    paths = list(itertools.product(range(BROKERS), SHARDS))
    for at, lasting in s.alone(1_500, (300, 1_500, 4_000, 9_000)):
        blocked = s.random.sample(paths, s.random.choice((1, 2, 3, 5)))
        if not has_paths(set(blocked)):
            lasting = min(lasting, 1_500)
        for broker, shard in blocked:
            for direction in s.random.choice((("up",), ("down",), ("up", "down"))):
                s.pair(at + s.random.random() * 100, lasting, "block", "unblock",
                       broker=broker, shard=shard, direction=direction)


@fault
def cut_off(s):
    """A broker reaches nothing for 6 s, and is back."""
    for at, lasting in s.alone(2_500, (2_500, 4_500, 6_000, 8_000), 3_000):
        broker = s.random.randrange(BROKERS)
        directions = s.random.choice((("up",), ("down",), ("up", "down")))
        for shard in SHARDS:
            for direction in directions:
                s.pair(at, lasting, "block", "unblock", broker=broker, shard=shard, direction=direction)


def cut(s, at, lasting, broker, directions=("up", "down")):
    for shard in SHARDS:
        for direction in directions:
            s.pair(at, lasting, "block", "unblock", broker=broker, shard=shard, direction=direction)


@fault
def quiet(s):
    """A broker is cut off or stopped for 4 to 8 s, shards are killed meanwhile, and few messages are published:
    after most of them nothing more is said in their partition, so nothing later shows that they are missing."""
    at, lasting = 200 + s.random.random() * 800, s.random.choice((4_500, 5_200, 6_000, 7_000, 8_000))
    for turn in range(s.random.choice((1, 1, 2))):
        broker = s.random.randrange(BROKERS)
        if s.random.random() < 0.25:
            s.pair(at, lasting, "pause", "wake", broker=broker)
        else:
            cut(s, at, lasting, broker, s.random.choice((("up",), ("down",), ("up", "down"), ("up", "down"))))
        if s.random.random() < 0.5:
            s.pair(at + lasting * s.random.random(), s.random.choice((1, 500, 4_000)), "kill", "start",
                   shard=s.random.choice(SHARDS))
        for _ in range(s.random.choice((2, 5, 12))):
            s.add(at - 300 + (lasting + 600) * s.random.random(), "say", broker=s.random.randrange(BROKERS),
                  partition=s.random.randrange(6))
        at += lasting + s.random.random() * 4_000


@fault
def cut_off_long(s):
    """A broker reaches nothing, is reached by nothing, or is stopped, for 8 to 120 s; what the ring has left is
    counted, nothing else; what is said later is not late. Needs end and begin meanwhile."""
    broker, lasting = s.random.randrange(BROKERS), s.random.choice((9_000, 15_000, 30_000, 68_000, 75_000, 90_000, 120_000))
    s.length = 135_000
    if s.random.random() < 0.2:
        s.pair(2_000, lasting, "pause", "wake", broker=broker)
    else:
        cut(s, 2_000, lasting, broker, s.random.choice((("up",), ("down",), ("up", "down"), ("up", "down"))))
    if s.random.random() < 0.3:
        for at in s.times(5_000):
            s.add(at, s.random.choice(("need", "leave")), broker=s.random.randrange(BROKERS), partition=s.random.randrange(2, 6))
    if s.random.random() < 0.3:
        s.pair(2_000 + s.random.random() * lasting, 1_000, "crash", "launch", broker=(broker + 1) % BROKERS)


@fault
def refusal(s):
    """A shard closes new connections for a while (maxclients, NOAUTH), and old ones are reset meanwhile."""
    for at, lasting in s.alone(2_000, (200, 2_000, 6_000)):
        shard = s.random.choice(SHARDS)
        s.pair(at, lasting, "refuse", "admit", shard=shard)
        for broker, side in itertools.product(range(BROKERS), ("publishing", "subscribing")):
            if s.random.random() < 0.5:
                s.add(at + 1, "reset", broker=broker, shard=shard, side=side)


@fault
def demotion(s):
    """A shard's name comes to lead to another server; the old one, no master any more, keeps its connections or not."""
    for at in s.times(5_000):
        shard = s.random.choice(SHARDS)
        s.add(at, "demote", shard=shard, kept=s.random.random() < 0.5)
        for broker, side in itertools.product(range(BROKERS), ("publishing", "subscribing")):
            if s.random.random() < 0.3:
                s.add(at + 1, "reset", broker=broker, shard=shard, side=side)


@fault
def broker_pause(s):
    """SIGSTOP of brokers for 0.5 to 8 s, one or two at a time."""
    for at, lasting in s.alone(2_000, (500, 1_200, 3_000, 6_000, 8_000), 3_000):
        for broker in s.random.sample(range(BROKERS), s.random.choice((1, 1, 2))):
            s.pair(at + s.random.random() * 50, lasting, "pause", "wake", broker=broker)


@fault
def broker_pause_and_kill(s):
    """A shard is killed, or connections are reset, while a broker is stopped."""
    for at, lasting in s.alone(2_000, (500, 1_200, 3_000, 8_000), 3_000):
        broker = s.random.randrange(BROKERS)
        s.pair(at, lasting, "pause", "wake", broker=broker)
        when = at + lasting * s.random.random()
        if s.random.random() < 0.7:
            s.pair(when, s.random.choice((1, 500, 4_000)), "kill", "start", shard=s.random.choice(SHARDS))
        else:
            s.add(when, "reset", broker=broker, shard=s.random.choice(SHARDS),
                  side=s.random.choice(("publishing", "subscribing")))
        s.add(when - 30, "burst", broker=s.random.randrange(BROKERS), count=60)


@fault
def broker_crash(s):
    """kill -9 of a broker; a new one starts."""
    for at, lasting in s.alone(3_000, (10, 1_000, 5_000)):
        s.pair(at, lasting, "crash", "launch", broker=s.random.randrange(BROKERS))


@fault
def maps_differ(s):
    """Brokers are started with a wrong file, one or two of three; it is corrected seconds later, or they end."""
    at = 500.0
    while at < s.length - 3_000:
        lasting = s.random.choice((1_500, 4_000, 7_000))
        for broker in s.random.sample(range(BROKERS), s.random.choice((1, 1, 2))):
            s.add(at + s.random.random() * 500, "crash", broker=broker)
            s.add(at + 500 + s.random.random() * 500, "launch", broker=broker, shards=s.random.choice(("abc", "ab")), routing="x")
            s.add(at + 1_000 + lasting * s.random.random(), "load", broker=broker, map="m1", shards="abc", without=[])
        at += lasting + 5_000


@fault
def broker_crash_and_kill(s):
    broker_crash(s)
    shard_kill(s)


@fault
def map_change(s, spread=2_500):
    """Shards are added and removed; brokers load the change at different times, sometimes the next one early."""
    at = s.random.random() * 1_500
    for name in ("m2", "m3", "m4")[:s.random.choice((1, 2, 3))]:
        for broker in range(BROKERS):
            s.add(at + s.random.random() * spread, "load", broker=broker, map=name, shards=MAPS[name], without=[])
        at += s.random.choice((500, 3_000, 7_000))


@fault
def url_change(s, others="bc"):
    """A shard's name comes to lead to another server; brokers load this at different times, one of them seconds later."""
    at = s.random.random() * 1_500
    for name, server in (("m2", "d"), ("m3", "e"))[:s.random.choice((1, 2))]:
        spread = s.random.choice((50, 2_500, 5_000))
        for broker in range(BROKERS):
            s.add(at + spread * s.random.random(), "load", broker=broker, map=name, shards=server + others,
                  names={server: "a"}, without=[])
        at += s.random.choice((500, 3_000, 7_000))


@fault
def url_change_alone(s):
    """The same with no other shard: until all have loaded it only the old place is common."""
    url_change(s, "")


@fault
def url_change_and_kill(s):
    url_change(s)
    for at, lasting in s.alone(3_000, (1, 50, 800, 3_000)):
        s.pair(at, lasting, "kill", "start", shard=s.random.choice("abd"))


@fault
def url_change_and_links(s):
    url_change(s)
    link_reset(s)
    link_stall(s)


@fault
def map_change_and_kill(s):
    map_change(s)
    shard_kill(s)


@fault
def map_change_and_links(s):
    map_change(s)
    link_reset(s)
    link_stall(s)


@fault
def map_change_and_pause(s):
    map_change(s)
    broker_pause(s)


@fault
def map_change_and_crash(s):
    map_change(s)
    broker_crash(s)


@fault
def map_late(s):
    """One broker loads the change much later than the others, or never and is left out by --without."""
    late = s.random.randrange(BROKERS)
    never = s.random.random() < 0.5
    for broker in range(BROKERS):
        if broker != late:
            s.add(500 + s.random.random() * 1_000, "load", broker=broker, map="m2", shards=MAPS["m2"], without=[])
            if never:
                s.add(5_000 + s.random.random() * 1_000, "load", broker=broker, map="m2", shards=MAPS["m2"],
                      without=[late])
    s.add(s.length - 500, "load", broker=late, map="m2", shards=MAPS["m2"], without=[])


@fault
def interest(s):
    """Brokers need only some partitions; interests come and go, links and shards too."""
    for at in s.times(400):
        s.add(at, s.random.choice(("need", "need", "leave")), broker=s.random.randrange(BROKERS),
              partition=s.random.randrange(6))
    s.random.choice((link_reset, shard_kill, none, none))(s)


@fault
def local_fast(s):
    """Some brokers give their own pods at once what they accept, and any other fault comes in it; needs come and go."""
    other = s.random.choice((none, shard_kill, shard_stop, both_shards, link_reset, link_stall, broker_pause, map_change_and_kill))
    other(s)
    for at in s.times(900) if other in (none, shard_kill, link_reset) else ():    # see the document, "Not promised"
        s.add(at, s.random.choice(("need", "need", "leave")), broker=s.random.randrange(BROKERS),
              partition=s.random.randrange(6))


@fault
def pods(s):
    """Pods' connections end in every way and return."""
    for at in s.times(500):
        s.add(at, "end_pod", pod=s.random.randrange(BROKERS), how=s.random.choice(("fin", "half", "half", "reset", "die", "cut")),
              away=s.random.choice((1, 40, 700, 3_000)))
    for at in s.times(1_500):
        s.add(at, "burst", broker=s.random.randrange(BROKERS), count=40)


@fault
def pods_and_kill(s):
    pods(s)
    shard_kill(s)


@fault
def mixed(s):
    """Resets, stalls, and one shard at a time killed or stopped."""
    link_reset(s)
    link_stall(s)
    for at, lasting in s.alone(4_000, (1, 500, 1_500, 4_000)):
        s.pair(at, lasting, *s.random.choice((("kill", "start"), ("stop", "continue"))), shard=s.random.choice(SHARDS))


@fault
def everything(s):
    """Resets, brokers stopped, a shard killed or stopped, a map change."""
    link_reset(s)
    broker_pause(s)
    map_change(s)
    for at, lasting in s.alone(4_000, (1, 500, 1_500, 4_000)):
        s.pair(at, lasting, *s.random.choice((("kill", "start"), ("stop", "continue"))), shard=s.random.choice(SHARDS))


def make(name, random_source, length):
    schedule = Schedule(random_source, length)
    FAULTS[name](schedule)
    schedule.sort(key=lambda each: each["at"])
    for each in schedule:
        each["at"] = max(0.0, each["at"])
    return schedule

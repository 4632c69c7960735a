"""A broker of the model: docs/broker-protocol.md as code, and nothing else.

    pod ── accept ─▶ sequence, sent ring ─▶ FIFO of the partition's shard ─▶ in flight ─▶ confirmed
                                                                                 ║ Redis
    pod ◀─ deliver ◀─ expected, hold, negative acknowledgement ◀─────────────────╝

The names are those of the document. What the real broker does with bytes is done here with tuples:

    ("M", origin, partition, sequence, message)        on p:<partition>, and retransmitted on o:<asker>
    ("H", origin, facts)                               heartbeat, on c of every shard
    ("N", asker, {partition: [missing sequences]}, shard)   negative acknowledgement, on o:<origin>;
                                                       answer on that shard, there the asker hears
    ("G", origin, partition, up_to)                    gone from the ring, on o:<asker>
"""

from collections import deque

PARTITIONS = 8
IN_FLIGHT = 6                # small, so that FIFOs fill
RING_AGE = 10_000.0
CONFIRMED_RECENTLY = 250.0
SUSPECT_AFTER = 1_000.0
BACKOFF_MIN, BACKOFF_MAX = 100.0, 5_000.0
FAIL_BACK_AFTER = 5_000.0
LIVE_FOR = 5_000.0
HEARTBEAT = 1_000.0
STALE_AFTER = 3_000.0
TAIL_MIN, TAIL_MAX = 200.0, 3_000.0
NACK_AT = (20.0, 100.0, 300.0, 600.0, 900.0, 1_300.0, 1_700.0)
HEARS_WELL = 1_500.0         # a shard that pushed something so lately; heartbeats come each second
GIVE_UP_AFTER = 2_000.0
KEEP_ORIGIN = 70_000.0
SETTLE_AFTER_MAP = 5_000.0
TICK = 20.0


class Map:
    """Which shards a partition has, best first. A map is known by its name."""

    def __init__(self, name, shards):
        self.name = name
        self.shards = tuple(shards)

    def ranked(self, partition):
        # any fixed pseudo-random order does; the real one is a weighted rendezvous hash
        def score(shard):
            value = hash_of(f"{partition}/{shard}")
            return (-value, shard)
        return sorted(self.shards, key=score)[:2]


def hash_of(text):
    value = 14695981039346656037
    for byte in text.encode():
        value = (value ^ byte) * 1099511628211 % 2**64
    value ^= value >> 29
    return value * 0xBF58476D1CE4E5B9 % 2**64


class Entry:
    """One message in the sent ring."""
    __slots__ = ("partition", "sequence", "message", "accepted_at", "confirmed_at", "shard")

    def __init__(self, partition, sequence, message, now):
        self.partition, self.sequence, self.message = partition, sequence, message
        self.accepted_at = now
        self.confirmed_at = None
        self.shard = None            # where it was sent last


class Receiving:
    """What a broker knows of one (origin, partition)."""
    __slots__ = ("expected", "hold", "known", "gap_since", "asked")

    def __init__(self, expected):
        self.expected = expected
        self.hold = {}
        self.known = 0               # the highest sequence heard of, in messages and tails
        self.gap_since = None
        self.asked = 0


class Peer:
    def __init__(self):
        self.heard_at = 0.0
        self.subscribed = frozenset()
        self.used = self.loaded = None


class Link:
    """One broker's two connections to one shard."""

    def __init__(self, broker, shard):
        self.broker, self.shard = broker, shard
        self.publishing = self.subscribing = None     # Wires
        self.up = False                               # the publishing side passed its check
        self.usable_since = None
        self.fifo = deque()                           # Entries and ("C", channel, item)
        self.in_flight = deque()                      # (entry or None, sent_at)
        self.subscribed = frozenset()                 # confirmed channels
        self.wanted = frozenset()
        self.backoff = {"publishing": BACKOFF_MIN, "subscribing": BACKOFF_MIN}
        self.checking_since = None
        self.own_heard_at = 0.0
        self.heard_at = 0.0                           # anything at all came in


class Broker:
    def __init__(self, simulation, servers, shard_map, origin, world):
        self.simulation, self.servers, self.world = simulation, servers, world
        self.origin = origin
        self.alive = True
        self.used = shard_map
        self.loaded = shard_map
        self.switched_at = None
        self.links = {}
        self.next_sequence = [1] * PARTITIONS
        self.sends_to = [None] * PARTITIONS
        self.ring = {}               # (partition, sequence) -> Entry, in order of acceptance
        self.last_sent_at = [None] * PARTITIONS
        self.receiving = {}          # (origin, partition) -> Receiving
        self.based = set()           # origins whose first heartbeat we were there to hear
        self.peers = {}
        self.greeted = set()         # shards on which our hello went out
        self.ready_at = None         # when all subscriptions were first confirmed
        self.lost = {}
        self.turn = self.unicasts = 0
        for shard in shard_map.shards:
            self._add_link(shard)
        self.simulation.at(0, self._tick)
        self.simulation.at(0, self._beat)

    # ── links ────────────────────────────────────────────────────────────────────────────────

    def _add_link(self, shard):
        link = self.links[shard] = Link(self, shard)
        self._want()
        self._connect(link, "publishing")
        self._connect(link, "subscribing")

    def _maps(self):
        return (self.used,) if self.used is self.loaded else (self.used, self.loaded)

    def _want(self):
        """Channels each link needs: control, our own, and partitions homed or standing by there."""
        for shard, link in self.links.items():
            wanted = {"c", f"o:{self.origin}"}
            for shard_map in self._maps():
                wanted |= {f"p:{p}" for p in range(PARTITIONS) if shard in shard_map.ranked(p)}
            link.wanted = frozenset(wanted)

    def _connect(self, link, side):
        if not self.alive or link.shard not in self.links or getattr(link, side) is not None:
            return
        server = self.servers[link.shard]
        box = []
        wire = server.connect(lambda item: self._item(link, side, box[0], item),
                              lambda: self._broken(link, side, box[0], at_once=True))
        if wire is None:
            self._later(link, side)
            return
        box.append(wire)
        setattr(link, side, wire)
        if side == "publishing":
            link.checking_since = self.simulation.now
            wire.send(0, ("PING",))
        else:
            link.subscribed = frozenset()
            link.own_heard_at = self.simulation.now
            wire.send(0, ("SUBSCRIBE", sorted(link.wanted)))

    def _later(self, link, side, delay=None):
        if delay is None:
            delay = link.backoff[side] * (0.5 + self.simulation.random.random())
            link.backoff[side] = min(link.backoff[side] * 2, BACKOFF_MAX)
        self.simulation.at(delay, self._connect, link, side)

    def _broken(self, link, side, wire, at_once=False):
        if not self.alive or getattr(link, side) is not wire:
            return
        wire.close()
        setattr(link, side, None)
        if side == "publishing":
            was_up, link.up, link.usable_since = link.up, False, None
            # what was under way goes back to the head of the FIFO, in order
            back = [e for e, _ in link.in_flight
                    if isinstance(e, Entry) and e.shard == link.shard and e.confirmed_at is None]
            link.in_flight.clear()
            link.fifo = deque(e for e in link.fifo if isinstance(e, Entry))
            queued = set(map(id, link.fifo))
            link.fifo.extendleft(e for e in reversed(back) if id(e) not in queued)
            at_once = at_once and was_up
        else:
            link.subscribed = frozenset()
            self._beat_now()
        self._later(link, side, 0.0 if at_once else None)
        self._place()

    def _item(self, link, side, wire, item):
        if not self.alive or getattr(link, side) is not wire:
            return
        kind = item[0]
        if kind == "PONG":
            if side == "publishing" and not link.up:
                link.up, link.checking_since = True, None
                link.backoff[side] = BACKOFF_MIN
                self._greet(link)
                self._place()
                self._pump(link)
        elif kind == "REPLY":
            if not link.in_flight:
                return
            entry, _ = link.in_flight.popleft()
            if isinstance(entry, Entry) and entry.shard == link.shard:
                entry.confirmed_at = self.simulation.now
            self._pump(link)
        elif kind == "SUBSCRIBED":
            link.subscribed |= frozenset(item[1])
            link.backoff[side] = BACKOFF_MIN
            link.own_heard_at = self.simulation.now
            self._beat_now()
        elif kind == "MESSAGE":
            self._hear(link, item[2])

    def _publish(self, link, channel, item):
        link.fifo.appendleft(("C", channel, item))
        self._pump(link)

    def _pump(self, link):
        while link.up and link.fifo and len(link.in_flight) < IN_FLIGHT:
            entry = link.fifo.popleft()
            if isinstance(entry, Entry):
                channel = f"p:{entry.partition}"
                item = ("M", self.origin, entry.partition, entry.sequence, entry.message)
                self.last_sent_at[entry.partition] = self.simulation.now
            else:
                _, channel, item = entry
            link.in_flight.append((entry, self.simulation.now))
            link.publishing.send(0, ("PUBLISH", channel, item, None))

    # ── where partitions are sent ────────────────────────────────────────────────────────────

    def _live(self):
        now = self.simulation.now
        return [p for p in self.peers.values() if now - p.heard_at < LIVE_FOR]

    def _complete(self, link):
        return link.wanted <= link.subscribed

    def _is_usable(self, link):
        return (link.up and self._complete(link)
                and all(link.shard in peer.subscribed for peer in self._live()))

    def _choose(self, partition):
        now = self.simulation.now
        ranked = [self.links[s] for s in self.used.ranked(partition) if s in self.links]
        current = self.sends_to[partition]
        for link in ranked:
            if not self._is_usable(link):
                continue
            if current is None or link.shard == current or now - link.usable_since >= FAIL_BACK_AFTER:
                return link.shard
            holder = self.links.get(current)
            if holder is None or not self._is_usable(holder) or current not in self.used.ranked(partition):
                return link.shard
        for link in ranked:
            if link.up and (current not in self.links or not self.links[current].up
                            or link.shard == current):
                return link.shard
        if current in self.links and self.links[current].up:
            return current
        return None

    def _place(self):
        now = self.simulation.now
        for link in self.links.values():
            if not self._is_usable(link):
                link.usable_since = None
            elif link.usable_since is None:
                link.usable_since = now
        for partition in range(PARTITIONS):
            chosen = self._choose(partition)
            if chosen != self.sends_to[partition]:
                self._move(partition, chosen)

    def _move(self, partition, shard):
        """Unconfirmed and just confirmed messages go first on the new shard, in order."""
        self.sends_to[partition] = shard
        now = self.simulation.now
        for link in self.links.values():
            link.fifo = deque(e for e in link.fifo
                              if not (isinstance(e, Entry) and e.partition == partition))
        again = [e for e in self.ring.values() if e.partition == partition and
                 (e.confirmed_at is None or now - e.confirmed_at < CONFIRMED_RECENTLY)]
        if shard is None:
            self._deliver_own(partition)
            return
        again.sort(key=lambda e: e.sequence)
        for entry in again:
            entry.shard, entry.confirmed_at = shard, None
            self.links[shard].fifo.append(entry)
        self._pump(self.links[shard])

    # ── outward ──────────────────────────────────────────────────────────────────────────────

    def accept(self, partition, message):
        sequence = self.next_sequence[partition]
        self.next_sequence[partition] += 1
        entry = Entry(partition, sequence, message, self.simulation.now)
        self.ring[(partition, sequence)] = entry
        self.last_sent_at[partition] = self.simulation.now
        shard = self.sends_to[partition]
        if shard is None:
            self._deliver_own(partition)
            return
        entry.shard = shard
        self.links[shard].fifo.append(entry)
        self._pump(self.links[shard])

    def _deliver_own(self, partition):
        """Nothing is up: our own pods are served from the ring, in order."""
        state = self._state(self.origin, partition)
        while (partition, state.expected) in self.ring:
            self._deliver(self.origin, partition, state.expected,
                          self.ring[(partition, state.expected)].message)
            state.expected += 1
        state.hold = {s: m for s, m in state.hold.items() if s >= state.expected}

    # ── inward ───────────────────────────────────────────────────────────────────────────────

    def _state(self, origin, partition):
        key = (origin, partition)
        if key not in self.receiving:
            known_from_start = origin == self.origin or origin in self.based
            self.receiving[key] = Receiving(1 if known_from_start else None)
        return self.receiving[key]

    def _deliver(self, origin, partition, sequence, message):
        self.world.delivered(self, origin, partition, sequence, message)

    def _hear(self, link, item):
        kind, origin = item[0], item[1]
        link.heard_at = self.simulation.now
        if kind == "M":
            self._receive(origin, *item[2:])
        elif kind == "H":
            if origin == self.origin:
                link.own_heard_at = self.simulation.now
            else:
                self._heartbeat(origin, item[2])
        elif kind == "N":
            self._asked(origin, item[2], item[3])
        elif kind == "G":
            self._gone(origin, item[2], item[3])

    def _receive(self, origin, partition, sequence, message):
        state = self._state(origin, partition)
        if state.expected is None:
            state.expected = sequence
        if sequence < state.expected:
            return
        state.known = max(state.known, sequence)
        state.hold[sequence] = message
        self._advance(origin, partition, state)

    def _advance(self, origin, partition, state):
        while state.expected in state.hold:
            self._deliver(origin, partition, state.expected, state.hold.pop(state.expected))
            state.expected += 1
            state.gap_since, state.asked = None, 0
        if state.known >= state.expected:
            if origin == self.origin:
                self._fill_own(partition, state)
            elif state.gap_since is None:
                state.gap_since, state.asked = self.simulation.now, 0
        else:
            state.gap_since, state.asked = None, 0

    def _fill_own(self, partition, state):
        while state.expected <= state.known:
            message = state.hold.pop(state.expected, None)
            if message is None:
                entry = self.ring.get((partition, state.expected))
                message = entry.message if entry else None
            if message is None:
                self._lose("own_gone", 1, (self.origin, partition, state.expected))
            else:
                self._deliver(self.origin, partition, state.expected, message)
            state.expected += 1

    def _lose(self, reason, count, what):
        self.lost[reason] = self.lost.get(reason, 0) + count
        self.world.gave_up(self, reason, what)

    def _missing(self, state):
        return [s for s in range(state.expected, state.known + 1) if s not in state.hold]

    def _gaps(self):
        """Ask again for what is missing; give up what is too old."""
        now = self.simulation.now
        ask = {}
        for (origin, partition), state in self.receiving.items():
            if state.gap_since is None or origin == self.origin:
                continue
            age = now - state.gap_since
            peer = self.peers.get(origin)
            is_live = peer is not None and now - peer.heard_at < LIVE_FOR
            if age >= GIVE_UP_AFTER or (not is_live and age > NACK_AT[-1]):
                # only the first run of missing ones is given up; what is missing behind it gets its own time
                first = min([s for s in state.hold if s >= state.expected], default=state.known + 1)
                self._lose("gap" if is_live else "origin", first - state.expected,
                           (origin, partition, list(range(state.expected, first))))
                state.expected = first
                state.gap_since, state.asked = None, 0
                self._advance(origin, partition, state)
            elif state.asked < len(NACK_AT) and age >= NACK_AT[state.asked]:
                state.asked += 1
                ask.setdefault(origin, {})[partition] = self._missing(state)
        for origin, wanted in ask.items():
            self.turn += 1
            hears = [l.shard for l in self.links.values()
                     if self.simulation.now - l.heard_at < HEARS_WELL and l.subscribed]
            answer_on = hears[self.turn % len(hears)] if hears else None
            self._unicast(origin, ("N", self.origin, wanted, answer_on))

    def _unicast(self, origin, item, shard=None):
        """To a peer's own channel: on the shard it asked for, else on one where both are, each in turn."""
        peer = self.peers.get(origin)
        both = [l for s, l in self.links.items() if l.up and peer and s in peer.subscribed]
        if not both:
            both = [l for l in self.links.values() if l.up]
        if not both:
            return
        self.unicasts += 1
        asked_for = self.links.get(shard)
        link = asked_for if asked_for is not None and asked_for.up else both[self.unicasts % len(both)]
        self._publish(link, f"o:{origin}", item)

    def _asked(self, asker, wanted, shard):
        for partition, sequences in wanted.items():
            for sequence in sequences:
                entry = self.ring.get((partition, sequence))
                if entry is None:
                    self._unicast(asker, ("G", self.origin, partition, sequence), shard)
                else:
                    self._unicast(asker, ("M", self.origin, partition, sequence, entry.message), shard)

    def _gone(self, origin, partition, up_to):
        state = self._state(origin, partition)
        if state.expected is None or state.expected > up_to:
            return
        missing = [s for s in range(state.expected, up_to + 1) if s not in state.hold]
        self._lose("gone", len(missing), (origin, partition, missing))
        for sequence in range(state.expected, up_to + 1):
            if sequence in state.hold:
                self._deliver(origin, partition, sequence, state.hold.pop(sequence))
        state.expected = up_to + 1
        self._advance(origin, partition, state)

    # ── heartbeats ───────────────────────────────────────────────────────────────────────────

    def _facts(self):
        now = self.simulation.now
        tails = {p: self.next_sequence[p] - 1 for p in range(PARTITIONS)
                 if self.last_sent_at[p] is not None
                 and TAIL_MIN <= now - self.last_sent_at[p] <= TAIL_MAX}
        subscribed = frozenset(s for s, l in self.links.items() if self._complete(l))
        return {"subscribed": subscribed, "used": self.used.name, "loaded": self.loaded.name,
                "tails": tails, "hello": False}

    def _greet(self, link):
        """The first heartbeat on a shard goes out before any message does."""
        if self.ready_at is None:
            return
        facts = self._facts()
        facts["hello"] = True
        self.greeted.add(link.shard)
        self._publish(link, "c", ("H", self.origin, facts))

    def _beat(self):
        if not self.alive:
            return
        self._beat_now()
        self.simulation.at(HEARTBEAT, self._beat)

    def _beat_now(self):
        if not self.alive:
            return
        if self.ready_at is None:
            # a broker that is not there yet must not make shards unusable for the others
            if not any(self._complete(l) for l in self.links.values()):
                return
            if not all(self._complete(l) for l in self.links.values()) and \
                    self.simulation.now - self.world.started_at[self.origin] < 3_000:
                return
            self.ready_at = self.simulation.now
            for link in self.links.values():
                if link.up:
                    self._greet(link)
            self.world.is_ready(self)
            return
        facts = self._facts()
        for partition, last in facts["tails"].items():
            self._own_tail(partition, last)
        for link in self.links.values():
            if link.up:
                self._publish(link, "c", ("H", self.origin, facts))

    def _own_tail(self, partition, last):
        entry = self.ring.get((partition, last))
        state = self._state(self.origin, partition)
        if entry is not None and entry.confirmed_at is not None and state.expected <= last:
            state.known = max(state.known, last)
            self._fill_own(partition, state)

    def _heartbeat(self, origin, facts):
        now = self.simulation.now
        peer = self.peers.get(origin)
        if peer is None:
            peer = self.peers[origin] = Peer()
            if facts["hello"] and self.ready_at is not None:
                self.based.add(origin)
            # the newcomer must hear of us before it can count on us
            self.simulation.at(0, self._beat_now)
        peer.heard_at = now
        peer.subscribed = facts["subscribed"]
        peer.used, peer.loaded = facts["used"], facts["loaded"]
        for partition, last in facts["tails"].items():
            state = self._state(origin, partition)
            if state.expected is None:
                state.expected = last + 1
            if last >= state.expected:
                state.known = max(state.known, last)
                self._advance(origin, partition, state)
        self._map_step()
        self._place()

    # ── map change ───────────────────────────────────────────────────────────────────────────

    def load(self, shard_map):
        if shard_map.name == self.loaded.name:
            return
        self.loaded = shard_map
        for shard in shard_map.shards:
            if shard not in self.links:
                self._add_link(shard)
        self._want()
        self._resubscribe()
        self._beat_now()

    def _resubscribe(self):
        for link in self.links.values():
            wire = link.subscribing
            if wire is None:
                continue
            new = link.wanted - link.subscribed
            old = link.subscribed - link.wanted
            if new:
                wire.send(0, ("SUBSCRIBE", sorted(new)))
            if old:
                wire.send(0, ("UNSUBSCRIBE", sorted(old)))
                link.subscribed -= old

    def _map_step(self):
        live = self._live()
        shards = set(self.loaded.shards)
        if self.used is not self.loaded:
            everyone = all(p.loaded == self.loaded.name and shards <= p.subscribed for p in live)
            ours = all(self._complete(self.links[s]) for s in shards)
            if everyone and ours:
                self.old, self.used = self.used, self.loaded
                self.switched_at = self.simulation.now
                # until all have followed, messages of the old map still come: stay subscribed
                self._beat_now()
                self._place()

    # ── time ─────────────────────────────────────────────────────────────────────────────────

    def _tick(self):
        if not self.alive:
            return
        now = self.simulation.now
        for link in list(self.links.values()):
            self._watch(link)
        for key in [k for k, e in self.ring.items()
                    if e.confirmed_at is not None and now - e.accepted_at > RING_AGE]:
            del self.ring[key]
        for origin in [o for o, p in self.peers.items() if now - p.heard_at > KEEP_ORIGIN]:
            del self.peers[origin]
            self.based.discard(origin)
            for key in [k for k in self.receiving if k[0] == origin]:
                del self.receiving[key]
        self._map_step()
        self._place()
        self._gaps()
        self.simulation.at(TICK, self._tick)

    def _watch(self, link):
        now = self.simulation.now
        if link.publishing is not None:
            oldest = link.in_flight[0][1] if link.in_flight else link.checking_since
            if oldest is not None and now - oldest > SUSPECT_AFTER:
                self._broken(link, "publishing", link.publishing)
        if link.subscribing is not None and now - link.own_heard_at > STALE_AFTER and (
                link.up or not link.subscribed):
            self._broken(link, "subscribing", link.subscribing)

    def kill(self):
        self.alive = False
        for link in self.links.values():
            for wire in (link.publishing, link.subscribing):
                if wire is not None:
                    wire.close()

    def check(self):
        """The invariants of the document that can be seen from outside a step."""
        for partition in range(PARTITIONS):
            queued = {}
            for link in self.links.values():
                for entry in link.fifo:
                    if isinstance(entry, Entry):
                        assert (entry.partition, entry.sequence) not in queued, "in two FIFOs"
                        queued[(entry.partition, entry.sequence)] = link.shard
                        assert link.shard == self.sends_to[entry.partition], "in a FIFO not its own"
        for state in self.receiving.values():
            assert all(s >= state.expected for s in state.hold), "held below expected"
        for link in self.links.values():
            assert len(link.in_flight) <= IN_FLIGHT

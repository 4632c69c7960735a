"""A broker of the model: docs/broker-protocol.md as code, and nothing else.

    pod ── accept ─▶ sequence, sent ring ─▶ FIFO of the partition's shard ─▶ in flight ─▶ confirmed
                                                                                 ║ Redis
    pod ◀─ deliver ◀─ expected, hold, asking ◀───────────────────────────────────╝

The names are those of the document. What the real broker does with bytes is done here with tuples:

    ("M", origin, partition, sequence, message)          on p:<partition>, and again on o:<asker>
    ("H", origin, facts)                                 heartbeat, on c of every shard
    ("N", asker, {partition: [missing sequences]}, shard)   ask, on o:<origin>; answer on that shard
    ("Q", asker, number, shard)                          ask for positions, on o:<origin>
    ("P", origin, number, facts, {partition: last sent}) positions, on o:<asker>
    ("G", origin, partition, [sequences])                gone from the ring, on o:<asker>

`off` names rules that are switched off (mutations.py).
"""

from collections import deque

import simulation
from link import Link
from receiver import Receiver

PARTITIONS = 6
RING_AGE = 20_000.0
SPILL_MAX = 800
SPILL_AGE = 30_000.0
CONFIRMED_RECENTLY = 250.0
FAIL_BACK_AFTER = 5_000.0
LIVE_FOR = 5_000.0
HEARTBEAT = 1_000.0
TAIL_MIN, TAIL_MAX = 200.0, 3_200.0
KEEP_ORIGIN = 70_000.0
SETTLE_AFTER_MAP = 5_000.0
NAME_LATE_AFTER = 60_000.0
START_FOR_LINKS = 3_000.0
DISCOVER_FOR = 500.0
TICK = 100.0
LATE_TURN = 200.0            # a loop turn that comes later than that stopped the broker's clock
POSITIONS_AGAIN = 300.0
WAIT_FOR_OTHERS = 20_000.0
TAILS_JOIN = 2_500.0         # facts further apart may leave out what was sent between them
RESTING_MAX = 8              # origins that ended and whose positions are kept


class Map:
    """Which shards a partition has, best first. A map is known to others by its hash: of the names of its shards, not of
    the servers to which they lead. `shards`: the servers; `names`: of those that are not called like their server."""

    def __init__(self, name, shards, names=None, routing=""):
        self.name = name
        self.routing = routing       # stands for partitions, order and channels
        self.shards = tuple(shards)
        self.names = {s: (names or {}).get(s, s) for s in shards}
        self.hash = routing + "".join(sorted(self.names.values()))
        self.best = [self._ranked(p) for p in range(PARTITIONS)]

    def _ranked(self, partition):
        # any fixed pseudo-random order does; the real one is a weighted rendezvous hash
        return tuple(sorted(self.shards, key=lambda s: (-hash_of(f"{partition}/{self.names[s]}"), s))[:2])


def hash_of(text):
    value = 14695981039346656037
    for byte in text.encode():
        value = (value ^ byte) * 1099511628211 % 2**64
    value ^= value >> 29
    return value * 0xBF58476D1CE4E5B9 % 2**64


class Message:
    """`twice`: (room's partition, sid's partition) of enter_room and leave_room."""
    __slots__ = ("id", "twice", "accepted_at")

    def __init__(self, message_id, accepted_at, twice=None):
        self.id, self.accepted_at, self.twice = message_id, accepted_at, twice


class Entry:
    """One message in the sent ring."""
    __slots__ = ("partition", "sequence", "message", "accepted_at", "sent_at", "confirmed_at", "shard", "again")

    def __init__(self, partition, sequence, message, now):
        self.partition, self.sequence, self.message = partition, sequence, message
        self.accepted_at = now
        self.sent_at = self.confirmed_at = None
        self.shard = None            # in whose FIFO or flight it is
        self.again = False           # was confirmed once: not of the spill any more


class Peer:
    def __init__(self):
        self.heard_at = -1e9
        self.born = None
        self.number = 0
        self.age = 0.0                       # of the newest facts
        self.ready = False
        self.facts = None
        self.answered_at = -1e9              # something missing came
        self.back_at = -1e9                  # heard again after it was silent
        self.wanted_number = self.asked_at = None       # positions that we still want
        self.is_kept = False                 # buried: its positions are kept


class Broker(simulation.Process, Receiver):
    SILENT_AFTER = 2_500.0

    def __init__(self, world, slot, origin, shard_map, needs=None, off=frozenset(), local_fast=False):
        simulation.Process.__init__(self, world.simulation)
        self.world, self.slot, self.origin, self.off = world, slot, origin, off
        self.random = world.simulation.random
        self.local_fast = local_fast
        self.skew = 0.0
        self.born = self.simulation.now
        self.used = self.loaded = shard_map
        self.kept = []                       # still subscribed for those who use them, or may come to
        self.loaded_at = self.all_use_since = None
        self.late_named = set()
        self.without = set()
        self.needs = {p: self.simulation.now for p in (range(PARTITIONS) if needs is None else needs)}
        self.need_number = {}                # partition -> our number when the interest began
        self.joining = {}                    # partition -> origins whose positions are awaited
        self.links = {}
        self.next_sequence = [1] * PARTITIONS
        self.sends_to = [None] * PARTITIONS
        self.ring = {}                       # (partition, sequence) -> Entry, in order of acceptance
        # which of the ring are: never sent, in order; unconfirmed; confirmed, in order of that (some again not)
        self.unsent = {}
        self.open = [{} for _ in range(PARTITIONS)]            # partition -> sequence -> Entry
        self.confirmations = deque()                           # (when, by the ring's clock, Entry)
        self.ring_clock, self.expired_at = 0.0, self.now
        self.young = {p: deque() for p in range(PARTITIONS)}   # entries of the last TAIL_MAX
        self.peers = {}
        self.tombs = {}                      # origins that ended: their Peer, and whether positions are kept
        self.number = 0                      # of heartbeats and asks
        self.ready_at = self.ready_since = self.complete_at = None
        self.unconfirmed = 0
        self.refused = 0
        self.waits_since = None              # we start beside brokers with another map
        self.unicasts = 0
        self.init_receiver()
        for shard in shard_map.shards:
            self.links[shard] = Link(self, shard)
        self._want()
        self.later(0, self._tick)
        self.later(0, self._beat)

    @property
    def now(self):
        """The broker's clock: it stands while the process does."""
        return self.simulation.now - self.skew

    def woken(self, pause):
        if pause > LATE_TURN and "clock" not in self.off:
            self.skew += pause - LATE_TURN

    def kill(self):
        self.alive = False
        for wire in list(self.wires):
            wire.close()

    def lose(self, reason, which):
        self.world.gave_up(self, reason, which)

    # ── what the links say ───────────────────────────────────────────────────────────────────

    def link_up(self, link):
        if self.ready_at is not None or self.complete_at is not None:
            link.beat(("H", self.origin, self._facts()))    # before any message there
        self._place()

    def link_down(self, link):
        self._place()

    def link_unsubscribed(self, link):
        self._beat_now()
        self._place()

    def link_subscribed(self, link, was_complete):
        if link.is_complete() and not was_complete:
            # what was pushed meanwhile is lost: where are the origins?
            if "positions" not in self.off:
                for origin in self._live_origins():
                    self.want_positions(origin)
            self._beat_now()
        self._check_joins()
        self._map_step()
        self._place()

    def link_heard(self, link, item):
        kind, origin = item[0], item[1]
        if kind == "M":
            self.receive(origin, *item[2:])
        elif kind == "H":
            if origin == self.origin:
                link.heard_own()
            else:
                self._heartbeat(origin, item[2])
        elif kind == "N":
            self._asked(origin, item[2], item[3])
        elif kind == "Q":
            vector = {p: s - 1 for p, s in enumerate(self._next_unsent())}
            self.unicast(origin, ("P", self.origin, item[2], self._facts(), vector), item[3])
        elif kind == "P":
            self._positions(origin, *item[2:])
        elif kind == "G":
            self.gone(origin, item[2], item[3])

    # ── subscriptions ────────────────────────────────────────────────────────────────────────

    def _maps(self):
        return [m for m in {m.name: m for m in (*self.kept, self.used, self.loaded)}.values()]

    def _want(self):
        """Channels each link needs: control, our own, and needed partitions homed or standing by there."""
        maps = self._maps()
        for shard, link in self.links.items():
            wanted = {"c", f"o:{self.origin}"}
            for shard_map in maps:
                if shard in shard_map.shards:
                    wanted.update(f"p:{p}" for p in self.needs if shard in shard_map.best[p])
            link.want(wanted)

    def _carries(self, shard_map):
        """Are all channels that this map needs confirmed?"""
        for shard in shard_map.shards:
            link = self.links.get(shard)
            if link is None or not link.is_complete():
                return False
            if any(f"p:{p}" in link.fresh for p in self.needs
                   if shard in shard_map.best[p] and p not in self.joining):
                return False
        return True

    def need(self, partition):
        """A first local interest: confirmed when Redis has and the origins have said where they are."""
        if partition in self.needs:
            return
        self.needs[partition] = self.simulation.now
        self._state(self.origin, partition).expected = self.next_sequence[partition]
        self.joining[partition] = None
        self.need_number[partition] = self.number
        self._want()
        self._check_joins()

    def need_no_more(self, partition):
        if self.needs.pop(partition, None) is not None:
            self.joining.pop(partition, None)
            self.forget_partition(partition)
            self._want()

    def _check_joins(self):
        for partition, awaited in list(self.joining.items()):
            if awaited is None:
                channel = f"p:{partition}"
                on = [s for s in self.used.best[partition] if channel in self.links[s].confirmed]
                wanted_on = [s for s in self.used.best[partition] if self.links[s].is_complete()]
                if on and set(wanted_on) <= set(on):
                    live = self._live_origins()
                    awaited = self.joining[partition] = set(live)
                    if "positions" not in self.off:
                        for origin in live:      # a set of names has another order in each process
                            self.want_positions(origin)
                    else:
                        awaited.clear()
            if awaited is not None:
                awaited &= set(self._live_origins())
                if not awaited:
                    del self.joining[partition]
                    self.world.joined(self, partition)

    # ── who agrees on the map ────────────────────────────────────────────────────────────────

    def _differs(self, peer):
        """It uses a map that we do not know, and does not know ours: no change is under way that ends it."""
        known = {m.hash for m in self._maps()}
        return (peer.facts["used"] not in known and peer.facts["loaded"] not in known
                and self.used.hash not in peer.facts["maps"])

    def _is_outvoted(self):
        """Another map has more right: then we are not ready, and refuse. One that is in use beside one that starts; else that
        of more brokers; else that of the oldest; else the smaller hash."""
        if "agree" in self.off:
            return False
        if self.waits_since is not None and self.now - self.waits_since > WAIT_FOR_OTHERS:
            return True                              # a change that does not end; see _get_ready
        present = [p for o, p in self.peers.items()
                   if p.facts is not None and p.heard_at > self.now - LIVE_FOR and o not in self.without]
        others = [p for p in present if p.facts["used"] != self.used.hash and self._differs(p)]
        if not others:
            return False
        is_ready = self.ready_at is not None
        mine = [p for p in present if p.facts["used"] == self.used.hash]
        in_use = [p for p in others if p.ready]
        if is_ready or any(p.ready for p in mine):
            if not is_ready and in_use:
                return True
            # where only the shards differ all comes by asking
            others = [p for p in in_use if p.facts["routing"] != self.used.routing]
            mine = [p for p in mine if p.ready]
        elif in_use:
            return True
        votes = {}
        for peer in others:
            votes[peer.facts["used"]] = votes.get(peer.facts["used"], 0) + 1
        for used, count in votes.items():
            if count != len(mine) + 1:
                if count > len(mine) + 1:
                    return True
                continue
            oldest = min((p.born for p in others if p.facts["used"] == used and p.ready), default=1e18)
            ours = min([p.born for p in mine if p.ready] + ([self.ready_since] if is_ready else []), default=1e18)
            if abs(oldest - ours) > 2_000.0:
                if oldest < ours:
                    return True
            elif used < self.used.hash:
                return True
        return False

    # ── where partitions are sent ────────────────────────────────────────────────────────────

    def _live(self):
        limit = self.now - LIVE_FOR
        return [p for p in self.peers.values() if p.ready and p.heard_at > limit]

    def _live_origins(self):
        limit = self.now - LIVE_FOR
        return [o for o, p in self.peers.items() if p.ready and p.heard_at > limit]

    def _mark_usable(self):
        live = self._live()
        mine = self.used.hash
        for link in self.links.values():
            usable = link.up and link.is_complete() and (
                "usable" in self.off
                or all(link.shard in p.facts["subscribed"]
                       and ("carries" in self.off or mine in p.facts["maps"]) for p in live))
            if not usable:
                link.usable_since = None
            elif link.usable_since is None:
                link.usable_since = self.now

    def _choose(self, partition):
        best = self.used.best[partition]
        current = self.sends_to[partition]
        if current not in best:
            current = None
        holder = self.links.get(current)
        for shard in best:
            link = self.links.get(shard)
            if link is None or link.usable_since is None:
                continue
            if holder is None or shard == current or holder.usable_since is None:
                return shard
            if self.now - link.usable_since >= FAIL_BACK_AFTER or "fail_back" in self.off:
                return shard
        if holder is not None and holder.up:
            return current
        for shard in best:
            if shard in self.links and self.links[shard].up:
                return shard
        return None

    def _place(self):
        if self.ready_at is None:
            return
        self._mark_usable()
        for partition in range(PARTITIONS):
            chosen = self._choose(partition)
            if chosen != self.sends_to[partition]:
                self._move(partition, chosen)

    def _move(self, partition, shard):
        """Unconfirmed and just confirmed messages go first on the new shard, in order."""
        left = self.sends_to[partition]
        self.sends_to[partition] = shard
        now = self.now
        if left in self.links:
            link = self.links[left]
            link.fifo = deque(e for e in link.fifo if e.partition != partition)
            # a reply to what was sent before the move confirms nothing
            link.in_flight = deque((None if isinstance(e, Entry) and e.partition == partition else e, at)
                                   for e, at in link.in_flight)
        if shard is None:
            self.fill_own_all(partition)
            return
        recently = CONFIRMED_RECENTLY if not {"confirmed_recently", "resend"} & self.off else -1.0
        unconfirmed = self.open[partition]
        for at, _, entry in reversed(self.confirmations):
            if now - at >= recently:
                break
            if entry.partition == partition and entry.confirmed_at == at:
                entry.again, entry.confirmed_at = True, None
                unconfirmed[entry.sequence] = entry
        link = self.links[shard]
        for sequence in sorted(unconfirmed):
            entry = unconfirmed[sequence]
            if "resend" in self.off and entry.sent_at is not None:
                continue
            entry.shard = shard
            link.fifo.append(entry)
        link.pump()

    # ── outward ──────────────────────────────────────────────────────────────────────────────

    def accept(self, partition, message):
        """The sequence it got, or None: refused, the spill is full or the others have another map."""
        if self.unconfirmed >= SPILL_MAX or self._is_outvoted():
            self.refused += 1
            return None
        sequence = self.next_sequence[partition]
        self.next_sequence[partition] += 1
        entry = Entry(partition, sequence, message, self.now)
        self.ring[(partition, sequence)] = self.unsent[(partition, sequence)] = entry
        self.open[partition][sequence] = entry
        self.unconfirmed += 1
        shard = self.sends_to[partition]
        if shard is None:
            self.fill_own_all(partition)
        else:
            entry.shard = shard
            self.links[shard].fifo.append(entry)
            self.links[shard].pump()
            if self.local_fast:
                self.fill_own_all(partition)
        return sequence

    def confirmed(self, entry):
        entry.confirmed_at = self.now
        del self.open[entry.partition][entry.sequence]
        self.confirmations.append((entry.confirmed_at, self.ring_clock, entry))
        if not entry.again:
            self.unconfirmed -= 1

    def sending(self, entry):
        """The link takes it from its FIFO: channel and item."""
        if entry.sent_at is None:
            entry.sent_at = self.now
            del self.unsent[(entry.partition, entry.sequence)]
            self.young[entry.partition].append(entry)
        return (f"p:{entry.partition}",
                ("M", self.origin, entry.partition, entry.sequence, entry.message))

    def _next_unsent(self):
        """Per partition what follows the last message that was ever sent."""
        following = list(self.next_sequence)
        for partition, sequence in self.unsent:
            if sequence < following[partition]:
                following[partition] = sequence
        return following

    def unicast(self, origin, item, shard=None):
        """To a peer's own channel: on the shard it asked for, else on one where both are, each in turn."""
        link = self._link_to(origin, shard)
        if link is not None:
            link.publish(f"o:{origin}", item)

    def _link_to(self, origin, shard):
        self.unicasts += 1
        asked_for = self.links.get(shard)
        if asked_for is not None and asked_for.up:
            return asked_for
        up = [l for l in self.links.values() if l.up]
        peer = self.peers.get(origin)
        if peer is not None and peer.facts is not None:
            up = [l for l in up if l.shard in peer.facts["subscribed"]] or up
        return up[self.unicasts % len(up)] if up else None

    def _asked(self, asker, wanted, shard):
        if "answer" in self.off:
            return
        for partition, sequences in wanted.items():
            gone = []
            if (partition, sequences[0]) not in self.ring and "gone_far" not in self.off:
                # also what was not asked for: all that is before the first that is kept
                kept = min((s for p, s in self.ring if p == partition), default=self._next_unsent()[partition])
                gone = list(range(sequences[0], kept))
                sequences = [s for s in sequences if s >= kept]
            for sequence in sequences:
                entry = self.ring.get((partition, sequence))
                if entry is None:
                    gone.append(sequence)
                else:
                    link = self._link_to(asker, shard)
                    if link is not None:
                        link.answer(f"o:{asker}", partition, sequence,
                                    ("M", self.origin, partition, sequence, entry.message))
            if gone:
                self.unicast(asker, ("G", self.origin, partition, gone), shard)

    def _expire(self):
        """Confirmed and old enough: out of the ring. Never sent for too long: given up, counted."""
        now = self.now
        while self.unsent:
            key, entry = next(iter(self.unsent.items()))
            if now - entry.accepted_at <= SPILL_AGE:
                break
            self.unconfirmed -= 1
            if entry.shard in self.links:
                link = self.links[entry.shard]
                link.fifo = deque(e for e in link.fifo if e is not entry)
            self.world.expired(self, entry)
            del self.ring[key], self.unsent[key], self.open[entry.partition][entry.sequence]
        confirmations = self.confirmations
        if "ring_stands" in self.off or not any(p.ready and now - p.heard_at > self.SILENT_AFTER
                                                for p in self.peers.values()):
            self.ring_clock += now - self.expired_at     # it stands while one that may ask later is not heard
        self.expired_at = now
        while confirmations and self.ring_clock - confirmations[0][1] > RING_AGE:
            at, _, entry = confirmations.popleft()
            if entry.confirmed_at == at:
                del self.ring[(entry.partition, entry.sequence)]

    # ── heartbeats ───────────────────────────────────────────────────────────────────────────

    def _tails(self):
        """Per partition that was sent to lately the last sequence sent at least TAIL_MIN ago."""
        now, tails = self.now, {}
        for partition, young in self.young.items():
            while young and now - young[0].sent_at > TAIL_MAX:
                young.popleft()
            if "tail_idle" in self.off and young and now - young[-1].sent_at < TAIL_MIN:
                continue
            for entry in reversed(young):
                if now - entry.sent_at >= TAIL_MIN:
                    tails[partition] = entry.sequence
                    break
        return tails

    def _facts(self):
        self.number += 1
        maps = {m.hash for m in (*self.kept, self.used)}
        if self.loaded is not self.used and self._carries(self.loaded):
            maps.add(self.loaded.hash)
        return {"number": self.number, "born": self.ready_since, "started": self.born, "ready": self.ready_at is not None,
                "age": self.simulation.now - self.ready_since if self.ready_at is not None else 0.0,
                "subscribed": frozenset(s for s, l in self.links.items() if l.is_complete()),
                "routing": self.used.routing, "used": self.used.hash, "loaded": self.loaded.hash, "maps": frozenset(maps),
                "moves": self.used is not self.loaded,
                "tails": self._tails() if "tails" not in self.off else {}}

    def _beat(self):
        self._beat_now()
        self.later(HEARTBEAT, self._beat)

    def _beat_now(self):
        if not self.alive:
            return
        facts = self._facts()
        for partition, last in facts["tails"].items():
            self._own_tail(partition, last)
        for link in self.links.values():
            if link.up:
                link.beat(("H", self.origin, facts))

    def _own_tail(self, partition, last):
        """Our own message did not come back: from the ring, as soon as its shard has confirmed it."""
        if partition not in self.needs:
            return
        entry = self.ring.get((partition, last))
        if entry is not None and entry.confirmed_at is not None:
            self.heard_of(self.origin, partition, last)

    def _heartbeat(self, origin, facts):
        peer = self.peers.get(origin)
        if origin in self.tombs:
            if facts["number"] <= self.tombs[origin].number:
                return
            peer = self._exhume(origin)
        if peer is None:
            peer = self.peers[origin] = Peer()
        if facts["number"] <= peer.number and "number" not in self.off:
            return                                   # late, or a copy from another shard
        is_new = not peer.ready
        if self.now - peer.heard_at > self.SILENT_AFTER:
            peer.back_at = self.now
        peer.number, peer.heard_at, peer.facts = facts["number"], self.now, facts
        if peer.born is None:
            # before it was ready it sent nothing: one that is not ready yet has its base still before it
            peer.born = facts["born"] if facts["ready"] else self.simulation.now
            if "ready_age" in self.off:
                peer.born = facts["started"]
            self.rebase_young(origin)
        peer.ready = facts["ready"]
        if is_new:
            if self.ready_at is not None:
                self.later(1.0, self._beat_now)      # the newcomer must hear of us before it can count on us
            elif peer.ready:
                self.want_positions(origin)
        if peer.ready:
            if facts["age"] - peer.age > TAILS_JOIN and "heard_again" not in self.off:
                self.want_positions(origin)          # tails reach back 3.2 s: what was sent before is in none
            peer.age = facts["age"]
        for partition, last in facts["tails"].items():
            self.heard_of(origin, partition, last)
        self._map_step()
        self._place()

    def _bury(self, origin, peer):
        """Silent for long: where it was is kept, within bounds; beyond them it is asked when it is heard again."""
        if "tombs" not in self.off:
            self.tombs[origin] = peer
        if {"tombs", "keep_positions"} & self.off:
            self.forget_origin(origin)
            return
        peer.is_kept = True
        kept = [o for o, p in self.tombs.items() if p.is_kept]
        for oldest in kept[:-RESTING_MAX]:
            self.tombs[oldest].is_kept = False
            self.forget_origin(oldest)

    def _exhume(self, origin):
        buried = self.tombs.pop(origin)
        if "keep_positions" in self.off:
            return None
        peer = self.peers[origin] = Peer()
        peer.heard_at = -1e9
        peer.born = buried.born if buried.is_kept or buried.born is None else -1e9     # no base by age
        return peer

    # ── positions ────────────────────────────────────────────────────────────────────────────

    def want_positions(self, origin):
        """Where is the origin? Asked until answered."""
        if origin == self.origin or "positions" in self.off:
            return
        peer = self.peers.get(origin)
        if peer is None:
            peer = self.peers[origin] = Peer()
            peer.heard_at = self.now
        if peer.asked_at == self.now:
            return
        if peer.wanted_number is not None and self.now - peer.asked_at < 20.0:
            peer.asked_at = self.now - POSITIONS_AGAIN + 20.0    # once more, soon
            self.later(20.0, self._ask_positions, origin)
            return
        self._ask_positions(origin, True)

    def _ask_positions(self, origin, is_new=False):
        peer = self.peers.get(origin)
        if peer is None or (peer.wanted_number is None and not is_new):
            return
        self.number += 1
        peer.wanted_number, peer.asked_at = self.number, self.now
        self.unicast(origin, ("Q", self.origin, self.number, self.answer_on()))

    def _positions(self, origin, number, facts, vector):
        peer = self.peers.get(origin)
        if peer is None or peer.wanted_number is None or number < peer.wanted_number:
            return
        peer.wanted_number = None
        self._heartbeat(origin, facts)
        for partition in self.needs:
            last = vector[partition]
            state = self._state(origin, partition)
            if state.expected is None:
                if number <= self.need_number.get(partition, 0) and "join_number" not in self.off:
                    continue                         # asked before this interest began
                self.set_base(origin, partition, last)
            self.heard_of(origin, partition, last)
        for awaited in self.joining.values():
            if awaited is not None:
                awaited.discard(origin)
        self._check_joins()
        self._get_ready()

    # ── start ────────────────────────────────────────────────────────────────────────────────

    def _get_ready(self):
        """Ready: subscribed, all live brokers heard, all on our map, and they have said where they are."""
        if self.ready_at is not None:
            return
        now = self.now
        complete = [l for l in self.links.values() if l.is_complete()]
        if not complete:
            return
        if self.complete_at is None:
            self.complete_at = now
            self._beat_now()                         # not ready yet: the others answer at once
        if len(complete) < len(self.links) and self.simulation.now - self.born < START_FOR_LINKS:
            return
        if now - self.complete_at < DISCOVER_FOR:
            return
        live = self._live()
        others = [p for p in live if p.facts["used"] != self.used.hash]
        self.waits_since = (self.waits_since or now) if others else None
        if others and "start_map" not in self.off:
            return
        if any(p.wanted_number is not None for p in live) or self._is_outvoted():
            return
        self.ready_at, self.ready_since = now, self.simulation.now
        self._beat_now()
        self.world.is_ready(self)
        self._place()

    # ── map change ───────────────────────────────────────────────────────────────────────────

    def load(self, shard_map, without=()):
        """A reload. A change that was loaded and is not in use yet is replaced, its subscriptions stay."""
        self.without |= set(without)
        if shard_map.name == self.loaded.name:
            self._map_step()
            return
        if self.loaded is not self.used and "kept" not in self.off:
            self.kept.append(self.loaded)
        is_in_place = "places" in self.off and shard_map.hash == self.loaded.hash
        self.loaded = shard_map
        if self.ready_at is None or is_in_place:
            self.used = self.loaded                  # nothing was sent yet
        self.loaded_at = self.now
        self.late_named.clear()
        self.all_use_since = None
        for shard in self.loaded.shards:
            if shard not in self.links:
                self.links[shard] = Link(self, shard)
        self._want()
        self._drop_links()
        self._beat_now()

    def _map_step(self):
        live = [(o, p) for o, p in self.peers.items()
                if p.ready and p.heard_at > self.now - LIVE_FOR and o not in self.without]
        if self.used is not self.loaded:
            if self.ready_at is None:
                return
            name, shards = self.loaded.hash, set(self.loaded.shards)
            behind = [o for o, p in live if name not in p.facts["maps"] or not shards <= p.facts["subscribed"]]
            if "map_all" in self.off:
                behind = []
            if not behind and self._carries(self.loaded):
                self.kept.append(self.used)
                self.used = self.loaded
                self.all_use_since = None
                self._beat_now()
                self._place()
            elif self.now - self.loaded_at > NAME_LATE_AFTER:
                self.late_named |= set(behind)
        elif self.kept:
            if "settle" not in self.off:
                if any(p.facts["used"] != self.used.hash or p.facts["moves"] for _, p in live):
                    self.all_use_since = None
                    return
                if self.all_use_since is None:
                    self.all_use_since = self.now
                if self.now - self.all_use_since < SETTLE_AFTER_MAP:
                    return
            self.kept = []
            self._want()
            self._drop_links()
            self._beat_now()

    def _drop_links(self):
        """Links of shards that are in no map any more."""
        kept = {s for m in self._maps() for s in m.shards}
        for shard in [s for s in self.links if s not in kept]:
            self.links.pop(shard).close()

    # ── time ─────────────────────────────────────────────────────────────────────────────────

    def _tick(self):
        now = self.now
        for link in list(self.links.values()):
            link.watch()
        self._expire()
        for origin, peer in list(self.peers.items()):
            if now - peer.heard_at > KEEP_ORIGIN:
                del self.peers[origin]
                self._bury(origin, peer)
            elif peer.wanted_number is not None and now - peer.asked_at >= POSITIONS_AGAIN:
                self._ask_positions(origin)
        self.deliver_early_copies()
        self._check_joins()
        self._get_ready()
        self._map_step()
        self._place()
        self.later(TICK, self._tick)

    def check(self):
        """The invariants of the document, as far as they can be seen from outside a step."""
        queued = set()
        for link in self.links.values():
            for entry in link.fifo:
                key = (entry.partition, entry.sequence)
                assert key not in queued, "3: in two FIFOs"
                queued.add(key)
                assert link.shard == self.sends_to[entry.partition], "3: in a FIFO not its own"
                assert entry.confirmed_at is None, "3: confirmed and queued"
                assert key in self.ring, "1: sent from outside the ring"
            assert len(link.in_flight) <= 16 + 2, "5: in flight"
            assert len(link.control) <= 500 and len(link.answers) <= 500, "5: control"
        for partition, unconfirmed in enumerate(self.open):
            if self.sends_to[partition] is not None:
                link = self.links[self.sends_to[partition]]
                for sequence, entry in unconfirmed.items():
                    assert (partition, sequence) in queued or any(e is entry for e, _ in link.in_flight), \
                        "1: unconfirmed and nowhere"
        assert self.unconfirmed <= SPILL_MAX, "5: spill"
        held = {}
        all_seen = self.world.expected_seen.setdefault(self.origin, {})
        for key, state in self.receiving.items():
            if state.hold:
                held[key[0]] = held.get(key[0], 0) + len(state.hold)
            if state.expected is not None:
                assert all(s > state.expected for s in state.hold), "2: held at or below expected"
                assert state.known < state.expected or key in self.gaps, "4: a gap that nobody looks at"
                seen = all_seen.get(key, 0)
                assert state.expected >= seen or key[1] in self.joining, "2: expected went back"
                all_seen[key] = state.expected
        assert all(count <= 1_500 + 50 for count in held.values()), "5: hold"

"""What a broker knows of others' messages: expected, hold, gaps, asking, giving up.

    sequence < expected   duplicate: drop
    sequence = expected   deliver, expected + 1, then the hold as far as it is contiguous
    sequence > expected   hold; ask the origin

    no base yet           hold; ask the origin for its positions; the base is 1 where our interest is
                          older than the origin, else what the positions say

A mix-in of Broker: uses origin, now, ring, peers, links, needs, off, world.
"""

ASK_AT = (20.0, 100.0, 300.0)          # then every ASK_EVERY
ASK_EVERY = 400.0
ASK_RANGE = 200                        # sequences of one partition in one ask
HEARS_WELL = 1_500.0                   # a shard that pushed something so lately; heartbeats come each second
GIVE_UP_AFTER = 5_000.0                # of an origin that is heard
GIVE_UP_SILENT = 10_000.0              # of one that is not: it may be stopped, or cut off
HOLD_MAX = 1_500                       # messages held of one origin
COPIES = 4_096
COPY_WAITS = 5_000.0                   # the sid's copy of enter_room for the room's


class Receiving:
    """One (origin, partition)."""
    __slots__ = ("expected", "hold", "known", "gap_since", "ask_at", "asked")

    def __init__(self, expected):
        self.expected = expected
        self.hold = {}
        self.known = 0               # the highest sequence heard of, in messages, tails and positions
        self.gap_since = None
        self.ask_at = None
        self.asked = 0


class Receiver:
    def init_receiver(self):
        self.receiving = {}          # (origin, partition) -> Receiving
        self.gaps = {}               # keys of those with a gap, or without a base
        self.copies = {}             # origin -> {message id: True}, of messages that travel twice
        self.early_copies = {}       # message id -> the sid's copy, while the room's is awaited
        self.ask_turn = 0
        self.gap_timer = False
        self.deaf_at = -1e9          # the last time that we heard nothing on any shard, or could send nothing

    def _state(self, origin, partition):
        key = (origin, partition)
        state = self.receiving.get(key)
        if state is None:
            base = 1 if origin == self.origin or self._is_younger(origin, partition) else None
            state = self.receiving[key] = Receiving(base)
        return state

    def _is_younger(self, origin, partition):
        """Did the origin start after our interest in the partition did?"""
        peer = self.peers.get(origin)
        return (peer is not None and peer.born is not None and "base" not in self.off
                and self.needs.get(partition, 1e18) <= peer.born)

    def _follows(self, origin, partition, sequence):
        """Of an origin that was buried: late, but what comes next in order, or fills a gap."""
        state = self.receiving.get((origin, partition))
        return state is not None and state.expected is not None and (
            sequence == state.expected or state.gap_since is not None)

    # ── messages ─────────────────────────────────────────────────────────────────────────────

    def receive(self, origin, partition, sequence, message):
        if partition not in self.needs or (origin in self.tombs and not self._follows(origin, partition, sequence)):
            return
        state = self._state(origin, partition)
        if state.expected is None and "base_wait" in self.off:
            state.expected = sequence
        if state.expected is not None and sequence < state.expected:
            if "dedupe" not in self.off:
                return
            self.deliver(origin, partition, sequence, message)
            return
        if sequence > state.known:
            state.known = sequence
        elif origin in self.peers:
            self.peers[origin].answered_at = self.now
        if state.expected == sequence and not state.hold:
            self.deliver(origin, partition, sequence, message)
            state.expected += 1
            if state.gap_since is not None or state.known >= state.expected:
                self._advance(origin, partition, state)
            return
        state.hold[sequence] = message
        if "hold" in self.off and state.expected is not None and sequence > state.expected:
            state.expected = sequence
        self._advance(origin, partition, state)
        if len(state.hold) > 50:
            self._bound_hold(origin)

    def _advance(self, origin, partition, state):
        """Delivers what is contiguous; notes a gap, or that there is none any more."""
        if state.expected is None:
            self._note_gap(origin, partition, state)
            self.want_positions(origin)
            return
        moved = False
        while state.expected in state.hold:
            self.deliver(origin, partition, state.expected, state.hold.pop(state.expected))
            state.expected += 1
            moved = True
        if state.known < state.expected:
            state.gap_since = state.ask_at = None
            self.gaps.pop((origin, partition), None)
        elif origin == self.origin:
            self._fill_own(partition, state)
        else:
            if moved:
                state.gap_since = None
            self._note_gap(origin, partition, state)

    def _note_gap(self, origin, partition, state):
        if state.gap_since is None:
            state.gap_since, state.asked = self.now, 0
            state.ask_at = self.now + ASK_AT[0]
            self.gaps[(origin, partition)] = True
            self._arm_gaps()

    def _fill_own(self, partition, state):
        while state.expected <= state.known:
            message = state.hold.pop(state.expected, None)
            if message is None:
                entry = self.ring.get((partition, state.expected))
                message = entry.message if entry else None
            if message is None:
                self.lose("own_gone", [(self.origin, partition, state.expected)])
            else:
                self.deliver(self.origin, partition, state.expected, message)
            state.expected += 1
        state.gap_since = None
        self.gaps.pop((self.origin, partition), None)

    def fill_own_all(self, partition):
        """Nothing is up, or delivery.local_fast: our own pods are served from the ring, in order."""
        if partition not in self.needs or "local" in self.off:
            return
        state = self._state(self.origin, partition)
        state.known = max(state.known, self.next_sequence[partition] - 1)
        if state.expected <= state.known:
            self._fill_own(partition, state)

    def heard_of(self, origin, partition, last):
        """A tail or a position: the origin has sent up to `last`."""
        if partition not in self.needs or origin in self.tombs:
            return
        state = self._state(origin, partition)
        if last > state.known:
            state.known = last
        if state.expected is None or state.known >= state.expected:
            self._advance(origin, partition, state)

    def set_base(self, origin, partition, last):
        """From positions: what was sent later than `last` was accepted after we could receive it."""
        state = self._state(origin, partition)
        if state.expected is None:
            state.expected = last + 1
            for sequence in [s for s in state.hold if s <= last]:
                del state.hold[sequence]
        state.gap_since = None
        self.gaps.pop((origin, partition), None)
        self._advance(origin, partition, state)

    def rebase_young(self, origin):
        for (other, partition), state in list(self.receiving.items()):
            if other == origin and state.expected is None and self._is_younger(origin, partition):
                state.expected = 1
                state.gap_since = None
                self.gaps.pop((origin, partition), None)
                self._advance(origin, partition, state)

    def _bound_hold(self, origin):
        held = sum(len(s.hold) for (o, _), s in self.receiving.items() if o == origin)
        while held > HOLD_MAX:
            oldest = min((k for k in self.gaps if k[0] == origin and self.receiving[k].hold),
                         key=lambda k: self.receiving[k].gap_since, default=None)
            if oldest is None:
                return
            self._give_up(oldest, self.receiving[oldest], "hold")
            held = sum(len(s.hold) for (o, _), s in self.receiving.items() if o == origin)

    # ── gaps ─────────────────────────────────────────────────────────────────────────────────

    def _arm_gaps(self):
        if not self.gap_timer:
            self.gap_timer = True
            self.later(20.0, self._look_at_gaps)

    def _look_at_gaps(self):
        self.gap_timer = False
        now, ask = self.now, {}
        if not self._hears() or ("mute" not in self.off and not any(l.up for l in self.links.values())):
            self.deaf_at = now
        for key in list(self.gaps):
            state = self.receiving.get(key)
            if state is None or state.gap_since is None:
                self.gaps.pop(key, None)
                continue
            origin, partition = key
            peer = self.peers.get(origin)
            is_heard = peer is not None and now - peer.heard_at < self.SILENT_AFTER
            # only time in which the origin can answer counts
            limit = GIVE_UP_AFTER if is_heard or "silent" in self.off else GIVE_UP_SILENT
            if "give_up_2s" in self.off:
                limit = 2_000.0
            waits_since = state.gap_since
            if peer is not None and "answered" not in self.off:
                waits_since = max(waits_since, peer.answered_at)     # it is answering, one after the other
            if peer is not None and "back" not in self.off:
                waits_since = max(waits_since, peer.back_at)         # while it was silent it could not
            if "deaf" not in self.off:
                waits_since = max(waits_since, self.deaf_at)         # nor could we ask
            if now - waits_since >= limit:
                self._give_up(key, state, "gap" if is_heard else "origin")
            elif now >= state.ask_at:
                state.asked += 1
                since = ASK_AT[state.asked] if state.asked < len(ASK_AT) else now - state.gap_since + ASK_EVERY
                state.ask_at = max(state.gap_since + since, now + 20.0)
                if state.expected is None:
                    self.want_positions(origin)
                else:
                    top = min(state.known, state.expected + ASK_RANGE)
                    ask.setdefault(origin, {})[partition] = [
                        s for s in range(state.expected, top + 1) if s not in state.hold]
        if "ask" not in self.off:
            for origin, wanted in ask.items():
                self.unicast(origin, ("N", self.origin, wanted, self.answer_on()))
        if self.gaps:
            self._arm_gaps()

    def _give_up(self, key, state, reason):
        """Only the first run of missing ones: what is missing behind it gets its own time."""
        origin, partition = key
        state.gap_since = None
        self.gaps.pop(key, None)
        if state.expected is None:
            if not state.hold:
                return
            state.expected = min(state.hold)     # no base: nothing is known to be missing
        elif "first_run" in self.off:
            missing = [s for s in range(state.expected, state.known + 1) if s not in state.hold]
            self.lose(reason, [(origin, partition, s) for s in missing])
            for sequence in range(state.expected, state.known + 1):
                if sequence in state.hold:
                    self.deliver(origin, partition, sequence, state.hold.pop(sequence))
            state.expected = state.known + 1
        else:
            first = min(state.hold, default=state.known + 1)
            self.lose(reason, [(origin, partition, s) for s in range(state.expected, first)])
            state.expected = first
        self._advance(origin, partition, state)

    def _hears(self):
        return [l.shard for l in self.links.values() if l.confirmed and self.now - l.heard_at < HEARS_WELL]

    def answer_on(self):
        """A shard on which we hear, each in turn: named to whoever shall answer."""
        self.ask_turn += 1
        hears = self._hears()
        return hears[self.ask_turn % len(hears)] if hears and "answer_on" not in self.off else None

    def gone(self, origin, partition, sequences):
        """The origin does not have these any more."""
        state = self.receiving.get((origin, partition))
        if state is None or state.expected is None:
            return
        for sequence in sequences:
            if sequence >= state.expected and sequence not in state.hold:
                state.hold[sequence] = None
                self.lose("gone", [(origin, partition, sequence)])
        self._advance(origin, partition, state)

    # ── to the pods ──────────────────────────────────────────────────────────────────────────

    def deliver(self, origin, partition, sequence, message):
        if message is None:
            return                               # gone: counted when the origin said so
        if message.twice is not None:
            # enter_room, leave_room: in the room's order where we need the room's partition
            room_partition, _ = message.twice
            copies = self.copies.setdefault(origin, {})
            if message.id in copies and "copies" not in self.off:
                return
            if (partition != room_partition and room_partition in self.needs
                    and room_partition not in self.joining and "room_copy" not in self.off):
                self.early_copies.setdefault(message.id, (self.now, origin, partition, sequence, message))
                return
            copies[message.id] = True
            self.early_copies.pop(message.id, None)
            if len(copies) > COPIES:
                copies.pop(next(iter(copies)))
        self.world.delivered(self, origin, partition, sequence, message)

    def deliver_early_copies(self, partition=None):
        """The sid's copy alone: the room's does not come, or we do not need the room any more."""
        for message_id, (since, origin, own_partition, sequence, message) in list(self.early_copies.items()):
            if message.twice[0] == partition or (partition is None and self.now - since > COPY_WAITS):
                del self.early_copies[message_id]
                copies = self.copies.setdefault(origin, {})
                if message_id not in copies:
                    copies[message_id] = True
                    self.world.delivered(self, origin, own_partition, sequence, message, is_copy=True)

    def forget_partition(self, partition):
        self.deliver_early_copies(partition)
        for key in [k for k in self.receiving if k[1] == partition]:
            del self.receiving[key]
            self.gaps.pop(key, None)

    def forget_origin(self, origin):
        for key in [k for k in self.receiving if k[0] == origin]:
            del self.receiving[key]
            self.gaps.pop(key, None)
        self.copies.pop(origin, None)

"""A broker's link to one shard: a publishing and a subscribing connection.

    publishing   down ─connect─▶ checking (ROLE) ─master─▶ up ─▶ suspect (oldest in flight unanswered for
                  ▲                                               1 s, or reset, or not master) ─┐
                  └──────────────────────────────────────────────────────────────────────────────┘
    subscribing  down ─connect─▶ subscribing ─all confirmed─▶ complete ─▶ stale (a heartbeat of one's own
                  ▲                                                        not back in 3 s) or reset ─┐
                  └───────────────────────────────────────────────────────────────────────────────────┘

The owner (Broker) is told by link_up, link_down, link_heard, link_subscribed, link_unsubscribed.
"""

from collections import deque
from functools import partial

import simulation

IN_FLIGHT = 16                # messages of a link; small, so that FIFOs fill
CONTROL_MAX = 500
ANSWERS_MAX = 500
SUSPECT_AFTER = 1_000.0
STALE_AFTER = 3_000.0
ROLE_EVERY = 1_000.0
BACKOFF_MIN, BACKOFF_MAX = 100.0, 5_000.0


class Link:
    def __init__(self, broker, shard):
        self.broker, self.shard = broker, shard
        self.removed = False
        self.publishing = self.subscribing = None     # Wires
        self.up = False                               # the publishing side passed its check
        self.usable_since = None
        self.fifo = deque()                           # Entries
        self.control = deque()                        # (channel, item): heartbeats, asks; before all else
        self.answers = {}                             # (channel, partition, sequence) -> item: retransmissions
        self.answer_turn = False
        self.in_flight = deque()                      # (Entry or None, sent_at)
        self.wanted = frozenset()
        self.fresh = frozenset()                      # wanted since later than the connection; do not count
        self.confirmed = frozenset()
        self.backoff = {"publishing": BACKOFF_MIN, "subscribing": BACKOFF_MIN}
        self.retried = {"publishing": False, "subscribing": False}
        self.checking_since = self.unheard_since = None
        self.role_at = 0.0
        self.heard_at = -1e9
        self.connect("publishing")
        self.connect("subscribing")

    @property
    def now(self):
        return self.broker.now

    def is_complete(self):
        return self.subscribing is not None and bool(self.wanted) and self.wanted - self.fresh <= self.confirmed

    # ── connections ──────────────────────────────────────────────────────────────────────────

    def connect(self, side):
        if self.removed or getattr(self, side) is not None:
            return
        server, path = self.broker.world.server_for(self.broker, self.shard)
        wire = server.connect(self.broker, path)
        if wire is None:
            self._retry(side)
            return
        wire.on_item = partial(self._item, side, wire)
        wire.on_broken = partial(self.broken, side, wire, True)
        setattr(self, side, wire)
        if side == "publishing":
            self.checking_since = self.now
            wire.send(simulation.UP, ("ROLE",))
        else:
            self.confirmed = self.fresh = frozenset()
            self.unheard_since = self.now
            if self.wanted:
                wire.send(simulation.UP, ("SUBSCRIBE", sorted(self.wanted)))

    def _retry(self, side, delay=None):
        if delay is None:
            delay = self.backoff[side] * (0.5 + self.broker.random.random())
            self.backoff[side] = min(self.backoff[side] * 2, BACKOFF_MAX)
        self.broker.later(delay, self.connect, side)

    def broken(self, side, wire, was_reset=False):
        if getattr(self, side) is not wire or wire is None:
            return
        wire.close()
        setattr(self, side, None)
        at_once = was_reset and not self.retried[side]     # a reset is tried again at once, once
        self.retried[side] = True
        if not self.removed:
            self._retry(side, 0.0 if at_once else None)
        if side == "publishing":
            self.up, self.checking_since = False, None
            # what was under way goes back to the head of the FIFO, in order
            back = [e for e, _ in self.in_flight
                    if e not in (None, "ROLE") and e.shard == self.shard and e.confirmed_at is None]
            self.in_flight.clear()
            self.control.clear()
            self.answers.clear()
            queued = set(map(id, self.fifo))
            self.fifo.extendleft(e for e in reversed(back) if id(e) not in queued)
            self.broker.link_down(self)
        else:
            self.confirmed = frozenset()
            self.broker.link_unsubscribed(self)

    def close(self):
        self.removed = True
        for side in ("publishing", "subscribing"):
            self.broken(side, getattr(self, side))

    def _item(self, side, wire, item):
        if wire is not self.subscribing and wire is not self.publishing:
            return
        kind = item[0]
        if kind == "MESSAGE":
            broker = self.broker
            self.heard_at = broker.simulation.now - broker.skew
            broker.link_heard(self, item[2])
        elif kind == "REPLY":
            if self.in_flight:
                entry, _ = self.in_flight.popleft()
                if entry is not None and entry.shard == self.shard and entry.confirmed_at is None:
                    self.broker.confirmed(entry)
                self.pump()
        elif kind == "SUBSCRIBED":
            was_complete = self.is_complete()
            self.confirmed |= frozenset(item[1]) & self.wanted
            self.fresh -= self.confirmed
            if self.is_complete() and not was_complete:
                self.backoff[side], self.retried[side] = BACKOFF_MIN, False
                self.unheard_since = None
            self.broker.link_subscribed(self, was_complete)
        elif kind == "ROLE":
            if not item[1] and "role" not in self.broker.off:
                self.broken(side, wire)
            elif not self.up:
                self.up, self.checking_since = True, None
                self.backoff[side], self.retried[side] = BACKOFF_MIN, False
                self.broker.link_up(self)
                self.pump()
            elif self.in_flight and self.in_flight[0][0] == "ROLE":
                self.in_flight.popleft()
                self.pump()

    # ── subscriptions ────────────────────────────────────────────────────────────────────────

    def want(self, channels):
        """Subscribes and unsubscribes the difference."""
        channels = frozenset(channels)
        if channels == self.wanted:
            return
        new, old = channels - self.wanted, self.wanted - channels
        was_empty = not self.wanted
        self.wanted = channels
        self.fresh = (self.fresh | (frozenset() if was_empty else new)) & channels
        self.confirmed -= old
        if self.subscribing is None:
            self.fresh = frozenset()
            return
        if new:
            self.subscribing.send(simulation.UP, ("SUBSCRIBE", sorted(new)))
        if old:
            self.subscribing.send(simulation.UP, ("UNSUBSCRIBE", sorted(old)))

    # ── publishing ───────────────────────────────────────────────────────────────────────────

    def publish(self, channel, item):
        """Control goes before messages. Lost with the connection: whoever needs it sends it again."""
        if self.up and len(self.control) < CONTROL_MAX:
            self.control.append((channel, item))
            self.pump()

    def answer(self, channel, partition, sequence, item):
        """A retransmission; asked for again while it waits here it is not queued twice."""
        key = (channel, partition, sequence)
        if self.up and len(self.answers) < ANSWERS_MAX and (key not in self.answers or "answers_once" in self.broker.off):
            if key in self.answers:
                key += (len(self.answers), self.now)
            self.answers[key] = item
            self.pump()

    def pump(self):
        """Control, then new messages and retransmissions in turn."""
        now, in_flight = self.now, self.in_flight
        while self.up and (self.control or self.fifo or self.answers) and len(in_flight) < IN_FLIGHT:
            entry = None
            self.answer_turn = not self.answer_turn
            if self.control:
                channel, item = self.control.popleft()
            elif self.answers and (self.answer_turn or not self.fifo):
                key = next(iter(self.answers))
                channel, item = key[0], self.answers.pop(key)
            else:
                entry = self.fifo.popleft()
                channel, item = self.broker.sending(entry)
            in_flight.append((entry, now))
            self.publishing.send(simulation.UP, ("PUBLISH", channel, item))

    def beat(self, item):
        self.publish("c", item)
        if self.up and self.unheard_since is None and self.subscribing is not None:
            self.unheard_since = self.now

    def heard_own(self):
        self.unheard_since = None

    def watch(self):
        """Every tick: probes and deadlines."""
        now = self.now
        if self.publishing is not None:
            oldest = self.in_flight[0][1] if self.in_flight else self.checking_since
            if oldest is not None and now - oldest > SUSPECT_AFTER and "suspect" not in self.broker.off:
                self.broken("publishing", self.publishing)
            elif self.up and now - self.role_at > ROLE_EVERY:
                self.role_at = now
                self.in_flight.append(("ROLE", now))
                self.publishing.send(simulation.UP, ("ROLE",))
        if (self.subscribing is not None and self.unheard_since is not None
                and now - self.unheard_since > STALE_AFTER and (self.up or not self.confirmed)
                and "stale" not in self.broker.off):
            self.broken("subscribing", self.subscribing)

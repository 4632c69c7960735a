"""Pods: one delivery ring of a broker, a position per subscriber, connections that end and return.

    ring position ─write─▶ broker's socket ─▶ pod's kernel (acknowledges) ─read─▶ pod
                            └ not acknowledged: SIOCOUTQ ┘

At the end of a connection the subscriber is parked with a position: `acked`, what the pod's kernel has
wholly acknowledged; `overlap`, what it had acknowledged a second earlier. It resumes there. SIOCOUTQ keeps
its value after a reset (measured); after an orderly end the broker writes nothing more and waits for the
acknowledgements of what is under way.
"""

import collections

WINDOW = 12                  # units in the broker's socket
RING_MAX = 100_000
REPLAY_FOR = 70_000.0
OVERLAP = 1_000.0
ACKS_FOR = 1_000.0


class DeliveryRing:
    def __init__(self, world, broker):
        self.world, self.broker = world, broker
        self.messages = []
        self.first = 0               # position of messages[0]
        self.wake = {}               # connections that wait for more

    @property
    def end(self):
        return self.first + len(self.messages)

    def add(self, message):
        self.messages.append((self.world.simulation.now, message))
        if len(self.messages) > RING_MAX:
            self.messages.pop(0)
            self.first += 1
        for connection in list(self.wake):
            connection.pump()


class Connection:
    """Both ends of one subscriber's connection."""

    def __init__(self, pod, ring, position):
        self.pod, self.ring = pod, ring
        self.simulation = pod.world.simulation
        self.position = position                 # next to write
        self.left = 0                            # units of the message at `position` still to write
        self.written = self.arrived = self.acked = 0
        self.ends = collections.deque()          # (units written when it ended, position behind it)
        self.acked_position = position
        self.acked_at = collections.deque()      # (time, position)
        self.kernel = collections.deque()        # arrived, not read: message or None (not its last unit)
        self.broker_open = self.pod_open = True
        self.cut = False                         # packets vanish
        self.writes = True
        self.free_at = [0.0, 0.0]
        self.reading = False
        self.returns_after = None                # of an end that is read to the end of file
        ring.wake[self] = True
        self.pump()

    def _travel(self, direction, function, *arguments):
        arrival = max(self.simulation.now + self.simulation.choice((0.1, 0.3, 2.0)), self.free_at[direction])
        self.free_at[direction] = arrival
        self.simulation.at(arrival - self.simulation.now, function, *arguments)

    # the broker's side

    def pump(self):
        if not self.broker_open or not self.writes or not self.ring.broker.alive:
            return
        while self.position < self.ring.end and self.written - self.acked < WINDOW:
            _, message = self.ring.messages[self.position - self.ring.first]
            if self.left == 0:
                self.left = 1 + message.id % 3
            self.left -= 1
            self.written += 1
            if self.left == 0:
                self.position += 1
                self.ends.append((self.written, self.position))
            self._travel(0, self._arrive, message if self.left == 0 else None)

    def _acked(self, units):
        if self.cut or not self.broker_open:
            return
        self.acked = max(self.acked, units)
        while self.ends and self.ends[0][0] <= self.acked:
            _, self.acked_position = self.ends.popleft()
            self.acked_at.append((self.simulation.now, self.acked_position))
        self.pump()

    def on_fin(self, units):
        """The pod has ended its side: nothing more is written, what is under way may still be acknowledged."""
        if self.cut or not self.broker_open:
            return
        self._acked(units)
        if "ack_wait" in self.ring.broker.off:
            self.park()
            return
        self.writes = False
        if self.acked == self.written:
            self.park()
        else:
            self.simulation.at(ACKS_FOR, self.park)
            self.simulation.at(5.0, self._park_when_acked)

    def _park_when_acked(self):
        if self.broker_open:
            if self.acked == self.written:
                self.park()
            else:
                self.simulation.at(5.0, self._park_when_acked)

    def on_reset(self):
        if not self.cut:
            self.park()

    def park(self):
        """Closes; the subscriber's position stays for whoever comes back under its name."""
        if not self.broker_open:
            return
        self.broker_open = False
        self.ring.wake.pop(self, None)
        position = self.acked_position if "acked" not in self.ring.broker.off else self.position
        if self.pod.tail == "overlap":
            position = min(position, self.pod.first_of(self))
            for at, acked in self.acked_at:
                if at <= self.simulation.now - OVERLAP:
                    position = max(self.pod.first_of(self), acked)
        self.pod.parked[self.ring] = (position, self.simulation.now)
        if not self.cut:
            self._travel(0, self._end_of_stream)

    # the pod's side

    def _arrive(self, message):
        if self.cut:
            return
        if not self.pod_open:
            self._travel(1, self.on_reset)       # a closed socket answers with a reset
            return
        self.arrived += 1
        self.kernel.append(message)
        # acknowledged at once, or together with later ones
        delay = self.simulation.choice((0.0, 0.0, 3.0, 40.0))
        self.simulation.at(delay, self._send_ack)
        if not self.reading:
            self.reading = True
            self.simulation.at(self.simulation.choice((0.1, 1.0, 30.0)), self._read)

    def _send_ack(self):
        if self.pod_open:
            self._travel(1, self._acked, self.arrived)

    def _read(self):
        self.reading = False
        if self.pod.connection is not self and not self.pod_open:
            return
        while self.kernel:
            message = self.kernel.popleft()
            if message is not None:
                self.pod.received.append(message)

    def _end_of_stream(self):
        self._read()
        if self.returns_after is not None:
            self.pod_open = False
            self.simulation.at(self.returns_after, self.pod._connect)


class Pod:
    """One subscriber with a name; it reads everything that its broker delivers."""

    def __init__(self, world, slot, tail):
        self.world, self.slot, self.tail = world, slot, tail
        self.received = []
        self.parked = {}
        self.started = {}            # connection -> position at which it began
        self.connection = None
        self.since = None
        self.losable, self.doublable = set(), set()
        self.is_away = False
        self._connect()

    def first_of(self, connection):
        return self.started[connection]

    def _ring(self):
        return self.world.rings[self.world.slots[self.slot].origin]

    def _connect(self):
        ring = self._ring()
        old = self.connection
        if not ring.broker.alive or ring.broker.stopped:
            self.world.simulation.at(50.0, self._connect)
            return
        if old is not None and old.ring is ring and old.broker_open:
            if old.cut:
                old.park()                       # half open: unacknowledged for long; its name is back
            else:
                self.world.simulation.at(5.0, self._connect)     # the old one is just ending
                return
        self.is_away = False
        position, at = self.parked.pop(ring, (None, None))
        if position is None:
            position = ring.end
            self.since = (ring, position)
        elif self.world.simulation.now - at > REPLAY_FOR or position < ring.first:
            self.world.reasons["ring"] += ring.end - position
            self.losable.update(m for _, m in ring.messages[max(0, position - ring.first):])
            position = ring.end
        elif "replay" in ring.broker.off:
            position = ring.end
        connection = Connection.__new__(Connection)
        self.started[connection] = position
        self.connection = connection
        connection.__init__(self, ring, position)

    def end(self, how, away):
        connection = self.connection
        if self.is_away or connection is None or not connection.broker_open:
            return
        self.is_away = True
        if how == "half":
            # it ends its writing side only, and reads to the end of file
            connection.returns_after = away
            connection._travel(1, connection.on_fin, connection.arrived)
            return
        if how == "fin":
            # shut down by the pod, which then reads what its kernel has
            connection._read()
            connection.pod_open = False
            connection._travel(1, connection.on_fin, connection.arrived)
        elif how == "reset":
            # what arrived is read, but its acknowledgement may never leave
            connection._read()
            self._may_double(connection)
            connection.pod_open = False
            connection._travel(1, connection.on_reset)
        elif how == "die":
            # acknowledged by its kernel, never read
            self.losable.update(m for m in connection.kernel if m is not None)
            connection.kernel.clear()
            self._may_double(connection)
            connection.pod_open = False
            connection._travel(1, connection.on_reset)
        else:
            connection._read()
            self._may_double(connection)
            connection.cut = True
        self.world.simulation.at(away, self._connect)

    def _may_double(self, connection):
        """Read by the pod, not known to the broker as acknowledged."""
        ring = connection.ring
        self.doublable.update(m for _, m in ring.messages[connection.acked_position - ring.first:])

    def verdict(self):
        ring = self._ring()
        if self.since is None or self.since[0] is not ring or not ring.broker.alive:
            return []
        wanted = [m for _, m in ring.messages[self.since[1] - ring.first:]]
        got = collections.Counter(self.received)
        found = []
        lost = [m.id for m in wanted if m not in got and not (m in self.losable and self.tail == "acked")]
        if lost:
            found.append(f"pod {self.slot} ({self.tail}) misses {len(lost)}: {lost[:5]}")
        doubled = [m.id for m, n in got.items() if n > 1 and m not in self.doublable]
        if doubled and self.tail == "acked":
            found.append(f"pod {self.slot} got twice: {doubled[:5]} of {len(doubled)}")
        place = {m: i for i, m in enumerate(wanted)}
        highest, seen = -1, set()
        for message in self.received:
            if message in place and message not in seen:
                seen.add(message)
                if place[message] < highest:
                    found.append(f"pod {self.slot} got {message.id} out of order")
                    break
                highest = place[message]
        return found

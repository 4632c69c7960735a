"""The clock, the processes, the wires and the Redis servers of the model: everything below the protocol.

Time is in milliseconds (float). One heap of events, one seeded random source: a run is a pure
function of its seed, so a counterexample is a number.

    Simulation   at(delay, function, *arguments): the only way that time passes
    Process      something that can be stopped (SIGSTOP): its timers wait, its sockets fill
    Path         what packets between one broker and one shard do: each direction can be blocked,
                 for old connections and for new ones
    Wire         one TCP connection: two FIFO directions with latency. It can be stalled alone and can
                 break (reset). What its end does to bytes under way is drawn at random: a prefix
                 arrives, the rest is lost
    Redis        pub/sub without memory: PUBLISH queues to those subscribed at that moment, then
                 replies; the reply says queued, not received. Killed, it loses what it had queued, a
                 part of it already on its way. Stopped, its kernel still accepts connections and bytes;
                 waking it executes them all, also those of connections that have gone since. A
                 subscriber that does not read is disconnected when too much is queued for it
"""

import random
from heapq import heappop, heappush
from operator import itemgetter

UP, DOWN = 0, 1               # towards the Redis, towards the broker
SOCKET_HOLDS = 40             # items in the kernel buffers of a process that does not read
OUTPUT_LIMIT = 600            # items more, then Redis disconnects the subscriber
NEVER = float("inf")
FIRST = itemgetter(0)


class Simulation:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now = 0.0
        self.heap = []
        self.count = 0
        self.latencies = self.random.choice((
            (0.1, 0.2, 0.3, 0.5, 2.0),
            (0.2, 1.0, 5.0),
            (1.0, 5.0, 20.0),
            (0.1, 0.1, 0.1, 0.2, 60.0)))
        self.draw_bits = self.random.getrandbits

    def at(self, delay, function, *arguments):
        self.count += 1
        heappush(self.heap, (self.now + delay, self.count, function, arguments))

    def choice(self, values):
        """random.choice, bit for bit, without its calls: one is drawn for each item on each wire."""
        draw_bits, count = self.draw_bits, len(values)
        bits = count.bit_length()
        index = draw_bits(bits)
        while index >= count:
            index = draw_bits(bits)
        return values[index]

    def run_until(self, time):
        heap, pop = self.heap, heappop
        while heap and heap[0][0] <= time:
            self.now, _, function, arguments = pop(heap)
            function(*arguments)
        self.now = time


class Process:
    """Its own events go through later(): while stopped they wait, and come in any order with its input."""

    def __init__(self, simulation):
        self.simulation = simulation
        self.alive = True
        self.stopped = False
        self.stopped_at = 0.0
        self.late = []
        self.wires = {}

    def later(self, delay, function, *arguments):
        self.simulation.at(delay, self._due, function, arguments)

    def _due(self, function, arguments):
        if not self.alive:
            return
        if self.stopped:
            self.late.append((function, arguments))
        else:
            function(*arguments)

    def pause(self):
        self.stopped = True
        self.stopped_at = self.simulation.now

    def wake(self):
        self.stopped = False
        late, self.late = self.late, []
        inputs = [wire.drain for wire in list(self.wires)]
        self.simulation.random.shuffle(inputs)
        timers_first = self.simulation.random.random() < 0.5
        self.woken(self.simulation.now - self.stopped_at)
        if not timers_first:
            for drain in inputs:
                drain()
        for function, arguments in late:
            if self.alive:
                function(*arguments)
        if timers_first:
            for drain in inputs:
                drain()

    def woken(self, pause):
        """Called first after a pause of that many milliseconds."""


class Path:
    def __init__(self):
        self.blocked = [False, False]
        self.wires = {}

    def block(self, direction):
        self.blocked[direction] = True

    def unblock(self, direction):
        self.blocked[direction] = False
        for wire in list(self.wires):
            wire.flow()


class Wire:
    def __init__(self, redis, owner, path):
        self.simulation = redis.simulation
        self.redis, self.owner, self.path = redis, owner, path
        self.on_item = self.on_broken = None    # who has it says so at once
        self.open = True                    # as the broker sees it
        self.stalled = [False, False]
        self.established = not any(path.blocked)
        self.waiting = [[], []]             # what a blocked or stalled direction keeps (TCP sends again):
        self.sent = 0                       # (its number, item), in any order
        self.free_at = [0.0, 0.0]
        self.ends_at = [NEVER, NEVER]       # what would arrive later is lost
        self.broken_untold = False
        self.inbox, self.unsent = [], []    # of a stopped owner: in the kernel; still in the Redis
        path.wires[self] = True
        owner.wires[self] = True

    def _is_blocked(self, direction):
        return self.stalled[direction] or self.path.blocked[direction] or not self.established

    def send(self, direction, item):
        self.sent += 1
        if self.stalled[direction] or self.path.blocked[direction] or not self.established:
            self.waiting[direction].append((self.sent, item))
            return
        simulation = self.simulation
        now = simulation.now
        arrival = now + simulation.choice(simulation.latencies)
        if arrival < self.free_at[direction]:
            arrival = self.free_at[direction]
        self.free_at[direction] = arrival
        simulation.count += 1
        heappush(simulation.heap, (now + (arrival - now), simulation.count, self._arrive, (direction, self.sent, item)))

    def _arrive(self, direction, number, item):
        if self.simulation.now > self.ends_at[direction]:
            return
        if self.stalled[direction] or self.path.blocked[direction] or not self.established:
            self.waiting[direction].append((number, item))
        elif direction == UP:
            # what reached the kernel of the Redis is read even when the peer has gone since
            self.redis.receive(self, item)
        elif self.open:
            if not self.owner.stopped:
                self.on_item(item)
            elif len(self.inbox) < SOCKET_HOLDS:
                self.inbox.append(item)
            else:
                self.unsent.append(item)
                if len(self.unsent) > OUTPUT_LIMIT:
                    self.redis.disconnect(self)

    def drain(self):
        """The owner has woken: what its socket holds, then what Redis had queued."""
        items, self.inbox, self.unsent = self.inbox + self.unsent, [], []
        for item in items:
            if self.open and self.owner.alive:
                self.on_item(item)
        if self.broken_untold:
            self._tell()

    def stall(self, direction):
        self.stalled[direction] = True

    def flow(self, direction=None):
        if direction is not None:
            self.stalled[direction] = False
        if not any(self.path.blocked):
            self.established = True
        for each in (UP, DOWN):
            if not self._is_blocked(each) and self.waiting[each]:
                items, self.waiting[each] = self.waiting[each], []
                for _, item in sorted(items, key=FIRST):
                    self.send(each, item)
        if self.broken_untold:
            self._tell()

    def _gone(self):
        self.path.wires.pop(self, None)
        self.owner.wires.pop(self, None)

    def close(self):
        """The broker closes: nothing more reaches it; what it sent may still reach the Redis."""
        if self.open:
            self.open = False
            self.owner.wires.pop(self, None)
            self.send(UP, ("END",))         # stays on the path while that is blocked

    def _cut(self, direction):
        """Where the end falls among what is under way."""
        now, random_source = self.simulation.now, self.simulation.random
        last = max(now, self.free_at[direction])
        self.ends_at[direction] = random_source.choice((now, last, now + (last - now) * random_source.random()))

    def reset(self):
        """From outside (a middle box, ss -K): each side hears of it if packets reach it."""
        if not self.open:
            return
        self._cut(UP)
        self.waiting[UP] = []
        self.redis.end_later(self)
        self.broken_by_redis()

    def broken_by_redis(self):
        self._cut(DOWN)
        self.waiting[DOWN], self.unsent = [], []
        self.broken_untold = True
        delay = 0.1 + max(0.0, min(self.ends_at[DOWN], self.free_at[DOWN]) - self.simulation.now)
        self.simulation.at(delay, self._tell)

    def _tell(self):
        if not self.open or not self.broken_untold or self.path.blocked[DOWN] or self.stalled[DOWN]:
            return
        if self.owner.stopped:
            return
        self.broken_untold = False
        if self.owner.alive:
            self.on_broken()
        self._gone()


class Redis:
    def __init__(self, simulation, name):
        self.simulation = simulation
        self.name = name
        self.alive = True
        self.stopped = False
        self.refuses = False      # accepts connections, then answers NOAUTH or hangs up
        self.is_master = True
        self.wires = {}
        self.channels = {}        # channel -> wires, in order of subscription
        self.backlog = []         # commands that came while stopped
        self.carried = 0

    def connect(self, owner, path):
        """A wire, or None: refused. A blocked path gives a wire that stays silent."""
        if (not self.alive or self.refuses) and not any(path.blocked):
            return None
        wire = Wire(self, owner, path)
        self.wires[wire] = True
        return wire

    def receive(self, wire, command):
        if not self.alive:
            wire.broken_by_redis()
        elif wire not in self.wires:
            return
        elif self.stopped:
            self.backlog.append((wire, command))
        else:
            self._execute(wire, command)

    def _execute(self, wire, command):
        verb = command[0]
        if verb == "PUBLISH":
            self.carried += 1
            for subscriber in list(self.channels.get(command[1], ())):
                subscriber.send(DOWN, ("MESSAGE", command[1], command[2]))
            wire.send(DOWN, ("REPLY",))
        elif verb == "ROLE":
            wire.send(DOWN, ("ROLE", self.is_master))
        elif verb == "SUBSCRIBE":
            for channel in command[1]:
                self.channels.setdefault(channel, {})[wire] = True
            wire.send(DOWN, ("SUBSCRIBED", command[1]))
        elif verb == "UNSUBSCRIBE":
            for channel in command[1]:
                self.channels.get(channel, {}).pop(wire, None)
        elif verb == "END":
            self._forget(wire)
            wire._gone()

    def _forget(self, wire):
        self.wires.pop(wire, None)
        for subscribers in self.channels.values():
            subscribers.pop(wire, None)

    def end_later(self, wire):
        """The reset arrives behind what is under way."""
        delay = max(0.0, min(wire.ends_at[UP], wire.free_at[UP]) - self.simulation.now) + 0.1
        self.simulation.at(delay, self.receive_end, wire)

    def receive_end(self, wire):
        if self.alive and wire in self.wires:
            if self.stopped:
                self.backlog.append((wire, ("END",)))
            else:
                self._forget(wire)

    def disconnect(self, wire):
        """Too much queued for a subscriber."""
        self._forget(wire)
        wire.broken_by_redis()

    def kill(self):
        """kill -9: what it had queued is gone, each peer is reset."""
        self.alive = False
        self.stopped = False
        self.backlog = []
        self.channels = {}
        wires, self.wires = self.wires, {}
        for wire in wires:
            wire.broken_by_redis()

    def start(self):
        self.alive = True

    def stop(self):
        self.stopped = True

    def go_on(self):
        self.stopped = False
        backlog, self.backlog = self.backlog, []
        for wire, command in backlog:
            self.receive(wire, command)

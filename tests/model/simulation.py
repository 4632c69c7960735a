"""The clock, the wires and the Redis servers of the model: everything below the brokers.

Time is in milliseconds (float). One heap of events, one seeded random source: a run is a pure
function of its seed, so a counterexample is a number.

    Simulation.at(delay, function, *arguments)   an event; returns a token for cancel()
    Wire      one TCP connection between a broker and a Redis: two FIFO directions with latency,
              which can stall (packets vanish without a reset) and break (reset: what is under way
              is lost, both ends hear of it)
    Redis     pub/sub without memory, as a real one: PUBLISH queues to those subscribed at that
              moment and replies; killed it loses what it had queued; stopped it does nothing and
              later goes on where it was, with the commands of connections that have gone since
"""

import heapq
import random


class Simulation:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now = 0.0
        self.heap = []
        self.count = 0
        self.cancelled = set()

    def at(self, delay, function, *arguments):
        self.count += 1
        heapq.heappush(self.heap, (self.now + delay, self.count, function, arguments))
        return self.count

    def cancel(self, token):
        if token is not None:
            self.cancelled.add(token)

    def run_until(self, time):
        while self.heap and self.heap[0][0] <= time:
            self.now, token, function, arguments = heapq.heappop(self.heap)
            if token in self.cancelled:
                self.cancelled.discard(token)
                continue
            function(*arguments)
        self.now = time


class Wire:
    """One connection. `up` carries commands to the Redis, `down` replies and pushes to the broker.

    The broker's side is told by on_item(item) and on_broken(); the Redis's side is the Redis itself."""

    UP, DOWN = 0, 1

    def __init__(self, simulation, redis, on_item, on_broken):
        self.simulation = simulation
        self.redis = redis
        self.on_item = on_item
        self.on_broken = on_broken
        self.open = True          # as the broker sees it
        self.stalled = [False, False]
        self.waiting = [[], []]   # items of a stalled direction
        self.free_at = [0.0, 0.0]
        self.generation = 0       # of what travels down: an end makes older items void
        self.cut = 0              # of what travels up: a reset may make older items void

    def send(self, direction, item):
        if self.stalled[direction]:
            self.waiting[direction].append(item)
            return
        simulation = self.simulation
        latency = simulation.random.choice((0.1, 0.2, 0.3, 0.5, 2.0))
        arrival = max(simulation.now + latency, self.free_at[direction])
        self.free_at[direction] = arrival
        mark = self.cut if direction == Wire.UP else self.generation
        simulation.at(arrival - simulation.now, self._arrive, direction, item, mark)

    def _arrive(self, direction, item, mark):
        if self.stalled[direction]:
            self.waiting[direction].append(item)
        elif direction == Wire.UP:
            # commands that reached the kernel of the Redis are read even when the peer has gone
            if mark == self.cut:
                self.redis.receive(self, item)
        elif mark == self.generation and self.open:
            self.on_item(item)

    def stall(self, direction):
        self.stalled[direction] = True

    def flow(self, direction):
        self.stalled[direction] = False
        items, self.waiting[direction] = self.waiting[direction], []
        for item in items:
            self.send(direction, item)

    def close(self):
        """The broker closes: nothing more reaches it; what it sent may still reach the Redis."""
        if self.open:
            self.open = False
            self.generation += 1
            self.send(Wire.UP, ("END",))

    def break_now(self):
        """A reset from outside: what is under way downwards is lost, upwards perhaps too."""
        if not self.open:
            return
        self.open = False
        self.generation += 1
        self.cut += self.simulation.random.random() < 0.5
        self.waiting = [[], []]
        self.stalled = [False, False]
        self.send(Wire.UP, ("END",))
        self.simulation.at(0.1, self.on_broken)


class Redis:
    def __init__(self, simulation, name):
        self.simulation = simulation
        self.name = name
        self.alive = True
        self.stopped = False
        self.refuses = False      # accepts connections, then answers NOAUTH or hangs up
        self.wires = {}
        self.channels = {}        # channel -> wires, in order of subscription
        self.backlog = []         # commands that came while stopped
        self.carried = 0

    def connect(self, on_item, on_broken):
        """A wire, or None: connection refused."""
        if not self.alive or self.refuses:
            return None
        wire = Wire(self.simulation, self, on_item, on_broken)
        self.wires[wire] = True
        return wire

    def receive(self, wire, command):
        if not self.alive or wire not in self.wires:
            return
        if self.stopped:
            self.backlog.append((wire, command))
        else:
            self._execute(wire, command)

    def _execute(self, wire, command):
        verb = command[0]
        if verb == "END":
            self._forget(wire)
        elif verb == "SUBSCRIBE":
            for channel in command[1]:
                self.channels.setdefault(channel, {})[wire] = True
            wire.send(Wire.DOWN, ("SUBSCRIBED", command[1]))
        elif verb == "UNSUBSCRIBE":
            for channel in command[1]:
                self.channels.get(channel, {}).pop(wire, None)
        elif verb == "PUBLISH":
            self.carried += 1
            for subscriber in list(self.channels.get(command[1], {})):
                subscriber.send(Wire.DOWN, ("MESSAGE", command[1], command[2]))
            wire.send(Wire.DOWN, ("REPLY", command[3]))
        elif verb == "PING":
            wire.send(Wire.DOWN, ("PONG",))

    def _forget(self, wire):
        self.wires.pop(wire, None)
        for subscribers in self.channels.values():
            subscribers.pop(wire, None)

    def kill(self):
        """kill -9: everything it had queued is gone, each peer is reset."""
        self.alive = False
        self.stopped = False
        self.backlog = []
        self.channels = {}
        wires, self.wires = self.wires, {}
        for wire in wires:
            wire.break_now()

    def start(self):
        self.alive = True

    def stop(self):
        self.stopped = True

    def go_on(self):
        self.stopped = False
        backlog, self.backlog = self.backlog, []
        for wire, command in backlog:
            self.receive(wire, command)

"""Pods that count who comes when, and clients that come back at once when their WebSocket is closed.

    Pod (scripted)  ◀── edge ◀── Rider: one WebSocket after the other, and a diary

As a program, `riders.py NAME`: a pod in a process of its own, which may be killed; it prints its port.
"""
import struct
import subprocess
import sys
import threading
import time

from daemons import PATIENCE, wait_until
from discovery_tools import Pod as PollPod
from fakes import Client, frame, switching

CLOSE = 8
WEBSOCKET = b"/socket.io/?EIO=4&transport=websocket"


class Pod(PollPod):
    """Takes WebSockets too: says its name, sends what `stream` gives, then echoes; keeps the Closes it gets."""

    def __init__(self, name, stream=None, port=0):
        self.closes = []
        self.arrivals = []   # moments of sessions that begin as WebSockets
        self.stream = stream
        super().__init__(name, port)

    def _serve(self, wire):
        wire.sock.settimeout(600)
        while True:
            line, fields = wire.head()
            if "upgrade" not in fields:
                wire.body(fields)
                wire.send(self._answer(line.split(" ")[1]))
                continue
            if "sid=" not in line:
                with self._lock:
                    self.handshakes += 1
                    self.arrivals.append(time.monotonic())
            wire.send(switching(fields), frame(b"4" + self.name.encode(), 1))
            if self.stream:
                threading.Thread(target=self._talk, args=(wire,), daemon=True).start()
            self._listen(wire)
            return

    def _talk(self, wire):
        try:
            self.stream(wire)
        except OSError:
            pass

    def _listen(self, wire):
        while True:
            mask_bit = wire.take(2)
            wire.buffer = mask_bit + wire.buffer
            opcode, payload = wire.frame()
            if opcode == CLOSE:
                self.closes.append((struct.unpack(">H", payload[:2])[0], mask_bit[1] >= 128))
                return
            if not self.stream:
                wire.send(frame(payload, opcode))


class MortalPod:
    """A Pod in a process of its own."""

    def __init__(self, name):
        self.name = name
        self.process = subprocess.Popen([sys.executable, __file__, name], stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()
        assert self.address

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    close = kill


class Rider:
    """A client with one WebSocket after the other."""

    def __init__(self, port, target=WEBSOCKET, comes_back=True):
        self.port = port
        self.target = target
        self.comes_back = comes_back
        self.pods = []       # whom it has been on
        self.closed = []     # (moment, code or None)
        self.trouble = None
        self.client = None
        self.is_over = False
        self.frames = []
        threading.Thread(target=self._ride, daemon=True).start()

    def _ride(self):
        try:
            while not self.is_over:
                self._once()
                if not self.comes_back:
                    return
                self.target = WEBSOCKET
        except Exception as error:
            if not self.is_over:
                self.trouble = repr(error)

    def _once(self):
        self.client = Client(self.port, timeout=120)
        self.client.upgrade(self.target)
        status, _, body = self.client.response()
        assert status == 101, (status, body)
        self.pods.append(self.client.frame()[1][1:].decode())
        code = None
        try:
            while code is None:
                opcode, payload = self.client.frame()
                if opcode == CLOSE:
                    code = struct.unpack(">H", payload)[0]
                else:
                    self.frames.append(payload)
        except EOFError:
            pass
        self.closed.append((time.monotonic(), code))
        if code is not None:
            assert self.client.rest() == b"", "nothing behind the Close"
        self.client.close()

    def end(self):
        self.is_over = True
        if self.client:
            self.client.close()


def ride(riders, daemon, pods, each):
    """Riders until `each` are on the first pod; those."""
    for _ in range(each * len(pods) * 4):
        group = [Rider(daemon.port) for _ in range(10)]
        riders += group
        wait_until(lambda: all(r.pods or r.trouble for r in group), "they are connected")
        assert not [r.trouble for r in group if r.trouble]
        first = [r for r in riders if r.pods[0] == pods[0].name]
        if len(first) >= each:
            return first
    raise AssertionError("the first pod does not get its share")


def require_spread(moments, window, parts=5):
    """Each fifth of the window has its share within a factor of two; moments count from the window's begin."""
    counts = [0] * parts
    for moment in moments:
        counts[min(parts - 1, max(0, int(moment * parts / window)))] += 1
    fair = len(moments) / parts
    assert all(fair / 2 <= count <= fair * 2 for count in counts), counts
    assert max(moments) < window + 2 * PATIENCE


def bursts(moments, seconds):
    """The most moments that are within any stretch of so many seconds."""
    moments = sorted(moments)
    return max((sum(1 for other in moments[i:] if other < moment + seconds) for i, moment in enumerate(moments)), default=0)


if __name__ == "__main__":
    print(Pod(sys.argv[1]).address, flush=True)
    threading.Event().wait()

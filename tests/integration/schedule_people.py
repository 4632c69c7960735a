"""Who stands at the brokers while a schedule is played: publishers, and pods whose connections or interests come and go.

    Publisher       numbered messages at a steady pace, and bursts, to rooms of flask-socketio or to channels of their own
    ReturningPod    one subscriber by name, whose connection ends in each way of the model, and returns
    ChoosyPod       a subscriber of some channels, which come and go
"""
import collections
import ctypes
import json
import queue
import socket
import struct
import threading
import time

from daemons import is_readable
from resp_client import HEARTBEAT, Error, Raw, command, emit

PACE = 0.02         # seconds between two messages of a publisher
ACKS_WITHIN = 0.3   # what a pod has read is acknowledged by then
CUT_AT_LEAST = 0.7  # no pod notices sooner that its path is cut, and no broker could know
JOINED_WITHIN = 0.9  # a SUBSCRIBE that was answered later (after 1 s) may not be joined yet


class Publisher:
    """Of one broker of a slot, while that broker lives. `channels`: it publishes to these, else to `rooms`."""

    def __init__(self, broker, name, rooms, has_channels=False):
        self.broker, self.name, self.rooms, self.has_channels = broker, name, rooms, has_channels
        self.accepted = []  # (room, number, when it was sent), of those that were answered
        self.bursts = queue.SimpleQueue()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        number = 0
        try:
            with Raw(self.broker.port) as raw:
                while not self.stopping.is_set():
                    try:
                        count = self.bursts.get(timeout=PACE)
                    except queue.Empty:
                        count = 1
                    for _ in range(count):
                        room = self.rooms[number % len(self.rooms)]
                        channel = room if self.has_channels else "flask-socketio"
                        sent_at = time.monotonic()
                        if isinstance(raw.call("PUBLISH", channel, emit(room, [self.name, number])), int):
                            self.accepted.append((room, number, sent_at))
                        number += 1
        except (EOFError, OSError):
            pass

    def stop(self):
        self.stopping.set()
        self.thread.join()


def drop_all_that_comes(sock):
    """From now on what comes for this socket is dropped before it is acknowledged, as if the path were cut."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(program)))  # SO_ATTACH_FILTER


def can_cut_paths():
    """A filter of one's own socket needs no privilege; a sandbox may lack it."""
    with socket.socket() as sock:
        try:
            drop_all_that_comes(sock)
        except OSError:
            return False
    return True


def scan(data):
    """The replies that are whole, and what follows them."""
    found, at = [], 0

    def line():
        nonlocal at
        end = data.index(b"\r\n", at)
        text, at = data[at:end], end + 2
        return text[:1], text[1:]

    def reply():
        nonlocal at
        kind, rest = line()
        if kind == b"*":
            return [reply() for _ in range(int(rest))]
        if kind == b"$":
            at += int(rest) + 2
            if at > len(data):
                raise ValueError
            return bytes(data[at - int(rest) - 2:at - 2])
        return Error(rest.decode()) if kind == b"-" else rest.decode()

    while True:
        begun = at
        try:
            found.append(reply())
        except ValueError:
            return found, data[begun:]


class ReturningPod:
    """Reads in a thread of its own. `received`: (room, [publisher, number]), over all of its connections."""

    def __init__(self, port, name):
        self.port, self.name = port, name
        self.received = []
        self.ends = 0
        self.times = []       # of the received ones
        self.losable, self.doublable = set(), set()
        self.lock = threading.RLock()
        self.socket, self.rest = None, b""
        self.is_away, self.returns_after, self.is_over = True, None, False
        self.is_subscribed = threading.Event()
        self.cut, self.timers = [], []
        self._connect()
        self.thread = threading.Thread(target=self._read_on, daemon=True)
        self.thread.start()
        assert self.is_subscribed.wait(20)

    def _connect(self):
        with self.lock:
            if self.is_over:
                return
            self.socket = socket.create_connection(("127.0.0.1", self.port), 5)
            self.socket.sendall(command("CLIENT", "SETNAME", self.name) + command("SUBSCRIBE", "flask-socketio"))
            self.socket.setblocking(False)
            self.rest, self.is_away = b"", False

    def _return_in(self, seconds):
        self.timers.append(threading.Timer(seconds, self._connect))
        self.timers[-1].start()

    @staticmethod
    def _key(payload):
        message = json.loads(payload)
        return message["room"], message["data"][0]

    def _read(self):
        """What the kernel has; False: the connection has ended."""
        while True:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            replies, self.rest = scan(self.rest + data)
            for each in replies:
                if isinstance(each, list) and each[0] == b"message" and each[1] == b"flask-socketio":
                    if each[2] == HEARTBEAT:
                        continue
                    self.received.append(self._key(each[2]))
                    self.times.append(time.monotonic())
                elif isinstance(each, list):
                    self.is_subscribed.set()

    def _read_on(self):
        while not self.is_over:
            sock = self.socket
            try:
                if sock is None or not is_readable(sock, 0.05):
                    time.sleep(0.002)
                    continue
            except ValueError:  # closed by a deed just now
                time.sleep(0.002)
                continue
            with self.lock:
                if sock is not self.socket or sock.fileno() < 0 or self._read():
                    continue
                sock.close()
                if self.returns_after is not None:
                    self._return_in(self.returns_after)
                    self.returns_after = None
                elif not self.is_away and not self.is_over:  # not by a deed of ours
                    self.is_away = True
                    self._return_in(0.01)

    def _may_double(self):
        since = time.monotonic() - ACKS_WITHIN
        for index in range(len(self.received) - 1, -1, -1):
            if self.times[index] < since:
                break
            self.doublable.add(self._as_key(self.received[index]))

    @staticmethod
    def _as_key(received):
        room, (name, number) = received
        return room, name, number

    def _reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def end(self, how, away):
        """The ways of the model: fin, half, reset, die, cut."""
        with self.lock:
            if self.is_away or self.socket.fileno() < 0:
                return
            self.is_away = True
            self.ends += 1
            if how == "half":
                self.returns_after = away
                self.socket.shutdown(socket.SHUT_WR)
                return
            if how == "fin":
                try:
                    self.socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                deadline = time.monotonic() + 5
                while self._read():
                    assert is_readable(self.socket, deadline - time.monotonic()), "the end is not there"
                self.socket.close()
            elif how == "die":
                self._die()
            else:
                drop_all_that_comes(self.socket)
                self._read()
                self._may_double()
                if how == "reset":
                    self._reset()
                else:
                    self.cut.append(self.socket)  # its end would be heard
                    self.socket = None
                    away = max(away, CUT_AT_LEAST)
            self._return_in(away)

    def _die(self):
        """What its kernel has acknowledged, and it has not read, is lost with it."""
        time.sleep(0.03)
        drop_all_that_comes(self.socket)
        count, length = len(self.received), len(self.times)
        self._read()
        self.losable.update(map(self._as_key, self.received[count:]))
        del self.received[count:], self.times[length:]
        self._may_double()
        self._reset()

    def verdict(self, wanted, may_lose):
        """`wanted`: {(room, publisher): numbers}."""
        found = []
        counts = collections.Counter(self._as_key(each) for each in self.received)
        lost = [(room, name, number) for (room, name), numbers in wanted.items() for number in numbers
                if (room, name, number) not in counts and not (may_lose and (room, name, number) in self.losable)]
        if lost:
            found.append(f"{self.name}: {len(lost)} lost, {lost[:3]}")
        doubled = [key for key, count in counts.items() if count > 1 and key not in self.doublable]
        if doubled and may_lose:
            found.append(f"{self.name}: {len(doubled)} doubled, {doubled[:3]}")
        highest = {}
        for room, name, number in dict.fromkeys(map(self._as_key, self.received)):
            if number < highest.get((room, name), -1):
                found.append(f"{self.name}: out of order, {room, name, number}")
                break
            highest[room, name] = number
        return found

    def close(self):
        with self.lock:
            self.is_over = True
        for timer in self.timers:
            timer.cancel()
        self.thread.join()
        for sock in (self.socket, *self.cut):
            if sock is not None:
                sock.close()


class ChoosyPod:
    """`spans`: per channel [since when it is promised (None: not at all), until when]."""

    def __init__(self, port, channels):
        self.raw = Raw(port, timeout=None)
        self.received = []
        self.wanted, self.asked_at = set(), collections.defaultdict(collections.deque)
        self.spans = collections.defaultdict(list)
        self.late = 0
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        for channel in channels:
            self.need(channel)

    def need(self, channel):
        if channel not in self.wanted:
            self.wanted.add(channel)
            self.spans[channel].append([None, None])
            self.asked_at[channel].append((time.monotonic(), self.spans[channel][-1]))
            self.raw.send(command("SUBSCRIBE", channel))

    def leave(self, channel):
        if channel in self.wanted:
            self.wanted.discard(channel)
            self.spans[channel][-1][1] = time.monotonic()
            self.raw.send(command("UNSUBSCRIBE", channel))

    def _read(self):
        try:
            while True:
                kind, channel, payload = self.raw.read()
                if kind == b"message" and payload != HEARTBEAT:
                    message = json.loads(payload)
                    self.received.append((message["room"], message["data"][0]))
                elif kind == b"subscribe":
                    now = time.monotonic()
                    asked_at, span = self.asked_at[channel.decode()].popleft()
                    if now - asked_at < JOINED_WITHIN:
                        span[0] = now
                    else:
                        self.late += 1
        except (EOFError, OSError, ValueError):
            pass

    def is_promised(self, channel, sent_at):
        """Sent when its last subscription was answered, which has not ended."""
        spans = self.spans[channel]
        return bool(spans) and spans[-1][1] is None and spans[-1][0] is not None and sent_at >= spans[-1][0]

    def close(self):
        self.raw.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.raw.close()

"""A Redis client of a few lines, for tests that need to see or send exact bytes; and pods made of it.

    raw = Raw(port); raw.call("PING") == "PONG"; raw.send(b"…"); raw.read()
    pod = Pod(port, channel); …; pod.received      a subscriber that reads in a thread of its own
"""
import collections
import json
import socket
import threading


# What the broker sends to idle pods, on their channel; no message.
HEARTBEAT = b"{}"


class Error(str):
    """An error reply."""


class Push(list):
    """A RESP3 push."""


class Raw:
    """One connection; replies are str (simple), Error, int, bytes, list, dict, Push or None."""

    def __init__(self, port, timeout=20, receive_buffer=None, host="127.0.0.1", source=None, tls=None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((host, port))
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self.file = self.socket.makefile("rb", 65536)

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.socket.sendall(data)

    def call(self, *words):
        self.send(command(*words))
        return self.read()

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Error(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"_":
            return None
        if kind in b"$=":
            if int(rest) < 0:
                return None
            data = self.file.read(int(rest) + 2)
            if len(data) != int(rest) + 2:
                raise EOFError("the connection ended")
            return data[:-2]
        if kind in b"*>~":
            return (Push if kind == b">" else list)(self.read() for _ in range(int(rest)))
        if kind == b"%":
            return {self.read(): self.read() for _ in range(int(rest))}
        raise AssertionError(f"not a reply: {line!r}")


def command(*words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)])


def emit(room, data, namespace="/"):
    """A message as python-socketio >= 5.15 publishes it."""
    return json.dumps({"method": "emit", "event": "said", "data": [data], "binary": False, "namespace": namespace,
                       "room": room, "skip_sid": None, "callback": None, "host_id": "0" * 32}).encode()


class Pod:
    """A subscriber: what came on its channels, in order, as (room, data)."""

    def __init__(self, port, *channels, name=None):
        self.raw = Raw(port, timeout=None)
        if name:
            assert self.raw.call("CLIENT", "SETNAME", name) == "OK"
        self.received = []
        self.ended = False
        self.raw.send(command("SUBSCRIBE", *(channels or ("flask-socketio",))))
        for _ in channels or (0,):
            assert self.raw.read()[0] == b"subscribe"
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while True:
                kind, channel, payload = self.raw.read()
                if kind == b"message" and payload != HEARTBEAT:
                    message = json.loads(payload)
                    self.received.append((message["room"], message["data"][0]))
        except (EOFError, OSError, ValueError):
            self.ended = True

    def by_room(self):
        rooms = collections.defaultdict(list)
        for room, data in list(self.received):
            rooms[room].append(data)
        return rooms

    def close(self):
        self.raw.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.raw.close()


def publish_all(port, publisher, rooms, count, depth=8, first=0, channel="flask-socketio"):
    """One publisher's `count` messages to each room, `depth` in flight; data is [publisher, number]."""
    orders = [(room, number) for number in range(first, first + count) for room in rooms]
    with Raw(port) as raw:
        waiting = 0
        for room, number in orders:
            raw.send(command("PUBLISH", channel, emit(room, [publisher, number])))
            waiting += 1
            if waiting == depth:
                assert isinstance(raw.read(), int)
                waiting -= 1
        for _ in range(waiting):
            reply = raw.read()
            assert isinstance(reply, int) and not isinstance(reply, Error), reply


def check_complete(pod, publishers, rooms, count, first=0):
    """Every message once, in the order of each publisher in each room."""
    for room in rooms:
        got = pod.by_room()[room]
        for publisher in publishers:
            numbers = [number for who, number in got if who == publisher]
            assert numbers == list(range(first, first + count)), f"{publisher} in {room}"
        assert len(got) == count * len(publishers), room

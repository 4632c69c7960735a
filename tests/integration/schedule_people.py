"""Who stands at the brokers while a schedule is played: publishers, and pods whose interests come and go.

    Publisher       numbered messages at a steady pace, and bursts, to rooms of flask-socketio or to channels of their own
    ChoosyPod       a subscriber of some channels, which come and go
"""
import collections
import json
import queue
import socket
import threading
import time

from resp_client import Raw, command, emit

PACE = 0.02          # seconds between two messages of a publisher
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
                if kind == b"message":
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

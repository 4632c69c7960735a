"""Subscribers with a name, by redis-py or by hand, and a network of their own, for tests of pods that go away and return."""
import ctypes
import json
import os
import socket
import subprocess
import threading

import pytest
import redis
from resp_client import HEARTBEAT, Raw, emit


def number_of(payload):
    """A pod that never published gets bare data."""
    data = json.loads(payload)["data"]
    return data[0] if isinstance(data, list) else data


class Listener:
    """A redis-py subscriber, as a pod has it, that reconnects by itself."""

    def __init__(self, url):
        self.client = redis.Redis.from_url(url)
        self.pubsub = self.client.pubsub(ignore_subscribe_messages=True)
        self.pubsub.subscribe("flask-socketio")
        self.received = []
        self.reconnects = 0
        self.stopping = False
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self):
        while not self.stopping:
            try:
                message = self.pubsub.get_message(timeout=0.2)
                if message is not None and message["data"] != HEARTBEAT:
                    self.received.append(number_of(message["data"]))
            except (redis.ConnectionError, OSError, ValueError):
                self.reconnects += 1

    def shut_down(self):
        """The connection ends under the pod (and under its TLS, which is not told), as a middlebox or a node that loses
        it would do it."""
        try:
            with socket.socket(fileno=os.dup(self.pubsub.connection._sock.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
        except (AttributeError, OSError):
            pass

    def close(self):
        self.stopping = True
        self.thread.join()
        self.pubsub.close()


class Pod:
    """One connection that subscribes under a name."""

    def __init__(self, port, name="pod", receive_buffer=None, host="127.0.0.1", source=None):
        self.raw = Raw(port, timeout=5, receive_buffer=receive_buffer, host=host, source=source)
        if name:
            assert self.raw.call("CLIENT", "SETNAME", name) == "OK"
        assert self.raw.call("SUBSCRIBE", "flask-socketio")[0] == b"subscribe"

    def read(self, count):
        numbers = []
        while len(numbers) < count:
            _, _, payload = self.raw.read()
            if payload != HEARTBEAT:
                numbers.append(number_of(payload))
        return numbers


def emit_all(port, first, end):
    with Raw(port) as raw:
        for number in range(first, end):
            raw.call("PUBLISH", "flask-socketio", emit("r", number))


def parked(broker):
    return broker.metrics().get("sidrail_broker_parked_subscribers")


CLONE_NEWNET = 0x40000000


def in_own_network(work):
    """Runs work() in a thread with a network of its own; what it starts is in it as well. Skips where that is not allowed."""
    outcome = []

    def run():
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            outcome.append(None)
            return
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            work()
            outcome.append(True)
        except BaseException as error:  # handed on to the test
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if outcome[0] is None:
        pytest.skip("this user may not make a network namespace")
    if outcome[0] is not True:
        raise outcome[0]

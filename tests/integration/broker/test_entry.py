"""A client is put into a room from afar, and what is published to the room next reaches it, though its pod's broker received
nothing of the room before: pods with a client manager, which get only what their rooms need."""
import json
import socket
import threading
import time

import pytest
from broker_tools import wait_up
from daemons import figure, wait_until
from resp_client import HEARTBEAT, Raw, command, emit

HOST = "ab" * 16
GREETING = f"flask-socketio.sidrail.{HOST}"


class Manager:
    """What a client manager does on its connection, by hand: one client, which is in its own room only."""

    def __init__(self, port, sid):
        self.raw = Raw(port, timeout=None)
        self.received = []
        self.joined = set()
        self.sequence = 0
        self.raw.send(command("SUBSCRIBE", GREETING, "flask-socketio"))
        while True:
            word = self.raw.read()
            if word[0] == b"message" and word[2].startswith(b"hello 1 "):
                break
        self.raw.send(command("SIDRAIL", "HELLO", "1", "echo", "auto"))
        self.raw.send(command("SIDRAIL", "ROOMS", "1", "0", "/", f"s:{sid}"))
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while True:
                kind, channel, payload = self.raw.read()
                if kind != b"message":
                    continue
                if channel == GREETING.encode():
                    self.joined.add(payload)
                    continue
                if payload == HEARTBEAT:
                    continue
                message = json.loads(payload)
                self.received.append((message["method"], message["room"]))
                if message["method"] == "enter_room":
                    self.sequence += 1
                    self.raw.send(command("SIDRAIL", "JOIN", "1", self.sequence, "/", f"s:{message['room']}"))
        except (EOFError, OSError, ValueError):
            pass

    def close(self):
        self.raw.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()


@pytest.mark.parametrize("count, local_fast", [(1, False), (2, False), (1, True), (2, True)])
def test_what_follows_a_remote_enter_room_reaches_the_client(redis_server, broker, count, local_fast):
    servers = redis_server(2)
    brokers = [broker(servers, config={"delivery": {"local_fast": local_fast}}) for _ in range(count)]
    wait_up(*brokers)
    manager = Manager(brokers[-1].port, "S")
    wait_until(lambda: b"joined 1 0" in manager.joined, "its rooms are known")
    rooms = [f"room {i}" for i in range(figure(20, 200))]
    with Raw(brokers[0].port) as raw:
        if count > 1:  # the other broker hears that a manager is there
            time.sleep(1.2)
        for room in rooms:  # both in one go: the emit is there before the pod has heard of the entry
            entry = {"method": "enter_room", "sid": "S", "room": room, "namespace": "/", "host_id": "0" * 32}
            raw.send(command("PUBLISH", "flask-socketio", json.dumps(entry)) +
                     command("PUBLISH", "flask-socketio", emit(room, 1)))
            assert isinstance(raw.read(), int) and isinstance(raw.read(), int)
    late = brokers[0].metrics().get("sidrail_broker_entries_late_total")  # a busy machine: 50 ms are over
    wait_until(lambda: len(manager.received) >= 2 * len(rooms) - late, "all is there", 10)
    entered = [room for method, room in manager.received if method == "enter_room"]
    told = [room for method, room in manager.received if method == "emit"]
    assert entered == rooms and late <= len(rooms) / 2
    assert len(set(told)) == len(told) and told == [room for room in rooms if room in told]
    manager.close()

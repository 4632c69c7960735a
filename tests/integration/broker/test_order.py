"""What stands in one order at all subscribers: a room, rooms of one {tag}, a namespace, everything; and what travels on two
partitions or names several rooms comes once."""
import json
import threading
import time

import pytest
from daemons import figure, http_get, wait_until
from resp_client import HEARTBEAT, Pod, Raw, emit


class Listener(Pod):
    """Keeps everything as it came: (method, namespace, room, data)."""

    def _read(self):
        try:
            while True:
                kind, channel, payload = self.raw.read()
                if kind == b"message" and payload != HEARTBEAT:
                    message = json.loads(payload)
                    data = message.get("data") or [message.get("number")]
                    self.received.append((message["method"], message["namespace"], message["room"], data[0]))
        except (EOFError, OSError, ValueError):
            self.ended = True


@pytest.fixture
def brokers_of(redis_server, broker):
    """Two brokers over three shards; of each the port, when they hear each other."""
    servers = redis_server(3)

    def make(order):
        shards = [{"name": name, "url": server.url} for name, server in zip("abc", servers)]
        made = [broker(config={"shards": shards, "delivery": {"order": order}}) for _ in range(2)]
        for one in made:
            wait_until(lambda one=one: one.status()["live_brokers"] == 1, "it hears the other")
            wait_until(lambda one=one: {s["state"] for s in one.status()["shards"]} == {"up"}, "its shards are up")
        return made

    return make


def publish_everywhere(brokers, places, rounds):
    """Two publishers at each broker, each to every (namespace, room)."""
    def publish(port, name):
        with Raw(port) as raw:
            for number in range(rounds):
                for namespace, room in places:
                    assert isinstance(raw.call("PUBLISH", "flask-socketio", emit(room, [name, number], namespace)), int)

    threads = [threading.Thread(target=publish, args=(one.port, f"{one.name}.{i}")) for one in brokers for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(threads) * len(places) * rounds


def listen_and_publish(brokers, places, rounds):
    """What each of four subscribers at two brokers got."""
    pods = [Listener(one.port) for one in brokers for _ in range(2)]
    total = publish_everywhere(brokers, places, rounds)
    for pod in pods:
        wait_until(lambda pod=pod: len(pod.received) >= total, "all is there", 30)
    time.sleep(0.3)
    for pod in pods:
        pod.close()
        assert len(pod.received) == len({json.dumps(m) for m in pod.received}) == total
    return [pod.received for pod in pods]


PLACES = [(namespace, room) for namespace in ("/", "/chat") for room in ("a", "b", "c", None, ["a", "b"])]


def test_with_order_total_all_subscribers_see_one_sequence(brokers_of):
    first, *others = listen_and_publish(brokers_of("total"), PLACES, figure(60, 600))
    for other in others:
        assert other == first


def test_with_order_namespace_each_namespace_has_one_sequence(brokers_of):
    first, *others = listen_and_publish(brokers_of("namespace"), PLACES, figure(60, 600))
    for namespace in ("/", "/chat"):
        for other in others:
            assert [m for m in other if m[1] == namespace] == [m for m in first if m[1] == namespace]


def test_rooms_of_one_tag_have_one_sequence(brokers_of):
    places = [("/", room) for room in ("doc:{42}:text", "doc:{42}:cursor", "{42}", "42")]
    first, *others = listen_and_publish(brokers_of("room"), places, figure(60, 600))
    for other in others:
        assert other == first


def test_a_list_of_rooms_and_an_entry_come_once_and_an_entry_stands_before_what_follows_it(brokers_of):
    brokers = brokers_of("room")
    pods = [Listener(one.port) for one in brokers]
    rounds = figure(100, 1000)
    with Raw(brokers[0].port) as raw:
        for number in range(rounds):
            room, sid = f"room {number}", f"sid {number}"
            for method in ("enter_room", "leave_room"):
                entry = {"method": method, "sid": sid, "room": room, "namespace": "/", "host_id": "0" * 32,
                         "number": number}
                raw.send(b"*3\r\n$7\r\nPUBLISH\r\n$14\r\nflask-socketio\r\n$%d\r\n%s\r\n"
                         % (len(json.dumps(entry)), json.dumps(entry).encode()))
                payload = emit(room, number)
                raw.send(b"*3\r\n$7\r\nPUBLISH\r\n$14\r\nflask-socketio\r\n$%d\r\n%s\r\n" % (len(payload), payload))
            for _ in range(4):
                assert isinstance(raw.read(), int)
        raw.call("PUBLISH", "flask-socketio", emit(["room 1", "room 2", "room 3"], "all"))
    for pod in pods:
        wait_until(lambda pod=pod: len(pod.received) >= 4 * rounds + 1, "all is there", 30)
        time.sleep(0.3)
        pod.close()
        assert len(pod.received) == 4 * rounds + 1
        for number in range(rounds):
            told = [m[0] for m in pod.received if m[2] == f"room {number}"]
            assert told == ["enter_room", "emit", "leave_room", "emit"]


def test_brokers_of_different_order_do_not_route_together(redis_server, broker):
    server = redis_server()
    shards = [{"name": "a", "url": server.url}]
    first = broker(config={"shards": shards})
    wait_until(lambda: first.status()["shards"][0]["state"] == "up", "its shard is up")
    second = broker(config={"shards": shards, "delivery": {"order": "total"}}, wait=False)
    wait_until(lambda: second.status()["outvoted"], "it cannot agree")
    status, why = http_get(f"{second.admin}/readyz")
    assert status == 503 and "order (room, here total)" in why, why
    assert second.status()["shards"][0]["state"] == "starting"
    assert http_get(f"{first.admin}/readyz")[0] == 200

"""Strangers who may PUBLISH on the shards, and a cluster without cluster.key_file: whatever they send, brokers go on, nobody is
silenced, memory stays bounded, and no pod gets a pickle that makes Python call something."""
import pickle
import random
import threading
import time

import pytest
from broker_tools import wait_up
from daemons import figure, http_get, sanitizer, wait_until
from forgery import (ASK, CONTROL_CHANNEL, GONE, JOINED, PICKLE, POSITIONS, WHERE, control, envelope, facts, heartbeat,
                     origin_of, own_channel, partition_channel, positions, ranges)
from resp_client import Pod, Raw, emit

FAR = (2**64 - 2, 2**63, 2**40, 2**24 - 3, 5000)


class Calls:
    def __reduce__(self):
        return print, ("code that ran",)


def channel_of(spy, raw):
    """On which partition `raw` publishes to room "r"."""
    raw.call("PUBLISH", "flask-socketio", emit("r", "first"))
    return int(spy.get_message(timeout=5)["channel"][-4:], 16)


def test_no_number_silences_a_live_broker(redis_server, broker):
    server = redis_server()
    brokers = [broker([server], config={"log": {"level": "info"}}) for _ in range(2)]
    wait_up(*brokers)
    victim, other = origin_of(brokers[0]), origin_of(brokers[1])
    pod = Pod(brokers[1].port)
    with server.client() as client, Raw(brokers[0].port) as raw, client.pubsub() as spy:
        spy.psubscribe("sidrail1:*:p:*")
        spy.get_message(timeout=5)
        place = channel_of(spy, raw)
        for number in (2**64 - 1, 2**55, 2**21):
            client.publish(CONTROL_CHANNEL, heartbeat(victim, number, tails=[(place, far) for far in FAR]))
        for number in FAR:
            client.publish(partition_channel(place), envelope(place, victim, number, emit("r", "forged")))
            client.publish(own_channel(other), control(POSITIONS, victim, number, number.to_bytes(8, "little") + facts()
                                                       + positions([(place, number)])))
        for number in range(200, 210):  # more than is held
            client.publish(partition_channel(place), envelope(place, victim, number, b"x" * 2**20))
        client.publish(own_channel(other), control(GONE, victim, 2**30, ranges([(place, 2, 200)])))
        began = time.monotonic()
        for i in range(20):
            raw.call("PUBLISH", "flask-socketio", emit("r", i))
        wait_until(lambda: len(pod.received) >= 21, "real messages came", 5)
        assert time.monotonic() - began < 3
        # the count of giving up begins when nothing real comes any more: the origin denies it first
        wait_until(lambda: brokers[1].status()["gaps_open"] == 0, "what was forged is forgotten", 10)
        raw.call("PUBLISH", "flask-socketio", emit("r", "last"))
        wait_until(lambda: len(pod.received) >= 22, "and it is heard", 5)
    assert [data for _, data in pod.received] == ["first", *range(20), "last"]
    assert brokers[1].status()["live_brokers"] == 1
    assert brokers[1].metrics().get("sidrail_broker_implausible_total", reason="number") == 3
    assert brokers[1].metrics().get("sidrail_broker_implausible_total", reason="sequence") > 3


def test_no_pod_gets_a_pickle_that_calls_something(redis_server, broker):
    server = redis_server()
    b = broker([server])
    wait_up(b)
    got = []
    with server.client() as client, Raw(b.port) as raw:
        raw.call("SUBSCRIBE", "flask-socketio")
        message = {"method": "emit", "event": "e", "data": 1, "namespace": "/", "room": "r", "skip_sid": None,
                   "callback": None, "host_id": "0" * 32}
        stranger = 77
        client.publish(CONTROL_CHANNEL, heartbeat(stranger, 1))
        payloads = [pickle.dumps({**message, "data": Calls()}), pickle.dumps(Calls()), pickle.dumps({**message, "data": 2})]
        for dialect in range(5):
            for payload in payloads[dialect > PICKLE:][:2]:
                number = len(got) + 1
                got.append(payload)
                client.publish(partition_channel(3), envelope(3, stranger, number, payload, dialect=dialect))
        expected = sum(payload is payloads[2] for payload in got)
        client.publish(partition_channel(3), envelope(3, stranger, len(got) + 1, emit("r", "end")))
        seen = []
        while not seen or b'"end"' not in seen[-1]:
            seen.append(raw.read()[2])
        assert not any(b"code that ran" in payload for payload in seen)
        assert b.metrics().get("sidrail_broker_messages_lost_total", reason="unsafe") == len(got) - expected > 0


def test_an_own_message_that_was_not_sent_is_dropped(redis_server, broker):
    server = redis_server()
    b = broker([server])
    wait_up(b)
    pod = Pod(b.port)
    with server.client() as client, Raw(b.port) as raw, client.pubsub() as spy:
        spy.psubscribe("sidrail1:*:p:*")
        spy.get_message(timeout=5)
        place = channel_of(spy, raw)
        for number in (2, 3, 2**60):
            client.publish(partition_channel(place), envelope(place, origin_of(b), number, emit("r", "forged")))
        for i in range(3):
            raw.call("PUBLISH", "flask-socketio", emit("r", i))
        wait_until(lambda: len(pod.received) >= 4, "own messages came", 5)
    assert [data for _, data in pod.received] == ["first", 0, 1, 2]
    assert b.metrics().get("sidrail_broker_implausible_total", reason="own") == 3


class Stranger:
    """Sends forged bytes as fast as Redis takes them, in the name of live brokers and of invented ones."""

    def __init__(self, server, brokers, seed):
        self.random = random.Random(seed)
        self.client = server.client()
        self.origins = [origin_of(b) for b in brokers]
        self.stopping = False
        self.sent = 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def number(self):
        return self.random.choice([1, 2, self.random.randrange(1, 1000), self.random.randrange(1, 2**24),
                                   self.random.randrange(1, 2**64), 2**64 - 1, 2**63])

    def origin(self):
        return self.random.choice([*self.origins, self.random.randrange(1, 2**64), self.random.randrange(1, 2000)])

    def facts(self):
        some = self.random.randrange
        return facts(flags=some(256), age=self.number(), used=self.number(), carries=[self.number() for _ in range(some(9))],
                     subscribed=[b"a" * some(3) for _ in range(some(4))],
                     tails=[(some(4096), self.number()) for _ in range(some(50))],
                     generic=[(b"channel %d" % some(10**6), some(2**32)) for _ in range(some(50))])

    def message(self):
        some = self.random.randrange
        kind = some(8)
        if kind > JOINED or kind == 0:
            place = some(4096)
            rooms = None if some(2) else [b"s:r%d" % some(9) for _ in range(some(3))]
            return partition_channel(place), envelope(
                place, self.origin(), self.number(), self.random.randbytes(some(some(2000) + 1)), method=some(10),
                dialect=some(6), flags=some(256) & ~2, message_id=self.number(), rooms=rooms)
        body = {ASK: lambda: b"\0" + ranges([(some(4096), some(1, 2**64 - 300), some(1, 201)) for _ in range(some(257))]),
                WHERE: lambda: b"\x01a",
                POSITIONS: lambda: self.number().to_bytes(8, "little") + self.facts()
                + positions([(some(4096), self.number()) for _ in range(some(300))]),
                GONE: lambda: ranges([(some(4096), some(1, 2000), some(1, 201)) for _ in range(some(257))]),
                JOINED: lambda: self.number().to_bytes(8, "little")}.get(kind, self.facts)()
        channel = CONTROL_CHANNEL if kind == 1 else own_channel(self.random.choice(self.origins))
        return channel, control(kind, self.origin(), self.number(), body)

    def _run(self):
        while not self.stopping:
            pipe = self.client.pipeline(transaction=False)
            for _ in range(50):
                channel, data = self.message()
                if self.random.randrange(4) == 0:
                    data = bytearray(data)
                    for _ in range(self.random.randrange(1, 6)):
                        data[self.random.randrange(len(data))] = self.random.randrange(256)
                    data = bytes(data[:self.random.randrange(1, len(data) + 1)])
                pipe.publish(channel, data)
                self.sent += 1
            pipe.execute()
            time.sleep(0.01)

    def stop(self):
        self.stopping = True
        self.thread.join()
        self.client.close()


def test_a_forged_map_has_nothing_refused(redis_server, broker):
    """In the name of a new broker, and in that of one that agrees: only who answers for its map is believed."""
    server = redis_server()
    brokers = [broker([server]) for _ in range(2)]
    wait_up(*brokers)
    pod = Pod(brokers[1].port)
    with server.client() as client, Raw(brokers[0].port) as raw:
        client.publish(CONTROL_CHANNEL, heartbeat(79, 1))
        for i, origin in enumerate((78, origin_of(brokers[1]))):
            client.publish(CONTROL_CHANNEL, heartbeat(origin, 10**5, age=10**9, used=77, carries=[77]))
            for j in range(10):
                assert raw.call("PUBLISH", "flask-socketio", emit("r", [i, j])) == 0
                assert http_get(brokers[0].admin + "/readyz")[0] == 200
                time.sleep(0.03)
        wait_until(lambda: len(pod.received) >= 20, "all came", 5)
    assert "different map" not in brokers[0].log()


@pytest.mark.parametrize("has_keys", (False, True))
def test_messages_go_on_under_forged_ones(redis_server, broker, tmp_path, has_keys):
    server = redis_server()
    (tmp_path / "keys").write_text("a " + "5c" * 16 + "\n")
    cluster = {"key_file": str(tmp_path / "keys")} if has_keys else {}
    brokers = [broker([server], config={"log": {"level": "info"}, "cluster": cluster}) for _ in range(2)]
    wait_up(*brokers)
    before = [b.pss() for b in brokers]
    stranger = Stranger(server, brokers, seed=11)
    with Raw(brokers[0].port) as raw:
        pod = Pod(brokers[1].port, "generic")
        for i in range(figure(100, 2000)):
            raw.call("PUBLISH", "generic", emit("r", i))
            time.sleep(0.02)
        stranger.stop()
        wait_until(lambda: len(pod.received) >= figure(100, 2000), "everything came", 20)
    dropped = "unauthenticated" if has_keys else "implausible"
    print("forged", stranger.sent, "dropped", brokers[1].metrics().get(f"sidrail_broker_{dropped}_total"))
    assert [data for _, data in pod.received if isinstance(data, int)] == list(range(figure(100, 2000)))
    if not sanitizer():
        for b, was in zip(brokers, before):
            assert b.pss() < was + 200 * 2**20
    assert all(b.process.poll() is None for b in brokers)

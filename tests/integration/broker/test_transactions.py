"""MULTI, EXEC, DISCARD: what is queued is bounded, an EXEC whose requests wait goes on where it was, and nothing of a
refused one is delivered. That the answers are Redis' is test_as_redis.py's."""
import threading

import pytest
from daemons import wait_until
from resp_client import Error, Pod, Raw, check_complete, command, emit


@pytest.fixture(scope="module")
def hub(module_servers):
    return module_servers.broker(config={"limits": {"payload": "1MiB", "request": "1MiB"}})


def client_field(raw, name, number):
    for line in raw.call("CLIENT", "LIST").decode().splitlines():
        fields = dict(field.split("=", 1) for field in line.split())
        if int(fields["id"]) == number:
            return int(fields[name])
    return None


def test_nothing_of_a_refused_transaction_is_delivered(hub):
    pod = Pod(hub.port, "flask-socketio")
    with Raw(hub.port) as raw:
        for spoil in (("PUBLISH", "x"), ("NOPE",), ("CLIENT", "NOPE")):
            assert raw.call("MULTI") == "OK"
            assert raw.call("PUBLISH", "flask-socketio", emit("r", "never")) == "QUEUED"
            assert isinstance(raw.call(*spoil), Error)
            assert raw.call("PUBLISH", "flask-socketio", emit("r", "never")) == "QUEUED"
            assert raw.call("EXEC") == "EXECABORT Transaction discarded because of previous errors."
        raw.call("MULTI")
        raw.call("PUBLISH", "flask-socketio", emit("r", "never"))
        assert raw.call("DISCARD") == "OK"
        raw.call("MULTI")
        raw.call("PUBLISH", "flask-socketio", emit("r", "never"))
    with Raw(hub.port) as raw:
        assert raw.call("PUBLISH", "flask-socketio", emit("r", "once")) == 1
    wait_until(lambda: pod.received, "the last one came")
    assert pod.received == [("r", "once")]
    pod.close()


def test_what_is_queued_is_bounded_and_given_back(hub):
    with Raw(hub.port) as raw:
        assert raw.call("MULTI") == "OK"
        for _ in range(2):
            assert raw.call("ECHO", b"x" * 1_000_000) == "QUEUED"
        reply = raw.call("ECHO", b"x" * 1_000_000)
        assert isinstance(reply, Error) and "transaction too large" in reply and "limits.request" in reply
        for _ in range(20):
            assert raw.call("ECHO", b"x" * 1_000_000) == "QUEUED"  # as Redis: and nothing is kept
        assert raw.call("EXEC").startswith("EXECABORT ")
        assert raw.call("MULTI") == "OK"
        raw.send(command("PING") * 100_000)  # small ones cost more than their bytes
        replies = [raw.read() for _ in range(100_000)]
        assert replies.count("QUEUED") == 99_999 and sum("too large" in reply for reply in replies) == 1
        assert raw.call("EXEC").startswith("EXECABORT ")
        assert raw.call("MULTI") == "OK"
        assert raw.call("ECHO", "y") == "QUEUED"
        assert raw.call("EXEC") == [b"y"]


def test_a_long_exec_lets_others_go_on(hub):
    pod = Pod(hub.port, "flask-socketio")
    count = 4000
    with Raw(hub.port) as raw, Raw(hub.port) as other:
        raw.send(command("MULTI") + command("PUBLISH", "flask-socketio", emit("r", "one")) * count)
        assert [raw.read() for _ in range(count + 1)] == ["OK"] + ["QUEUED"] * count
        raw.send(command("EXEC"))
        assert raw.file.readline() == b"*%d\r\n" % count  # its first part is done
        assert other.call("PUBLISH", "flask-socketio", emit("r", "other")) == 1
        assert [raw.read() for _ in range(count)] == [1] * count
    wait_until(lambda: len(pod.received) == count + 1, "all are delivered")
    assert 0 < pod.received.index(("r", "other")) < count
    pod.close()


def test_answers_that_are_not_taken_are_not_piled_up(hub):
    count = 8000
    with Raw(hub.port, receive_buffer=4096) as raw, Raw(hub.port) as watcher:
        number = raw.call("CLIENT", "ID")
        raw.send(command("MULTI") + command("INFO") * count)
        assert [raw.read() for _ in range(count + 1)] == ["OK"] + ["QUEUED"] * count
        raw.send(command("EXEC"))
        wait_until(lambda: client_field(watcher, "omem", number) > 500_000, "its answers are not taken")
        assert client_field(watcher, "omem", number) < 1_500_000
        assert all(answer.startswith(b"# Server") for answer in raw.read())
        assert client_field(watcher, "omem", number) == 0


def test_an_exec_waits_for_its_shards_request_by_request(redis_server, broker):
    servers = redis_server(1)
    b = broker(servers, config={"delivery": {"ack": "shard"}})
    wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
    pod = Pod(b.port)
    with Raw(b.port) as raw:
        raw.send(command("MULTI") + b"".join(command("PUBLISH", "flask-socketio", emit("r", ["p", i]))
                                             for i in range(5)) + command("ECHO", "between"))
        assert [raw.read() for _ in range(7)] == ["OK"] + ["QUEUED"] * 6
        servers[0].pause()
        threading.Timer(0.3, servers[0].resume).start()
        assert raw.call("EXEC") == [1] * 5 + [b"between"]
        assert raw.call("PING") == "PONG"
    wait_until(lambda: len(pod.received) == 5, "all are delivered")
    check_complete(pod, ["p"], ["r"], 5)
    pod.close()


def test_a_subscription_of_an_exec_waits_for_its_shards(redis_server, broker):
    servers = redis_server(1)
    b = broker(servers)
    wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
    with Raw(b.port) as raw:
        raw.send(command("MULTI") + command("SUBSCRIBE", "one", "two") + command("PUBLISH", "one", "x") +
                 command("EXEC"))
        assert [raw.read() for _ in range(3)] == ["OK", "QUEUED", "QUEUED"]
        assert raw.file.readline() == b"*2\r\n"
        got = [raw.read() for _ in range(4)]
        assert got[:2] == [[b"subscribe", b"one", 1], [b"subscribe", b"two", 2]]
        assert sorted(got[2:], key=str) == [1, [b"message", b"one", b"x"]]


def test_many_transactions_wait_for_a_shard_that_is_behind(redis_server, broker):
    """Nothing is lost, doubled or starved when the shard has no room in the middle of an EXEC."""
    servers = redis_server(1)
    b = broker(servers, config={"slow_subscriber": {"bytes": "64MiB"}})
    wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
    pod = Pod(b.port)
    servers[0].pause()
    raws = [Raw(b.port) for _ in range(20)]
    for who, raw in enumerate(raws):
        raw.send(command("MULTI") + b"".join(command("PUBLISH", "flask-socketio", emit("r", [who, i, "x" * 20_000])) for i in range(10))
                 + command("EXEC") + command("PUBLISH", "flask-socketio", emit("r", [who, 10])))
    servers[0].resume()
    for raw in raws:
        assert [raw.read() for _ in range(11)] == ["OK"] + ["QUEUED"] * 10
        assert raw.read() == [1] * 10
        assert raw.read() == 1
        raw.close()
    wait_until(lambda: len(pod.received) == 20 * 11, "all are delivered")
    for who in range(20):
        assert [data[1] for _, data in pod.received if data[0] == who] == list(range(11))
    pod.close()

"""What one client may ask of the broker: lengths, and the memory that a request takes."""
import contextlib
import json

import daemons
import pytest
import redis
from resp_client import Error, Raw, command, emit

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def hub(module_servers):
    return module_servers.broker(config={"limits": {"payload": "1MiB", "request": "2MiB"}})


def test_a_payload_over_the_limit_is_answered_and_logged_once(hub):
    client = redis.Redis(port=hub.port, retry=None)
    for _ in range(3):
        with pytest.raises(redis.ResponseError) as error:
            client.publish("flask-socketio", b"x" * (5 * MIB))
        assert f"{5 * MIB}" in str(error.value) and f"limits.payload is {MIB}" in str(error.value)
    assert client.publish("flask-socketio", b"x" * MIB) == 0
    assert hub.log().count("longer than a limit") == 1
    assert hub.metrics().get("sidrail_broker_messages_refused_total", reason="too_long") == 3


def test_what_stands_behind_it_is_answered_and_a_transaction_with_it_is_not_run(hub):
    with Raw(hub.port) as raw:
        long = command("PUBLISH", "c", b"x" * (MIB + 1))
        raw.send(command("PING") + long + command("PING") + command("MULTI") + long + command("EXEC") + command("PING"))
        assert raw.read() == "PONG"
        assert "limits.payload" in raw.read()
        assert raw.read() == "PONG"
        assert raw.read() == "OK"
        assert "limits.payload" in raw.read()
        assert raw.read().startswith("EXECABORT")
        assert raw.read() == "PONG"


@pytest.mark.parametrize("words", [
    pytest.param([b"SUBSCRIBE", *[b"x" * 1_000_000] * 40], id="long"),
    pytest.param([b"SUBSCRIBE", *[b"x"] * 400_000], id="many"),
    pytest.param([b"SIDRAIL", b"ROOMS", b"1", b"1", *[b"/", b"y" * 100_000] * 300], id="rooms"),
])
def test_the_memory_of_one_request_is_bounded(hub, words):
    before = hub.peak_memory()
    with Raw(hub.port) as raw:
        raw.send(command(*words))
        answer = raw.read()
        assert isinstance(answer, Error) and f"limits.request is {2 * MIB}" in answer
        assert raw.call("PING") == "PONG"
    assert daemons.sanitizer() or hub.peak_memory() - before < 12 * MIB



# What a client can make long: four times as much may take about four times as long.

def names(count, form="channel-%d"):
    return [(form % number).encode() for number in range(count)]


def subscribe(raw, words, kind=b"SUBSCRIBE"):
    raw.send(command(kind, *words))
    for _ in words:
        assert raw.read()[0] == kind.lower()


def do_subscribe(broker, raw, count):
    subscribe(raw, names(count))


def do_greet(broker, raw, count):
    subscribe(raw, names(count, "other.sidrail.%032x"))


def do_subscribe_and_close(broker, raw, count):
    subscribe(raw, names(count))
    raw.close()


def do_subscribe_and_unsubscribe(broker, raw, count):
    subscribe(raw, names(count))
    raw.send(command("UNSUBSCRIBE"))
    for left in reversed(range(count)):
        assert raw.read()[2] == left


def do_match(broker, raw, count):
    """Patterns that have to be tried at every place of a name."""
    subscribe(raw, names(count // 100, "*a?a?a?%d"), b"PSUBSCRIBE")
    with Raw(broker.port) as other:
        assert other.call("PUBLISH", "a" * 250, "") == 0


def do_ask_numbers(broker, raw, count):
    assert len(raw.call("PUBSUB", "NUMSUB", *names(count))) == 2 * count


def do_list_clients(broker, raw, count):
    raw.call("CLIENT", "LIST", "ID", *range(1, count))


def do_beat(broker, raw, count):
    """A pod with many channels of its own, which is looked at each second."""
    subscribe(raw, [*names(count), b"socketio"])
    assert raw.read()[0] == b"message"


def do_return(broker, raw, count):
    """One with a name and many channels comes again."""
    words = [*names(count), b"socketio"]
    with Raw(broker.port) as first:
        assert first.call("CLIENT", "SETNAME", "pod") == "OK"
        subscribe(first, words)
    assert raw.call("CLIENT", "SETNAME", "pod") == "OK"
    subscribe(raw, words)


def do_name_rooms(broker, raw, count):
    rooms = [f"room {number}" for number in range(count)]
    payload = json.loads(emit("", 1))
    payload["room"] = rooms
    assert raw.call("PUBLISH", "socketio", json.dumps(payload).encode()) == 0


def do_tell_rooms(broker, raw, count):
    greeting = b"socketio.sidrail." + b"0" * 32
    raw.send(command("SUBSCRIBE", greeting, "socketio"))
    for _ in range(3):
        raw.read()
    words = [word for name in names(count) for word in (b"/", name)]
    raw.send(command("SIDRAIL", "HELLO", "1", "own", "auto", *words))
    raw.send(command("SIDRAIL", "ROOMS", "1", "0", *words))
    raw.send(command("PING"))
    while raw.read()[0] != b"pong":
        pass


DEEDS = [value for name, value in sorted(globals().items()) if name.startswith("do_")]


def cost(broker, deed, count):
    before = broker.cpu_seconds()
    with contextlib.closing(Raw(broker.port, timeout=60)) as raw:
        deed(broker, raw, count)
    with Raw(broker.port) as raw:  # behind its end
        raw.call("PING")
    return broker.cpu_seconds() - before


@pytest.fixture(scope="module")
def sharded(module_servers):
    b = module_servers.broker(config={"heartbeat": "1s"}, shards=module_servers.redis_server(1))
    daemons.wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
    return b


@pytest.mark.alone
@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_client_makes_long_takes_time_in_proportion(sharded, deed):
    count, rounds = 4000, 1 if deed in (do_beat, do_return) else 2
    once, four = (min(cost(sharded, deed, size) for _ in range(rounds)) for size in (count, 4 * count))
    print(f"{once * 1e3:.1f} ms, four times as much {four * 1e3:.1f} ms")
    assert four < 10 * once + 0.01


def test_channels_of_one_client_are_limited(broker):
    b = broker(config={"limits": {"channels": 10}})
    with Raw(b.port) as raw:
        subscribe(raw, names(8))
        answer = raw.call("SUBSCRIBE", *names(3, "more-%d"))
        assert isinstance(answer, Error) and "limits.channels is 10" in answer
        subscribe(raw, names(8) + names(2, "more-%d"))
        answer = raw.call("PSUBSCRIBE", "*")
        assert isinstance(answer, Error) and "limits.channels is 10" in answer


def test_names_and_patterns_have_a_length(hub):
    with Raw(hub.port) as raw:
        assert "longer than 1024 bytes" in raw.call("CLIENT", "SETNAME", "x" * 1025)
        assert "longer than 4096 bytes" in raw.call("PUBLISH", "x" * 4097, "")
        assert "longer than 1024 bytes" in raw.call("PSUBSCRIBE", "*" * 1025)
        assert raw.call("PSUBSCRIBE", "*" * 1024) == [b"psubscribe", b"*" * 1024, 1]

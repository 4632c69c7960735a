"""What one client may ask of the broker: lengths, and the memory that a request takes."""
import daemons
import pytest
import redis
from resp_client import Error, Raw, command

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


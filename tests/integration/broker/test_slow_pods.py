"""Slow pods: what they miss is counted to the message, whatever happens to their connection, and others miss nothing."""
import json
import signal

import pytest
from daemons import wait_until
from named_pods import parked
from resp_client import HEARTBEAT, Pod, Raw, emit

COUNT = 1200


def slow_pod(port, protocol, receive_buffer=4096):
    raw = Raw(port, receive_buffer=receive_buffer)
    assert raw.call("HELLO", protocol, "SETNAME", "slow")
    assert raw.call("SUBSCRIBE", "flask-socketio")[0] == b"subscribe"
    return raw


def publish(port, first, end, size=10_000):
    with Raw(port) as raw:
        for number in range(first, end):
            raw.call("PUBLISH", "flask-socketio", emit("r", ["p", number, "x" * size]))


def read_until(raw, last):
    numbers = []
    while not numbers or numbers[-1] != last:
        _, channel, payload = raw.read()
        if channel == b"flask-socketio" and payload != HEARTBEAT:
            numbers.append(json.loads(payload)["data"][0][1])
    return numbers


def dropped(broker):
    return broker.metrics().get("sidrail_broker_deliveries_dropped_total")


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_pod_that_lost_its_oldest_messages_returns_and_loses_no_more(broker, protocol):
    b = broker(config={"slow_subscriber": {"bytes": "1MiB", "policy": "drop_oldest"}})
    slow = slow_pod(b.port, protocol)
    other = Pod(b.port, name="other")
    publish(b.port, 0, COUNT)
    assert dropped(b) > 0
    got = read_until(slow, COUNT - 1)
    assert got == sorted(set(got)) and len(got) + dropped(b) == COUNT
    slow.close()
    wait_until(lambda: parked(b) == 1, "it is waited for")
    publish(b.port, COUNT, COUNT + 150)
    before = dropped(b)
    slow = slow_pod(b.port, protocol)
    publish(b.port, COUNT + 150, COUNT + 600)
    got = read_until(slow, COUNT + 599)
    assert got == sorted(set(got)) and len(got) + dropped(b) - before == 600
    wait_until(lambda: len(other.received) == COUNT + 600, "the other has everything")
    assert [data[1] for _, data in other.received] == list(range(COUNT + 600))
    slow.close()
    other.close()


def test_a_pod_that_ends_with_messages_dropped_and_unread_gets_what_was_left(broker):
    """Cut while much waits: what is handed over begins where its kernel stopped, without what was dropped."""
    b = broker(config={"slow_subscriber": {"bytes": "1MiB", "policy": "drop_oldest"}})
    slow = slow_pod(b.port, 2)
    publish(b.port, 0, COUNT)
    missed = dropped(b)
    assert missed > 0
    slow.socket.shutdown(1)  # an orderly end: it reads on, to the end
    first = []
    with pytest.raises(EOFError):
        while True:
            first.append(json.loads(slow.read()[2])["data"][0][1])
    slow.close()
    wait_until(lambda: parked(b) == 1, "it is waited for")
    rest = read_until(slow_pod(b.port, 2, receive_buffer=1 << 20), COUNT - 1)
    got = sorted(set(first + rest))
    assert rest == sorted(set(rest)) and len(got) + missed == COUNT


def test_what_waits_too_long_is_dropped_where_dropping_is_the_policy(broker):
    b = broker(config={"slow_subscriber": {"age": "1s", "policy": "drop_oldest"}})
    slow = slow_pod(b.port, 2)
    publish(b.port, 0, COUNT)
    wait_until(lambda: dropped(b) > 0, "the old ones are dropped", 10)
    publish(b.port, COUNT, COUNT + 1)
    got = read_until(slow, COUNT)
    assert got == sorted(set(got)) and len(got) + dropped(b) == COUNT + 1
    assert b.metrics().get("sidrail_broker_clients_closed_total", reason="slow_age") == 0
    slow.close()


def test_at_the_deadline_the_end_tells_how_many_messages_were_not_delivered(broker):
    b = broker(config={"shutdown": {"deadline": "1s"}})
    slow = slow_pod(b.port, 2)
    publish(b.port, 0, COUNT)
    b.signal(signal.SIGTERM)
    assert b.wait_exit() == 0
    assert "messages were not delivered messages=" in b.log()
    slow.close()

"""delivery.local_fast: own pods get what their broker accepts at once, the copy that comes back is a duplicate; faults of
shards, map changes and the other promises are as without it."""
import time

import pytest
from broker_load import Load
from broker_tools import rewrite, shards_of, sum_of, wait_up, wait_used
from daemons import figure, free_port, wait_until
from resp_client import Pod, Push, Raw, emit

FAST = {"delivery": {"local_fast": True}}
AT_ONCE = "sidrail_broker_messages_at_once_total"


def first_on_one_connection(raw, number):
    """A connection of RESP3 that listens and publishes: what comes first, the message or the answer?"""
    replies = [raw.call("PUBLISH", "flask-socketio", emit("r", number)), raw.read()]
    assert sorted(isinstance(reply, Push) for reply in replies) == [False, True]
    return "message" if isinstance(replies[0], Push) else "answer"


@pytest.mark.parametrize("ack", ["fast", "shard"])
def test_own_messages_are_there_before_the_answer_and_a_reload_decides(redis_server, broker, ack):
    b = broker(redis_server(1), config={"delivery": {"ack": ack, "local_fast": True}})
    wait_up(b)
    with Raw(b.port) as raw:
        raw.call("HELLO", "3")
        raw.call("SUBSCRIBE", "flask-socketio")
        assert [first_on_one_connection(raw, i) for i in range(20)] == ["message"] * 20
        assert b.metrics().get(AT_ONCE) == 20
        rewrite(b, delivery={"ack": ack, "local_fast": False})
        wait_until(lambda: b.metrics().get("sidrail_broker_reloads_total") == 1, "it reloads")
        before = b.metrics().get(AT_ONCE)
        for i in range(20):
            first_on_one_connection(raw, i)
        assert b.metrics().get(AT_ONCE) == before
    wait_until(lambda: b.metrics().get("sidrail_broker_duplicates_total") == 20, "the copies came back")


def test_own_pods_do_not_wait_for_a_stopped_shard_and_others_get_it_later(redis_server, broker):
    servers = redis_server(1)
    brokers = [broker(servers, config=config) for config in (FAST, {})]
    wait_up(*brokers)
    near, far = Pod(brokers[0].port), Pod(brokers[1].port)
    servers[0].pause()
    with Raw(brokers[0].port) as raw:
        for i in range(50):
            assert raw.call("PUBLISH", "flask-socketio", emit("r", i)) == 1
    wait_until(lambda: len(near.received) == 50, "own pods have them", 5)
    assert far.received == []
    servers[0].resume()
    wait_until(lambda: len(far.received) == 50, "the others have them")
    wait_up(*brokers)
    time.sleep(0.3)
    for pod in (near, far):
        assert [data for _, data in pod.received] == list(range(50))
        pod.close()


def test_faults_and_map_changes_lose_and_double_nothing(redis_server, broker):
    servers = dict(zip("abcd", redis_server(4)))
    three = {name: servers[name] for name in "abc"}
    brokers = [broker(config={"shards": shards_of(**three), **FAST}) for _ in range(2)]
    wait_up(*brokers)
    load = Load(brokers)
    time.sleep(0.5)
    servers["b"].kill()
    time.sleep(figure(1.5, 4))
    servers["b"].start()
    servers["c"].pause()
    time.sleep(figure(1.5, 10))
    servers["c"].resume()
    for one in brokers:
        rewrite(one, shards=shards_of(**servers))
        time.sleep(0.5)
    wait_used(brokers, "abcd")
    load.check()
    assert sum_of(brokers, AT_ONCE) > 1000


def test_who_is_spared_an_echo_is_spared_it_at_once(redis_server, broker):
    port = free_port()
    b = broker(redis_server(1), config={"listeners": [{"address": f"127.0.0.1:{port}", "echo": "off"}], **FAST})
    wait_up(b)
    pods = [Pod(port, name=name) for name in ("one", "two")]
    publishers = [Raw(port), Raw(port)]
    for raw, name, host, numbers in zip(publishers, ("one", "two"), (b"1", b"2"), (range(10), [10])):
        assert raw.call("CLIENT", "SETNAME", name) == "OK"
        for number in numbers:
            raw.call("PUBLISH", "flask-socketio", emit("r", number).replace(b"0" * 32, host * 32))
    wait_until(lambda: b.metrics().get("sidrail_broker_duplicates_total") == 11, "the copies came back")
    wait_until(lambda: len(pods[1].received) == 10 and len(pods[0].received) == 1, "each has the other's")
    assert [data for _, data in pods[0].received] == [10]
    for one in pods + publishers:
        one.close()

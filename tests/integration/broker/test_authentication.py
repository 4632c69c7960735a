"""cluster.key_file: what brokers send each other is signed; what is not is dropped, counted and said; keys come, change and go
while messages flow; brokers that do not understand each other say so."""
import json
import secrets

import pytest
from broker_load import Load
from broker_tools import ctl, rewrite, shard_states, wait_up
from daemons import free_port, http_get, wait_until
from forgery import CONTROL_CHANNEL, envelope, heartbeat, origin_of, partition_channel
from resp_client import Pod, Raw, emit


def key_line(name):
    return f"{name} {secrets.token_hex(16)}\n"


@pytest.fixture
def key_file(tmp_path):
    made = []

    def make(text=None):
        path = tmp_path / f"cluster{len(made)}.keys"
        made.append(path)
        path.write_text(text or key_line("a"))
        path.chmod(0o600)
        return path

    return make


def cluster(path, **more):
    return {"cluster": {"key_file": str(path), **more}}


def dropped(broker, reason):
    return broker.metrics().get("sidrail_broker_unauthenticated_total", reason=reason)


def state_of(broker):
    return broker.status()["authentication_state"]


def test_what_is_not_signed_is_dropped_and_signed_messages_cannot_be_moved(redis_server, broker, key_file):
    server, path = redis_server(), key_file()
    brokers = [broker([server], config=cluster(path)) for _ in range(2)]
    wait_up(*brokers)
    pods = [Pod(b.port) for b in brokers]
    with server.client() as client, Raw(brokers[0].port) as raw, client.pubsub() as spy:
        spy.psubscribe("sidrail1:*:p:*")
        assert spy.get_message(timeout=5)["type"] == "psubscribe"
        raw.call("PUBLISH", "flask-socketio", emit("r", 1))
        sent = spy.get_message(timeout=5)
        assert sent["data"].startswith(b"SK")
        victim, number = origin_of(brokers[0]), int(sent["channel"][-4:], 16)
        client.publish(CONTROL_CHANNEL, heartbeat(victim, 2**63))
        client.publish(sent["channel"], envelope(number, victim, 2, emit("r", "forged")))
        client.publish(sent["channel"], envelope(number, 99, 1, emit("r", "forged")))
        client.publish(partition_channel(number ^ 1), sent["data"])  # another channel
        client.publish(sent["channel"], sent["data"])  # again
        client.publish(sent["channel"], sent["data"][:-9] + b"x" + sent["data"][-8:])
        client.publish(sent["channel"], b"SK\x01")
        for i in range(2, 20):
            raw.call("PUBLISH", "flask-socketio", emit("r", i))
        for pod in pods:
            wait_until(lambda pod=pod: len(pod.received) == 19, "everything came", 10)
            assert [data for _, data in pod.received] == list(range(1, 20))
    other = brokers[1]
    assert dropped(other, "unsigned") == 3 and dropped(other, "forged") == 2 and dropped(other, "bad") == 1
    assert other.log().count("not authentic, dropped") == 3
    assert http_get(f"{other.admin}/readyz")[0] == 200  # it has an understanding with the other broker
    status, text = ctl(other, "status")
    assert status == 0 and "authentic    required, 6 messages dropped" in text
    wait_up(*brokers)


def test_what_was_recorded_of_a_broker_that_ended_is_not_delivered(redis_server, broker, key_file):
    server, path = redis_server(), key_file()
    ended = broker([server], config=cluster(path), wait=False)
    with server.client() as client, client.pubsub() as spy:
        spy.psubscribe("sidrail1:*")
        assert spy.get_message(timeout=5)["type"] == "psubscribe"
        wait_up(ended)
        with Raw(ended.port) as raw:
            raw.call("PUBLISH", "flask-socketio", emit("r", "old"))
        recorded = []
        while not recorded or b":p:" not in recorded[-1]["channel"]:
            recorded.append(spy.get_message(timeout=5))
        ended.stop()
        b = broker([server], config=cluster(path))
        wait_up(b)
        pod = Pod(b.port)
        for message in recorded:
            client.publish(message["channel"], message["data"])
        with Raw(b.port) as raw:
            raw.call("PUBLISH", "flask-socketio", emit("r", "new"))
        wait_until(lambda: b.status()["gaps_open"] == 1, "it is held", 5)
        wait_until(lambda: pod.received, "the new one arrives")
    assert [data for _, data in pod.received] == ["new"]


def test_keys_are_introduced_changed_and_removed_while_messages_flow(redis_server, broker, key_file):
    server, path = redis_server(), key_file(first := key_line("a"))
    brokers = [broker([server]) for _ in range(2)]
    wait_up(*brokers)
    load = Load(brokers, pause=0.05)
    for b in brokers:
        rewrite(b, **cluster(path, accept_unsigned=True))
        wait_until(lambda b=b: b.status()["authentication"] == "accept_unsigned", "it signs", 10)
        if b is brokers[0]:
            wait_until(lambda: "do not sign" in state_of(brokers[0]), "the first says that the other does not", 5)
            wait_until(lambda: "sign" in state_of(brokers[1]), "the other says that the first does", 5)
    for b in brokers:
        rewrite(b, **cluster(path))
        wait_until(lambda b=b: b.status()["authentication"] == "required", "it wants signatures", 10)
    # a rotation: append, move to the front, remove
    second = key_line("b")
    for text in (first + second, second + first, second):
        path.write_text(text)
        for b in brokers:
            assert ctl(b, "reload")[0] == 0
    wait_until(lambda: [state_of(b) for b in brokers] == ["", ""], "they understand each other", 10)
    load.check()
    assert all(http_get(f"{b.admin}/readyz")[0] == 200 for b in brokers)
    assert sum(dropped(b, reason) for b in brokers for reason in ("unsigned", "unknown_key", "forged", "bad")) == 0


def test_brokers_that_do_not_understand_each_other_say_so(redis_server, broker, key_file):
    server = redis_server()
    signs = broker([server], config=cluster(key_file()))
    wait_up(signs)
    other = broker([server], config=cluster(key_file()), wait=False)
    without = broker([server], wait=False)
    for b, sentence in ((other, "another cluster.key_file"), (without, "drop what this one sends")):
        wait_until(lambda b=b, sentence=sentence: sentence in http_get(f"{b.admin}/readyz")[1], "not ready, and why", 10)
        assert http_get(f"{b.admin}/readyz")[0] == 503
        wait_until(lambda b=b, sentence=sentence: sentence in b.log(), "in the log", 5)
        assert sentence in ctl(b, "status")[1]
    assert dropped(other, "forged") > 0 and dropped(signs, "unsigned") > 0


def test_a_bad_key_file_is_one_clear_error(redis_server, broker, key_file, tmp_path):
    b = broker([redis_server()], config=cluster(path := key_file()))
    wait_up(b)
    for text, sentence in (("", "there is no key in it"), ("a 0011\n", "line 1: the key must be 32 hexadecimal digits")):
        path.write_text(text)
        status, out = ctl(b, "reload")
        assert status != 0 and f"cluster.key_file: {path}: {sentence}" in out
        assert b.status()["authentication"] == "required"
    path.unlink()
    assert f"cluster.key_file: {path}: No such file" in ctl(b, "reload")[1]
    path.write_text(key_line("c"))
    path.chmod(0o644)
    assert ctl(b, "reload")[0] == 0
    wait_until(lambda: "the key file can be read by others" in b.log(), "a warning", 5)
    rewrite(b, cluster={"accept_unsigned": True})
    assert "needs cluster.key_file" in ctl(b, "reload")[1]

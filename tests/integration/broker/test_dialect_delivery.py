"""Each pod gets each message in the dialect that it speaks: named by its listener or its name, or learned from what it
publishes. What has no form there is missed, counted and told once. (That the forms are right: test_dialects.py.)"""
import pytest
from daemons import free_port, wait_until
from dialect_messages import JSON14, JSON15, PICKLE, message, seen
from resp_client import Raw


class Pod:
    """A subscriber and a publisher, as a pod has them."""

    def __init__(self, port, name=""):
        self.subscriber, self.publisher = Raw(port, timeout=5), Raw(port, timeout=5)
        for raw in (self.subscriber, self.publisher) if name else ():
            assert raw.call("CLIENT", "SETNAME", name) == "OK"
        assert self.subscriber.call("SUBSCRIBE", "flask-socketio")[0] == b"subscribe"

    def publish(self, payload):
        return self.publisher.call("PUBLISH", "flask-socketio", payload)

    def read(self):
        return self.subscriber.read()[2]

    def close(self):
        self.subscriber.close()
        self.publisher.close()


@pytest.mark.parametrize("shards", [0, 2])
def test_named_pods_get_every_call_in_their_own_dialect(redis_server, broker, shards):
    b = broker(redis_server(shards) if shards else [])
    pods = {dialect: Pod(b.port, f"web-{i}:{dialect}") for i, dialect in enumerate((PICKLE, JSON14, JSON15))}
    for number, (origin, publisher) in enumerate(pods.items()):
        publisher.publish(message(origin, {"n": number}))
        for dialect, pod in pods.items():
            assert seen(pod.read()) == (dialect, [{"n": number}] if dialect == JSON15 else {"n": number})
    metrics = b.metrics()
    for dialect in pods:  # once for all its pods, from each of the two others
        assert metrics.get("sidrail_broker_messages_transcoded_total", dialect=dialect) == 2
    assert metrics.get("sidrail_broker_messages_by_dialect_basis_total", basis="named") == 3
    shown = {client["name"]: (client["dialect"], client["dialect_basis"]) for client in b.status()["clients"]}
    assert shown == {f"web-{i}:{dialect}": (dialect, "named") for i, dialect in enumerate(pods)}


def test_several_arguments_and_lists_are_kept_apart_where_the_dialect_can(broker):
    b = broker()
    old, new = Pod(b.port, "old:pickle"), Pod(b.port, "new:json15")
    for args in ((1, 2), ([1, 2],), (["x"],), ()):
        old.publish(message(PICKLE, *args))
        assert seen(new.read()) == (JSON15, list(args))
        old.read()
        new.publish(message(JSON15, *args))
        data = seen(old.read())[1]
        assert data == (args[0] if len(args) == 1 else args)
        new.read()


def test_one_payload_is_shared_by_all_pods_of_a_dialect(broker):
    b = broker()
    old = [Pod(b.port, f"old-{i}:pickle") for i in range(3)]
    new = [Pod(b.port, f"new-{i}:json15") for i in range(3)]
    for number in range(20):
        old[0].publish(message(PICKLE, number))
        for pod in old + new:
            assert seen(pod.read())[1] in (number, [number])
    assert b.metrics().get("sidrail_broker_messages_transcoded_total", dialect=JSON15) == 20
    assert b.metrics().get("sidrail_broker_deliveries_total") == 120


def test_the_listeners_dialect_comes_before_the_clients_name(broker):
    port = free_port()
    b = broker(config={"listeners": [{"address": f"127.0.0.1:{port}", "dialect": JSON15}]})
    pod = Pod(port, "web:pickle")
    with Raw(port) as raw:
        raw.call("PUBLISH", "flask-socketio", message(PICKLE, "x"))
    assert seen(pod.read()) == (JSON15, ["x"])
    assert b.status()["clients"][0]["dialect_basis"] == "named"


def test_a_pod_is_known_by_what_it_publishes_and_gets_json14_before(broker):
    b = broker()
    old, pod = Pod(b.port, "old:pickle"), Pod(b.port, "web-1")
    old.publish(message(PICKLE, "x"))
    assert seen(pod.read()) == (JSON14, "x")
    for dialect, basis, data in ((JSON15, "assumed", ["y"]), (PICKLE, "proven", "y"), (JSON14, "proven", "y")):
        pod.publish(message(dialect, "own"))
        assert seen(pod.read())[1] in ("own", ["own"])
        old.publish(message(PICKLE, "y"))
        assert seen(pod.read()) == (dialect, data)
        (shown,) = [client for client in b.status()["clients"] if client["name"] == "web-1" and client["channels"]]
        assert (shown["dialect"], shown["dialect_basis"]) == (dialect, basis)
    assert b.metrics().get("sidrail_broker_dialects_corrected_total") == 2


def test_pods_that_cannot_be_told_apart_get_what_all_read_while_they_differ(broker):
    b = broker()
    one, two, silent = Pod(b.port), Pod(b.port), Pod(b.port)
    one.publish(message(PICKLE, "a"))
    assert [seen(pod.read()) for pod in (one, two, silent)] == [(PICKLE, "a")] * 3
    two.publish(message(JSON15, "b"))
    assert [seen(pod.read()) for pod in (one, two, silent)] == [(JSON14, "b")] * 3
    one.publish(message(PICKLE, "c"))
    assert [seen(pod.read()) for pod in (one, two, silent)] == [(JSON14, "c")] * 3


def test_what_has_no_form_in_a_dialect_is_missed_counted_and_told_once(broker):
    b = broker()
    old, new = Pod(b.port, "old:pickle"), Pod(b.port, "new:json15")
    for number in range(3):
        old.publish(message(PICKLE, {number}))  # a set
        assert seen(old.read())[1] == {number}
    old.publish(message(PICKLE, "after"))
    assert seen(new.read()) == (JSON15, ["after"])
    assert b.metrics().get("sidrail_broker_deliveries_missed_total", dialect=JSON15) == 3
    lines = [line for line in b.log().splitlines() if "no form in the client's dialect" in line]
    assert len(lines) == 1 and "from=pickle to=json15" in lines[0] and "at byte" in lines[0]
    assert max(client["missed"] for client in b.status()["clients"]) == 3


def test_a_pod_that_returns_as_another_version_gets_what_waited_in_its_new_dialect(broker):
    b = broker()
    other, pod = Pod(b.port, "other:pickle"), Pod(b.port, "web-1:pickle")
    pod.close()
    wait_until(lambda: b.metrics().get("sidrail_broker_parked_subscribers") == 1, "it is waited for")
    for number in range(50):
        other.publish(message(PICKLE, number, number))
    other.publish(message(PICKLE, {1}))
    pod = Pod(b.port, "web-1:json15")
    other.publish(message(PICKLE, "now"))
    assert [seen(pod.read()) for _ in range(51)] == [(JSON15, [n, n]) for n in range(50)] + [(JSON15, ["now"])]
    assert b.metrics().get("sidrail_broker_deliveries_missed_total", dialect=JSON15) == 1


def test_publishers_that_are_no_python_socketio_reach_all_pods_and_teach_nothing(broker):
    b = broker()
    pods = {dialect: Pod(b.port, f"web-{i}:{dialect}") for i, dialect in enumerate((PICKLE, JSON14, JSON15))}
    unknown = Pod(b.port, "unknown")
    with Raw(b.port) as foreign:
        foreign.call("PUBLISH", "flask-socketio", message(JSON14, {"n": 1}, host_id=None))
        for dialect, pod in pods.items():
            assert seen(pod.read()) == (dialect, [{"n": 1}] if dialect == JSON15 else {"n": 1})
        unknown.read()
        # a list is read as the newest version has it; who is not known gets it as it is
        foreign.call("PUBLISH", "flask-socketio", message(JSON15, "x", host_id=None))
        assert [seen(pod.read())[1] for pod in (*pods.values(), unknown)] == ["x", "x", ["x"], ["x"]]
        # unless the publisher says what it speaks
        foreign.call("CLIENT", "SETNAME", "emitter:json14")
        foreign.call("PUBLISH", "flask-socketio", message(JSON14, ["x"], host_id=None))
        assert [seen(pod.read())[1] for pod in pods.values()] == [["x"], ["x"], [["x"]]]
    assert b.metrics().get("sidrail_broker_dialects_corrected_total") == 0


def test_what_is_no_message_and_other_channels_stay_as_they_are(broker):
    b = broker()
    pod = Pod(b.port, "web:json15")
    pod.subscriber.call("SUBSCRIBE", "other")
    with Raw(b.port) as raw:
        for channel, payload in (("flask-socketio", b"~ hello"), ("flask-socketio", b'{"method":"dance","data":1}'),
                                 ("other", message(PICKLE, "x")), ("other", b"\x80\x04cos\nsystem\n.")):
            raw.call("PUBLISH", channel, payload)
            assert pod.read() == payload


def test_without_transcoding_all_pods_get_payloads_as_they_are(broker):
    b = broker(config={"pickle": {"mode": "pass"}})
    pods = [Pod(b.port, "a:json15"), Pod(b.port, "b:json14"), Pod(b.port, "c")]
    for payload in (message(PICKLE, "x"), message(JSON14, "x"), message(JSON15, "x")):
        pods[0].publish(payload)
        assert [pod.read() for pod in pods] == [payload] * 3


def test_where_pickles_are_refused_pods_that_need_them_still_get_them(broker):
    b = broker(config={"pickle": {"mode": "reject"}})
    old, new = Pod(b.port, "old:pickle"), Pod(b.port, "new:json15")
    assert "pickles are refused" in str(old.publish(message(PICKLE, "x")))
    new.publish(message(JSON15, "x"))
    assert seen(old.read()) == (PICKLE, "x")


def test_brokers_agree_on_what_a_list_means(redis_server, broker):
    """What the publisher's broker knows of it travels with the message."""
    redis = redis_server()
    one, two = broker([redis]), broker([redis])
    for b in (one, two):
        wait_until(lambda: b.status()["shards_up"] == 1 and b.status()["live_brokers"] == 1, "they hear each other")
    publisher, pods = Pod(one.port, "a:json14"), [Pod(two.port, "b:json15"), Pod(two.port, "c:pickle")]
    publisher.publish(message(JSON14, ["x"]))
    assert [seen(pod.read())[1] for pod in pods] == [[["x"]], ["x"]]

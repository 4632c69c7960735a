"""Pods with the client manager get what their rooms need, and nothing else; none of it is lost or doubled.

    {python-socketio 5.7, 5.14.2, current} × {threading, gevent, asyncio}, behind brokers over Redis, and on a plain Redis

Clients are rows in the pods' memory (pods/interest_pods.py), so that joins and emits come as fast as a pod can do them.
"""
import pytest
from daemons import figure, wait_until
from pod_process import PodProcess
from resp_client import Raw

CASES = [("5.7", "threading"), ("5.14.2", "threading"), ("5.14.2", "asyncio"), ("current", "threading"),
         ("current", "gevent"), ("current", "asyncio")]
#: Below 5.10 asyncio's enter_room cannot wait: such pods get everything.
OPEN_CASES = [("5.7", "asyncio")]
#: With and without Redis below the broker.
BELOW = [(*case, 2) for case in CASES] + [(*case, 0) for case in figure(CASES[3:4], CASES)]


@pytest.fixture
def pods(request):
    """Makes processes of pods: pods(version, loop, url, count, manager)."""
    made = []

    def make(version, loop, server, count, manager="sidrail"):
        made.append(PodProcess(version, loop, manager, f"redis://127.0.0.1:{server.port}", count))
        return made[-1]

    yield make
    for process in made:
        process.stop()


def wait_greeted(process):
    process.ready.result(30)
    wait_until(lambda: all(process.facts(pod)["greeted"] for pod in range(process.count)), "the pods are greeted")


def wait_shards(broker, count):
    wait_until(lambda: broker.status()["shards_up"] == count, "shards are up")


def lists(process):
    """What each client has received, by sid."""
    return {sid: got for pod in range(process.count) for sid, got in process.received(pod).items()}


def came(process):
    return [process.facts(pod)["came"] for pod in range(process.count)]


def received_of_shards(broker):
    return sum(shard["received"] for shard in broker.status()["shards"])


@pytest.mark.parametrize("version, loop, shards", BELOW)
def test_a_pod_gets_what_its_rooms_need_and_keeps_private_emits(broker, redis_server, pods, version, loop, shards):
    b = broker(redis_server(shards) if shards else [])
    if shards:
        wait_shards(b, shards)
    process = pods(version, loop, b, 3)
    wait_greeted(process)
    sids = [process.do(pod, "connect") for pod in range(3)]
    process.do(0, "enter", sid=sids[0], room="lobby")
    process.do(0, "enter", sid=sids[0], room=42)
    process.do(1, "emit", room="lobby", data="to lobby")
    process.do(2, "emit", room=42.0, data="to 42")
    process.do(2, "emit", room=["lobby", "other"], data="to two rooms")
    process.do(0, "emit", room="lobby", data="own")
    process.do(1, "emit", room="nobody is there", data="unneeded")
    process.do(0, "emit_to", sid=sids[0], data="private")
    process.do(1, "emit_to", sid=sids[0], data="from afar")
    process.do(2, "emit", room=None, data="to all")
    wait_until(lambda: len(lists(process)[sids[0]]) == 7, "all have come")
    process.do(0, "leave", sid=sids[0], room="lobby")
    wait_until(lambda: sorted((pod["state"], pod["rooms"]) for pod in b.status()["pods"])
               == [("filtered", 2), ("filtered", 2), ("filtered", 3)], "the broker knows that nobody is there")
    process.do(1, "emit", room="lobby", data="too late")
    process.do(2, "emit_to", sid=sids[0], data="last")
    wait_until(lambda: "last" in lists(process)[sids[0]] and "to all" in lists(process)[sids[1]], "all have come")
    assert sorted(lists(process)[sids[0]]) == sorted(
        ["to lobby", "to 42", "to two rooms", "own", "private", "from afar", "to all", "last"])
    assert lists(process)[sids[1]] == lists(process)[sids[2]] == ["to all"]
    publishes = b.metrics().get("sidrail_broker_messages_published_total", method="emit")
    process.do(0, "emit_to", sid=sids[0], data="private")
    process.do(1, "emit_to", sid=sids[1], data="private")
    assert b.metrics().get("sidrail_broker_messages_published_total", method="emit") == publishes
    # each pod got: of its rooms' messages those of others (5.7 gets its own back, and drops them)
    own = version == "5.7"
    assert came(process) == [6 + own, 1, 0 + own]
    assert b.metrics().get("sidrail_broker_pods_failed_open_total") == 0


@pytest.mark.parametrize("version, loop", OPEN_CASES)
def test_a_pod_that_cannot_wait_for_joins_gets_everything(broker, redis_server, pods, version, loop):
    b = broker(redis_server(2))
    wait_shards(b, 2)
    process = pods(version, loop, b, 2)
    wait_greeted(process)
    wait_until(lambda: b.status()["shards"][0]["partitions_subscribed"] == 4096, "everything is subscribed")
    sids = [process.do(pod, "connect") for pod in range(2)]
    for number in range(50):
        process.do(0, "enter", sid=sids[0], room=f"r{number}")
        process.do(1, "emit", room=f"r{number}", data=number)
    process.do(0, "emit_to", sid=sids[0], data="private")
    wait_until(lambda: len(lists(process)[sids[0]]) >= 51, "all have come")
    assert sorted(map(str, lists(process)[sids[0]])) == sorted(map(str, [*range(50), "private"]))


@pytest.mark.parametrize("version, loop", figure([CASES[0], CASES[2], CASES[4]], CASES + OPEN_CASES))
def test_on_a_plain_redis_the_manager_is_a_redis_manager(redis_server, pods, version, loop):
    server = redis_server()
    with Raw(server.port) as raw, Raw(server.port) as monitor:
        assert monitor.call("MONITOR") == "OK"
        process = pods(version, loop, server, 2)
        process.ready.result(30)
        wait_until(lambda: raw.call("PUBSUB", "NUMSUB", "flask-socketio")[1] == 2, "they are subscribed")
        sids = [process.do(pod, "connect") for pod in range(2)]
        process.do(0, "enter", sid=sids[0], room="lobby")
        process.do(1, "emit", room="lobby", data=1)
        process.do(1, "emit", room="nobody", data=2)
        process.do(0, "emit_to", sid=sids[0], data=3)
        wait_until(lambda: sorted(lists(process)[sids[0]]) == [1, 3], "both have come")
        wait_until(lambda: came(process)[0] == came(process)[1] == 3, "all were published to all")
        assert not process.facts(0)["greeted"]
        # besides a second name to subscribe, Redis was told nothing that a RedisManager does not say
        raw.call("ECHO", "the end")
        while "the end" not in (line := monitor.read()):
            assert "SIDRAIL" not in line


def test_a_redis_that_allows_the_channel_alone_gets_a_redis_manager(redis_server, pods):
    server = redis_server()
    with Raw(server.port) as raw:
        assert raw.call("ACL", "SETUSER", "default", "resetchannels", "&flask-socketio") == "OK"
        process = pods("current", "threading", server, 2)
        process.ready.result(30)
        wait_until(lambda: raw.call("PUBSUB", "NUMSUB", "flask-socketio")[1] == 2, "they are subscribed")
    sids = [process.do(pod, "connect") for pod in range(2)]
    process.do(1, "emit", room=sids[0], data=1)
    wait_until(lambda: lists(process)[sids[0]] == [1], "it has come")


def test_of_20_pods_the_18_that_do_not_need_a_room_get_nothing(broker, redis_server, pods):
    shards = redis_server(2)
    brokers = [broker(shards) for _ in range(3)]
    for b in brokers:
        wait_shards(b, 2)
    near = pods("current", "threading", brokers[0], 10)
    far = pods("current", "threading", brokers[1], 10)
    wait_greeted(near)
    wait_greeted(far)
    members = [(near, 3), (far, 7)]
    sids = []
    for process in (near, far):
        for pod in range(10):
            sid = process.do(pod, "connect")
            if (process, pod) in members:
                process.do(pod, "enter", sid=sid, room="the room")
                sids.append(sid)
    count = figure(200, 5000)
    before = received_of_shards(brokers[2])
    for number in range(count):
        near.do(0, "emit", room="the room", data=number)
    for number in range(count):
        far.do(0, "emit", room="nobody's room", data=number)
    wait_until(lambda: len(near.received(3)[sids[0]]) == len(far.received(7)[sids[1]]) == count, "all have come", 60)
    assert near.received(3)[sids[0]] == far.received(7)[sids[1]] == list(range(count))
    assert came(near) == [0] * 3 + [count] + [0] * 6
    assert came(far) == [0] * 7 + [count] + [0] * 2
    # Redis pushes to the two brokers that need the room; the third has nobody there, and no broker needs the other one
    assert received_of_shards(brokers[2]) - before == 0
    assert received_of_shards(brokers[0]) == received_of_shards(brokers[1]) == count
    spared = [b.metrics().get("sidrail_broker_deliveries_spared_total") for b in brokers]
    assert spared == [count * 9, count * 9, 0]

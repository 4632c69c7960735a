"""Messages cross the broker in order, complete and once: over the hub and over 1, 2 and 4 Redis, through one broker
and through two that share their shards."""
import threading
import time

import pytest
from daemons import figure, wait_until
from resp_client import Pod, Raw, check_complete, command, emit, publish_all

ROOMS = [f"room {i}" for i in range(12)] + ["ünïcode", "x" * 300]
COUNT = figure(60, 1500)


def run_all(jobs):
    """Runs the functions in threads; fails with the first that failed."""
    failures = []

    def run(job):
        try:
            job()
        except BaseException as error:  # told below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.smoke
@pytest.mark.parametrize("shards", [0, 1, 2, 4], ids=["hub", "1 shard", "2 shards", "4 shards"])
def test_rooms_keep_their_order_and_nothing_is_lost_or_doubled(redis_server, broker, shards):
    redis_servers = redis_server(shards) if shards else []
    brokers = [broker(redis_servers) for _ in range(2 if shards else 1)]
    wait_until(lambda: all(b.status()["shards_up"] == shards for b in brokers), "all shards are up")
    pods = [Pod(b.port) for b in brokers for _ in range(3)]
    publishers = [(b, f"{i}-{k}") for i, b in enumerate(brokers) for k in range(4)]
    run_all([lambda b=b, name=name: publish_all(b.port, name, ROOMS, COUNT) for b, name in publishers])
    names = [name for _, name in publishers]
    total = len(names) * len(ROOMS) * COUNT
    for pod in pods:
        wait_until(lambda pod=pod: len(pod.received) >= total, f"{total} messages are there", 60)
    for pod in pods:
        check_complete(pod, names, ROOMS, COUNT)
    # one order of a room for all
    for room in ROOMS:
        assert len({tuple(map(tuple, pod.by_room()[room])) for pod in pods}) == 1
    for b in brokers:
        metrics = b.metrics()
        for name in ("messages_lost", "gaps", "duplicates", "messages_filled", "envelopes_bad"):
            assert metrics.get(f"sidrail_broker_{name}_total") == 0, name
    for server in redis_servers:
        carried = [s for b in brokers for s in b.status()["shards"] if s["published"] > 0]
        assert len(carried) == len(brokers) * shards, server.name
    for pod in pods:
        pod.close()


@pytest.mark.parametrize("shards", [0, 2], ids=["hub", "2 shards"])
def test_a_flush_window_changes_no_order_and_holds_no_answer(redis_server, broker, shards):
    b = broker(redis_server(shards) if shards else [], config={"delivery": {"flush_window": "300ms"}})
    wait_until(lambda: b.status()["shards_up"] == shards, "all shards are up")
    pod = Pod(b.port)
    began = time.monotonic()
    publish_all(b.port, "p", ROOMS, 20, depth=1)
    answered = time.monotonic() - began
    wait_until(lambda: len(pod.received) == 20 * len(ROOMS), "all is there")
    check_complete(pod, ["p"], ROOMS, 20)
    # 280 answers one after the other, each of them at once; not one window for each
    assert answered < 20
    pod.close()


def test_what_brokers_say_to_each_other_is_no_company_for_a_lone_message(redis_server, broker):
    b = broker(redis_server(1), config={"delivery": {"flush_window": "1s", "ack": "shard"}})
    with Raw(b.port) as subscriber, Raw(b.port) as publisher:
        assert subscriber.call("SUBSCRIBE", "news") == [b"subscribe", b"news", 1]
        # the shard has just come up, so that the broker has just introduced itself there
        wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
        began = time.monotonic()
        publisher.call("PUBLISH", "news", b"alone")
        assert subscriber.read() == [b"message", b"news", b"alone"]
        assert time.monotonic() - began < 0.9


@pytest.mark.parametrize("shards", [0, 2], ids=["hub", "2 shards"])
def test_other_channels_and_patterns_work_as_on_redis(redis_server, broker, shards):
    redis_servers = redis_server(shards) if shards else []
    first = broker(redis_servers)
    second = broker(redis_servers) if shards else first
    with Raw(first.port) as subscriber, Raw(second.port) as publisher:
        assert subscriber.call("SUBSCRIBE", "news") == [b"subscribe", b"news", 1]
        assert subscriber.call("PSUBSCRIBE", "n?ws") == [b"psubscribe", b"n?ws", 2]
        publisher.call("PUBLISH", "other", b"nobody wants it")
        for i in range(50):
            publisher.call("PUBLISH", "news", b"\x00\xff%d" % i)
        for i in range(50):
            got = [subscriber.read(), subscriber.read()]
            assert [b"message", b"news", b"\x00\xff%d" % i] in got
            assert [b"pmessage", b"n?ws", b"news", b"\x00\xff%d" % i] in got
        assert subscriber.call("UNSUBSCRIBE") == [b"unsubscribe", b"news", 1]
        assert subscriber.call("PUNSUBSCRIBE") == [b"punsubscribe", b"n?ws", 0]
        assert subscriber.call("UNSUBSCRIBE") == [b"unsubscribe", None, 0]


def test_a_subscriber_of_another_broker_gets_what_is_published_right_after_its_subscription(redis_server, broker):
    redis_servers = redis_server(2)
    brokers = [broker(redis_servers) for _ in range(2)]
    wait_until(lambda: all(b.status()["shards_up"] == 2 for b in brokers), "all shards are up")
    with Raw(brokers[1].port) as publisher:
        for i in range(20):
            with Raw(brokers[0].port) as subscriber:
                channel = f"channel {i}"
                subscriber.call("SUBSCRIBE", channel)
                publisher.call("PUBLISH", channel, b"now")
                assert subscriber.read() == [b"message", channel.encode(), b"now"]


def test_the_reply_counts_this_brokers_subscribers(redis_server, broker):
    redis_servers = redis_server(1)
    first, second = broker(redis_servers), broker(redis_servers)
    pods = [Pod(first.port) for _ in range(3)] + [Pod(second.port)]
    with Raw(first.port) as raw:
        assert raw.call("PUBLISH", "flask-socketio", emit("r", ["a", 0])) == 3
        assert raw.call("PUBSUB", "NUMSUB", "flask-socketio", "x") == [b"flask-socketio", 3, b"x", 0]
        assert raw.call("PUBSUB", "CHANNELS") == [b"flask-socketio"]
        assert raw.call("PUBSUB", "CHANNELS", "nothing*") == []
        assert raw.call("PUBSUB", "NUMPAT") == 0
    for pod in pods:
        wait_until(lambda pod=pod: len(pod.received) == 1, "the message is there")
        pod.close()


def test_pubsub_counts_the_subscribers_of_all_brokers(redis_server, broker):
    servers = redis_server(2)
    brokers = [broker(servers) for _ in range(2)]
    for b in brokers:
        wait_until(lambda b=b: b.status()["live_brokers"] == 1, "they hear each other")
    pods = [Pod(brokers[0].port, "flask-socketio", "news"), Pod(brokers[1].port, "flask-socketio"),
            Pod(brokers[1].port, "flask-socketio", "other")]
    for b in brokers:
        with Raw(b.port) as raw:
            asked = ("PUBSUB", "NUMSUB", "flask-socketio", "news", "none")
            expected = [b"flask-socketio", 3, b"news", 1, b"none", 0]
            wait_until(lambda raw=raw: raw.call(*asked) == expected, "the counts are heard", 5)
            assert sorted(raw.call("PUBSUB", "CHANNELS")) == [b"flask-socketio", b"news", b"other"]
            assert raw.call("PUBSUB", "CHANNELS", "ne*") == [b"news"]
    pods[0].close()
    with Raw(brokers[1].port) as raw:
        wait_until(lambda: raw.call("PUBSUB", "NUMSUB", "news") == [b"news", 0], "it has left", 5)
        brokers[0].kill()
        assert raw.call("PUBSUB", "NUMSUB", "flask-socketio") == [b"flask-socketio", 2]
    for pod in pods[1:]:
        pod.close()


@pytest.mark.parametrize("shards", [0, 1], ids=["hub", "1 shard"])
def test_a_payload_of_16_mib_crosses_and_a_larger_one_is_refused(redis_server, broker, shards):
    b = broker(redis_server(shards) if shards else [])
    payload = bytes(range(256)) * (16 * 4096)
    assert len(payload) == 16 * 1024 * 1024
    with Raw(b.port, timeout=60) as subscriber, Raw(b.port, timeout=60) as publisher:
        subscriber.call("SUBSCRIBE", "large")
        for _ in range(2):
            assert publisher.call("PUBLISH", "large", payload) == 1
            assert subscriber.read() == [b"message", b"large", payload]
        refused = publisher.call("PUBLISH", "large", payload + b"x")  # answered when it has been read past
        assert "limits.payload" in refused and "16777217" in refused
        assert publisher.call("PUBLISH", "large", "short") == 1
        assert subscriber.read() == [b"message", b"large", b"short"]


@pytest.mark.smoke
def test_300_publishers_at_once_are_served(redis_server, broker):
    b = broker(redis_server(2))
    pod = Pod(b.port)
    raws = [Raw(b.port) for _ in range(300)]
    for number in range(3):
        for i, raw in enumerate(raws):
            raw.send(command("PUBLISH", "flask-socketio", emit("r", [i, number])))
        for raw in raws:
            assert raw.read() == 1
    wait_until(lambda: len(pod.received) == 900, "all is there")
    check_complete(pod, list(range(300)), ["r"], 3)
    for raw in raws:
        raw.close()
    wait_until(lambda: b.status()["clients_open"] == 1, "the publishers are gone")
    pod.close()

"""Redis servers come and go: what waits is bounded and sent in order on return, local pods miss nothing meanwhile, and
whatever is wrong with a Redis is told once and tried again."""
import threading
import time

import pytest
from daemons import answers, figure, free_port, wait_until
from resp_client import Error, Pod, Raw, check_complete, emit, publish_all

ROOMS = [f"room {i}" for i in range(8)]


def shard_states(broker):
    return {shard["name"]: shard["state"] for shard in broker.status()["shards"]}


def wait_up(*brokers):
    for broker in brokers:
        wait_until(lambda broker=broker: set(shard_states(broker).values()) == {"up"}, f"{broker.name}: shards are up")


def test_local_pods_get_everything_once_and_in_order_while_a_shard_restarts(redis_server, broker):
    redis_servers = redis_server(2)
    b = broker(redis_servers)
    wait_up(b)
    pods = [Pod(b.port) for _ in range(2)]
    stop = threading.Event()
    counts = {}

    def publish(name):
        with Raw(b.port) as raw:
            number = 0
            while not stop.is_set():
                for room in ROOMS:
                    assert isinstance(raw.call("PUBLISH", "flask-socketio", emit(room, [name, number])), int)
                number += 1
                time.sleep(0.002)
            counts[name] = number

    threads = [threading.Thread(target=publish, args=(f"p{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(figure(2, 10)):
        time.sleep(0.2)
        redis_servers[0].kill()
        wait_until(lambda: shard_states(b)["a"] == "down", "the shard is down")
        time.sleep(0.3)
        redis_servers[0].start()
        wait_up(b)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(counts) == 3
    total = sum(counts.values()) * len(ROOMS)
    for pod in pods:
        wait_until(lambda pod=pod: len(pod.received) >= total, "all messages are there")
    for pod in pods:
        by_room = pod.by_room()
        for room in ROOMS:
            for name, count in counts.items():
                assert [n for who, n in by_room[room] if who == name] == list(range(count))
        pod.close()
    metrics = b.metrics()
    assert metrics.get("sidrail_broker_moves_total") > 0
    assert metrics.get("sidrail_broker_messages_lost_total") == 0


def test_what_waited_for_a_shard_reaches_the_other_broker_in_order(redis_server, broker):
    server = redis_server()
    first, second = broker([server]), broker([server])
    wait_up(first, second)
    pod = Pod(second.port)
    publish_all(first.port, "p", ROOMS, 3)
    wait_until(lambda: len(pod.received) == 3 * len(ROOMS), "the first are there")
    server.pause()
    publish_all(first.port, "p", ROOMS, 50, first=3)
    assert first.status()["spill_bytes"] > 0
    server.resume()
    wait_until(lambda: len(pod.received) == 53 * len(ROOMS), "the rest is there", 40)
    check_complete(pod, ["p"], ROOMS, 53)
    assert second.metrics().get("sidrail_broker_messages_lost_total") == 0
    pod.close()


def test_a_lost_link_is_retried_and_unconfirmed_messages_are_sent_again(redis_server, broker):
    server = redis_server()
    b = broker([server])
    wait_up(b)
    pod = Pod(b.port)
    killer = server.client()
    done = threading.Event()

    def publish():
        publish_all(b.port, "p", ROOMS, figure(200, 2000), depth=16)
        done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    kills = 0
    while not done.is_set() or kills < 3:
        for client in killer.client_list():
            if client["name"].startswith("sidrail-broker-"):
                killer.client_kill_filter(_id=client["id"])
                kills += 1
        time.sleep(0.03)
    thread.join()
    count = figure(200, 2000)
    wait_until(lambda: len(pod.received) >= count * len(ROOMS), "all is there", 40)
    check_complete(pod, ["p"], ROOMS, count)
    assert b.metrics().get("sidrail_broker_links_closed_total") >= kills / 2
    pod.close()
    killer.close()


def test_over_the_spill_a_publish_is_refused_and_what_was_accepted_is_kept(redis_server, broker):
    server = redis_server()
    b = broker([server], config={"spill": {"bytes": "64KiB"}})
    wait_up(b)
    pod = Pod(b.port)
    server.kill()
    wait_until(lambda: shard_states(b)["a"] == "down", "the shard is down")
    with Raw(b.port) as raw:
        accepted = 0
        while True:
            reply = raw.call("PUBLISH", "flask-socketio", emit("r", ["p", accepted]))
            if isinstance(reply, Error):
                break
            accepted += 1
        assert reply == "ERR backplane overloaded"
        assert 50 < accepted < 1000
        server.start()
        wait_up(b)
        assert raw.call("PUBLISH", "flask-socketio", emit("r", ["p", accepted])) == 1
    wait_until(lambda: len(pod.received) == accepted + 1, "what was accepted is delivered")
    assert [data[1] for _, data in pod.received] == list(range(accepted + 1))
    wait_until(lambda: b.status()["spill_bytes"] == 0, "nothing waits any more")
    assert b.metrics().get("sidrail_broker_messages_refused_total", reason="overloaded") == 1
    pod.close()


def test_messages_that_waited_too_long_are_given_up_and_counted_and_others_hear_of_it(redis_server, broker):
    server = redis_server()
    first, second = (broker([server], config={"spill": {"age": "5s"}}) for _ in range(2))
    wait_up(first, second)
    near, far = Pod(first.port), Pod(second.port)
    server.kill()
    wait_until(lambda: shard_states(first)["a"] == "down", "the shard is down")
    with Raw(first.port) as raw:
        for number in range(3):
            assert raw.call("PUBLISH", "flask-socketio", emit("r", number)) == 1
        wait_until(lambda: first.metrics().get("sidrail_broker_messages_lost_total", reason="spill") == 3, "given up")
        assert raw.call("PUBLISH", "flask-socketio", emit("r", 3)) == 1
        server.start()
        wait_up(first, second)
        assert raw.call("PUBLISH", "flask-socketio", emit("r", 4)) == 1
    wait_until(lambda: len(far.received) == 2, "what could be sent is there")
    assert [data for _, data in near.received] == [0, 1, 2, 3, 4] and [data for _, data in far.received] == [3, 4]
    assert second.metrics().get("sidrail_broker_messages_lost_total", reason="gone") == 3
    for pod in (near, far):
        pod.close()


def test_a_redis_that_cannot_be_reached_is_told_once_and_tried_again(servers, broker):
    import daemons
    port = free_port()
    b = broker([f"redis://127.0.0.1:{port}"])
    wait_until(lambda: shard_states(b)["a"] == "down", "the shard is down")
    time.sleep(0.5)
    assert b.log().count("error shard:a down") == 1
    assert "Connection refused" in b.log()
    with Raw(b.port) as raw:
        assert raw.call("SUBSCRIBE", "flask-socketio") == [b"subscribe", b"flask-socketio", 1]
    servers.start(daemons.Redis("late", servers.folder, port=port))
    wait_up(b)
    assert b.log().count("info shard:a up") == 1


def test_a_wrong_password_is_told_and_a_new_one_in_the_file_is_taken(redis_server, broker, tmp_path):
    server = redis_server(password="right")
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    b = broker(config={"shards": [{"name": "a", "url": server.url, "password_file": str(secret)}]})
    b.wait_log(r"error shard:a down reason=link_auth why=.*(WRONGPASS|invalid password)")
    secret.write_text("right\n")
    wait_up(b)
    with Raw(b.port) as raw:
        raw.call("SUBSCRIBE", "x")
        with Raw(b.port) as other:
            other.call("PUBLISH", "x", "y")
        assert raw.read() == [b"message", b"x", b"y"]


def test_credentials_and_names_in_the_url_work(redis_server, broker):
    server = redis_server(password="in-url")
    b = broker([f"redis://:in-url@localhost:{server.port}"])
    wait_up(b)
    names = {client["name"] for client in server.client().client_list()}
    assert any(name.startswith("sidrail-broker-") for name in names)


def test_a_replica_is_no_shard(redis_server, broker):
    master = redis_server()
    replica = redis_server(args=["--replicaof", "127.0.0.1", str(master.port)])
    b = broker([replica])
    b.wait_log(r"error shard:a down reason=link_not_master")
    with replica.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    wait_up(b)


def test_the_least_acl_of_the_contract_is_enough(redis_server, broker):
    server = redis_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "broker", "on", ">secret", "resetchannels", "&sidrail1:*", "-@all",
                               "+subscribe", "+unsubscribe", "+publish", "+ping", "+auth", "+role", "+client|setname")
    b = broker([f"redis://broker:secret@127.0.0.1:{server.port}"])
    wait_up(b)
    pod = Pod(b.port)
    publish_all(b.port, "p", ROOMS, 2)
    wait_until(lambda: len(pod.received) == 2 * len(ROOMS), "all is there")
    time.sleep(1.5)  # idle links are asked PING
    assert shard_states(b)["a"] == "up"
    pod.close()


def test_a_redis_that_hangs_holds_nothing_up_for_local_pods(redis_server, broker):
    server = redis_server()
    b = broker([server])
    wait_up(b)
    pod = Pod(b.port)
    server.pause()
    wait_until(lambda: shard_states(b)["a"] == "down", "the shard is given up", 10)
    publish_all(b.port, "p", ROOMS, 5)
    wait_until(lambda: len(pod.received) == 5 * len(ROOMS), "local pods have it at once", 2)
    assert b.metrics().get("sidrail_broker_messages_at_once_total") > 0
    server.resume()
    wait_up(b)
    publish_all(b.port, "p", ROOMS, 5, first=5)
    wait_until(lambda: len(pod.received) >= 10 * len(ROOMS), "the rest is there")
    time.sleep(0.5)
    check_complete(pod, ["p"], ROOMS, 10)
    pod.close()


@pytest.mark.parametrize("rule,ready", [("none", 200), ("any", 200), ("all", 503)])
def test_readiness_follows_its_rule(redis_server, broker, rule, ready):
    from daemons import http_get
    b = broker([redis_server(), f"redis://127.0.0.1:{free_port()}"], wait=False, config={"readiness": rule})
    wait_until(lambda: answers(b.admin_port) and shard_states(b) == {"a": "up", "b": "down"}, "one shard is up")
    assert http_get(b.admin + "/readyz")[0] == ready


def test_partitions_are_subscribed_only_while_somebody_wants_them(redis_server, broker):
    server = redis_server()
    b = broker([server])
    wait_up(b)

    def subscribed():
        return b.status()["shards"][0]["partitions_subscribed"]

    assert subscribed() == 0
    with Raw(b.port) as raw:
        raw.call("SUBSCRIBE", "news")
        assert subscribed() == 1
        raw.call("SUBSCRIBE", "flask-socketio")
        assert subscribed() == 4096
        with server.client() as client:
            assert len(client.pubsub_channels("sidrail1:default:p:*")) == 4096
    assert subscribed() == 4096  # it may be back at once
    wait_until(lambda: subscribed() == 0, "nobody wants them any more", 15)



"""Shards are added, removed and replaced under load, at brokers that read their files at different times: nothing is lost,
nothing comes twice, and each publisher's messages to a room stay in order."""
import signal
import time

import pytest
import yaml
from broker_load import Load
from broker_tools import ctl, rewrite, shard_states, shards_of, sum_of, wait_settled, wait_up, wait_used
from daemons import figure, free_port, http_get, is_full, sanitizer, wait_until
from resp_client import Error, Pod, Raw, emit


waits_long = pytest.mark.skipif(not is_full(), reason="waits several times for five seconds")


@pytest.fixture
def three(redis_server):
    return dict(zip("abc", redis_server(3)))


def start(broker, count=2, **servers):
    brokers = [broker(config={"shards": shards_of(**servers)}) for _ in range(count)]
    wait_up(*brokers)
    return brokers


def test_a_shard_is_added_and_another_removed_under_load(three, broker):
    a, b, c = three.values()
    brokers = start(broker, a=a, b=b)
    load = Load(brokers, pause=0.01)
    began = time.monotonic()
    time.sleep(0.5)
    for one in brokers:
        rewrite(one, shards=shards_of(a=a, b=b, c=c))
        time.sleep(figure(1, 4))
    wait_used(brokers, "abc")
    for one in brokers:  # to a better shard only when it has been usable for five seconds
        wait_until(lambda one=one: min(s["partitions_sent_here"] for s in one.status()["shards"]) > 1000, "all are used")
    for one in reversed(brokers):
        rewrite(one, shards=shards_of(b=b, c=c))
        time.sleep(figure(1, 4))
    wait_used(brokers, "bc")
    wait_settled(brokers, "bc")
    load.stop()
    print("messages a second", sum(load.counts.values()) * 16 / (time.monotonic() - began))
    load.check()
    with a.client() as client:
        wait_until(lambda: not client.pubsub_channels("*"), "nothing is subscribed at the removed shard")


@waits_long
def test_a_shard_is_replaced_and_then_stopped_under_load(three, broker):
    a, b, c = three.values()
    brokers = start(broker, a=a, b=b)
    load = Load(brokers, pause=0.01)
    for one in brokers:
        rewrite(one, shards=shards_of(b=b, c=c))
        time.sleep(figure(2, 5))
    wait_settled(brokers, "bc")
    a.kill()
    time.sleep(0.5)
    load.check()


@waits_long
def test_the_old_shards_stay_in_use_until_the_last_broker_has_loaded_the_new_ones(three, broker):
    a, b, c = three.values()
    brokers = start(broker, a=a, b=b)
    load = Load(brokers)
    rewrite(brokers[0], shards=shards_of(a=a, b=b, c=c))
    wait_until(lambda: brokers[0].status()["map_state"] == "loaded", "it is loaded")
    time.sleep(2)
    status = brokers[0].status()
    assert status["map_state"] == "loaded" and status["brokers_behind"] == [brokers[1].status()["origin"]]
    assert brokers[0].metrics().get("sidrail_broker_map_behind") == 1
    assert {s["name"] for s in status["shards"] if s["partitions_sent_here"] > 0} == {"a", "b"}
    code, text = ctl(brokers[0], "reload", "--without", status["brokers_behind"][0])
    assert (code, text) == (0, "shards: loaded\n")
    wait_until(lambda: brokers[0].status()["map_state"] == "used", "it goes on without the other")
    time.sleep(1)
    rewrite(brokers[1], shards=shards_of(a=a, b=b, c=c))
    wait_settled(brokers, "abc")
    load.check()


@waits_long
def test_a_change_that_is_replaced_before_it_is_used_loses_nothing(three, broker):
    a, b, c = three.values()
    brokers = start(broker, a=a, b=b)
    load = Load(brokers)
    rewrite(brokers[0], shards=shards_of(a=a, b=b, c=c))
    time.sleep(0.7)
    rewrite(brokers[0], shards=shards_of(a=a, c=c))
    time.sleep(0.7)
    rewrite(brokers[0], shards=shards_of(a=a, b=b))
    wait_until(lambda: brokers[0].status()["map_state"] == "used", "back where it was")
    rewrite(brokers[1], shards=shards_of(a=a, c=c))
    time.sleep(0.7)
    rewrite(brokers[0], shards=shards_of(a=a, c=c))
    wait_settled(brokers, "ac")
    load.check()


@waits_long
def test_a_shard_that_is_killed_during_a_change_loses_nothing(three, broker):
    a, b, c = three.values()
    brokers = start(broker, a=a, b=b)
    load = Load(brokers)
    rewrite(brokers[0], shards=shards_of(a=a, b=b, c=c))
    time.sleep(0.3)
    a.kill()
    rewrite(brokers[1], shards=shards_of(a=a, b=b, c=c))
    time.sleep(2.5)
    assert {one.status()["map_state"] for one in brokers} == {"loaded"}  # one of its shards is down
    a.start()
    wait_used(brokers, "abc")
    load.check()


def test_a_broker_that_starts_with_the_new_shards_waits_for_the_others(three, broker):
    a, b, c = three.values()
    first = start(broker, count=1, a=a, b=b)[0]
    second = broker(wait=False, config={"shards": shards_of(a=a, b=b, c=c)})
    why = f"broker {first.status()['origin']} has a different map: names or weights of shards"
    wait_until(lambda: http_get(second.admin + "/readyz")[:2] == (503, why + "\n"), "it is not ready, and says why")
    assert "starting" in shard_states(second).values()
    with Raw(second.port) as raw:
        assert raw.call("PUBLISH", "flask-socketio", emit("r", 1)) == Error("ERR " + why)
    rewrite(first, shards=shards_of(a=a, b=b, c=c))
    wait_up(first, second)
    assert http_get(second.admin + "/readyz")[0] == 200
    assert "map publishes are accepted again" in second.log()
    load = Load([first, second])
    time.sleep(1)
    load.check()


def test_a_second_cluster_of_the_same_name_is_refused_and_the_first_is_not(redis_server, broker):
    server = redis_server()
    first = start(broker, count=1, a=server)[0]
    second = broker(wait=False, config={"shards": shards_of(a=server), "cluster": {"partitions": 1024}})
    what = "partitions (4096, here 1024)"
    wait_until(lambda: what in http_get(second.admin + "/readyz")[1], "it is not ready, and says why")
    with Raw(second.port) as raw:
        assert what in raw.call("PUBLISH", "flask-socketio", emit("r", 1))
    assert second.metrics().get("sidrail_broker_messages_refused_total", reason="map_differs") == 1
    assert "refused" in ctl(second, "status")[1] and what in ctl(second, "status")[1]
    status = first.status()
    assert not status["outvoted"] and [b["origin"] for b in status["brokers_differing"]] == [second.status()["origin"]]
    assert first.metrics().get("sidrail_broker_map_differs") == 1
    assert http_get(first.admin + "/readyz")[0] == 200
    with Raw(first.port) as raw:
        assert raw.call("PUBLISH", "flask-socketio", emit("r", 1)) == 0
    for one in (first, second):
        assert one.log().count("another broker has a different map") == 1


def has_only(server, is_there):
    with server.client() as client:
        wait_until(lambda: bool(client.pubsub_channels("sidrail1:*")) == is_there, "the brokers are there, or not", 15)


def test_the_place_of_the_only_shard_changes_under_its_name(redis_server, broker):
    """Three seconds apart, and back in the other order: until both have loaded it only the old place is common."""
    old, new = redis_server(2)
    brokers = start(broker, a=old)
    load = Load(brokers)
    for place, left, order in ((new, old, brokers), (old, new, brokers[::-1]))[:figure(1, 2)]:
        rewrite(order[0], shards=shards_of(a=place))
        wait_until(lambda: order[0].status()["map_state"] == "loaded", "the first has loaded it")
        assert set(shard_states(order[0])) == {"a", f"a (127.0.0.1:{left.port})"}
        assert order[0].metrics().get("sidrail_broker_shard_up", shard="a") is not None
        time.sleep(figure(1, 3))
        status = order[0].status()
        assert status["map_state"] == "loaded" and len(status["brokers_behind"]) == 1
        assert {s["name"] for s in status["shards"] if s["partitions_sent_here"]} == {f"a (127.0.0.1:{left.port})"}
        rewrite(order[1], shards=shards_of(a=place))
        for one in brokers:
            wait_until(lambda one=one: one.status()["map_state"] in ("used", "settled"), "it is in use")
        if is_full():
            wait_settled(brokers, "a")
            has_only(left, False)
        has_only(place, True)
    load.check()


def test_a_shard_that_brokers_know_by_two_addresses_is_one(redis_server, relays, broker):
    servers = redis_server(2)
    brokers = [broker(config={"shards": [{"name": name, "url": url} for name, url in zip("ab", urls)]})
               for urls in ([s.url for s in servers], [relays(s).url for s in servers])]
    wait_up(*brokers)
    load = Load(brokers)
    time.sleep(0.5)
    load.check()
    assert sum_of(brokers, "sidrail_broker_moves_total") == 0


# ── what else a reload takes over ──

def test_a_bad_file_is_told_and_changes_nothing(three, broker):
    one = start(broker, count=1, **three)[0]
    good = one.config_path.read_text()
    one.config_path.write_text(good.replace("shards:", "shard:"))
    one.wait_log(r"error main not reloaded, the old configuration stays why=.*unknown key .*shard")
    code, text = ctl(one, "reload")
    assert code == 1 and "unknown key" in text
    one.config_path.write_text(good.replace(one.address, f"127.0.0.1:{three['a'].port}"))
    one.signal(signal.SIGHUP)
    one.wait_log(r"not reloaded.*listeners\[0\].address: .*in use")
    assert set(shard_states(one)) == set("abc")
    assert one.metrics().get("sidrail_broker_reloads_total", result="bad") >= 3
    with Raw(one.port) as raw:
        assert raw.call("PING") == "PONG"
    one.config_path.write_text(good)
    assert ctl(one, "reload") == (0, "shards: settled\n")


def test_listeners_come_and_go_and_their_clients_stay(broker, tmp_path):
    one = broker()
    old, new, path = one.port, free_port(), tmp_path / "b.sock"
    with Raw(old) as raw:
        rewrite(one, listeners=[{"address": f"127.0.0.1:{new}"}, {"address": f"unix:{path}", "mode": "0600"}])
        wait_until(path.exists, "the socket is there")
        with Raw(new) as other:
            assert other.call("PING") == "PONG"
        assert raw.call("PING") == "PONG"
        with pytest.raises(OSError):
            Raw(old)
        rewrite(one, listeners=[{"address": f"127.0.0.1:{old}"}])
        one.wait_log("no longer listening address=unix")
        with Raw(old) as back:
            assert back.call("PING") == "PONG"
    assert not path.exists()


def test_users_and_limits_are_those_of_the_new_file(broker, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    one = broker()
    users = [{"name": "default", "password_file": str(secret)}]
    with Raw(one.port) as early:
        rewrite(one, listeners=[{"address": one.address, "users": users}], limits={"clients": 3}, log={"level": "info", "format": "text"})
        one.wait_log("info main reloaded")
        assert early.call("PING") == "PONG"
        with Raw(one.port) as raw:
            assert raw.call("PING").startswith("NOAUTH")
            assert raw.call("AUTH", "first") == "OK"
            secret.write_text("second\n")
            assert ctl(one, "reload")[0] == 0
            with Raw(one.port) as other:
                assert other.call("AUTH", "first").startswith("WRONGPASS")
                assert other.call("AUTH", "second") == "OK"
                with Raw(one.port) as fourth:
                    assert fourth.read() == "ERR max number of clients reached"
            assert raw.call("PING") == "PONG"


def test_what_needs_a_restart_is_named_and_stays(three, broker):
    one = start(broker, count=1, **three)[0]
    rewrite(one, cluster={"name": "other", "partitions": 64}, channels=["x"], delivery={"order": "total"})
    one.wait_log(r"warn main changed, and needs a restart options=.*channels.*cluster.name.*cluster.partitions.*order")
    one.wait_log("info main reloaded")
    pod = Pod(one.port)
    with Raw(one.port) as raw:
        raw.call("PUBLISH", "flask-socketio", emit("r", 1))
    wait_until(lambda: pod.received == [("r", 1)], "it goes on as before")
    pod.close()
    assert one.status()["cluster"] == "default"


@pytest.mark.skipif(sanitizer() != "", reason="a sanitizer has memory of its own")
def test_many_reloads_leave_nothing_behind(three, broker):
    one = start(broker, count=1, **three)[0]

    def reload_often(count):
        for number in range(count):
            one.config["spill"] = {"bytes": f"{number % 7 + 1}MiB"}
            one.config_path.write_text(yaml.safe_dump(one.config))
            assert ctl(one, "reload")[0] == 0

    reload_often(20)
    before = one.pss()
    reload_often(figure(60, 1000))
    assert one.pss() < before + 1_000_000

"""Shards, links and brokers' paths fail under load; subscribers of two brokers miss nothing, see nothing twice, and each
publisher's messages to a room stay in order. Real Redis servers; a relay between brokers and Redis cuts and stalls."""
import threading
import time

import pytest
from broker_load import Load
from broker_tools import shard_states, sum_of, wait_up
from daemons import figure, wait_until


@pytest.fixture
def pair(redis_server, broker):
    servers = redis_server(3)
    brokers = [broker(servers) for _ in range(2)]
    wait_up(*brokers)
    return servers, brokers


def test_brokers_hear_each_other_and_say_so(pair):
    _, brokers = pair
    for broker in brokers:
        assert broker.metrics().get("sidrail_broker_live_brokers") == 1
        assert sum(shard["partitions_sent_here"] for shard in broker.status()["shards"]) == 4096
    brokers[1].stop()
    wait_until(lambda: brokers[0].status()["live_brokers"] == 0, "it is not live any more", 15)


def test_a_killed_shard_loses_nothing(pair):
    servers, brokers = pair
    for _ in range(figure(1, 5)):
        load = Load(brokers)
        time.sleep(1)
        servers[1].kill()
        time.sleep(2)
        assert all(broker.status()["spill_bytes"] < 100_000 for broker in brokers)
        load.check()
        assert sum_of(brokers, "sidrail_broker_moves_total") > 1000
        servers[1].start()
        wait_up(*brokers)


def test_a_shard_that_restarts_empty_loses_nothing(pair):
    servers, brokers = pair
    load = Load(brokers)
    for _ in range(figure(2, 10)):
        time.sleep(0.5)
        servers[2].kill()
        servers[2].start()
        wait_up(*brokers)
    load.check()


def test_a_shard_that_hangs_and_wakes_loses_nothing_and_doubles_nothing(pair):
    servers, brokers = pair
    load = Load(brokers)
    time.sleep(1)
    servers[0].pause()
    time.sleep(figure(3, 10))
    servers[0].resume()
    wait_up(*brokers)
    time.sleep(1)
    load.check()
    assert sum_of(brokers, "sidrail_broker_messages_retransmitted_total") > 0


def test_resets_of_every_link_lose_nothing(redis_server, broker, relays):
    paths = [relays(server) for server in redis_server(3)]
    brokers = [broker([path.url for path in paths]) for _ in range(2)]
    wait_up(*brokers)
    load = Load(brokers)
    for _ in range(figure(3, 15)):
        time.sleep(0.7)
        for path in paths:
            path.reset()
    load.check()
    assert sum_of(brokers, "sidrail_broker_links_closed_total") >= 12


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_path_that_stalls_one_way_loses_nothing(redis_server, broker, relays, direction):
    servers = redis_server(3)
    path = relays(servers[0])
    urls = [server.url for server in servers]
    brokers = [broker([path.url, *urls[1:]]), broker(urls)]
    wait_up(*brokers)
    load = Load(brokers)
    time.sleep(0.5)
    path.stall(direction, figure(4, 10))
    wait_up(*brokers)
    load.check()


def test_with_home_and_standby_down_own_pods_are_served_and_the_rest_comes_later(pair):
    servers, brokers = pair
    load = Load(brokers, publishers=1, pause=0.05)
    time.sleep(0.5)
    for server in servers:
        server.kill()
    time.sleep(1.5)
    assert sum_of(brokers, "sidrail_broker_messages_at_once_total") > 0
    for server in servers:
        server.start()
    wait_up(*brokers)
    load.check()


def test_a_demoted_master_is_left(pair):
    servers, brokers = pair
    load = Load(brokers)
    time.sleep(0.5)
    with servers[0].client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", str(servers[1].port))
        for broker in brokers:
            wait_until(lambda broker=broker: shard_states(broker)["a"] == "down", "it is left", 5)
            assert "link_not_master" in broker.log()
        time.sleep(1)
        client.execute_command("REPLICAOF", "NO", "ONE")
    wait_up(*brokers)
    load.check()


def test_a_second_broker_joins_and_leaves_under_load(pair, broker):
    servers, brokers = pair
    load = Load(brokers)
    time.sleep(0.5)
    third = broker(servers)
    wait_until(lambda: third.status()["live_brokers"] == 2, "it hears the others")
    time.sleep(1)
    third.stop()
    time.sleep(1)
    load.check()


def test_a_stopped_broker_catches_up(pair):
    _, brokers = pair
    load = Load(brokers, at=brokers[:1])
    time.sleep(0.5)
    brokers[1].pause()
    time.sleep(figure(3, 7))
    brokers[1].resume()
    time.sleep(1)
    load.check()

"""Shards, links and brokers' paths fail under load; subscribers of two brokers miss nothing, see nothing twice, and each
publisher's messages to a room stay in order. Real Redis servers; a relay between brokers and Redis cuts and stalls."""
import threading
import time

import pytest
from broker_tools import shard_states, sum_of, wait_up
from daemons import figure, wait_until
from resp_client import Error, Pod, Raw, emit

ROOMS = [f"room {i}" for i in range(16)]


class Load:
    """Publishers at each broker, at a steady pace, until stop(); then what they have published is checked."""

    def __init__(self, brokers, publishers=2, pause=0.02, at=None):
        self.brokers = brokers
        self.counts = {}
        self.refused = []
        self.stopping = threading.Event()
        self.pods = {f"{broker.name}/{i}": Pod(broker.port) for broker in brokers for i in range(2)}
        self.threads = [threading.Thread(target=self._publish, args=(broker.port, f"{broker.name}.{i}", pause))
                        for broker in at or brokers for i in range(publishers)]
        for thread in self.threads:
            thread.start()

    def _publish(self, port, name, pause):
        number = 0
        with Raw(port) as raw:
            while not self.stopping.is_set():
                for room in ROOMS:
                    reply = raw.call("PUBLISH", "flask-socketio", emit(room, [name, number]))
                    if isinstance(reply, Error):
                        self.refused.append(reply)
                number += 1
                time.sleep(pause)
        self.counts[name] = number

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def check(self):
        self.stop()
        assert not self.refused
        assert len(self.counts) == len(self.threads)
        total = sum(self.counts.values()) * len(ROOMS)
        try:
            for name, pod in self.pods.items():
                wait_until(lambda pod=pod: len(pod.received) >= total, f"{name} has everything", 20)
        finally:
            missing = {name: total - len(pod.received) for name, pod in self.pods.items()}
            print("published", total, "missing", missing)
        time.sleep(0.5)
        for pod in self.pods.values():
            by_room = pod.by_room()
            for room in ROOMS:
                for publisher, count in self.counts.items():
                    assert [n for who, n in by_room[room] if who == publisher] == list(range(count)), room
            assert len(pod.received) == total
            pod.close()
        for broker in self.brokers:
            assert broker.metrics().get("sidrail_broker_messages_lost_total") == 0


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

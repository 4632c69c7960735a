"""Shards, links and brokers' paths fail under load; subscribers of two brokers miss nothing, see nothing twice, and each
publisher's messages to a room stay in order. Real Redis servers; a relay between brokers and Redis cuts and stalls."""
import socket
import struct
import threading
import time

import pytest
from daemons import figure, free_port, wait_until
from resp_client import Error, Pod, Raw, emit

ROOMS = [f"room {i}" for i in range(16)]


class Relay:
    """A TCP relay in front of a server: resets its connections, or stalls one direction."""

    def __init__(self, target):
        self.target = target
        self.port = free_port()
        self.pairs = []
        self.flows = {"up": threading.Event(), "down": threading.Event()}
        for flow in self.flows.values():
            flow.set()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.pairs.append((client, server))
            for source, sink, flow in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._copy, args=(source, sink, self.flows[flow]), daemon=True).start()

    @staticmethod
    def _copy(source, sink, flow):
        try:
            while data := source.recv(65536):
                flow.wait()
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def reset(self):
        """Ends every connection with RST; what is under way is lost."""
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()

    def stall(self, direction, seconds):
        """Nothing passes "up" (to Redis) or "down" for so long."""
        self.flows[direction].clear()
        time.sleep(seconds)
        self.flows[direction].set()

    def close(self):
        self.listener.close()
        for flow in self.flows.values():
            flow.set()
        self.reset()


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


def shard_states(broker):
    return {shard["name"]: shard["state"] for shard in broker.status()["shards"]}


def wait_up(*brokers, seconds=20):
    for broker in brokers:
        wait_until(lambda broker=broker: set(shard_states(broker).values()) == {"up"}, f"{broker.name}: shards are up",
                   seconds)
        wait_until(lambda broker=broker: broker.status()["live_brokers"] == len(brokers) - 1,
                   f"{broker.name} hears the others", seconds)


@pytest.fixture
def relays():
    made = []

    def make(server):
        made.append(Relay(server.port))
        return made[-1]

    yield make
    for relay in made:
        relay.close()


@pytest.fixture
def pair(redis_server, broker):
    servers = redis_server(3)
    brokers = [broker(servers) for _ in range(2)]
    wait_up(*brokers)
    return servers, brokers


def sum_of(brokers, metric):
    return sum(broker.metrics().get(metric) for broker in brokers)


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

"""Clients enter rooms, are sent to from pods anywhere, and leave, at random and all at once: nothing is lost that a plain
Redis would have delivered, nothing is doubled. The same with connections of pods that end, and with a broker killed.

What must come: whatever is emitted to a room, at any pod, after enter_room has returned and before leave_room is called.
A client leaves when that has come (on a plain Redis too leaving at once would lose it).
"""
import random
import threading
import time

import pytest
import yaml
from daemons import PATIENCE, figure, wait_until
from pod_process import PodProcess

#: Loops of the pods' processes, two pods each; and which of the two brokers they are at.
MIXES = {"current": [("current", "threading", 0), ("current", "gevent", 1), ("current", "asyncio", 1)],
         "5.7, pickle": [("5.7", "threading", 0), ("5.7", "threading", 1)]}
SHARED = ["lobby", "hall", 7, 2.5, "zimmer ü"]


class World:
    """Who is in which room, and what must come to whom."""

    def __init__(self, processes, seed):
        self.places = [(process, pod) for process in processes for pod in range(process.count)]
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.members = {}  # room: clients that have entered and not begun to leave
        self.emitting = {}  # id of an emit under way: who must get it
        self.next_id = 0
        self.next_room = 0
        self.clients = []
        self.shut = self.shut_wanted = 0
        self.failures = []

    def pick(self, choices):
        with self.lock:
            return self.random.choice(choices)

    def room(self):
        with self.lock:
            if self.random.random() < 0.6:  # a room, and mostly a partition, that nobody has needed before
                self.next_room += 1
                return f"room {self.next_room}"
            return self.random.choice(SHARED)

    def emit(self, room):
        """One emit to the room at any pod."""
        process, pod = self.pick(self.places)
        with self.lock:
            self.next_id += 1
            number = self.next_id
            for client in self.members.get(room, ()):
                client.expected.add(number)
        process.do(pod, "emit", room=room, data=number)


class Client:
    def __init__(self, world, place):
        self.world = world
        self.process, self.pod = place
        self.sid = self.process.do(self.pod, "connect")
        self.expected = set()
        world.clients.append(self)

    def missing(self):
        with self.world.lock:
            expected = sorted(self.expected)
        return self.process.do(self.pod, "lacks", sid=self.sid, data=expected[-500:])

    def visit(self):
        """Enters a room, is sent to, and leaves it."""
        room = self.world.room()
        self.process.do(self.pod, "enter", sid=self.sid, room=room)
        with self.world.lock:
            self.world.members.setdefault(room, []).append(self)
        for _ in range(self.world.pick([1, 1, 2, 5])):
            self.world.emit(room)
        with self.world.lock:
            self.world.members[room].remove(self)
        wait_until(lambda: not self.missing(), f"{self.sid} has what was sent to {room!r}", 15)
        self.process.do(self.pod, "leave", sid=self.sid, room=room)

    def run(self, visits):
        try:
            while visits > 0 or self.world.shut < self.world.shut_wanted:
                self.visit()
                visits -= 1
        except BaseException as error:
            self.world.failures.append(f"{error}; missing {self.missing()[:9]}")


def run_all(clients, visits, meanwhile=None):
    threads = [threading.Thread(target=client.run, args=(visits,)) for client in clients]
    for thread in threads:
        thread.start()
    while meanwhile is not None and any(thread.is_alive() for thread in threads):
        meanwhile()
        time.sleep(0.05)
    for thread in threads:
        thread.join(300 * PATIENCE)


def check_all(world):
    assert not world.failures, world.failures[:3]
    received = {}
    for process, pod in world.places:
        received.update(process.do(pod, "received"))
    for client in world.clients:
        got = received[client.sid]
        assert len(got) == len(set(got)), "something came twice"
        assert client.expected <= set(got)


def wait_greeted(processes):
    for process in processes:
        process.ready.result(30)
    wait_until(lambda: all(process.facts(pod)["greeted"] for process in processes for pod in range(process.count)),
               "the pods are greeted")


def wait_together(brokers, shards):
    """All shards are up, and the brokers have heard each other."""
    wait_until(lambda: all(b.status()["shards_up"] == shards for b in brokers), "shards are up")
    wait_until(lambda: all(b.metrics().get("sidrail_broker_live_brokers") == len(brokers) - 1 for b in brokers),
               "the brokers hear each other")


@pytest.fixture
def seed():
    value = random.randrange(1 << 30)
    print(f"seed {value}")
    return value


@pytest.fixture
def start_pods():
    made = []

    def start(mix, servers, manager="sidrail"):
        for version, loop, at in MIXES[mix]:
            made.append(PodProcess(version, loop, manager, f"redis://127.0.0.1:{servers[at].port}", 2))
        return made

    yield start
    for process in made:
        process.stop()


def populate(world):
    return [Client(world, place) for place in world.places for _ in range(2)]


@pytest.mark.parametrize("mix", MIXES)
def test_what_is_sent_to_a_room_that_was_entered_comes_once(broker, redis_server, start_pods, seed, mix):
    shards = redis_server(2)
    brokers = [broker(shards) for _ in range(2)]
    wait_together(brokers, 2)
    processes = start_pods(mix, brokers)
    wait_greeted(processes)
    world = World(processes, seed)
    run_all(populate(world), figure(6, 400))
    check_all(world)
    assert sum(b.metrics().get("sidrail_broker_messages_lost_total") or 0 for b in brokers) == 0
    assert all(b.status()["shards"][0]["partitions_subscribed"] < 4096 for b in brokers)


@pytest.mark.parametrize("manager", figure(["sidrail"], ["redis", "sidrail"]))
def test_the_same_holds_on_a_plain_redis(redis_server, start_pods, seed, manager):
    server = redis_server()
    processes = start_pods("current", [server, server], manager)
    for process in processes:
        process.ready.result(30)
    world = World(processes, seed)
    clients = populate(world)
    time.sleep(0.5)  # subscribed: nobody says so there
    run_all(clients, figure(3, 200))
    check_all(world)


@pytest.mark.parametrize("mix", MIXES)
def test_pods_whose_connections_end_lose_nothing_and_get_nothing_twice(broker, redis_server, start_pods, seed, mix):
    shards = redis_server(2)
    brokers = [broker(shards) for _ in range(2)]
    wait_together(brokers, 2)
    processes = start_pods(mix, brokers)
    wait_greeted(processes)
    world = World(processes, seed)

    def shut_one():
        process, pod = world.pick(world.places)
        if process.facts(pod)["greeted"]:
            process.do(pod, "shut")
            world.shut += 1

    world.shut_wanted = figure(10, 400)
    run_all(populate(world), figure(6, 300), shut_one)
    check_all(world)
    assert sum(b.metrics().get("sidrail_broker_replays_expired_total") for b in brokers) == 0


def test_a_broker_that_is_killed_comes_back_to_the_same_promise(broker, redis_server, start_pods, seed):
    shards = redis_server(2)
    brokers = [broker(shards) for _ in range(2)]
    wait_together(brokers, 2)
    processes = start_pods("current", brokers)
    wait_greeted(processes)
    world = World(processes, seed)
    clients = populate(world)
    for _ in range(figure(1, 20)):
        run_all(clients, figure(2, 20))
        victim = brokers[world.pick([0, 1])]
        victim.kill()
        victim.start()
        wait_together(brokers, 2)
        wait_greeted(processes)
    run_all(clients, figure(2, 20))
    check_all(world)


def give_shards(brokers, servers):
    """The brokers get files with these shards, and all of them use those."""
    for b in brokers:
        b.config["shards"] = [{"name": name, "url": server.url} for name, server in servers.items()]
        draft = b.config_path.with_suffix(".draft")
        draft.write_text(yaml.safe_dump(b.config, sort_keys=False))
        draft.rename(b.config_path)
    for b in brokers:
        wait_until(lambda b=b: b.status()["map_state"] != "loaded"
                   and {shard["name"] for shard in b.status()["shards"] if shard["partitions"] > 0} == set(servers),
                   f"{b.name} uses {list(servers)}")


def test_shards_that_come_and_go_meanwhile_lose_nothing(broker, redis_server, start_pods, seed):
    a, b, c = redis_server(3)
    brokers = [broker(config={"shards": [{"name": "a", "url": a.url}, {"name": "b", "url": b.url}]}) for _ in range(2)]
    wait_together(brokers, 2)
    processes = start_pods("5.7, pickle", brokers)
    wait_greeted(processes)
    world = World(processes, seed)
    world.shut_wanted = 1  # until the shards have changed
    problems = []

    def change():
        try:
            give_shards(brokers, {"a": a, "b": b, "c": c})
            give_shards(brokers, {"b": b, "c": c})
        except BaseException as error:
            problems.append(error)
        world.shut = 1

    changing = threading.Thread(target=change)
    changing.start()
    run_all(populate(world), figure(5, 100))
    changing.join()
    assert not problems, problems
    check_all(world)
    assert all(shard["partitions_subscribed"] < 4096 for one in brokers for shard in one.status()["shards"])

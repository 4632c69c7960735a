"""Real Flask pods at two brokers go on while their Redis servers fail: every line arrives, once, and each pod's lines to a
room in order. 100 lines a second; clients connect straight to their pods."""
import contextlib
import itertools
import threading
import time

import daemons
import pytest
from backplane_pods import BackplanePod, connected_crowd
from broker_tools import wait_up
from crowd import wish
from daemons import figure

ROOMS = [f"room {i}" for i in range(8)]


@pytest.fixture
def scene(servers, relays):
    """Three Redis behind relays, two brokers, three pods with two clients each."""
    shards = servers.redis_server(3)
    paths = [relays(shard) for shard in shards]
    brokers = [servers.broker([path.url for path in paths]) for _ in range(2)]
    wait_up(*brokers)
    pods = [BackplanePod(servers.name("pod"), servers.folder, "current",
                         f"{brokers[i % 2].url}?client_name=pod-{i}") for i in range(3)]
    for pod in pods:
        servers.start(pod, wait=False)
    for pod in pods:
        pod.wait_ready()
    clients = [wish(f"{pod.name}-{i}", "websocket", [ROOMS[(3 * i + p + k) % 8] for k in (0, 1, 2, 4)], url=pod.url)
               for p, pod in enumerate(pods) for i in range(2)]
    with connected_crowd(pods, clients) as crowd:
        yield shards, paths, brokers, pods, crowd
    daemons.stop_together(pods)


@contextlib.contextmanager
def steady_lines(pods, crowd, each_second=100):
    """Each pod emits line after line to rooms in turn, all together so many a second; what was emitted is expected."""
    stopping = threading.Event()
    errors = []

    def emit(pod, numbers):
        due = time.monotonic()
        try:
            while not stopping.is_set():
                number = next(numbers)
                pod.do("emit", rooms=ROOMS[number % len(ROOMS)], first=number)
                pod.last_number = number
                due += len(pods) / each_second
                time.sleep(max(0, due - time.monotonic()))
        except Exception as error:  # shown below
            errors.append(error)

    first = {pod: getattr(pod, "last_number", -1) + 1 for pod in pods}
    threads = [threading.Thread(target=emit, args=(pod, itertools.count(first[pod]))) for pod in pods]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    assert not errors, errors
    for pod in pods:
        for number in range(first[pod], pod.last_number + 1):
            crowd.expect(ROOMS[number % len(ROOMS)], f"{pod.name}:{number}")


def require_order(pods, crowd, report):
    for client in crowd.clients:
        for room in client["rooms"]:
            seen = [line for r, line in report[client["name"]]["received"] if r == room]
            for pod in pods:
                numbers = [int(line.split(":")[1]) for line in seen if line.startswith(f"{pod.name}:")]
                numbers = [number for number in numbers if number >= 0]
                assert numbers == sorted(numbers), f"{client['name']}, {room}: out of order"


def kill(shards, _paths):
    shards[0].kill()
    time.sleep(1.5)
    shards[0].start()


def hang(shards, _paths):
    shards[1].pause()
    time.sleep(figure(2, 10))
    shards[1].resume()


def reset(_shards, paths):
    for path in paths:
        path.reset()


def restart(shards, _paths):
    shards[2].kill()
    shards[2].start()


@pytest.mark.timeout(figure(180, 1800))
def test_lines_of_flask_pods_are_neither_lost_nor_doubled_while_shards_fail(scene):
    shards, paths, brokers, pods, crowd = scene
    for _ in range(figure(1, 20)):
        for fault in (kill, hang, reset, restart):
            with steady_lines(pods, crowd):
                time.sleep(0.5)
                fault(shards, paths)
                time.sleep(0.5)
            report = crowd.settle()
            require_order(pods, crowd, report)
            wait_up(*brokers)
    for broker in brokers:
        assert broker.metrics().get("sidrail_broker_messages_lost_total") == 0
    assert all(pod.last_number > 50 for pod in pods)

"""Processes that share one host_id, because they were forked after it was made, are found and told once, with the remedy."""
import contextlib
import secrets
import time

import pytest
from daemons import FlaskPod, figure, wait_until
from dialect_messages import JSON15, message
from resp_client import Raw

SUSPECT_SECONDS = 5


def told(broker):
    return [line for line in broker.log().splitlines() if "share a host_id" in line]


def wait_told(broker):
    wait_until(lambda: broker.status()["shared_host_ids"], "it is told", 25)
    (report,) = broker.status()["shared_host_ids"]
    assert "post_fork" in report["remedy"]
    (line,) = told(broker)
    assert "remedy=" in line and report["host_id"] in line
    assert broker.metrics().get("sidrail_broker_shared_host_ids_total") == 1
    return report


class Worker:
    """As one process: a subscriber, and a publisher that publishes under a host_id."""

    def __init__(self, port, host_id, name=""):
        self.host_id = host_id
        self.subscriber, self.publisher = Raw(port, timeout=5), Raw(port, timeout=5)
        for raw in (self.subscriber, self.publisher) if name else ():
            raw.call("CLIENT", "SETNAME", name)
        self.subscriber.call("SUBSCRIBE", "flask-socketio")

    def publish(self, count=1):
        for _ in range(count):
            assert isinstance(self.publisher.call("PUBLISH", "flask-socketio", message(JSON15, 1, host_id=self.host_id)), int)


def test_two_names_with_one_host_id_are_two_processes(broker):
    b = broker()
    host_id = secrets.token_hex(16)
    workers = [Worker(b.port, host_id, name) for name in ("one", "two:json15")]
    for worker in workers:
        worker.publish()
    assert wait_told(b) == {"host_id": host_id, "connections": 2, "subscribers": 1, "certain": True,
                            "remedy": b.status()["shared_host_ids"][0]["remedy"]}


def test_two_subscribers_who_all_publish_under_one_host_id_are_likely_to_share_it(broker):
    b = broker()
    workers = [Worker(b.port, "ab" * 16) for _ in range(2)]
    for worker in workers:
        worker.publish(10)
    report = wait_told(b)
    assert not report["certain"] and report["subscribers"] == 2


def test_one_process_with_many_connections_and_workers_of_their_own_id_are_nothing_to_tell(broker):
    b = broker()
    one = Worker(b.port, "cd" * 16, "one")
    pool = [Raw(b.port) for _ in range(3)]
    for raw in pool:
        raw.call("CLIENT", "SETNAME", "one")
    others = [Worker(b.port, secrets.token_hex(16)) for _ in range(3)]
    end = time.monotonic() + SUSPECT_SECONDS + 4
    while time.monotonic() < end:
        for raw in pool:
            raw.call("PUBLISH", "flask-socketio", message(JSON15, 1, host_id=one.host_id))
        for worker in (one, *others):
            worker.publish(5)
        time.sleep(0.2)
    assert b.status()["shared_host_ids"] == [] and not told(b)


class Workers(FlaskPod):
    """Two workers behind one port; --preload forks them after the manager is made."""

    def __init__(self, *arguments, preload, **options):
        super().__init__(*arguments, **options)
        self.argv[self.argv.index("--workers") + 1] = "2"
        if preload:
            self.argv.insert(-1, "--preload")


@pytest.mark.parametrize("preload", figure([True], [True, False]))
def test_gunicorn_with_preload_is_told_and_without_is_not(servers, preload):
    import socketio

    b = servers.broker([])
    pod = servers.start(Workers(servers.name("pod"), servers.folder, "current", b.url, preload=preload))
    with contextlib.ExitStack() as stack:
        def connect():
            client = socketio.Client(reconnection=False)
            client.connect(pod.url, transports=["websocket"], wait_timeout=20)
            stack.callback(client.disconnect)
            return client

        clients = []

        def has_two_subscribers():  # a worker subscribes with its first client
            clients.append(connect())
            return b.status()["subscribers"] == 2

        wait_until(has_two_subscribers, "both workers have clients", 20)
        end = time.monotonic() + (25 if preload else SUSPECT_SECONDS + 4)
        while time.monotonic() < end and not told(b):
            for client in clients:
                client.call("say", {"room": "r", "number": 1}, timeout=10)
            time.sleep(0.2)
        assert bool(told(b)) == preload
        if preload:
            assert wait_told(b)["subscribers"] == 2

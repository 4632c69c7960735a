"""listeners[].echo: pods of python-socketio up to 5.9 need their own messages back; later ones may be spared them."""
import json
import subprocess

import pytest
from daemons import free_port, has_environment, python_of, wait_until
from resp_client import Pod, Raw, emit

MINE, OTHER = "1" * 32, "2" * 32


def from_host(host_id, number, **facts):
    return json.dumps(json.loads(emit("r", number)) | {"host_id": host_id} | facts).encode()


class NamedPod(Pod):
    """A subscriber with a client name, and a second connection that publishes under it."""

    def __init__(self, port, name):
        super().__init__(port, name=name)
        self.publishing = Raw(port)
        assert self.publishing.call("CLIENT", "SETNAME", name) == "OK"

    def publish(self, payload):
        assert isinstance(self.publishing.call("PUBLISH", "flask-socketio", payload), int)

    def numbers(self):
        return [number for _, number in self.received]


@pytest.fixture
def named_pods(broker):
    def make(echo, *names):
        port = free_port()
        b = broker(config={"listeners": [{"address": f"127.0.0.1:{port}", "echo": echo}]})
        b.port = port
        return b, [NamedPod(port, name) for name in names]

    return make


@pytest.mark.parametrize("echo, expected", [("on", [1, 2, 3]), ("off", [3]), ("auto", [1, 2, 3])])
def test_a_named_pod_is_spared_its_own_messages_where_echo_is_off(named_pods, echo, expected):
    b, (pod, other) = named_pods(echo, "one", "two")
    pod.publish(from_host(MINE, 1))
    pod.publish(from_host(MINE, 2))
    other.publish(from_host(OTHER, 3))
    wait_until(lambda: 3 in pod.numbers(), "another's message is there")
    assert pod.numbers() == expected
    wait_until(lambda: len(other.received) == (2 if echo == "off" else 3), "the other has the rest")
    assert b.metrics().get("sidrail_broker_echoes_spared_total") == (3 if echo == "off" else 0)


def test_answers_come_back_also_without_an_echo(named_pods):
    _, (pod, other) = named_pods("off", "one", "two")
    pod.publish(from_host(MINE, 1))
    # an answer bears the host_id of whom it is for
    other.publish(json.dumps({"method": "callback", "host_id": MINE, "sid": "s", "namespace": "/", "id": 1,
                              "args": ["x"], "room": "r", "data": ["answer"]}).encode())
    wait_until(lambda: ("r", "answer") in pod.received, "the answer is there")


def test_two_workers_under_one_name_both_get_everything(named_pods):
    _, (first, second) = named_pods("off", "one", "one")
    first.publish(from_host(MINE, 1))
    second.publish(from_host(OTHER, 2))
    for pod in (first, second):
        wait_until(lambda pod=pod: pod.numbers() == [1, 2], "both are there")


SOCKETIO_POD = """
import os, sys, time, socketio
manager = socketio.RedisManager(sys.argv[1], channel="flask-socketio")
socketio.Server(client_manager=manager)
manager.initialize()
time.sleep(1)
manager.close_room("none", "/")
for number in range(5):
    manager.emit("said", number, room="none", namespace="/")
time.sleep(1)
os._exit(0)  # its listening thread goes on
"""


@pytest.mark.parametrize("environment, spared", [("current", True), ("sio57", False)])
def test_a_process_on_a_unix_socket_is_spared_when_it_has_shown_to_be_new(broker, tmp_path, environment, spared):
    """Real managers: up to 5.9 close_room has no host_id, from 5.10 it has."""
    if not has_environment(environment):
        pytest.skip(f"the environment {environment} is not made")
    path = tmp_path / "broker.sock"
    port = free_port()
    b = broker(config={"listeners": [{"address": f"unix:{path}"}, {"address": f"127.0.0.1:{port}"}]})
    b.port = port
    stranger = Raw(port)
    stranger.call("SUBSCRIBE", "flask-socketio")
    done = subprocess.run([python_of(environment), "-c", SOCKETIO_POD, f"unix://{path}"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    assert b.metrics().get("sidrail_broker_messages_published_total", method="emit") == 5
    assert b.metrics().get("sidrail_broker_echoes_spared_total") == (6 if spared else 0)
    stranger.close()

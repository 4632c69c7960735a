"""Proves the harness itself: servers start, answer, stop, leave nothing, and a server that fails is noticed."""
import os
import signal
import subprocess
import sys

import pytest
import socketio

import daemons
from daemons import Metrics, Server, free_port, wait_until


def test_redis_servers_start_side_by_side_and_answer(redis_server):
    first, second = redis_server(2)
    first.client().set("name", "first")
    assert second.client().get("name") is None
    assert first.info("server")["tcp_port"] == first.port


def test_a_port_is_never_given_twice():
    ports = [free_port() for _ in range(20)]
    assert len(set(ports)) == 20


def test_a_server_that_dies_during_a_test_is_a_problem(tmp_path):
    server = Server("short", ["sleep", "600"], tmp_path).start()
    os.kill(server.pid, signal.SIGSEGV)
    wait_until(lambda: not server.is_running(), "it died")
    server.stop()
    assert server.problems() == ["short ended with status -11 during the test"]


def test_a_server_that_the_test_kills_is_no_problem(tmp_path):
    server = Server("short", ["sleep", "600"], tmp_path).start()
    server.kill()
    server.stop()
    assert server.problems() == []


def test_a_server_that_ignores_sigterm_is_ended_and_a_problem(tmp_path):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    server = Server("deaf", [sys.executable, "-c", code], tmp_path).start()
    server.wait_log("deaf")
    server.stop_seconds = 0.2
    pid = server.pid
    server.stop()
    assert "did not end" in server.problems()[0]
    assert not os.path.exists(f"/proc/{pid}")


def test_a_sanitizer_report_is_a_problem_even_with_status_0(tmp_path):
    code = "print('x.c:1:2: runtime error: shift exponent 99 is too large')"
    server = Server("dirty", [sys.executable, "-c", code], tmp_path).start()
    assert server.wait_exit() == 0
    server.stop()
    assert server.problems() == ["dirty a sanitizer reported something"]


def test_a_server_that_ends_at_its_start_shows_its_log(tmp_path):
    class NeverReady(Server):
        def is_ready(self):
            return False
    server = NeverReady("broken", [sys.executable, "-c", "raise SystemExit('no such option')"], tmp_path)
    with pytest.raises(AssertionError, match="no such option"):
        server.start()
    server.stop()


def test_processes_of_a_killed_test_run_die_with_it(tmp_path):
    code = f"""
import sys, time
sys.path.insert(0, {str(daemons.PODS.parent)!r})
from daemons import Server
print(Server("orphan", ["sleep", "600"], {str(tmp_path)!r}).start().pid, flush=True)
time.sleep(600)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(run.stdout.readline())
    run.kill()
    run.wait()
    run.stdout.close()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or "Z" in open(f"/proc/{pid}/stat").read(), "it died")


def test_metrics_are_parsed_with_labels():
    metrics = Metrics('# HELP a_total what\na_total{reason="x",way="in"} 2\na_total{reason="y \\"q\\""} 3\nb 1.5e+3\n')
    assert metrics.get("a_total") == 5
    assert metrics.get("a_total", reason="x") == 2
    assert metrics.by("a_total", "reason") == {"x": 2, 'y \\"q\\"': 3}
    assert metrics.get("b") == 1500
    assert not metrics.has("c")
    with pytest.raises(AssertionError):
        Metrics("a{ 1\n")


@pytest.mark.parametrize("kind,options", [
    ("flask", {"environment": "current"}), ("flask", {"environment": "sio57"}), ("node", {})],
    ids=["flask-current", "flask-5.7", "node"])
def test_a_pod_answers_clients_of_both_transports(pod, kind, options):
    server = pod(kind, **options)
    for transport in ("polling", "websocket"):
        client = socketio.Client(reconnection=False)
        heard = []
        client.on("said", heard.append)
        client.connect(server.url, transports=[transport])
        assert server.name in str(client.call("join", {"room": "lobby"}))
        who = client.call("whoami", {})
        assert who["pod"] == server.name
        assert who["engine_sid"] == client.eio.sid
        assert who["transport"] == transport
        assert client.call("echo", [1, "two"]) == [1, "two"]
        server.emit("lobby", first=5, count=2)
        wait_until(lambda: len(heard) == 2, "both messages arrived")
        assert [message["number"] for message in heard] == [5, 6]
        client.disconnect()
    wait_until(lambda: server.facts()["sessions"] == 0, "the pod saw the clients leave")


@pytest.mark.parametrize("environment", ["current", "sio57"])
def test_flask_pods_reach_each_other_over_a_plain_redis(redis_server, pod, environment):
    queue = redis_server()
    first, second = (pod("flask", environment=environment, queue=queue.url) for _ in range(2))
    client = socketio.Client(reconnection=False)
    heard = []
    client.on("said", heard.append)
    client.connect(second.url, transports=["websocket"])
    client.call("join", {"room": "lobby"})
    # a pod listens from its first client on: the other one only publishes here
    wait_until(lambda: queue.client().pubsub_numsub("flask-socketio")[0][1] == 1, "the pod listens")
    first.emit("lobby", count=3)
    wait_until(lambda: len(heard) == 3, "all messages arrived")
    assert {message["pod"] for message in heard} == {first.name}
    client.disconnect()

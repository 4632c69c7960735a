"""The demo does what it says: 60 clients are well served, it ends clean, and what is wrong is one clear line."""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest
from daemons import BUILD, PATIENCE, ROOT, free_port, hold_port, http_get, is_full, node_env, python_of, wait_until


def consecutive_ports(count, taken):
    """The first of some free ports in a row, none of them taken by another."""
    for _ in range(50):
        first = free_port()
        if taken & set(range(first, first + count)):
            continue
        taken |= set(range(first, first + count))
        if not all(hold_port(port) for port in range(first + 1, first + count)):
            continue
        probes = [socket.socket() for _ in range(count)]
        try:
            for i, probe in enumerate(probes):
                probe.bind(("127.0.0.1", first + i))
            return first
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise AssertionError("no free ports in a row")


class DemoRun:
    """demo.py as a child, on ports of its own."""

    def __init__(self, folder, *arguments, **environment):
        self.ports = {name: free_port() for name in ("DEMO_PROXY_PORT", "DEMO_PROXY_STATUS_PORT", "DEMO_BROKER_PORT",
                                                     "DEMO_BROKER_STATUS_PORT")}
        taken = set(self.ports.values())
        self.ports["DEMO_REDIS_PORT"] = consecutive_ports(2, taken)
        self.ports["DEMO_POD_PORT"] = consecutive_ports(3, taken)
        # unix sockets are made there: tmp_path is too long for their names
        self.temporary = pathlib.Path(tempfile.mkdtemp(prefix="sidrail-test-"))
        settings = {**self.ports, **node_env(), **environment, "SIDRAIL_BUILD": BUILD, "TMPDIR": self.temporary,
                    "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        self.output_path = pathlib.Path(folder) / "output"
        with open(self.output_path, "wb") as output:
            self.child = subprocess.Popen(
                [python_of("current"), ROOT / "tests" / "demo" / "demo.py", *arguments], stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **{k: str(v) for k, v in settings.items()}})

    def output(self):
        return self.output_path.read_text()

    def last_line(self):
        return self.output().strip().splitlines()[-1]

    def wait_ready(self):
        wait_until(lambda: "Ctrl-C" in self.output() or self.child.poll() is not None, "the demo is ready", 60)
        assert self.child.poll() is None, self.output()

    def wait_end(self, seconds):
        return self.child.wait(seconds * PATIENCE)

    def children(self):
        """The pids of what it started, by name of the program."""
        pids = {}
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
                if re.search(rf"^PPid:\t{self.child.pid}$", text, re.M):
                    command = (status.parent / "cmdline").read_text().replace("\0", " ")
                    pids[int(status.parent.name)] = command
            except OSError:
                continue
        return pids

    def require_nothing_left(self):
        for name, first in self.ports.items():
            for port in range(first, first + {"DEMO_REDIS_PORT": 2, "DEMO_POD_PORT": 3}.get(name, 1)):
                with socket.socket() as probe:
                    assert probe.connect_ex(("127.0.0.1", port)) != 0, f"{name} still answers"
        assert not list(self.temporary.iterdir()), "files are left behind"

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            self.child.wait(60)
        shutil.rmtree(self.temporary, ignore_errors=True)


@pytest.fixture
def demo(tmp_path):
    runs = []

    def start(*arguments, **environment):
        runs.append(DemoRun(tmp_path, *arguments, **environment))
        return runs[-1]

    yield start
    for run in runs:
        run.stop()


@pytest.mark.parametrize("arguments", [["--check"], ["--check", "--no-redis"]], ids=["two Redis", "no Redis"])
def test_the_check_passes(demo, arguments):
    run = demo(*arguments)
    status = run.wait_end(120)
    assert status == 0, run.output()
    assert run.last_line() == "demo: check passed"
    assert ("Redis  " in run.output()) == ("--no-redis" not in arguments)
    run.require_nothing_left()


def test_it_serves_the_page_and_ends_clean(demo):
    run = demo()
    run.wait_ready()
    base = f"http://127.0.0.1:{run.ports['DEMO_PROXY_PORT']}"
    for path in ("/", "/static/chat.js", "/static/chat.css", "/client/socket.io.min.js"):
        assert http_get(base + path)[0] == 200, path
    assert http_get(f"http://127.0.0.1:{run.ports['DEMO_PROXY_STATUS_PORT']}/")[0] == 200
    run.child.send_signal(signal.SIGINT)
    assert run.wait_end(30) == 0
    run.require_nothing_left()


def test_a_child_that_dies_ends_all_and_is_named(demo):
    run = demo()
    run.wait_ready()
    victim = next(pid for pid, command in run.children().items()
                  if f":{run.ports['DEMO_POD_PORT'] + 1} " in command)
    os.kill(victim, signal.SIGKILL)
    assert run.wait_end(30) == 1
    assert run.last_line().startswith("demo: pod-2 ended (signal 9)"), run.output()
    run.require_nothing_left()


def test_a_taken_port_is_named(demo):
    with socket.create_server(("127.0.0.1", free_port())) as server:
        port = server.getsockname()[1]
        run = demo(DEMO_PROXY_PORT=port)
        assert run.wait_end(30) == 1
    assert run.output().strip().count("\n") == 0
    assert str(port) in run.output() and "DEMO_PROXY_PORT" in run.output()


def test_the_check_fails_if_the_pods_bypass_the_broker(demo, redis_server):
    run = demo("--check", DEMO_MESSAGE_QUEUE=redis_server().url)
    assert run.wait_end(120) == 1
    assert "demo: check failed" in run.output() and "carried 0 of 360 messages" in run.output(), run.output()


@pytest.mark.skipif(not is_full(), reason="waits long for what must not come")
def test_the_check_fails_if_pods_do_not_hear_each_other(demo):
    run = demo("--check", "--no-redis", DEMO_MESSAGE_QUEUE="redis://127.0.0.1:1/0")
    assert run.wait_end(180) == 1
    assert "room messages are missing" in run.output() or "could be said" in run.output(), run.output()


def test_a_check_during_which_a_pod_dies_fails(demo):
    run = demo("--check")
    wait_until(lambda: "chat page" in run.output(), "the check begins", 60)
    victim = next(pid for pid, command in run.children().items()
                  if f":{run.ports['DEMO_POD_PORT']} " in command)
    time.sleep(0.5)
    os.kill(victim, signal.SIGKILL)
    assert run.wait_end(120) == 1
    assert "pod-1 ended" in run.output(), run.output()
    run.require_nothing_left()

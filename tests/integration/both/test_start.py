"""Proves how both daemons start: what the command line prints, how a configuration is checked, both quick starts, and
what the admin port answers until they are told to end. What they refuse is in test_bad_input.py.
"""
import os
import re
import subprocess

import pytest
import redis

import daemons
from daemons import free_port, http_get

BOTH = pytest.mark.parametrize("program", ["sidrail-proxy", "sidrail-broker"])


def run(program, *args, env=None):
    """Runs a daemon that is expected to end by itself."""
    return subprocess.run([daemons.BUILD / program, *map(str, args)], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})


def minimal(program):
    """The smallest configuration that does not touch anybody else's ports."""
    text = f'listeners: [{{address: "127.0.0.1:{free_port()}"}}]\n'
    text += f'admin: {{address: "127.0.0.1:{free_port()}"}}\n'
    if program == "sidrail-proxy":
        text += 'upstreams: [{name: chat, discovery: {static: ["127.0.0.1:9"]}}]\n'
        text += 'routes: [{host: "*", path: "/", upstream: chat}]\n'
    return text


class Quick(daemons.Server):
    """A daemon started by flags alone."""

    def __init__(self, program, folder, *args):
        self.port, self.admin = free_port(), f"127.0.0.1:{free_port()}"
        super().__init__(program, [daemons.BUILD / program, "--listen", f"127.0.0.1:{self.port}", "--admin", self.admin,
                                   *args], folder)

    def is_ready(self):
        return http_get(f"http://{self.admin}/readyz")[0] == 200


# --- the command line ----------------------------------------------------------------------------------------

@BOTH
def test_version_and_help_are_printed_and_end_well(program):
    version = run(program, "--version")
    assert version.returncode == 0
    assert re.fullmatch(rf"{program} \d+\.\d+\.\d+\S*\n", version.stdout)
    for_help = run(program, "--help")
    assert for_help.returncode == 0
    for word in ("--config", "--listen", "--check", "--print-options"):
        assert word in for_help.stdout


@BOTH
def test_tables_are_printed_with_all_their_columns(program):
    options = run(program, "--print-options")
    assert options.returncode == 0
    rows = [line.split("\t") for line in options.stdout.splitlines()]
    assert {len(row) for row in rows} == {7}
    assert {row[5] for row in rows} <= {"live", "new", "restart", "-"}
    assert any(row[0] == "admin.address" for row in rows)
    metrics = run(program, "--print-metrics")
    rows = [line.split("\t") for line in metrics.stdout.splitlines()]
    assert {len(row) for row in rows} == {4}
    assert all(row[0].startswith("sidrail_") for row in rows)
    assert len({row[0] for row in rows}) == len(rows)


# --- configuration -------------------------------------------------------------------------------------------

@BOTH
def test_all_errors_are_reported_at_once(program, tmp_path):
    text = minimal(program) + "nonsense: 1\nlog: {level: loud}\nshutdown: {deadline: never}\n"
    path = tmp_path / "config.yaml"
    path.write_text(text)
    done = run(program, "--config", path, "--check")
    assert done.returncode == 1
    for word in ("nonsense", "loud", "never"):
        assert word in done.stderr


@BOTH
def test_environment_variables_stand_for_values(program, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(minimal(program) + "log: {level: \"${WANTED_LEVEL}\"}\n")
    assert run(program, "--config", path, "--check", env={"WANTED_LEVEL": "warn"}).returncode == 0
    assert run(program, "--config", path, "--check", env={"WANTED_LEVEL": "loud"}).returncode == 1
    assert run(program, "--config", path, "--check").returncode == 1


# --- starting ------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_both_start_answer_and_end_when_told_to(broker, proxy):
    for server in (broker(), proxy([f"127.0.0.1:{free_port()}"])):
        for path in ("/livez", "/readyz", "/startupz"):
            assert http_get(server.admin + path)[0] == 200
        assert http_get(server.admin + "/nothing")[0] == 404
        assert server.metrics().samples
        assert server.status()
        assert "<html" in http_get(server.admin + "/")[1].lower()
        server.stop()
        assert server.problems() == []


@pytest.mark.smoke
def test_the_quick_start_of_the_proxy_serves(start, pod, tmp_path):
    endpoint = pod("node")
    server = start(Quick("sidrail-proxy", tmp_path, "--upstream", endpoint.address, "--threads", 1))
    status, text = http_get(f"http://127.0.0.1:{server.port}/pod")
    assert status == 200 and endpoint.name in text
    server.kill()  # without a configuration it would wait seconds for a balancer to notice that it goes


@pytest.mark.smoke
def test_the_quick_start_of_the_broker_serves(start, redis_server, tmp_path):
    server = start(Quick("sidrail-broker", tmp_path, "--shard", redis_server().url))
    with redis.Redis("127.0.0.1", server.port) as client:
        assert client.ping()

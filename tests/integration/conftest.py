"""Fixtures for integration tests: every server that a test starts is stopped when it ends, and a server that
crashed, ended wrongly or was reported by a sanitizer fails the test.

    redis_server(n)                 one Redis, or a list of n
    broker(shards=…, config=…)      sidrail-broker over them; without shards the embedded hub
    pod(kind, environment=…, queue=broker)   "flask" (gunicorn, gthread, one worker) or "node"
    proxy(upstreams, config=…)      sidrail-proxy in front of pods
    relays(redis)                   a relay in front of it that cuts and stalls (broker_tools.Relay)
    start(server)                   any other daemons.Server

All of them return started, ready servers; `wait=False` returns at once. Logs of the servers of a failed test are
shown with it. Helpers (wait_until, free_port, figure, Metrics, …) are imported from daemons.
"""
import os
import secrets
import signal

import pytest

import broker_tools
import daemons

# ./run test-k8s alone has built the API server that these need
collect_ignore = [] if "SIDRAIL_APISERVER" in os.environ else ["k8s"]


def _interrupt(_number, _frame):
    raise KeyboardInterrupt


def pytest_configure(config):
    # told to end: let the fixtures stop their servers
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)


def pytest_report_header(config):
    return f"daemons: {daemons.BUILD} (sanitizer: {daemons.sanitizer() or 'none'}), full: {daemons.is_full()}"


class Servers:
    """What one test, or one module, has started."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []
        self.counts = {}

    def name(self, kind):
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return f"{kind}{self.counts[kind]}"

    def start(self, server, wait=True):
        self.started.append(server)
        return server.start(wait)

    def stop(self):
        """Stops all, the last one first; returns what was wrong with them."""
        problems = []
        for server in reversed(self.started):
            server.stop()
            problems += server.problems()
        return problems

    def redis_server(self, count=None, wait=True, **options):
        made = [daemons.Redis(self.name("redis"), self.folder, **options) for _ in range(count or 1)]
        for server in made:
            self.start(server, wait)
        return made if count is not None else made[0]

    def broker(self, shards=(), wait=True, **options):
        return self.start(daemons.Broker(self.name("broker"), self.folder, shards, **options), wait)

    def proxy(self, upstreams, wait=True, **options):
        return self.start(daemons.Proxy(self.name("proxy"), self.folder, upstreams, **options), wait)

    def pod(self, kind="flask", wait=True, **options):
        made = {"flask": daemons.FlaskPod, "node": daemons.NodePod}[kind]
        return self.start(made(self.name(f"{kind}-pod"), self.folder, **options), wait)


_live = []


def _serve(folder):
    servers = Servers(folder)
    _live.append(servers)
    try:
        yield servers
    finally:
        problems = servers.stop()
        _live.remove(servers)
    if problems:
        logs = "".join(f"\n--- {server.name}\n{server.log_tail()}" for server in servers.started)
        pytest.fail("; ".join(problems) + logs, pytrace=False)


@pytest.fixture
def servers(tmp_path):
    """What this test starts; the fixtures below are its methods."""
    yield from _serve(tmp_path)


@pytest.fixture(scope="module")
def module_servers(tmp_path_factory):
    """The same for servers that all tests of a file share."""
    yield from _serve(tmp_path_factory.mktemp("servers"))


@pytest.fixture
def start(servers):
    return servers.start


@pytest.fixture
def redis_server(servers):
    return servers.redis_server


@pytest.fixture
def broker(servers):
    return servers.broker


@pytest.fixture
def relays():
    """relays(redis) is a relay in front of it: broker_tools.Relay."""
    made = []

    def make(server):
        made.append(broker_tools.Relay(server.port))
        return made[-1]

    yield make
    for relay in made:
        relay.close()


@pytest.fixture
def proxy(servers):
    return servers.proxy


@pytest.fixture
def pod(servers):
    return servers.pod


@pytest.fixture
def affinity_keys(tmp_path):
    """A key file with one key, as all replicas share it."""
    path = tmp_path / "affinity.keys"
    path.write_text(f"a {secrets.token_hex(16)}\n")
    path.chmod(0o600)
    return path


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when in ("setup", "call"):
        for servers in _live:
            for server in servers.started:
                report.sections.append((f"log of {server.name}: {' '.join(server.argv)}", server.log_tail()))


os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")

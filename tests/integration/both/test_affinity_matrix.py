"""Every kind of client keeps its session on every kind of pod, through one proxy and through several.

    clients (no cookies) ──▶ splitter, by turns ──▶ proxy 1, proxy 2 (share the key file) ──▶ 3 pods ──▶ rooms over
                                                                                    broker and 2 Redis, or Redis alone

{socket.io ×3, Flask-SocketIO ×3} × {1, 2, in full 3 proxies} × {JS, Python client} × {polling, upgrade, WebSocket
only}: each client echoes, speaks, and hears its rooms; nobody, neither client nor pod nor proxy, sees "session unknown". Flask
pods share rooms through sidrail-broker, socket.io pods through Redis (their path through the broker is in
test_node_backplane.py).
"""
import os
import re
import secrets

import daemons
import pytest
from crowd import Crowd, wishes
from daemons import figure
from splitter import Splitter

PODS = 3
CLIENTS = figure(6, 60)
LINES = figure(2, 20)
ROOMS = [f"room {i}" for i in range(figure(3, 12))]


@pytest.fixture(scope="module", params=["flask", "node"])
def pods(request, module_servers):
    """Three pods of one kind that share their rooms."""
    if request.param == "flask":
        queue = module_servers.broker(module_servers.redis_server(2))
        options = {"env": {"GUNICORN_CMD_ARGS": "--access-logfile -"}}
    else:
        queue, options = module_servers.redis_server(), {}
    made = [module_servers.pod(request.param, queue=queue, wait=False, **options) for _ in range(PODS)]
    for pod in made:
        pod.wait_ready()
    yield made
    daemons.stop_together(made)
    queue.stop()


@pytest.fixture(scope="module", params=figure([1, 2], [1, 2, 3]), ids="{} proxies".format)
def edge(request, pods, module_servers, tmp_path_factory):
    """The proxies, and the URL where clients connect."""
    keys = tmp_path_factory.mktemp("keys") / "affinity.keys"
    descriptor = os.open(keys, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(descriptor, f"k {secrets.token_hex(16)}\n".encode())
    os.close(descriptor)
    proxies = [module_servers.proxy(pods, keys=keys) for _ in range(request.param)]
    front = proxies[0]
    if len(proxies) > 1:
        front = module_servers.start(Splitter(module_servers.name("splitter"), module_servers.folder, proxies))
    yield proxies, front.url
    for server in {front, *proxies}:
        server.stop()


def refusals_of(pod):
    """How many requests the pod refused so far, from its own mouth."""
    if "node" in pod.name:
        return sum(pod.facts()["refused"].values())
    return len(re.findall(r'"(?:GET|POST) /socket\.io/[^"]*" 4\d\d ', pod.log()))


class Witness:
    """Whether a session is unknown to anybody between its making and a call of `require_no_session_unknown`.

    That call has to come before the clients leave: the closing POST of a polling client and its next GET race, also
    without a proxy, and the pod refuses the later one."""

    def __init__(self, pods, proxies):
        self.pods, self.proxies = pods, proxies
        self.before = self._counts()

    def _counts(self):
        refusals = {pod.name: refusals_of(pod) for pod in self.pods}
        for proxy in self.proxies:
            metrics = proxy.metrics()
            for name in ("sidrail_proxy_upstream_session_unknown_total", "sidrail_proxy_route_refused_total"):
                assert metrics.has(name)
                refusals[f"{name} of {proxy.name}"] = metrics.get(name)
        return refusals

    def require_no_session_unknown(self):
        assert self._counts() == self.before, "\n".join(pod.log_tail() for pod in self.pods)


@pytest.mark.parametrize("transport", ["polling", "upgrade", "websocket"])
@pytest.mark.parametrize("library", ["js", "python"])
def test_every_session_stays_on_its_pod(edge, pods, library, transport):
    proxies, url = edge
    witness = Witness(pods, proxies)
    with Crowd(url, wishes(library, transport, CLIENTS, ROOMS)) as crowd:
        connected = crowd.connect()
        crowd.echo()
        crowd.say(LINES)
        answers = crowd.call("whoami")
        for name, about in connected.items():
            assert answers[name]["pod"] == about["pod"], f"{name} moved"
            assert answers[name]["socket_id"] == about["sid"]
        witness.require_no_session_unknown()


@pytest.mark.smoke
def test_new_sessions_are_spread_over_all_pods(edge, pods):
    proxies, url = edge
    clients = [w for library in ("js", "python") for transport in ("polling", "upgrade", "websocket")
               for w in wishes(library, transport, 6, ROOMS)]
    witness = Witness(pods, proxies)
    with Crowd(url, clients) as crowd:
        chosen = [about["pod"] for about in crowd.connect().values()]
        crowd.echo()
        crowd.say(1)
        witness.require_no_session_unknown()
    for pod in pods:
        assert chosen.count(pod.name) >= 3, f"of 36 sessions {pod.name} got {chosen.count(pod.name)}"

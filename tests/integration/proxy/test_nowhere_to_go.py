"""While nobody else could take a session, its WebSocket stays as long as its endpoint accepts: whatever lists the endpoints, and
however it says that they are gone or on their way out. When others come the drain begins."""
import json
import os
import signal
import time

import pytest
import yaml
from daemons import free_port, wait_until
from discovery_tools import handshake, poll, sessions_on, states
from dns_server import NameServer
from fakes import Client, frame
from k8s_api import Api, endpoint, slice_of
from riders import Pod, Rider

HANDSHAKE = b"/socket.io/?EIO=4&transport=polling"


class FileSource:
    def __init__(self, folder):
        self.path = folder / "endpoints.json"
        self.discovery = {"file": str(self.path)}

    def list(self, pods, draining=()):
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps([{"address": pod.address, "id": pod.name, "state": "ready"} for pod in pods] +
                                  [{"address": pod.address, "id": pod.name, "state": "draining"} for pod in draining]))
        os.rename(new, self.path)

    def close(self):
        pass


class DnsSource:
    NAME = "_http._tcp.chat.test"

    def __init__(self, _folder):
        self.names = NameServer(free_port())
        self.discovery = {"dns": {"name": self.NAME + ".", "interval": "100ms", "server": self.names.address}}

    def list(self, pods):
        records = {(self.NAME, "SRV"): [(pod.port, f"{pod.name}.chat.test") for pod in pods]} if pods else {}
        records.update({(f"{pod.name}.chat.test", "A"): ["127.0.0.1"] for pod in pods})
        self.names.records = records

    def close(self):
        self.names.close()


class KubernetesSource:
    def __init__(self, _folder):
        self.api = Api(free_port())
        self.names = set()
        self.discovery = {"kubernetes": {"namespace": "prod", "service": "chat", "ports": ["http"], "token_file": "",
                                         "api_server": self.api.url, "watch_time": "2s"}}

    def list(self, pods, draining=()):
        wanted = {pod.name: (pod, {}) for pod in pods}
        wanted.update({pod.name: (pod, {"ready": False, "serving": True, "terminating": True}) for pod in draining})
        for name, (pod, more) in wanted.items():
            self.api.put(slice_of(name, [endpoint(name, "127.0.0.1", **more)], [("http", pod.port)]))
        for name in self.names - set(wanted):
            self.api.remove(name)
        self.names = set(wanted)

    def close(self):
        self.api.close()


class StaticSource:
    """The configuration itself, by reload."""
    daemon = None

    def __init__(self, _folder):
        self.discovery = {}

    def list(self, pods, draining=()):
        self.discovery["static"] = ([{"address": pod.address, "id": pod.name} for pod in pods] +
                                    [{"address": pod.address, "id": pod.name, "state": "draining"} for pod in draining])
        if self.daemon:
            self.daemon.config["upstreams"][0]["discovery"] = self.discovery
            self.daemon.config_path.write_text(yaml.safe_dump(self.daemon.config))
            self.daemon.signal(signal.SIGHUP)

    def close(self):
        pass


SOURCES = {"file": FileSource, "dns": DnsSource, "kubernetes": KubernetesSource, "static": StaticSource}
LISTS = ["file", "dns", "kubernetes"]


@pytest.fixture
def source(request, tmp_path):
    made = SOURCES[request.param](tmp_path)
    yield made
    made.close()


def by_name(daemon):
    """{pod's name or address: state}: DNS knows addresses only."""
    return {row["address"]: row["state"] for row in daemon.status()["endpoints"]}


def start(proxy, source, pods, hold):
    source.list(pods[:2])
    daemon = proxy([], config={"upstreams": [{
        "name": "chat", "discovery": source.discovery, "empty_hold": hold, "place_after": "0s", "herd_spread": "0s",
        "health_check": {"type": "none"}, "drain": {"delay": "0s", "window": "300ms"}}]})
    source.daemon = daemon
    wait_until(lambda: len(states(daemon)) == 2, "both are there")
    return daemon


def ride(riders, daemon, pods):
    """Riders on both of the first pods: {name: riders}."""
    for _ in range(40):
        riders += [Rider(daemon.port) for _ in range(4)]
        wait_until(lambda: all(r.pods or r.trouble for r in riders), "they are connected")
        found = {pod.name: [r for r in riders if r.pods[0] == pod.name] for pod in pods[:2]}
        if all(len(group) >= 2 for group in found.values()):
            return found
    raise AssertionError("a pod gets nobody")


def wait_for(daemon, wanted):
    wanted = {pod.address: state for pod, state in wanted.items()}
    wait_until(lambda: by_name(daemon) == wanted, f"the endpoints are {wanted}")


def echoes(rider):
    seen = len(rider.frames)
    rider.client.send(frame(b"4?", 1, mask=b"abcd"))
    wait_until(lambda: len(rider.frames) > seen or rider.closed, "it is answered")
    return not rider.closed


@pytest.mark.parametrize("source", LISTS, indirect=True)
def test_an_empty_list_closes_no_websocket_until_others_are_listed(proxy, pods, riders, source):
    daemon = start(proxy, source, pods, "500ms")
    a, b, c = pods
    on = ride(riders, daemon, pods)
    held = sessions_on(daemon.port, pods[:2], 1)
    source.list([])
    wait_for(daemon, {a: "closing", b: "closing"})  # behind empty_hold, and a window long ago
    with Client(daemon.port) as client:
        assert client.get(HANDSHAKE)[0] == 503
    assert poll(daemon.port, held["pod-0"][0]) == (200, "pod-0")
    assert not any(r.closed for r in riders) and all(echoes(group[0]) for group in on.values())
    b.close()  # one dies meanwhile
    wait_for(daemon, {a: "closing"})
    assert not any(r.closed for r in on["pod-0"])
    source.list([c])
    wait_until(lambda: all(r.closed for r in on["pod-0"]), "they leave")
    assert {r.closed[0][1] for r in on["pod-0"]} == {1012}
    wait_until(lambda: all(len(r.pods) == 2 for r in on["pod-0"]), "they are back")
    assert {r.pods[1] for r in on["pod-0"]} == {"pod-2"}
    wait_for(daemon, {c: "ready"})


@pytest.mark.parametrize("source", LISTS, indirect=True)
def test_the_same_ones_listed_again_have_lost_nothing(proxy, pods, riders, source):
    daemon = start(proxy, source, pods, "1m")
    on = ride(riders, daemon, pods)
    source.list([])
    wait_for(daemon, {pods[0]: "draining", pods[1]: "draining"})
    handshake(daemon.port)  # for as long as empty_hold says
    source.list(pods[:2])
    wait_for(daemon, {pods[0]: "ready", pods[1]: "ready"})
    assert not any(r.closed for r in riders) and all(echoes(group[0]) for group in on.values())
    assert daemon.metrics().get("sidrail_proxy_drain_closes_total") == 0


@pytest.mark.parametrize("source", ["file", "kubernetes", "static"], indirect=True)
def test_where_all_drain_nobody_is_sent_in_a_circle(proxy, pods, riders, source):
    daemon = start(proxy, source, pods, "0s")
    a, b, c = pods
    on = ride(riders, daemon, pods)
    source.list([], draining=[a, b])
    wait_for(daemon, {a: "draining", b: "draining"})
    handshakes = a.handshakes + b.handshakes
    time.sleep(0.5)  # the window is over
    for _ in range(5):
        assert all(echoes(group[0]) for group in on.values())
    assert not any(r.closed for r in riders) and a.handshakes + b.handshakes == handshakes
    source.list([c], draining=[a, b])
    wait_until(lambda: all(len(r.pods) == 2 for r in riders), "they are on the new one")
    assert {r.closed[0][1] for r in riders} == {1012} and {r.pods[1] for r in riders} == {"pod-2"}


@pytest.mark.parametrize("source", ["file", "dns"], indirect=True)
def test_a_list_that_names_only_what_does_not_accept_sends_nobody_away(proxy, source, pods, riders):
    """A rollout whose new pod never starts, a wrong answer: the old pods serve on, until the new one does."""
    silent = Pod("pod-new")
    silent.close()
    source.list(pods[:2])
    daemon = proxy([], config={"upstreams": [{
        "name": "chat", "discovery": source.discovery, "place_after": "0s", "herd_spread": "0s",
        "health_check": {"type": "tcp", "interval": "100ms", "fall": 2, "rise": 1}, "drain": {"delay": "0s", "window": "300ms"}}]})
    wait_until(lambda: len(states(daemon)) == 2, "both are there")
    groups = ride(riders, daemon, pods)
    source.list([silent])
    wait_until(lambda: by_name(daemon).get(silent.address) == "degraded", "the new one fails its checks")
    for pod in pods[:2]:
        wait_until(lambda: by_name(daemon)[pod.address] == "draining", f"{pod.name} is not listed any more")
        assert all(echoes(rider) for rider in groups[pod.name])
    assert poll(daemon.port, handshake(daemon.port))[0] == 200
    again = Pod("pod-new", port=silent.port)
    try:
        wait_until(lambda: all(rider.closed for group in groups.values() for rider in group), "the drain has begun")
        assert poll(daemon.port, handshake(daemon.port)) == (200, "pod-new")
    finally:
        again.close()

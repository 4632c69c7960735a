"""Endpoints from DNS: identity is the address; what vanishes drains while it accepts; failures change nothing."""
import time

import pytest
from daemons import free_port, wait_until
from discovery_tools import Pod, handshake, poll, sessions_on, states, wait_for_states
from dns_server import NameServer


class Local(Pod):
    """A pod at an address of its own, as pods have."""

    def __init__(self, name, host, port):
        self.host = host
        super().__init__(name, port, host=host)


@pytest.fixture
def names():
    server = NameServer(free_port())
    yield server
    server.close()


@pytest.fixture
def pods():
    port = free_port()
    made = [Local(f"pod-{i}", f"127.0.3.{i + 1}", port) for i in range(3)]
    yield made
    for pod in made:
        pod.close()


def upstream(names, pods, window="20s", name="chat.test.", **more):
    dns = {"name": name, "interval": "100ms", "server": names.address}
    if not name.startswith("_"):
        dns["port"] = pods[0].port
    return {"upstreams": [{"name": "chat", "discovery": {"dns": dns}, "health_check": {"type": "none"},
                           "drain": {"window": window}, **more}]}


def asks_again(names, count=3):
    seen = len(names.asked)
    wait_until(lambda: len(names.asked) >= seen + count, "it asks again")


def test_addresses_come_go_and_drain_while_they_accept(proxy, names, pods):
    names.records[("chat.test", "A")] = [pod.host for pod in pods[:2]]
    daemon = proxy([], config=upstream(names, pods))
    wait_for_states(daemon, {pod.address: "ready" for pod in pods[:2]})
    held = sessions_on(daemon.port, pods[:2])
    names.records[("chat.test", "A")] = [pod.host for pod in reversed(pods)]
    wait_for_states(daemon, {pod.address: "ready" for pod in pods})
    assert [poll(daemon.port, sid) for sid in held["pod-1"]] == [(200, "pod-1")] * len(held["pod-1"])

    names.records[("chat.test", "A")] = [pods[1].host, pods[2].host]
    wait_for_states(daemon, {pods[0].address: "draining", pods[1].address: "ready", pods[2].address: "ready"})
    before = pods[0].handshakes
    for _ in range(30):
        handshake(daemon.port)
    assert pods[0].handshakes == before
    assert [poll(daemon.port, sid) for sid in held["pod-0"]] == [(200, "pod-0")] * len(held["pod-0"])
    pods[0].close()
    wait_for_states(daemon, {pods[1].address: "ready", pods[2].address: "ready"})
    assert poll(daemon.port, held["pod-0"][0])[0] == 400
    assert all(pod.strangers == 0 for pod in pods)


def test_a_vanished_one_that_goes_on_accepting_ends_with_the_window(proxy, names, pods):
    names.records[("chat.test", "A")] = [pod.host for pod in pods[:2]]
    daemon = proxy([], config=upstream(names, pods, window="1s"))
    wait_for_states(daemon, {pod.address: "ready" for pod in pods[:2]})
    names.records[("chat.test", "A")] = [pods[1].host]
    wait_for_states(daemon, {pods[0].address: "draining", pods[1].address: "ready"})
    wait_for_states(daemon, {pods[1].address: "ready"})


@pytest.mark.parametrize("mode", ["servfail", "silent", "garbage"])
def test_failures_of_the_name_server_leave_the_endpoints(proxy, names, pods, mode):
    names.records[("chat.test", "A")] = [pod.host for pod in pods[:2]]
    daemon = proxy([], config=upstream(names, pods))
    wait_for_states(daemon, {pod.address: "ready" for pod in pods[:2]})
    names.mode = mode
    wait_until(lambda: daemon.metrics().get("sidrail_proxy_discovery_errors_total", source="dns") >= 1, "it fails", 30)
    time.sleep(1.3)
    assert set(states(daemon)) == {pod.address for pod in pods[:2]}
    assert "draining" not in states(daemon).values()
    assert daemon.metrics().get("sidrail_proxy_discovery_synced") == 0
    names.mode = "answer"
    wait_until(lambda: daemon.metrics().get("sidrail_proxy_discovery_synced") == 1, "it learns again", 30)


@pytest.mark.parametrize("emptied", ["no data", "no such name"])
def test_an_empty_answer_and_nxdomain_leave_those_that_accept_what_they_have(proxy, names, pods, emptied):
    names.records[("chat.test", "A")] = [pods[0].host]
    daemon = proxy([], config=upstream(names, pods, window="0s", empty_hold="0s"))
    wait_for_states(daemon, {pods[0].address: "ready"})
    if emptied == "no data":
        names.records[("chat.test", "A")] = []
    else:
        names.records.clear()
    wait_for_states(daemon, {pods[0].address: "closing"})
    pods[0].close()
    wait_for_states(daemon, {})


def test_services_have_ports_and_names_of_their_own(proxy, names, pods):
    other = Pod("other", host="127.0.3.9")
    try:
        names.records[("_http._tcp.chat.test", "SRV")] = [(pods[0].port, "web-0.chat.test"),
                                                          (other.port, "web-1.chat.test")]
        names.records[("web-0.chat.test", "A")] = [pods[0].host]
        names.records[("web-1.chat.test", "A")] = ["127.0.3.9"]
        daemon = proxy([], config=upstream(names, pods, name="_http._tcp.chat.test."))
        wait_for_states(daemon, {pods[0].address: "ready", other.address: "ready"})
        sessions_on(daemon.port, [pods[0], other])
        # one target that cannot be looked up leaves the list as it was
        names.records[("_http._tcp.chat.test", "SRV")].append((80, "web-2.chat.test"))
        names.records[("web-2.chat.test", "A")] = ["127.0.3.3"]
        wait_for_states(daemon, {pods[0].address: "ready", other.address: "ready", "127.0.3.3:80": "ready"})
    finally:
        other.close()


def test_a_name_without_ipv4_gives_ipv6(proxy, names, pods):
    names.records[("chat.test", "AAAA")] = ["::1"]
    daemon = proxy([], config=upstream(names, pods))
    wait_for_states(daemon, {f"[::1]:{pods[0].port}": "ready"})


def test_an_answer_too_long_for_udp_is_asked_for_by_tcp(proxy, names, pods):
    hosts = [f"10.1.{i // 250}.{i % 250 + 1}" for i in range(400)]
    names.records[("chat.test", "A")] = hosts
    daemon = proxy([], config=upstream(names, pods))
    wait_until(lambda: len(states(daemon)) == 400, "all are there")
    assert names.asked_by_tcp
    generation = daemon.status()["generation"]
    names.records[("chat.test", "A")] = list(reversed(hosts))
    asks_again(names, 6)
    assert daemon.status()["generation"] == generation, "another order is no change"


def test_a_short_time_to_live_is_asked_again_sooner(proxy, names, pods):
    names.ttl = 0
    names.records[("chat.test", "A")] = [pods[0].host]
    config = upstream(names, pods)
    config["upstreams"][0]["discovery"]["dns"]["interval"] = "1h"
    daemon = proxy([], config=config)
    wait_for_states(daemon, {pods[0].address: "ready"})
    names.records[("chat.test", "A")] = [pods[0].host, pods[1].host]
    wait_for_states(daemon, {pod.address: "ready" for pod in pods[:2]}, seconds=5)

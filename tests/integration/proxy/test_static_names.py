"""Names of static endpoints are looked up in the background: a resolver stops neither a start nor a reload."""
import re
import signal
import time

import pytest
import yaml
from daemons import free_port, http_get, wait_until
from discovery_tools import Pod, handshake, poll, sessions_on, states, wait_for_states
from dns_server import NameServer


@pytest.fixture
def names():
    server = NameServer(free_port())
    server.ttl = 1
    yield server
    server.close()


@pytest.fixture
def pods():
    port = free_port()
    made = [Pod(f"pod-{i}", port, f"127.0.5.{i + 1}") for i in range(2)]
    yield made
    for pod in made:
        pod.close()


def upstream(names, *endpoints, name="chat"):
    return {"name": name, "health_check": {"type": "none"}, "place_after": "0s", "drain": {"window": "200ms", "delay": "0s"},
            "discovery": {"static": list(endpoints), "name_server": names.address}}


def trouble(daemon):
    return daemon.status()["upstreams"][0]["discovery_trouble"]


def test_a_start_waits_for_nobody_and_is_ready_when_there_is_an_address(proxy, names, pods):
    names.mode = "servfail"
    daemon = proxy([], config={"upstreams": [upstream(names, f"pod.test:{pods[0].port}")]}, wait=False)
    wait_until(lambda: "no endpoints of chat yet" in http_get(f"{daemon.admin}/readyz")[1], "it waits")
    wait_until(lambda: f"endpoint pod.test:{pods[0].port}: " in trouble(daemon), "it says why")
    asked = len(names.asked)
    wait_until(lambda: len(names.asked) > asked, "it asks again")
    assert len(re.findall("learns nothing", daemon.log())) == 1, "one line for each change"
    names.records[("pod.test", "A")] = [pods[0].host_ip]
    names.mode = "answer"
    daemon.wait_ready()
    wait_for_states(daemon, {f"pod.test:{pods[0].port}": "ready"})
    handshake(daemon.port)
    assert trouble(daemon) == ""


def test_it_keeps_the_address_that_it_has_and_takes_another_when_that_is_gone(proxy, names, pods):
    a, b = pods
    names.records[("pod.test", "A")] = [a.host_ip]
    daemon = proxy([], config={"upstreams": [upstream(names, {"address": f"pod.test:{a.port}", "id": "pod"})]})
    sid = sessions_on(daemon.port, [a], 1)["pod-0"][0]
    for change_of in (lambda: names.records.update({("pod.test", "A"): [b.host_ip, a.host_ip]}),
                      lambda: setattr(names, "mode", "servfail"), lambda: names.records.clear()):
        change_of()
        asked = len(names.asked)
        wait_until(lambda n=asked: len(names.asked) >= n + 2, "it has asked again")
        assert states(daemon) == {"pod": "ready"} and poll(daemon.port, sid) == (200, "pod-0")
    assert trouble(daemon)
    names.records[("pod.test", "A")] = [b.host_ip]
    names.mode = "answer"
    wait_until(lambda: daemon.log().count("the name has another address") == 1, "it has moved")
    wait_until(lambda: b.handshakes or not handshake(daemon.port), "new sessions are there")


def test_a_reload_does_not_wait_for_a_resolver_and_is_not_refused_because_of_it(proxy, names, pods):
    names.records[("pod.test", "A")] = [pods[0].host_ip]
    daemon = proxy([], config={"upstreams": [upstream(names, f"pod.test:{pods[0].port}")]})
    sid = sessions_on(daemon.port, [pods[0]], 1)["pod-0"][0]
    names.mode = "silent"
    began = time.monotonic()

    daemon.config["upstreams"][0]["discovery"]["static"] += ["nobody.test:1"]
    daemon.config["upstreams"].append(upstream(names, "nothing.test:1", name="odd"))
    daemon.config_path.write_text(yaml.safe_dump(daemon.config))
    daemon.signal(signal.SIGHUP)
    slowest = 0
    while time.monotonic() - began < 1.5:
        asked_at = time.monotonic()
        assert http_get(f"{daemon.admin}/livez")[0] == 200
        slowest = max(slowest, time.monotonic() - asked_at)
    assert slowest < 0.5
    assert daemon.metrics().get("sidrail_proxy_reloads_total", result="applied") >= 1
    assert daemon.metrics().get("sidrail_proxy_reloads_total", result="refused") == 0
    assert len(daemon.status()["upstreams"]) == 2
    assert states(daemon) == {f"pod.test:{pods[0].port}": "ready"} and poll(daemon.port, sid) == (200, "pod-0")
    assert http_get(f"{daemon.admin}/readyz")[0] == 200, "what a reload brings does not take it away from others"

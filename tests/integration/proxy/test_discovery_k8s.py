"""Endpoints from EndpointSlices: listed, watched, listed anew; while the API fails nothing changes."""
import json
import ssl
import subprocess
import time

import pytest
from daemons import free_port, http_get, is_full, wait_until
from discovery_tools import Pod, handshake, poll, sessions_on, states, wait_for_states
from k8s_api import Api, endpoint, slice_of


@pytest.fixture
def api():
    server = Api(free_port())
    yield server
    server.close()


@pytest.fixture
def pods():
    port = free_port()
    made = [Pod(f"u-{i}", port, f"127.0.4.{i + 1}") for i in range(4)]
    yield made
    for pod in made:
        pod.close()


def row(pod, **more):
    return endpoint(pod.name, pod.host_ip, **more)


def listed(pods, name="chat-1", ports=None):
    return slice_of(name, [row(pod) for pod in pods], ports or [("http", pods[0].port)])


def upstream(api, **more):
    chosen = {"namespace": "prod", "service": "chat", "ports": ["http"], "api_server": api.url, "token_file": "",
              "watch_time": "2s", **more}
    return {"upstreams": [{"name": "chat", "discovery": {"kubernetes": chosen}, "health_check": {"type": "none"}}]}


def trouble(daemon):
    return daemon.status()["upstreams"][0]["discovery_trouble"]


@pytest.mark.parametrize("chop", [False, True])
def test_pods_come_terminate_and_go_and_sessions_keep_theirs(proxy, api, pods, chop):
    api.chop = chop
    api.put(listed(pods[:2]))
    daemon = proxy([], config=upstream(api))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"})
    api.put(listed(pods[:3]))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready", "u-2": "ready"})
    wait_until(lambda: "warming" not in states(daemon).values(), "the new one is ready")
    held = sessions_on(daemon.port, pods[:3])

    api.put(slice_of("chat-1", [row(pods[0], ready=False, serving=True, terminating=True), row(pods[1]),
                                row(pods[2], ready=False)], [("http", pods[0].port)]))
    wait_for_states(daemon, {"u-0": "draining", "u-1": "ready", "u-2": "degraded"})
    before = pods[0].handshakes, pods[2].handshakes
    for _ in range(30):
        handshake(daemon.port)
    assert (pods[0].handshakes, pods[2].handshakes) == before
    for name, sids in held.items():
        assert [poll(daemon.port, sid) for sid in sids] == [(200, name)] * len(sids)

    api.put(slice_of("chat-1", [row(pods[0], ready=False, serving=False, terminating=True), row(pods[1]),
                                row(pods[2])], [("http", pods[0].port)]))
    wait_for_states(daemon, {"u-0": "closing", "u-1": "ready", "u-2": "ready"})
    api.put(listed(pods[1:3]))
    wait_for_states(daemon, {"u-1": "ready", "u-2": "ready"})
    status, body = poll(daemon.port, held["u-0"][0])
    assert status == 400 and json.loads(body)["code"] == 1
    assert all(pod.strangers == 0 for pod in pods)


def test_many_slices_are_listed_in_pages(proxy, api, pods):
    for i in range(50):
        api.put(slice_of(f"chat-{i}", [endpoint(f"v-{i}-{j}", f"10.9.{i}.{j + 1}") for j in range(5)]))
    daemon = proxy([], config=upstream(api))
    wait_until(lambda: len(states(daemon)) == 250, "all are there")
    assert len(api.lists()) == 3 and "continue" in api.lists()[1]
    api.remove("chat-7")
    wait_until(lambda: len(states(daemon)) == 245, "a slice is gone")


def test_an_endpoint_in_two_slices_and_in_two_families_is_one(proxy, api, pods):
    port = [("http", pods[0].port)]
    api.put(slice_of("chat-1", [row(pods[0]), row(pods[1])], port))
    api.put(slice_of("chat-2", [row(pods[1], ready=False, serving=True, terminating=True)], port))
    api.put(slice_of("chat-6", [endpoint("u-0", "fd00::1"), endpoint("u-1", "fd00::2"), endpoint("only-6", "fd00::3")],
                     port, "IPv6"))
    daemon = proxy([], config=upstream(api))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready", "only-6": "ready"})
    assert {line["id"]: line["address"] for line in daemon.status()["endpoints"]}["u-0"] == pods[0].address
    six = proxy([], config=upstream(api, ip_family="ipv6"))
    wait_for_states(six, {"u-0": "ready", "u-1": "ready", "only-6": "ready"})
    assert all(line["address"].startswith("[fd00::") for line in six.status()["endpoints"])
    four = proxy([], config=upstream(api, ip_family="ipv4"))
    wait_for_states(four, {"u-0": "ready", "u-1": "ready"})


def test_several_ports_of_a_pod_are_several_endpoints(proxy, api):
    workers = [Pod(f"w-{i}", 0, "127.0.4.1") for i in range(2)]
    try:
        ports = [(f"w{i}", worker.port) for i, worker in enumerate(workers)] + [("metrics", 9)]
        api.put(slice_of("chat-1", [endpoint("u-0", "127.0.4.1")], ports))
        daemon = proxy([], config=upstream(api, ports=["w0", str(workers[1].port)]))
        wait_until(lambda: len(daemon.status()["endpoints"]) == 2, "both are there")
        held = sessions_on(daemon.port, workers)
        for name, sids in held.items():
            assert [poll(daemon.port, sid) for sid in sids] == [(200, name)] * len(sids)
    finally:
        for worker in workers:
            worker.close()


def test_a_recycled_address_with_a_new_uid_gets_none_of_the_old_sessions(proxy, api, pods):
    api.put(listed(pods[:2]))
    daemon = proxy([], config=upstream(api))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"})
    held = sessions_on(daemon.port, pods[:2])
    api.put(slice_of("chat-1", [row(pods[0]), endpoint("new", pods[1].host_ip)], [("http", pods[0].port)]))
    wait_for_states(daemon, {"u-0": "ready", "new": "ready"})
    assert {poll(daemon.port, sid)[0] for sid in held["u-1"]} == {400}
    assert pods[1].strangers == 0


@pytest.mark.parametrize("by_status", [False, True])
def test_a_version_too_old_lists_anew_and_finds_what_was_missed(proxy, api, pods, by_status):
    api.expire_by_status = by_status
    api.put(listed(pods[:1], "chat-1"))
    api.put(listed(pods[1:2], "chat-2"))
    daemon = proxy([], config=upstream(api))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"})
    lists = len(api.lists())
    api.put_unseen(listed(pods[2:3], "chat-3"), remove="chat-1")
    api.cut()
    wait_for_states(daemon, {"u-1": "ready", "u-2": "ready"})
    assert len(api.lists()) > lists


def test_a_server_that_calls_each_list_too_old_is_not_asked_without_pause(proxy, api, pods):
    api.put(listed(pods[:1]))
    api.fail_with = 410
    proxy([], config=upstream(api), wait=False)
    wait_until(lambda: len(api.requests) >= 3, "it asks", 30)
    assert api.requests[2][0] - api.requests[1][0] >= 0.3
    api.fail_with = None


def test_a_watch_goes_on_from_its_last_version_when_its_time_is_over(proxy, api, pods):
    api.put(listed(pods[:1]))
    api.bookmarks = 0.2
    daemon = proxy([], config=upstream(api, watch_time="1s", relist="1h"))
    wait_until(lambda: len(api.watches()) >= 3, "it watches again and again")
    versions = [int(query["resourceVersion"]) for query in api.watches()]
    assert versions == sorted(versions) and versions[-1] > versions[0], "bookmarks moved it on"
    assert len(api.lists()) == 1 and trouble(daemon) == ""
    generation = daemon.status()["generation"]
    api.put(listed(pods[:2]))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"})
    assert daemon.status()["generation"] == generation + 1


def test_slices_are_listed_anew_from_time_to_time(proxy, api, pods):
    api.put(listed(pods[:1]))
    daemon = proxy([], config=upstream(api, watch_time="1s", relist="1s"))
    wait_until(lambda: len(api.lists()) >= 3, "it lists anew", 30)
    assert states(daemon).keys() == {"u-0"}


@pytest.mark.parametrize("status, why", [(401, "401: the token"), (500, "status 500"), (429, "status 429"),
                                         (403, "resources [endpointslices], verbs [list, watch] in namespace prod")])
def test_refusals_are_told_and_change_nothing(proxy, api, pods, status, why):
    api.put(listed(pods[:2]))
    daemon = proxy([], config=upstream(api))
    held = sessions_on(daemon.port, pods[:2])
    api.fail_with, api.retry_after = status, "1" if status == 429 else None
    api.cut()
    wait_until(lambda: why in trouble(daemon), "it is told", 30)
    if status == 429:
        refused = len(api.requests)
        wait_until(lambda: len(api.requests) > refused, "it asks again", 30)
        assert api.requests[-1][0] - api.requests[-2][0] >= 1.0, "when the server wants it"
    time.sleep(1.2)
    assert [poll(daemon.port, sid)[0] for sid in held["u-0"]] == [200] * len(held["u-0"])
    assert daemon.metrics().get("sidrail_proxy_discovery_synced") == 0
    api.fail_with = None
    api.put(listed(pods[:3]))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready", "u-2": "ready"}, 40)
    assert trouble(daemon) == ""


@pytest.mark.parametrize("raw", [b"this is not JSON\n", b'{"type":"ADDED"}\n', b'{"type":"ADDED","object":{"kind":"Pod"}}\n',
                                 b'[' * 5000 + b"\n", b"\0\xff\n", pytest.param(b"x" * (9 << 20), id="9 MiB")])
def test_garbage_in_a_watch_makes_it_list_anew(proxy, api, pods, raw):
    api.put(listed(pods[:2]))
    daemon = proxy([], config=upstream(api, watch_time="1m"))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"})
    wait_until(api.watches, "it watches")
    lists = len(api.lists())
    time.sleep(0.2)
    api.say(raw)
    wait_until(lambda: len(api.lists()) > lists, "it lists anew")
    api.put(listed(pods[:3]))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready", "u-2": "ready"})


def test_an_event_of_nearly_8_mib_is_taken(proxy, api, pods):
    api.put(listed(pods[:1]))
    daemon = proxy([], config=upstream(api, watch_time="1m"))
    wait_for_states(daemon, {"u-0": "ready"})
    large = listed(pods[:2])
    large["metadata"]["annotations"] = {"large": "x" * ((8 << 20) - 5000)}
    api.put(large)
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"})
    assert len(api.lists()) == 1


def test_an_empty_service_is_held_for_a_while(proxy, api, pods):
    api.put(listed(pods[:2]))
    daemon = proxy([], config=upstream(api, empty_hold="2s"))
    held = sessions_on(daemon.port, pods[:2])
    api.remove("chat-1")
    wait_for_states(daemon, {"u-0": "draining", "u-1": "draining"})
    assert poll(daemon.port, held["u-0"][0]) == (200, "u-0")
    wait_for_states(daemon, {"u-0": "closing", "u-1": "closing"})
    assert poll(daemon.port, held["u-0"][0]) == (200, "u-0")


def test_it_is_not_ready_before_the_api_has_answered(proxy, pods):
    port = free_port()
    closed = Api(port)
    closed.close()
    daemon = proxy([], config=upstream(closed), wait=False)
    wait_until(lambda: "no endpoints of chat yet" in http_get(f"{daemon.admin}/readyz")[1], "it waits")
    server = Api(port)
    server.put(listed(pods[:1]))
    try:
        wait_until(daemon.is_ready, "it is ready", 30)
    finally:
        server.close()


def test_the_token_is_read_anew(proxy, api, pods, tmp_path):
    token = tmp_path / "token"
    token.write_text("first\n")
    api.token = "first"
    api.put(listed(pods[:1]))
    daemon = proxy([], config=upstream(api, token_file=str(token)))
    wait_for_states(daemon, {"u-0": "ready"})
    api.token = "second"
    token.write_text("second\n")
    api.cut()
    api.put(listed(pods[:2]))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"})
    assert "first" not in daemon.log() and "second" not in daemon.log()


def test_a_watch_that_goes_on_ends_the_trouble(proxy, api, pods):
    api.put(listed(pods[:1]))
    daemon = proxy([], config=upstream(api))
    wait_for_states(daemon, {"u-0": "ready"})
    lists = len(api.lists())
    api.fail_with = 500
    api.cut()
    wait_until(lambda: "status 500" in trouble(daemon), "it is told")
    api.fail_with = None
    wait_until(lambda: trouble(daemon) == "", "it watches again", 30)
    assert daemon.metrics().get("sidrail_proxy_discovery_synced") == 1
    assert len(api.lists()) == lists


def certificate(folder, name, alternatives="IP:127.0.0.1"):
    """A certificate for 127.0.0.1, or others, that is its own authority: (cert, key)."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternatives}", "-keyout", key,
                    "-out", cert], check=True, capture_output=True)
    return cert, key


def secured(port, pair, host="127.0.0.1"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return Api(port, tls=context, host=host)


@pytest.mark.parametrize("told, host", [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "::1"), ("[::1]", "::1")])
def test_the_pods_environment_may_name_the_api_in_any_form(proxy, pods, tmp_path, told, host):
    """A managed cluster gives a name to pods outside of its network."""
    pair = certificate(tmp_path, "api", f"DNS:localhost,IP:{host}")
    server = secured(free_port(), pair, host)
    try:
        server.put(listed(pods[:1]))
        daemon = proxy([], config=upstream(server, ca_file=str(pair[0]), api_server=""),
                       env={"KUBERNETES_SERVICE_HOST": told, "KUBERNETES_SERVICE_PORT": str(server.server.server_address[1])})
        wait_for_states(daemon, {"u-0": "ready"})
        server.put(listed(pods[:2]))
        wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"})
    finally:
        server.close()


def test_a_name_of_the_api_that_nobody_knows_is_told_and_tried_again(proxy, api, pods):
    daemon = proxy([], config=upstream(api, api_server="http://nobody.invalid:1"), wait=False)
    wait_until(lambda: "nobody.invalid: " in trouble(daemon), "it says so", 30)
    errors = daemon.metrics().get("sidrail_proxy_discovery_errors_total", source="kubernetes")
    wait_until(lambda: daemon.metrics().get("sidrail_proxy_discovery_errors_total", source="kubernetes") > errors, "again", 30)


def test_the_api_is_verified_and_its_authority_may_change(proxy, pods, tmp_path):
    port = free_port()
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    authority = tmp_path / "ca.crt"
    authority.write_bytes(first[0].read_bytes())
    server = secured(port, first)
    server.put(listed(pods[:1]))
    daemon = proxy([], config=upstream(server, ca_file=str(authority)))
    wait_for_states(daemon, {"u-0": "ready"})
    server.close()
    server = secured(port, second)
    try:
        server.version = 20
        server.put(listed(pods[:2]))
        wait_until(lambda: "certificate" in trouble(daemon), "the other certificate is refused", 30)
        assert states(daemon).keys() == {"u-0"}
        assert not server.requests, "no token went to a stranger"
        authority.write_bytes(second[0].read_bytes())
        wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"}, 40)
    finally:
        server.close()


def test_an_hour_of_bookmarks_changes_nothing_and_costs_no_memory(proxy, api, pods):
    """Sixty bookmarks, as an hour has, in a few seconds."""
    api.put(listed(pods[:2]))
    api.bookmarks = 0.05
    daemon = proxy([], config=upstream(api, watch_time="1m"))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"})
    generation, version = daemon.status()["generation"], api.version
    wait_until(lambda: api.version > version + 60, "an hour has passed")
    assert daemon.status()["generation"] == generation
    assert len(api.lists()) == 1 and len(api.watches()) == 1 and trouble(daemon) == ""


@pytest.mark.skipif(not is_full(), reason="takes half a minute of silence")
def test_an_api_that_goes_silent_is_left_and_found_again(proxy, api, pods):
    api.put(listed(pods[:1]))
    daemon = proxy([], config=upstream(api, watch_time="1s"))
    wait_for_states(daemon, {"u-0": "ready"})
    api.silent = True
    wait_until(lambda: "timeout" in trouble(daemon), "it gives up", 60)
    assert states(daemon).keys() == {"u-0"}
    api.silent = False
    api.put(listed(pods[:2]))
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready"}, 60)


@pytest.mark.skipif(not is_full(), reason="takes a minute of trickling")
def test_an_api_that_trickles_for_ever_is_left_and_found_again(proxy, api, pods):
    """Silence is not what ends these: a byte comes five times a second."""
    api.put(listed(pods[:1]))
    daemon = proxy([], config=upstream(api, watch_time="1s"))
    wait_for_states(daemon, {"u-0": "ready"})
    api.trickle = True
    listing = proxy([], config=upstream(api), wait=False)
    wait_until(lambda: "watching" in trouble(daemon) and "does not end" in trouble(daemon), "a watch is left", 90)
    wait_until(lambda: api.left, "the API sees it")
    assert api.left[0] >= 30, "not before its time and half a minute are over"
    assert states(daemon).keys() == {"u-0"}
    wait_until(lambda: "listing" in trouble(listing) and "does not end" in trouble(listing), "a list is left", 120)
    wait_until(lambda: max(api.left) >= 59, "not before a minute is over")
    api.trickle = False
    api.put(listed(pods[:2]))
    for each in (daemon, listing):
        wait_for_states(each, {"u-0": "ready", "u-1": "ready"}, 60)

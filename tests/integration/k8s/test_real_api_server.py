"""Discovery against a real API server: restarted, compacted, stopped, with changed tokens and authorities."""
import os
import subprocess

import pytest
from daemons import figure, free_port, wait_until
from discovery_tools import Pod, handshake, poll, sessions_on, states, wait_for_states
from k8s_api import endpoint, slice_of
from real_api import ApiRelay, ApiServer, Etcd, wait_watching


def certificate(folder, name):
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key,
                    "-out", cert], check=True, capture_output=True)
    return cert, key


class Cluster:
    """A namespace of its own in an API server that the tests of a file share."""

    def __init__(self, server, etcd, authority, folder, name):
        self.server, self.etcd, self.name = server, etcd, name
        self.authority, self.token = folder / "ca.crt", folder / "token"
        self.authority.write_bytes(authority.read_bytes())
        self.token.write_text("first\n")
        server.tokens({"first": "reader"})
        self.relay = ApiRelay(server)

    def put(self, made):
        self.server.put(made, self.name)

    def remove(self, name):
        self.server.remove(name, self.name)

    def upstream(self, relayed=False, **more):
        chosen = {"namespace": self.name, "service": "chat", "ports": ["http"], "watch_time": "2s",
                  "api_server": self.relay.url if relayed else self.server.url, "token_file": str(self.token),
                  "ca_file": str(self.authority), **more}
        return {"upstreams": [{"name": "chat", "discovery": {"kubernetes": chosen}, "health_check": {"type": "none"}}]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("pair"), "served")


@pytest.fixture(scope="module")
def etcd(module_servers):
    return module_servers.start(Etcd("etcd", module_servers.folder))


@pytest.fixture(scope="module")
def cached(module_servers, etcd, pair):
    return module_servers.start(ApiServer("api", module_servers.folder, etcd, pair))


@pytest.fixture(scope="module")
def uncached(module_servers, etcd, pair):
    """Watches and pages come from etcd itself: what it has compacted is gone."""
    return module_servers.start(ApiServer("uncached", module_servers.folder, etcd, pair, cache=False))


counter = iter(range(1000))


@pytest.fixture
def cluster(cached, etcd, pair, tmp_path):
    made = Cluster(cached, etcd, pair[0], tmp_path, f"n{next(counter)}")
    yield made
    made.relay.close()


@pytest.fixture
def bare(uncached, etcd, pair, tmp_path):
    made = Cluster(uncached, etcd, pair[0], tmp_path, f"n{next(counter)}")
    yield made
    made.relay.close()


@pytest.fixture
def pods():
    port = free_port()
    made = [Pod(f"u-{i}", port, f"127.0.5.{i + 1}") for i in range(3)]
    yield made
    for pod in made:
        pod.close()


def row(pod, **more):
    return endpoint(pod.name, pod.host_ip, **more)


def listed(pods, name="chat-1"):
    return slice_of(name, [row(pod) for pod in pods], [("http", pods[0].port)])


def ready(pods):
    return {pod.name: "ready" for pod in pods}


def trouble(daemon):
    return daemon.status()["upstreams"][0]["discovery_trouble"]


def test_a_terminating_pod_drains_and_keeps_its_sessions(proxy, cluster, pods):
    cluster.put(listed(pods))
    daemon = proxy([], config=cluster.upstream())
    held = sessions_on(daemon.port, pods)
    cluster.put(slice_of("chat-1", [row(pods[0], ready=False, serving=True, terminating=True), row(pods[1]),
                                    row(pods[2])], [("http", pods[0].port)]))
    wait_for_states(daemon, {"u-0": "draining", "u-1": "ready", "u-2": "ready"})
    before = pods[0].handshakes
    for _ in range(20):
        handshake(daemon.port)
    assert pods[0].handshakes == before
    for name, sids in held.items():
        assert [poll(daemon.port, sid) for sid in sids] == [(200, name)] * len(sids)
    cluster.put(listed(pods[1:]))
    wait_for_states(daemon, ready(pods[1:]))


def test_an_api_server_killed_and_started_loses_no_endpoint(proxy, cluster, pods):
    cluster.put(listed(pods[:2]))
    daemon = proxy([], config=cluster.upstream())
    held = sessions_on(daemon.port, pods[:2])
    cluster.server.kill()
    wait_until(lambda: trouble(daemon), "it is told", 30)
    assert set(states(daemon)) == {"u-0", "u-1"}
    assert all(poll(daemon.port, sid) == (200, name) for name, sids in held.items() for sid in sids)
    assert daemon.metrics().get("sidrail_proxy_discovery_synced") == 0
    cluster.server.start()
    cluster.put(listed(pods))
    wait_for_states(daemon, ready(pods), 60)
    wait_until(lambda: trouble(daemon) == "", "the trouble is over", 60)


def test_a_stopped_api_server_changes_nothing_and_is_found_again(proxy, cluster, pods):
    cluster.put(listed(pods[:2]))
    daemon = proxy([], config=cluster.upstream(watch_time="1s"))
    wait_for_states(daemon, ready(pods[:2]))
    cluster.server.pause()
    try:
        wait_until(lambda: trouble(daemon), "it is told", 90)
        assert set(states(daemon)) == {"u-0", "u-1"}
        handshake(daemon.port)
    finally:
        cluster.server.resume()
    cluster.put(listed(pods))
    wait_for_states(daemon, ready(pods), 90)


def test_history_compacted_while_nobody_watched_is_listed_anew(proxy, bare, pods):
    """The server says 410 as an event in an answer of status 200."""
    bare.put(listed(pods[:1]))
    bare.put(listed(pods[1:2], "chat-2"))
    daemon = proxy([], config=bare.upstream(relayed=True, watch_time="1m"))
    wait_for_states(daemon, ready(pods[:2]))
    wait_watching(bare.relay)

    def change(query):
        bare.relay.before = lambda query: None
        bare.remove("chat-1")
        bare.put(listed(pods[2:], "chat-3"))
        bare.etcd.compact()
    bare.relay.before = change
    lists = len(bare.relay.lists())
    bare.relay.cut()
    wait_for_states(daemon, ready(pods[1:]), 40)
    assert "ERROR" in bare.relay.events and len(bare.relay.lists()) > lists


def test_a_page_token_that_is_compacted_begins_the_list_again(proxy, bare, pods):
    """The server says 410 as the status of a list."""
    for i in range(25):
        bare.put(slice_of(f"chat-{i:02}", [endpoint(f"v-{i}", f"10.9.{i}.1")]))

    def change(query):
        if "continue" in query:
            bare.relay.before = lambda query: None
            bare.remove("chat-00")
            bare.etcd.compact()
    bare.relay.before = change
    daemon = proxy([], config=bare.upstream(relayed=True))
    wait_until(lambda: len(states(daemon)) == 24, "all that are left are there", 40)
    assert ["continue" in query for query in bare.relay.lists()] == [False, True, False, True]


def test_three_slices_of_250_endpoints_and_fifty_slices_in_pages(proxy, cluster):
    for i, size in enumerate((100, 100, 50)):
        cluster.put(slice_of(f"chat-{i}", [endpoint(f"v-{i}-{j}", f"10.9.{i}.{j + 1}") for j in range(size)]))
    daemon = proxy([], config=cluster.upstream(relayed=True))
    wait_until(lambda: len(states(daemon)) == 250, "all are there")
    for i in range(3, 45):
        cluster.put(slice_of(f"chat-{i}", [endpoint(f"v-{i}", f"10.9.{i}.1")]))
    wait_until(lambda: len(states(daemon)) == 292, "the new ones are there")
    second = proxy([], config=cluster.upstream(relayed=True))
    wait_until(lambda: len(states(second)) == 292, "pages hold all")
    assert sum("continue" in query for query in cluster.relay.lists()) == 2
    cluster.remove("chat-1")
    wait_until(lambda: len(states(daemon)) == len(states(second)) == 192, "a slice is gone")


def test_two_slices_and_two_families_of_a_pod_are_one_endpoint(proxy, cluster, pods):
    port = [("http", pods[0].port)]
    cluster.put(slice_of("chat-1", [row(pods[0]), row(pods[1])], port))
    cluster.put(slice_of("chat-2", [row(pods[1])], port))
    cluster.put(slice_of("chat-6", [endpoint("u-0", "fd00::1"), endpoint("only-6", "fd00::3")], port, "IPv6"))
    daemon = proxy([], config=cluster.upstream())
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready", "only-6": "ready"})


def test_ports_of_a_pod_are_endpoints_of_their_own(proxy, cluster):
    cluster.put(slice_of("chat-1", [endpoint("u-0", "127.0.5.1")], [("w0", 5000), ("w1", 5001), ("metrics", 9)]))
    daemon = proxy([], config=cluster.upstream(ports=["w0", "5001"]))
    wait_until(lambda: {line["address"] for line in daemon.status()["endpoints"]} ==
               {"127.0.5.1:5000", "127.0.5.1:5001"}, "both are there")


def test_a_rotated_token_is_read_anew(proxy, cluster, pods):
    cluster.put(listed(pods[:1]))
    daemon = proxy([], config=cluster.upstream(watch_time="1s"))
    wait_for_states(daemon, ready(pods[:1]))
    cluster.server.tokens({"second": "reader"})
    wait_until(lambda: "401" in trouble(daemon), "the old one is refused", 30)
    cluster.put(listed(pods[:2]))
    assert set(states(daemon)) == {"u-0"}
    fresh = cluster.token.with_suffix(".new")
    fresh.write_text("second\n")
    os.replace(fresh, cluster.token)
    wait_for_states(daemon, ready(pods[:2]), 40)
    assert "first" not in daemon.log() and "second" not in daemon.log()


def test_a_role_without_the_rule_is_told_which_is_missing(proxy, cluster, pods):
    cluster.put(listed(pods[:1]))
    cluster.server.tokens({"first": "nobody"})
    daemon = proxy([], config=cluster.upstream(), wait=False)
    wanted = f"resources [endpointslices], verbs [list, watch] in namespace {cluster.name}"
    daemon.wait_log(r"403: .*" + wanted.replace("[", r"\[").replace("]", r"\]"))
    cluster.server.tokens({"first": "reader"})
    wait_until(daemon.is_ready, "it is ready", 40)
    wait_for_states(daemon, ready(pods[:1]))


def test_a_rotated_authority_is_read_anew(proxy, start, etcd, pair, pods, tmp_path):
    first, second = certificate(tmp_path, "one"), certificate(tmp_path, "two")
    api = start(ApiServer("rotated", tmp_path, etcd, first))
    made = Cluster(api, etcd, first[0], tmp_path, "rotated")
    made.put(listed(pods[:1]))
    daemon = proxy([], config=made.upstream(watch_time="1s"))
    wait_for_states(daemon, ready(pods[:1]))
    api.stop()
    for old, new in zip(first, second):
        os.replace(new, old)
    api.start()
    wait_until(lambda: "certificate" in trouble(daemon), "the other certificate is refused", 40)
    assert set(states(daemon)) == {"u-0"}
    made.put(listed(pods[:2]))
    made.authority.write_bytes(first[0].read_bytes())
    wait_for_states(daemon, ready(pods[:2]), 40)
    made.relay.close()


@pytest.mark.parametrize("answers", [[(429, "Retry-After: 2\r\n")], [(500, ""), (503, "")]])
def test_a_busy_server_is_asked_again_later(proxy, cluster, pods, answers):
    cluster.put(listed(pods[:1]))
    daemon = proxy([], config=cluster.upstream(relayed=True))
    wait_for_states(daemon, ready(pods[:1]))
    wait_watching(cluster.relay)
    cluster.relay.answers = list(answers)
    asked = len(cluster.relay.times)
    cluster.relay.cut()
    cluster.put(listed(pods[:2]))
    wait_for_states(daemon, ready(pods[:2]), 40)
    gaps = [b - a for a, b in zip(cluster.relay.times[asked:], cluster.relay.times[asked + 1:])]
    # the proxy's clock is that of its event loop, some milliseconds coarse
    assert gaps[0] >= (1.98 if answers[0][0] == 429 else 0.3), gaps


@pytest.mark.parametrize("raw", [b"no JSON\n", b'{"type":"ADDED"}\n', pytest.param(b"x" * (9 << 20), id="9 MiB")])
def test_garbage_between_events_is_survived(proxy, cluster, pods, raw):
    cluster.put(listed(pods[:1]))
    daemon = proxy([], config=cluster.upstream(relayed=True, watch_time="1m"))
    wait_for_states(daemon, ready(pods[:1]))
    wait_watching(cluster.relay)
    lists = len(cluster.relay.lists())
    try:
        cluster.relay.say(raw)
    except OSError:
        pass  # it hung up in the middle
    wait_until(lambda: len(cluster.relay.lists()) > lists, "it lists anew")
    cluster.put(listed(pods[:2]))
    wait_for_states(daemon, ready(pods[:2]), 40)


@pytest.mark.timeout(figure(180, 900))
def test_an_hour_of_bookmarks_costs_no_list(proxy, cluster, pods):
    """An hour has about sixty of them. Short form: a few.

    The server sends one or two about two seconds before the end of each watch (and one a minute, in longer ones),
    and only when its version has moved on: so the slices of a neighbour change, which this watch does not show."""
    cluster.put(listed(pods[:1]))
    daemon = proxy([], config=cluster.upstream(relayed=True, watch_time="3s", relist="1h"))
    wait_for_states(daemon, ready(pods[:1]))
    generation = daemon.status()["generation"]
    wanted, changes = figure(4, 60), iter(range(1 << 16))

    def have_come():
        i = next(changes)
        cluster.server.put(slice_of("other", [endpoint("v", f"10.9.{i >> 8}.{i & 255}")]), f"{cluster.name}-next")
        assert set(states(daemon)) == {"u-0"}
        return cluster.relay.events.count("BOOKMARK") >= wanted
    wait_until(have_come, "bookmarks have come", figure(60, 600), 0.25)
    begun = len(cluster.relay.watches())
    wait_until(lambda: len(cluster.relay.watches()) > begun, "the next watch has begun", 60)
    assert set(cluster.relay.events) == {"BOOKMARK"}
    assert len(cluster.relay.lists()) == 1 and trouble(daemon) == ""
    versions = [int(query["resourceVersion"]) for query in cluster.relay.watches()]
    assert versions == sorted(versions) and len(set(versions)) > len(versions) / 2, "bookmarks moved it on"
    assert daemon.status()["generation"] == generation
    cluster.put(listed(pods[:2]))
    wait_for_states(daemon, ready(pods[:2]))
    assert len(cluster.relay.lists()) == 1

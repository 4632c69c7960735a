"""TLS from the proxy to its endpoints: sessions as without it, certificates that must be right, files that may change."""
import shutil

import pytest
import socketio
from daemons import figure, http_get, wait_until
from http_tools import OK, Client, Endpoint, get, post
from tls_tools import Authority, TlsFlaskPod, TlsNodePod, server_context

NAMES = ["DNS:chat.test", "IP:127.0.0.1"]
HANDSHAKE = "/socket.io/?EIO=4&transport=polling"


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def chat(ca):
    """Certificate and key of chat.test and 127.0.0.1."""
    return ca.issue("chat", NAMES)


@pytest.fixture
def edge(proxy):
    """edge(endpoints, tls={…}): a proxy whose upstream speaks TLS."""
    def make(endpoints, tls, **upstream):
        static = [one.address for one in endpoints]
        return proxy(endpoints, config={"upstreams": [{"name": "chat", "discovery": {"static": static}, "place_after": "0s",
                                                       "health_check": {"type": "none"}, "tls": tls, **upstream}],
                                        "timeouts": {"connect": "2s"}})
    return make


@pytest.fixture
def endpoint():
    made = []

    def make(answer=OK, tls=None):
        made.append(Endpoint(answer, tls))
        return made[-1]
    yield make
    for one in made:
        one.close()


def tls_failures(edge):
    metrics = edge.metrics()
    closed = metrics.get("sidrail_proxy_edge_answers_total", reason="endpoint_tls_failed")
    connects = metrics.get("sidrail_proxy_endpoint_connects_total", result="tls_failed")
    return closed, connects


@pytest.mark.smoke
def test_sessions_stay_on_endpoints_behind_tls(edge, start, ca, chat, tmp_path):
    pods = [start(TlsFlaskPod(f"flask{n}", tmp_path, chat)) for n in range(2)] + [start(TlsNodePod("node", tmp_path, chat))]
    proxy = edge(pods, {"ca": str(ca.crt)}, health_check={"type": "http", "path": "/pod", "interval": "100ms"})
    clients = []
    for number in range(figure(9, 60)):
        client = socketio.Client(reconnection=False)
        transports = [None, ["polling"], ["websocket"]][number % 3]
        client.connect(proxy.url, transports=transports)
        clients.append(client)
    served = [{client.call("whoami")["pod"] for _ in range(3)} for client in clients]
    assert all(len(one) == 1 for one in served) and len(set.union(*served)) == 3
    payload = "x" * 300_000
    for client in clients[:6]:
        assert client.call("echo", payload) == payload
    assert {client.call("whoami")["transport"] for client in clients[::3]} == {"websocket"}
    status = proxy.status()
    assert status["upstream_session_unknown"] == 0
    assert {one["state"] for one in status["endpoints"]} == {"ready"}
    assert proxy.metrics().get("sidrail_proxy_health_probes_total", result="passed") > 0
    assert tls_failures(proxy) == (0, 0)
    for client in clients:
        client.disconnect()


def test_a_connection_is_reused_over_tls(edge, endpoint, ca, chat):
    one = endpoint(tls=server_context(chat))
    proxy = edge([one], {"ca": str(ca.crt)})
    with Client(proxy.port) as client:
        for _ in range(20):
            client.send(get("/other"))
            assert client.message().body == b"ok"
    assert one.connections == 1
    assert proxy.metrics().get("sidrail_proxy_endpoint_connects_total", result="reused") == 19


def test_bytes_behind_an_answer_are_nobodys_answer(edge, endpoint, ca, chat):
    # both in one record: no event will announce the second
    one = endpoint(answer=OK + OK.replace(b"ok", b"no"), tls=server_context(chat))
    proxy = edge([one], {"ca": str(ca.crt)})
    with Client(proxy.port) as client:
        for _ in range(5):
            client.send(get("/other"))
            assert client.message().body == b"ok"
    assert one.connections == 5


def test_large_bodies_pass_both_ways_at_the_pace_of_the_slower(edge, endpoint, ca, chat):
    size = 8 << 20
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(range(256)) * (size // 256)
    one = endpoint(answer=answer, tls=server_context(chat))
    proxy = edge([one], {"ca": str(ca.crt)})
    with Client(proxy.port) as client:
        client.send(post("/other", b"y" * 900_000))
        taken = one.take()
        assert taken.body == b"y" * 900_000
        wait_until(lambda: proxy.status()["buffered_bytes"] < 4 << 20, "little waits in the proxy")
        assert client.message().body == answer[-size:]


@pytest.mark.parametrize("fault, said", [
    ("name", "hostname mismatch|Hostname mismatch"),
    ("ip", "IP address mismatch"),
    ("expired", "certificate has expired"),
    ("authority", "unable to get local issuer certificate|self-signed certificate"),
    ("plain", "wrong version number"),
    ("closes", "connection ended|unexpected eof"),
])
def test_what_is_wrong_with_an_endpoint_has_one_name_and_a_reason(fault, said, edge, endpoint, ca, chat, tmp_path):
    files, tls = chat, {"ca": str(ca.crt)}
    if fault == "name":
        tls["server_name"] = "other.test"
    elif fault == "ip":
        files = ca.issue("named", ["DNS:chat.test"])
    elif fault == "expired":
        files = ca.issue("expired", NAMES, dates="past")
    elif fault == "authority":
        tls["ca"] = str(Authority(tmp_path, "stranger").crt)
    one = endpoint(tls=None if fault in ("plain", "closes") else server_context(files))
    if fault == "plain":
        one.serve = lambda reader: (reader.sock.recv(100), reader.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    elif fault == "closes":
        one.serve = lambda reader: reader.sock.recv(100)
    proxy = edge([one], tls)
    with Client(proxy.port) as client:
        for path in ("/other", HANDSHAKE):
            client.send(get(path))
            assert client.message().status == 502
    assert one.requests == [], "a request went to an endpoint that is not trusted"
    assert tls_failures(proxy) == (2, 2)
    proxy.wait_log(f"TLS failed.*({said})")


def test_a_silent_endpoint_behind_tls_is_a_connect_that_took_too_long(edge, endpoint):
    one = endpoint()
    one.serve = lambda reader: reader.sock.recv(1000) and reader.sock.recv(1000)
    proxy = edge([one], {"verify": False})
    with Client(proxy.port) as client:
        client.send(get("/other"))
        assert client.message().status == 504
    assert proxy.metrics().get("sidrail_proxy_endpoint_connects_total", result="timed_out") == 1


def test_a_handshake_goes_to_the_endpoint_whose_certificate_is_good(edge, start, endpoint, ca, chat, tmp_path):
    pod = start(TlsNodePod("node", tmp_path, chat))
    plain = endpoint()
    plain.serve = lambda reader: reader.sock.recv(100)
    proxy = edge([pod, plain], {"ca": str(ca.crt)})
    for _ in range(12):
        status, body = http_get(f"{proxy.url}{HANDSHAKE}")
        assert status == 200 and body.startswith("0{"), body
    assert tls_failures(proxy)[0] == 0 and tls_failures(proxy)[1] >= 1


def test_the_name_that_is_sent_chooses_the_certificate(edge, endpoint, ca):
    asked = []
    context = server_context(ca.issue("other", ["DNS:other.test"]))
    right = server_context(ca.issue("named-too", ["DNS:right.test"]))

    def choose(sock, name, _):
        asked.append(name)
        sock.context = right
    context.sni_callback = choose
    one = endpoint(tls=context)
    proxy = edge([one], {"ca": str(ca.crt), "server_name": "right.test"})
    assert http_get(f"{proxy.url}/other")[0] == 200
    assert asked == ["right.test"]


def test_verification_can_be_left_out_and_that_is_said(edge, endpoint, ca):
    one = endpoint(tls=server_context(ca.issue("anybody", ["DNS:anybody.test"], dates="past")))
    proxy = edge([one], {"verify": False})
    assert http_get(f"{proxy.url}/other")[0] == 200
    proxy.wait_log("tls.verify is false")


def test_the_proxy_shows_its_certificate_where_it_is_asked(edge, start, ca, chat, tmp_path):
    ours = ca.issue("edge", ["DNS:edge.test"])
    pod = start(TlsFlaskPod("flask", tmp_path, chat, client_ca=ca.crt, client_files=ours))
    proxy = edge([pod], {"ca": str(ca.crt), "cert": str(ours[0]), "key": str(ours[1])},
                 health_check={"type": "http", "path": "/pod", "interval": "100ms", "rise": 1, "fall": 1})
    assert http_get(f"{proxy.url}{HANDSHAKE}")[0] == 200
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_health_probes_total", result="passed") > 2, "probes pass")
    without = edge([pod], {"ca": str(ca.crt)})
    # TLS 1.3 refuses a client after its handshake: whichever of the two it is called, nothing is served
    assert http_get(f"{without.url}{HANDSHAKE}")[0] == 502


def test_health_checks_see_that_tls_fails(edge, endpoint, ca, chat):
    good, plain = endpoint(tls=server_context(chat)), endpoint()
    plain.serve = lambda reader: reader.sock.recv(100)
    proxy = edge([good, plain], {"ca": str(ca.crt)},
                 health_check={"type": "tcp", "interval": "100ms", "rise": 1, "fall": 2})
    wait_until(lambda: {one["address"]: one["state"] for one in proxy.status()["endpoints"]} == {
        good.address: "ready", plain.address: "degraded"}, "the plain one is degraded")
    proxy.wait_log("verdict: fails.*(connection ended|unexpected eof)")


def test_files_that_change_are_used_by_the_next_connection(edge, endpoint, ca, chat, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    trusted = tmp_path / "trusted.crt"
    shutil.copy(ca.crt, trusted)
    before, after = endpoint(tls=server_context(chat)), endpoint(tls=server_context(stranger.issue("new", NAMES)))
    proxy = edge([before, after], {"ca": str(trusted)}, affinity={"hash_by": "query:room"})

    def served():
        """Which of the two serve requests of other paths, over fresh connections."""
        seen = set()
        for one in (before, after):
            one.requests.clear()
        for _ in range(6):
            http_get(f"{proxy.url}/other")
        for one in (before, after):
            if one.requests:
                seen.add(one)
        return seen
    wait_until(lambda: served() == {before}, "only the old authority is trusted")

    trusted.write_text("no certificate")
    proxy.wait_log("TLS files have changed and are not good")
    assert served() == {before}, "files that are bad keep the ones before"

    shutil.copy(stranger.crt, tmp_path / "next")
    (tmp_path / "next").rename(trusted)
    proxy.wait_log(r"TLS files have changed\b(?! and)")
    wait_until(lambda: served() == {after}, "only the new authority is trusted")


@pytest.mark.parametrize("tls, said", [
    ({"ca": "/nowhere/ca.crt"}, "cannot open CA /nowhere/ca.crt"),
    ({"cert": "/nowhere/a.crt"}, "needs both cert and key"),
])
def test_files_that_cannot_be_used_are_named_at_the_start(tls, said, proxy):
    bad = proxy(["127.0.0.1:1"], wait=False, config={"upstreams": [
        {"name": "chat", "discovery": {"static": ["127.0.0.1:1"]}, "tls": tls}]})
    assert bad.wait_exit() == 1
    assert said in bad.log() and "tls" in bad.log(), bad.log()

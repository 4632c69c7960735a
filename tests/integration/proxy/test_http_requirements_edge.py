"""HTTP requirements B40 and B46-B48, and who is served at all: PROXY headers, redirects, networks, origins, limits."""
import json
import pathlib
import socket
import ssl
import subprocess

import pytest
from daemons import BUILD, free_port, wait_until
from http_tools import OK, UPGRADE, Client, get, post

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
V2 = SIGNATURE + b"\x21\x11\0\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"
V2_IPV6 = SIGNATURE + b"\x21\x21\0\x24" + socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + b"\x00\x01\x00\x02"
HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
OPEN = b'0{"sid":"AAAAAAAAAAAAAAAAAAAA","upgrades":[],"pingInterval":25000,"pingTimeout":20000}'
OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(OPEN), OPEN)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) for edge.test."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=edge.test", "-addext", "subjectAltName=DNS:edge.test", "-keyout", folder / "key.pem", "-out",
                    folder / "cert.pem"], check=True, capture_output=True)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def closed_for(proxy, reason):
    return proxy.metrics().get("sidrail_proxy_clients_closed_total", reason=reason)


# --- B40: PROXY headers ----------------------------------------------------------------------------------------


@pytest.fixture
def introduced(configured):
    """An edge whose listener wants PROXY headers of 127.0.0.2."""
    address = f"127.0.0.1:{free_port()}"
    proxy, endpoint = configured({"listeners": [{"address": address, "proxy_protocol": True}]})
    proxy.port = int(address.split(":")[1])
    return proxy, endpoint


@pytest.mark.parametrize("header,ip", [(V1, "192.0.2.7"), (V2, "192.0.2.7"), (V2_IPV6, "2001:db8::7"),
                                       (SIGNATURE + b"\x20\0\0\0", "127.0.0.2"), (b"PROXY UNKNOWN\r\n", "127.0.0.2"),
                                       (V2[:14] + b"\x00\x13" + V2[16:] + b"\x04\0\x04abcd", "192.0.2.7")],
                         ids=["v1", "v2", "v2 IPv6", "v2 local", "v1 unknown", "v2 with a TLV"])
def test_b40_the_header_says_who_the_client_is(introduced, header, ip):
    proxy, endpoint = introduced
    with Client(proxy.port, "127.0.0.2") as client:
        assert client.ask(header + get()).status == 200
        assert client.ask(get("/second")).status == 200
    for request in endpoint.take(2):
        assert request.get("x-forwarded-for") == ip == request.get("x-real-ip")
    wait_until(lambda: f"ip={ip} " in proxy.log(), "the log has the address")


@pytest.mark.parametrize("header", [V1, V2, V2[:14] + b"\xff\xff" + V2[16:] + bytes(65535 - 12)],
                         ids=["v1", "v2", "v2 of 65,551 bytes"])
def test_b40_a_header_may_come_in_pieces(introduced, header):
    proxy, endpoint = introduced
    with Client(proxy.port, "127.0.0.2") as client:
        for byte in range(min(len(header), 60)):
            client.send(header[byte:byte + 1])
        assert client.ask(header[60:] + get()).status == 200
    assert endpoint.take().get("x-forwarded-for") == "192.0.2.7"


@pytest.mark.parametrize("data", [get(), b"\x16\x03\x01", SIGNATURE + b"\x11\x11\0\x0c" + bytes(12), b"PROXY TCP4 1.2.3.4\r\n",
                                  b"PROXY UNKNOWN " + b"x" * 100], ids=["HTTP", "TLS", "version 1 in binary", "half a line", "long"])
def test_b40_what_is_no_header_ends_the_connection(introduced, data):
    proxy, endpoint = introduced
    with Client(proxy.port, "127.0.0.2") as client:
        assert client.send_as_far_as_it_goes(data).ends() == b""
    assert endpoint.received == 0
    wait_until(lambda: closed_for(proxy, "bad_proxy_header") == 1, "the reason is counted")


def test_b40_only_trusted_proxies_may_send_it(introduced):
    proxy, endpoint = introduced
    with Client(proxy.port) as client:
        assert client.send_as_far_as_it_goes(V1 + get()).ends() == b""
    assert endpoint.received == 0
    wait_until(lambda: closed_for(proxy, "untrusted_proxy") == 1, "the reason is counted")


def test_b40_who_may_open_a_unix_socket_may_send_it(configured, tmp_path):
    path = str(tmp_path / "web.sock")
    proxy, endpoint = configured({"listeners": [{"address": f"unix:{path}", "proxy_protocol": True}], "trusted_proxies": []})
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(path)
        client.sendall(V1 + get())
        assert b" 200 OK" in client.recv(65536)
    assert endpoint.take().get("x-forwarded-for") == "192.0.2.7"


def test_b40_who_has_not_sent_it_yet_has_a_state_too(introduced):
    proxy, _ = introduced
    with Client(proxy.port, "127.0.0.2") as client:
        client.send(V1[:5])
        for words in (["clients"], ["clients", "--json"]):
            def listed(words=words):
                done = subprocess.run([BUILD / "sidrail-proxy", "ctl", "--socket", proxy.folder / f"{proxy.name}.sock", *words],
                                      capture_output=True, text=True, timeout=60)
                assert done.returncode == 0 and "(null)" not in done.stdout, done
                return "introducing" in done.stdout
            wait_until(listed, "it is listed")


def test_b40_it_has_three_seconds(introduced):
    proxy, _endpoint = introduced
    with Client(proxy.port, "127.0.0.2") as client:
        assert client.send(V1[:20]).ends() == b""
    wait_until(lambda: closed_for(proxy, "bad_proxy_header") == 1, "the reason is counted")


def test_b40_it_comes_before_tls_and_counts_for_access(configured, certificate):
    cert, key = certificate
    address = f"127.0.0.1:{free_port()}"
    proxy, endpoint = configured({
        "listeners": [{"address": address, "proxy_protocol": True, "tls": {"certificates": [{"cert": cert, "key": key}]}}],
        "access": {"deny": ["192.0.2.0/24"]}})
    context = ssl.create_default_context(cafile=cert)
    for ip, status in ((b"192.0.2.7", 403), (b"203.0.113.7", 200)):
        with Client(int(address.split(":")[1]), "127.0.0.2") as client:
            client.send(b"PROXY TCP4 " + ip + b" 198.51.100.1 56324 443\r\n")
            client.sock = context.wrap_socket(client.sock, server_hostname="edge.test")
            assert client.ask(get()).status == status
    request = endpoint.take()
    assert request.get("x-forwarded-for") == "203.0.113.7" and request.get("x-forwarded-proto") == "https"


def test_b42_a_tls_handshake_has_a_deadline(configured, certificate):
    cert, key = certificate
    address = f"127.0.0.1:{free_port()}"
    proxy, _endpoint = configured({"listeners": [{"address": address, "tls": {"certificates": [{"cert": cert, "key": key}]}}]})
    for said in (b"", b"\x16\x03\x01\x02\x00"):
        with Client(int(address.split(":")[1])) as client:
            assert client.send(said).ends() == b""
    wait_until(lambda: closed_for(proxy, "tls_failed") == 2, "the reason is counted")


# --- redirects, networks, origins --------------------------------------------------------------------------------


@pytest.mark.parametrize("target,host,location", [
    ("/a?b=c&d", "edge.test", "https://edge.test/a?b=c&d"), ("/", "Edge.test:8080", "https://Edge.test/"),
    ("/x", "[2001:db8::1]:8080", "https://[2001:db8::1]/x"), ("//evil.test/", "edge.test", "https://edge.test//evil.test/"),
    ("http://real.test/abs", "edge.test", "https://real.test/abs"), ("/" + "a" * 8000, "edge.test", "https://edge.test/" + "a" * 8000),
])
def test_a_redirecting_listener_answers_308_to_the_same_place(configured, target, host, location):
    address = f"127.0.0.1:{free_port()}"
    proxy, endpoint = configured({"listeners": [{"address": address, "redirect_https": True}]})
    for method in ("GET", "POST"):
        with Client(int(address.split(":")[1])) as client:
            answer = client.ask(get(target, method=method, host=host, body=b"x" if method == "POST" else None))
            assert answer.status == 308 and answer.get("location") == location
    with Client(int(address.split(":")[1])) as client:
        assert client.ask(UPGRADE).status == 308
    assert endpoint.received == 0


def test_a_redirecting_listener_serves_what_a_trusted_proxy_had_over_https(configured):
    address = f"127.0.0.1:{free_port()}"
    proxy, _endpoint = configured({"listeners": [{"address": address, "redirect_https": True}]})
    port = int(address.split(":")[1])
    with Client(port, "127.0.0.2") as client:
        assert client.ask(get("/a", "X-Forwarded-Proto: https")).status == 200
    with Client(port) as client:
        assert client.ask(get("/a", "X-Forwarded-Proto: https")).status == 308
        assert client.ask(get("/a", host="bad host")).status == 400


def test_networks_decide_who_is_served(configured):
    proxy, endpoint = configured({"access": {"allow": ["127.0.0.0/29", "192.0.2.0/24", "2001:db8::/32"],
                                             "deny": ["127.0.0.3", "192.0.2.66"]}})
    for source, status in (("127.0.0.1", 200), ("127.0.0.3", 403), ("127.0.0.9", 403)):
        with Client(proxy.port, source) as client:
            assert client.ask(get()).status == status
    told = {"192.0.2.1": 200, "6.6.6.6, 192.0.2.1": 200, "192.0.2.1, 6.6.6.6": 403, "192.0.2.66": 403, "192.0.2.1:8080": 200,
            "[2001:db8::1]": 200, "[2001:db8::1]:99": 200, "2001:db8::1": 200, "2001:db9::1": 403, "unknown": 403}
    with Client(proxy.port, "127.0.0.2") as client:  # a trusted proxy tells who it is for
        for value, status in told.items():
            assert client.ask(get("/a", f"X-Forwarded-For: {value}")).status == status, value
    with Client(proxy.port) as client:  # from others it does not count
        assert client.ask(get("/a", "X-Forwarded-For: 192.0.2.66")).status == 200
        answer = client.ask(get(HANDSHAKE))
        assert answer.status == 200
    with Client(proxy.port, "127.0.0.3") as client:
        answer = client.ask(get(HANDSHAKE, "Origin: http://a.test"))
        assert json.loads(answer.body)["code"] == 4 and answer.get("access-control-allow-origin") == "http://a.test"
    assert endpoint.faults == []


def test_origins_decide_which_engine_io_requests_are_served(configured):
    proxy, endpoint = configured({"access": {"origins": ["https://good.test", "http://good.test:8080"]}}, OPEN)
    with Client(proxy.port) as client:
        for origin, status in (("https://good.test", 200), ("HTTPS://GOOD.test", 200), ("http://good.test:8080", 200),
                               ("https://good.test.evil.test", 403), ("http://good.test", 403), ("null", 403)):
            answer = client.ask(get(HANDSHAKE, f"Origin: {origin}"))
            assert answer.status == status, origin
        assert json.loads(answer.body) == {"code": 4, "message": "the client or its origin is not allowed"}
        assert client.ask(get(HANDSHAKE)).status == 200  # no browser
        assert client.ask(get("/other", "Origin: null")).status == 200  # another path


# --- limits ------------------------------------------------------------------------------------------------------


def test_b42_connections_of_all_clients_are_bounded(configured):
    proxy, _endpoint = configured({"limits": {"connections": 10}, "timeouts": {"request_head": "20s", "keep_alive": "20s"}})
    clients = [Client(proxy.port).send(get()[:-2]) for _ in range(10)]  # idle ones would make room
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_clients_open") == 10, "all are there")
    with Client(proxy.port) as one_more:
        assert one_more.send_as_far_as_it_goes(get()).ends() == b""
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_clients_refused_total", reason="connections_full") == 1, "the reason is counted")
    clients.pop().sock.close()
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_clients_open") == 9, "one has gone")
    with Client(proxy.port) as client:
        assert client.ask(get()).status == 200
    for client in clients:
        client.sock.close()


def test_b42_connections_of_an_address_are_bounded(configured):
    proxy, _endpoint = configured({"limits": {"connections_per_ip": 4}, "threads": 2,
                                   "timeouts": {"request_head": "20s", "keep_alive": "20s"}})
    clients = [Client(proxy.port) for _ in range(4)]
    assert all(client.ask(get()).status == 200 for client in clients)
    with Client(proxy.port) as one_more:
        assert one_more.send_as_far_as_it_goes(get()).ends() == b""
    with Client(proxy.port, "127.0.0.5") as other:
        assert other.ask(get()).status == 200
    trusted = [Client(proxy.port, "127.0.0.2") for _ in range(6)]
    assert all(client.ask(get()).status == 200 for client in trusted)
    clients += trusted
    wait_until(lambda: closed_for(proxy, "ip_connections_full") == 1, "the reason is counted")
    assert proxy.metrics().get("sidrail_proxy_clients_refused_total", reason="ip_connections_full") == 1
    for client in clients:
        client.sock.close()
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_clients_open") == 0, "all have gone")
    with Client(proxy.port) as client:
        assert client.ask(get()).status == 200


def test_b42_handshakes_of_a_second_are_bounded_and_more_are_told_to_wait(configured):
    proxy, endpoint = configured({"limits": {"handshakes_per_second": 5}}, OPEN)
    with Client(proxy.port) as client:
        statuses = []
        for _ in range(12):
            answer = client.ask(get(HANDSHAKE, "Origin: http://a.test"))
            statuses.append(answer.status)
        assert statuses[:5] == [200] * 5 and 503 in statuses
        refused = statuses.count(503)
        while answer.status != 503:
            answer = client.ask(get(HANDSHAKE, "Origin: http://a.test"))
            refused += answer.status == 503
        assert answer.get("retry-after") == "1" and answer.get("access-control-allow-origin") == "http://a.test"
        # whoever has a session is not concerned, nor is anybody else
        endpoint.reset(OK)
        assert client.ask(get(f"{HANDSHAKE}&sid=AAAAAAAAAAAAAAAAAAAA")).status == 200
        assert client.ask(get()).status == 200
        assert client.ask(get(HANDSHAKE, method="OPTIONS")).status == 200
        wait_until(lambda: client.ask(get(HANDSHAKE)).status == 200, "the second is over")
    assert proxy.metrics().get("sidrail_proxy_edge_answers_total", reason="handshakes_full") >= refused


# --- B46-B48: answers of the edge, and the log -------------------------------------------------------------------


def test_b46_answers_of_the_edge_reflect_nothing_and_are_json_for_engine_io(edge):
    proxy, endpoint = edge
    evil = "evil-<script>"
    requests = [get(f"/socket.io/?EIO=4&transport=polling&sid=evil-script&x={evil}".replace("<", "%3C").replace(">", "%3E"), f"X: {evil}", host="evil.test"),
                get("/socket.io/?EIO=9&transport=evil", host="evil.test"), get("/socket.io/?EIO=4&sid=a&sid=evil", host="evil.test"),
                get("/socket.io/?EIO=4&transport=polling", method="DELETE", host="evil.test"),
                get(f"/{evil}", host="evil.test"), get("/a", "Evil : x"), get("/a", f"Expect: {evil}")]
    for data in requests:
        with Client(proxy.port) as client:
            answer = client.ask(data)
            if answer.status == 200:  # a session that the only endpoint may know
                continue
            assert b"evil" not in answer.raw.lower(), answer
            assert answer.get("cache-control") == "no-store"
            if b"GET /socket.io/" in data or b"DELETE /socket.io/" in data:
                assert answer.get("content-type") == "application/json"
                assert set(json.loads(answer.body)) == {"code", "message"}


def test_b46_a_valid_origin_is_echoed_for_cors_and_no_other(edge):
    proxy, _endpoint = edge
    for origin, echoed in (("https://a.test:8443", "https://a.test:8443"), ("null", "null"), ("https://a.test/<x>", None), ("x", None)):
        with Client(proxy.port) as client:
            answer = client.ask(get("/socket.io/?EIO=4&sid=a&sid=b", f"Origin: {origin}"))
            assert answer.status == 400 and answer.get("access-control-allow-origin") == echoed
    with Client(proxy.port) as client:
        answer = client.ask(get("/a", "Origin: https://a.test", "Expect: x"))
        assert answer.status == 417 and answer.get("access-control-allow-origin") is None


def refused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_b47_every_status_of_the_edge_can_be_reached(configured):
    silent = socket.create_server(("127.0.0.1", free_port()), backlog=8)
    proxy, endpoint = configured({
        "timeouts": {"poll": "1s", "request_head": "1s"},
        "upstreams": [], "routes": [], "limits": {"body_bytes": 1000, "buffered_bytes": "1MiB"},
    } | {
        "upstreams": [{"name": name, "discovery": {"static": [address]}} for name, address in
                      (("chat", "127.0.0.1:1"), ("silent", f"127.0.0.1:{silent.getsockname()[1]}"))]
                     + [{"name": "idle", "discovery": {"static": [{"address": "127.0.0.1:2", "weight": 0}]}}],
        "routes": [{"host": f"{name}.test", "path": "/", "upstream": name} for name in ("chat", "silent", "idle")],
    })
    def status(data, **options):
        with Client(proxy.port, **options) as client:
            answer = client.send_as_far_as_it_goes(data).response()
            seen[answer.status] = answer
            return answer.status
    seen = {}
    status(b"GET /\r\n\r\n")
    status(get())
    status(get("/socket.io/?EIO=4", method="PUT", host="chat.test"))
    status(get()[:-2])
    status(post("/a", b"x" * 1001, host="chat.test"))
    status(get("/" + "a" * 9000))
    status(get("/a", "Expect: x"))
    status(UPGRADE.replace(b": 13", b": 8"))
    status(get("/a", "X: " + "x" * 20000))
    status(get("/a", method="BREW"))
    status(get(host="chat.test"))
    status(get(HANDSHAKE, host="idle.test"))
    status(get(host="silent.test"))
    status(get().replace(b"HTTP/1.1", b"HTTP/3.0"))
    assert {400, 404, 405, 408, 413, 414, 417, 426, 431, 501, 502, 503, 504, 505} <= set(seen)
    assert set(seen[405].get("allow").split(", ")) == {"GET", "POST", "OPTIONS"}
    assert seen[426].get("sec-websocket-version") == "13" and "websocket" in seen[426].get("upgrade")
    assert int(seen[503].get("retry-after")) >= 1
    silent.close()


def test_b48_the_log_holds_no_session_and_no_control_character(edge):
    proxy, endpoint = edge
    secret = "SecretSecretSecret42"
    with Client(proxy.port) as client:
        client.ask(get(f"{HANDSHAKE}&sid={secret}", "X-Request-Id: \x80\x9b31m"))
        client.ask(get(f"{HANDSHAKE}&sid={secret}%0d%0aevil", "Origin: http://a.test"))
        client.ask(get("/a", f"Cookie: io={secret}; sidrail_chat={secret}"))
    for data in (get(f"{HANDSHAKE}&sid={secret}\x1b[31m"), get("/a", f"{secret}: \x01"), secret.encode() + b"\r\n\r\n"):
        with Client(proxy.port) as client:
            client.send(data).response()
    endpoint.reset(b"HTTP/1.1 200 \x1b[31m" + secret.encode() + b"\r\nContent-Length: 0\r\n\r\n")
    with Client(proxy.port) as client:
        assert client.ask(get()).status == 502
    wait_until(lambda: "bad response" in proxy.log(), "all of it is logged")
    text = pathlib.Path(proxy.log_path).read_bytes()
    assert secret.encode() not in text
    assert all(byte >= 32 or byte == 10 for byte in text)

"""What other protocols send to the broker's port is never executed: HTTP of a web page or a webhook with commands in its
body, headers or path, TLS, PROXY preambles; and what people type is."""
import http.client
import socket
import ssl
import subprocess

import pytest
from daemons import wait_until
from resp_client import Pod, Raw, command, emit

EVIL = command("PUBLISH", "flask-socketio", emit("r", "evil"))
INLINE = b"PUBLISH flask-socketio '" + emit("r", "evil") + b"'\r\n"


@pytest.fixture(scope="module")
def hub(module_servers):
    return module_servers.broker()


@pytest.fixture
def pod(hub):
    """Ends with a look: only what was meant came."""
    pod = Pod(hub.port)
    yield pod
    with Raw(hub.port) as raw:
        assert raw.call("PUBLISH", "flask-socketio", emit("r", "meant")) == 1
    wait_until(lambda: pod.received, "what is meant comes")
    assert pod.received == [("r", "meant")]
    pod.close()


def send(port, *pieces):
    """All that comes back until the broker closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as end:
        got = b""
        try:
            for piece in pieces:
                end.sendall(piece)
            while data := end.recv(65536):
                got += data
        except (ConnectionResetError, BrokenPipeError):
            pass
        return got


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "OPTIONS", "HEAD", "PATCH", "PUBLISH", "PING"])
def test_http_requests_with_commands_in_their_bodies(hub, pod, method):
    for body in (EVIL, INLINE, b"\r\n" + INLINE * 3, b"x" * 100_000 + b"\r\n" + INLINE):
        client = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=10)
        with pytest.raises((http.client.HTTPException, OSError)):
            client.request(method, "/", body=body, headers={"Content-Type": "text/plain"})
            client.getresponse()
        client.close()


@pytest.mark.parametrize("request_bytes", [
    b"GET / HTTP/1.1\r\nX: y\r\n" + INLINE + b"\r\n", b"GET /\r\n" + INLINE + b" HTTP/1.1\r\n\r\n",
    b"\r\n\r\nPOST / HTTP/1.1\r\n\r\n" + EVIL, b"POST / HTTP/1.1\n" + EVIL, b"GET /\n" + EVIL,
    b"Host: x\r\n" + INLINE, b"PING x\r\nhost: y\r\n" + INLINE, command("PING") + command("post", "/") + EVIL,
    b"PING HTTP/1.1\r\n" + INLINE, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EVIL,
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + EVIL, b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + b"\0" * 12 + EVIL,
    b"SSH-2.0-x\r\n" + INLINE, b"\x00" + EVIL, b"\x16\x03\x01\x02\x00\r\n" + INLINE, b"EHLO x\r\n" + INLINE])
def test_other_beginnings(hub, pod, request_bytes):
    got = send(hub.port, request_bytes)
    assert b":1\r\n" not in got and b":0\r\n" not in got, got
    got = send(hub.port, *(request_bytes[i:i + 1] for i in range(60)), request_bytes[60:])
    assert b":1\r\n" not in got and b":0\r\n" not in got, got


def test_a_tls_client_is_refused_at_once(hub):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(socket.create_connection(("127.0.0.1", hub.port), timeout=10))


def test_as_at_redis_post_and_host_get_no_answer_and_are_told_once_a_minute(servers):
    hub = servers.broker()
    for words in (("POST", "/"), ("Host:", "x"), ("pOsT",)):
        with Raw(hub.port) as raw:
            assert raw.call("PING") == "PONG"
            raw.send(command(*words))
            assert raw.file.read() == b""
    assert hub.log().count("possible attack") == 1
    assert hub.metrics().get("sidrail_broker_clients_closed_total", reason="foreign") == 3


def test_people_and_health_checks_type_inline_commands(hub):
    for text, answer in ((b"PING\n", b"+PONG\r\n"), (b"\r\n\r\n  ping x\r\n", b"$1\r\nx\r\n"),
                         (b"PING\r\nFOO\r\nPING\r\n",
                          b"+PONG\r\n-ERR unknown command 'FOO', with args beginning with: \r\n+PONG\r\n")):
        with socket.create_connection(("127.0.0.1", hub.port), timeout=10) as end:
            for i in range(len(text)):
                end.sendall(text[i:i + 1])
            end.shutdown(socket.SHUT_WR)
            got = b""
            while data := end.recv(4096):
                got += data
            assert got == answer
    done = subprocess.run(["redis-cli", "-p", str(hub.port)], input="GET x\nPING\n", capture_output=True, text=True,
                          timeout=20)
    assert "unknown command 'GET'" in done.stdout and "PONG" in done.stdout

"""TLS records that do not fit where they are read to: what is left of one lies in OpenSSL, where no socket event shows it."""
import concurrent.futures
import contextlib
import hashlib
import socket
import ssl
import threading

import pytest
from daemons import free_port
from http_tools import UPGRADE, Endpoint, Reader, frame, get, post, switching
from tls_tools import Authority, client_context, server_context

NAMES = ["DNS:localhost", "IP:127.0.0.1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    ca = Authority(tmp_path_factory.mktemp("ca"))
    return ca, ca.issue("edge", NAMES)


@pytest.fixture
def secure(servers, files):
    """secure(answer) starts an edge with TLS on both sides: (port, endpoint)."""
    made = []

    def make(answer=None):
        ca, (crt, key) = files
        endpoint = Endpoint(answer, server_context((crt, key)))
        endpoint.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.append(endpoint)
        port = free_port()
        servers.proxy([endpoint.address], config={
            "listeners": [{"address": f"127.0.0.1:{port}",
                           "tls": {"certificates": [{"cert": str(crt), "key": str(key)}]}}],
            "limits": {"body_bytes": "64MiB"},
            "upstreams": [{"name": "chat", "discovery": {"static": [endpoint.address]}, "health_check": {"type": "none"},
                           "tls": {"ca": str(ca.crt)}}]})
        return port, endpoint

    yield make
    for endpoint in made:
        endpoint.close()


@contextlib.contextmanager
def connected(port, files, receive_buffer=None):
    plain = socket.socket()
    plain.settimeout(20)
    if receive_buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.connect(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client_context(files[0].crt).wrap_socket(plain, server_hostname="localhost") as sock:
        yield Reader(sock)


def body_of(size):
    return hashlib.shake_256(str(size).encode()).digest(size)


def answer_of(body, *fields):
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields]) + b"\r\n\r\n" + body


def in_parallel(function, arguments):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(function, arguments))


def test_uploads_of_every_size_arrive_whole(secure, files):
    """The endpoint begins to read when everything stands still; the request buffer has filled up in the middle of a record."""
    port, endpoint = secure()

    def serve(reader):
        head = reader.until(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        threading.Event().wait(0.2)
        body = b"".join(reader.exactly(min(3000, size - at)) for at in range(0, size, 3000))
        reader.sock.sendall(answer_of(hashlib.sha256(body).hexdigest().encode(), b"Connection: close"))

    endpoint.serve = serve

    def upload(size):
        with connected(port, files) as client:
            body = body_of(size)
            client.sock.sendall(post("/upload", body))
            assert client.response().body.decode() == hashlib.sha256(body).hexdigest()

    in_parallel(upload, [300_000 + 7919 * step for step in range(64)])


def test_pipelined_requests_in_one_record_are_all_answered(secure, files):
    port, _ = secure(lambda reader, request: answer_of(request.body or b"none"))

    def ask(count):
        with connected(port, files) as client:
            requests = [post(f"/{number}", body_of(450 + number)) for number in range(count)]
            client.sock.sendall(b"".join(requests))
            for number in range(count):
                assert client.response().body == body_of(450 + number)

    in_parallel(ask, range(20, 36))


def test_answers_reach_a_client_that_reads_late(secure, files):
    port, _ = secure(lambda reader, request: answer_of(body_of(int(request.target[1:]))))

    def ask(size):
        with connected(port, files, receive_buffer=4096) as client:
            client.sock.sendall(get(f"/{size}"))
            threading.Event().wait(0.2)
            assert client.response().body == body_of(size)

    in_parallel(ask, [300_000 + 7919 * step for step in range(32)])


def test_frames_behind_the_head_of_an_upgrade_arrive(secure, files):
    """More of them than are held until the 101 comes, in the record of the head."""
    port, endpoint = secure()

    def serve(reader):
        reader.until(b"\r\n\r\n")
        threading.Event().wait(0.1)
        reader.sock.sendall(switching())
        while True:
            first, second = reader.exactly(2)
            size = int.from_bytes(reader.exactly(2), "big") if second & 127 == 126 else second & 127
            reader.exactly(4 + size)
            reader.sock.sendall(frame(size.to_bytes(4, "big"), masked=False))

    endpoint.serve = serve

    def talk(size):
        with connected(port, files) as client:
            frames = [frame(b"x" * size) for _ in range(5)]
            client.sock.sendall(UPGRADE + b"".join(frames))
            client.until(b"\r\n\r\n")
            for _ in frames:
                assert client.frame() == (0x82, size.to_bytes(4, "big"))

    in_parallel(talk, [2900 + 97 * step for step in range(24)])

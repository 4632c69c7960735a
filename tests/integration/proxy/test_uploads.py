"""Bodies that can go nowhere are not read, and bodies that stand still end. The grace of a slow body is 1 s here (conftest)."""
import time

import pytest
from daemons import wait_until
from http_tools import Client, Endpoint, get, post

SESSION = "/socket.io/?EIO=4&transport=polling&sid=abc"


def answers(proxy, reason):
    return proxy.metrics().get("sidrail_proxy_edge_answers_total", reason=reason) or 0


def head_of(request):
    return request[:request.index(b"\r\n\r\n") + 4]


@pytest.fixture
def two_endpoints(proxy):
    """An edge where a sid without a tag is nobody's."""
    endpoints = [Endpoint(), Endpoint()]
    yield proxy([endpoint.address for endpoint in endpoints]), endpoints
    for endpoint in endpoints:
        endpoint.close()


@pytest.mark.parametrize("path, status, reason", [
    (SESSION, 400, "session_unknown"),
    ("/socket.io/?EIO=4&transport=polling", 400, "no_session"),
])
@pytest.mark.parametrize("fields", [["Content-Length: 100000"], ["Content-Length: 100000", "Expect: 100-continue"],
                                    ["Transfer-Encoding: chunked"]])
def test_what_can_go_nowhere_is_answered_before_its_body_comes(two_endpoints, path, status, reason, fields):
    proxy, endpoints = two_endpoints
    with Client(proxy.port) as client:
        answer = client.ask(get(path, *fields, method="POST"))
        assert answer.status == status and answer.get("connection") == "close" and answer.interims == []
    assert answers(proxy, reason) == 1
    assert all(endpoint.received == 0 for endpoint in endpoints)


@pytest.mark.parametrize("path", [SESSION, "/other"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_stands_still_ends_whatever_came_before(edge, path, is_chunked):
    proxy, _ = edge
    before = answers(proxy, "body_timeout")
    with Client(proxy.port) as client:
        if is_chunked:
            client.send(get(path, "Transfer-Encoding: chunked", method="POST") + b"7a120\r\n" + b"x" * 400_000)
        else:
            client.send(head_of(post(path, b"x" * 900_000)) + b"x" * 800_000)
        began = time.monotonic()
        assert client.response().status == 408
        assert time.monotonic() - began < 10  # 800 kB at 1 KiB/s would be a quarter of an hour
    assert answers(proxy, "body_timeout") == before + 1


def test_a_body_that_comes_in_bursts_within_the_grace_is_served(edge):
    proxy, endpoint = edge
    body = b"x" * 5000
    with Client(proxy.port) as client:
        client.send(head_of(post(SESSION, body)))
        for at in range(0, len(body), 1250):
            time.sleep(0.7)
            client.send(body[at:at + 1250])
        assert client.response().status == 200
    assert endpoint.take().body == body


@pytest.mark.parametrize("method, fields", [
    ("GET", ["Content-Length: 3"]), ("GET", ["Transfer-Encoding: chunked"]), ("OPTIONS", ["Content-Length: 3"]),
    ("OPTIONS", ["Transfer-Encoding: chunked"]),
])
def test_a_body_that_an_engine_io_request_cannot_have_is_refused(edge, method, fields):
    proxy, endpoint = edge
    with Client(proxy.port) as client:
        answer = client.ask(get(SESSION, *fields, method=method))
        assert answer.status == 400 and answer.get("connection") == "close"
    assert endpoint.received == 0
    wait_until(lambda: answers(proxy, "unexpected_body") > 0, "it is counted")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("request_bytes", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
def test_elsewhere_its_endpoint_connection_is_not_used_again(edge, method, request_bytes):
    proxy, endpoint = edge
    with Client(proxy.port) as client:
        client.send(get("/a", method=method)[:-2] + request_bytes)
        assert client.response(method).status == 200
        before = endpoint.connections
        assert client.ask(get("/b")).status == 200
        assert endpoint.connections == before + 1

"""Which connection to an endpoint a request takes, and what happens when it closes without an answer."""
import time

import pytest
from daemons import wait_until
from http_tools import OK, Client, Endpoint, get, post

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
SESSION = HANDSHAKE + "&sid=abc"


@pytest.fixture
def edge(servers):
    """edge(count, serve) starts an edge that keeps idle connections for long, in front of such endpoints."""
    made = []

    def make(count, serve):
        endpoints = [Endpoint() for _ in range(count)]
        made.extend(endpoints)
        for endpoint in endpoints:
            endpoint.serve = lambda reader, endpoint=endpoint: serve(reader, endpoint)
        proxy = servers.proxy([endpoint.address for endpoint in endpoints], config={
            "timeouts": {"endpoint_keep_alive": "30s"},
            "upstreams": [{"name": "chat", "discovery": {"static": [endpoint.address for endpoint in endpoints]},
                           "health_check": {"type": "none"}}]})
        return proxy, endpoints

    yield make
    for endpoint in made:
        endpoint.close()


def read(reader, endpoint):
    request = reader.message()
    endpoint.requests.append(request)
    return request


def test_a_handshake_that_was_sent_is_not_sent_to_another_endpoint(edge):
    def closes(reader, endpoint):
        read(reader, endpoint)

    proxy, endpoints = edge(3, closes)
    with Client(proxy.port) as client:
        answer = client.ask(get(HANDSHAKE))
        assert answer.status == 502 and answer.get("connection") == "keep-alive"
    assert sum(len(endpoint.requests) for endpoint in endpoints) == 1
    assert proxy.metrics().get("sidrail_proxy_handshakes_total", result="failed") == 1


def test_a_handshake_on_a_reused_connection_that_ends_is_sent_once_more_to_the_same_endpoint(edge):
    def one_each(reader, endpoint):
        read(reader, endpoint)
        reader.sock.sendall(OK)
        read(reader, endpoint)

    proxy, (endpoint,) = edge(1, one_each)
    with Client(proxy.port) as client:
        assert client.ask(get(HANDSHAKE)).status == 200
        assert client.ask(get(HANDSHAKE)).status == 200
    assert len(endpoint.requests) == 3 and endpoint.connections == 2


class Keeper:
    """Closes, as soon as a request comes, a connection that was idle for longer than `seconds`: as if its own end had been on
    the way."""

    def __init__(self, seconds, fields=b""):
        self.seconds, self.fields = seconds, fields

    def __call__(self, reader, endpoint):
        since = time.monotonic()
        while True:
            read(reader, endpoint)
            if time.monotonic() - since > self.seconds:
                return
            reader.sock.sendall(OK.replace(b"\r\n\r\n", b"\r\n" + self.fields + b"\r\n"))
            since = time.monotonic()


def test_a_post_takes_no_connection_that_the_endpoint_may_be_closing(edge):
    proxy, (endpoint,) = edge(1, Keeper(0.4))
    with Client(proxy.port) as client:
        assert client.ask(get(SESSION)).status == 200
        assert client.ask(post(SESSION)).status == 200
        assert endpoint.connections == 1, "a young one is used again"
        time.sleep(0.6)
        assert client.ask(post(SESSION)).status == 200
    assert endpoint.connections == 2


def test_a_post_takes_what_the_endpoint_announces(edge):
    proxy, (endpoint,) = edge(1, Keeper(4, b"Keep-Alive: max=100, timeout=4\r\n"))
    with Client(proxy.port) as client:
        assert client.ask(get(SESSION)).status == 200
        time.sleep(0.8)
        assert client.ask(post(SESSION)).status == 200
    assert endpoint.connections == 1


def test_a_post_learns_from_connections_that_were_closed(edge):
    def serve(reader, endpoint):
        reader.sock.settimeout(0.2)  # from now on: what an idle one has
        while True:
            read(reader, endpoint)
            reader.sock.sendall(OK)

    proxy, (endpoint,) = edge(1, serve)
    with Client(proxy.port) as client:
        assert client.ask(get(SESSION)).status == 200
        wait_until(lambda: endpoint.open == 0, "the endpoint has closed it")
        for _ in range(5):
            assert client.ask(post(SESSION)).status == 200
            time.sleep(0.17)
    assert endpoint.connections > 3


def test_an_endpoint_that_keeps_nothing_is_not_asked_twice_on_a_connection(edge):
    proxy, (endpoint,) = edge(1, Keeper(4, b"Keep-Alive: timeout=0\r\n"))
    with Client(proxy.port) as client:
        for _ in range(3):
            assert client.ask(get(SESSION)).status == 200
    assert endpoint.connections == 3

"""500 connections of one address that hold whatever a connection can hold, and another address that notices nothing.

    127.0.0.3  bodies, heads and TLS handshakes that stand still, answers that nobody reads
    127.0.0.4  polls, uploads and downloads as usual
"""
import socket

import pytest
from daemons import free_port, wait_until
from http_tools import Client, Endpoint, get, post
from tls_tools import Authority

GREEDY, OTHER, BALANCER = "127.0.0.3", "127.0.0.4", "127.0.0.2"
SESSION = "/socket.io/?EIO=4&transport=polling&sid=abc"
LARGE = 600_000


def answer(_reader, request):
    body = b"x" * (LARGE if "large" in request.target else len(request.body))
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.fixture
def edge(servers, tmp_path):
    crt, key = Authority(tmp_path).issue("edge", ["DNS:localhost"])
    endpoint = Endpoint(answer)
    tls_port, port = free_port(), free_port()
    yield servers.proxy([endpoint.address], config={
        "listeners": [{"address": f"127.0.0.1:{port}"},
                      {"address": f"127.0.0.1:{tls_port}", "tls": {"certificates": [{"cert": str(crt), "key": str(key)}]}}],
        "trusted_proxies": [BALANCER],
        "timeouts": {"request_head": "60s", "write_stall": "60s"},
        "limits": {"buffered_bytes": "8MiB", "connections": 600}}), port, tls_port
    endpoint.close()


class Greedy:
    """Opens connections and leaves each where it is."""

    def __init__(self, source, *fields):
        self.source, self.fields = source, fields
        self.held = []

    def open(self, port, data, receive_buffer=None):
        client = Client(port, source=self.source, receive_buffer=receive_buffer)
        client.sock.setblocking(False)
        try:
            client.sock.send(data)
        except (BlockingIOError, ConnectionError):
            pass
        self.held.append(client)

    def attack(self, port, tls_port, count):
        body = post(SESSION, b"x" * 900_000, *self.fields)[:200_000]
        head = get("/" + "p" * 3000, *self.fields)[:-2]
        for _ in range(count):
            self.open(port, body)
            self.open(port, head)
            self.open(tls_port, b"\x16\x03\x01\x02\x00\x01")
            self.open(port, get("/large", *self.fields), receive_buffer=4096)

    def close(self):
        for client in self.held:
            client.sock.close()


def work(port, source, *fields, times=10):
    """Everything that a client does; all of it succeeds."""
    for _ in range(times):
        with Client(port, source=source) as client:
            assert client.ask(get(SESSION, *fields)).status == 200
            body = b"y" * 200_000
            request = post(SESSION, body, *fields)
            for at in range(0, len(request), 50_000):
                client.send(request[at:at + 50_000])
            assert client.response().status == 200
            assert len(client.ask(get("/large", *fields)).body) == LARGE


def test_one_greedy_address_takes_nothing_from_another(edge):
    proxy, port, tls_port = edge
    greedy = Greedy(GREEDY)
    greedy.attack(port, tls_port, 125)
    work(port, OTHER)
    assert proxy.metrics().get("sidrail_proxy_edge_answers_total", reason="ip_buffers_full") > 0
    work(port, OTHER, times=3)
    greedy.close()
    work(port, GREEDY, times=1)
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_clients_open") == 0, "all have gone")
    assert proxy.metrics().get("sidrail_proxy_buffered_bytes") == 0


def test_behind_a_trusted_proxy_it_is_the_address_that_the_proxy_names(edge):
    proxy, port, tls_port = edge
    greedy = Greedy(BALANCER, "X-Forwarded-For: 192.0.2.1")
    greedy.attack(port, tls_port, 125)
    work(port, BALANCER, "X-Forwarded-For: 192.0.2.2", times=3)
    assert proxy.metrics().get("sidrail_proxy_edge_answers_total", reason="ip_buffers_full") > 0
    greedy.close()


def test_the_last_connections_are_not_for_an_address_that_has_half_of_them(edge):
    proxy, port, _ = edge
    held = [socket.create_connection(("127.0.0.1", port), source_address=(GREEDY, 0)) for _ in range(580)]
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_clients_closed_total", reason="ip_connections_full") > 0, "some are refused")
    work(port, OTHER, times=1)
    for sock in held:
        sock.close()

"""HTTP requirements B42-B44: deadlines, back-pressure, half-closed connections. Deadlines are short by configuration; what is
asserted is the order of events and which reason was counted, never a moment."""
import threading
import time

import pytest
from daemons import is_readable, wait_until
from http_tools import OK, Client, get, post


def reason_count(proxy, reason, metric="sidrail_proxy_clients_closed_total"):
    return proxy.metrics().get(metric, reason=reason) or 0


def dribble(client, data, pause=0.05):
    """Sends byte by byte until the other side ends; returns what it said and how many bytes went out."""
    for sent, byte in enumerate(data):
        if is_readable(client.sock, pause):
            return client.response(), sent
        client.send_as_far_as_it_goes(bytes([byte]))
    return client.response(), len(data)


def test_b42_a_head_has_a_deadline_that_bytes_do_not_move(edge):
    proxy, endpoint = edge
    before = reason_count(proxy, "head_timeout")
    with Client(proxy.port) as client:
        answer, sent = dribble(client, get("/a", *(f"X{i}: y" for i in range(40))), 0.05)
        assert answer.status == 408 and sent < 100
        assert client.ends() == b""
    assert endpoint.received == 0
    wait_until(lambda: reason_count(proxy, "head_timeout") == before + 1, "the reason is counted")


@pytest.mark.parametrize("path", ["/other", "/socket.io/?EIO=4&transport=polling&sid=x"])
def test_b42_a_body_has_a_least_rate(edge, path):
    proxy, endpoint = edge
    data = post(path, b"x" * 3000)
    head = data.index(b"\r\n\r\n") + 4
    with Client(proxy.port) as client:
        client.send(data[:head])
        answer, sent = dribble(client, data[head:], 0.02)
        assert answer.status == 408 and sent < 1000 and answer.get("connection") == "close"
    assert endpoint.requests == []
    assert reason_count(proxy, "body_timeout", "sidrail_proxy_edge_answers_total") >= 1


def test_b42_a_body_that_comes_fast_enough_may_take_its_time(edge):
    proxy, endpoint = edge
    body = b"x" * 40000
    with Client(proxy.port) as client:
        data = post("/other", body)
        for at in range(0, len(data), 1000):
            client.send(data[at:at + 1000])
            time.sleep(0.05)  # 20 KiB/s, beyond the grace of 1 s
        assert client.response().status == 200
    assert endpoint.take().body == body


def test_b42_a_silent_connection_is_let_go(edge):
    proxy, _endpoint = edge
    before = reason_count(proxy, "keep_alive_idle")
    clients = [Client(proxy.port) for _ in range(50)]
    assert clients[0].ask(get()).status == 200  # this one has keep_alive, the others the time of a head
    assert all(client.ends() == b"" for client in clients)
    wait_until(lambda: reason_count(proxy, "keep_alive_idle") >= before + 50, "the reason is counted")
    for client in clients:
        client.sock.close()


def test_b42_keep_alive_0_serves_one_request_a_connection(configured):
    proxy, _endpoint = configured({"timeouts": {"keep_alive": 0}})
    with Client(proxy.port) as client:
        assert client.ask(get()).get("connection") == "close" and client.ends() == b""


def test_b42_memory_of_clients_that_say_nothing_whole_is_bounded(configured):
    proxy, endpoint = configured({"limits": {"buffered_bytes": "1MiB"}, "timeouts": {"request_head": "20s"}})
    clients, refused = [], 0
    for _ in range(100):
        client = Client(proxy.port)
        clients.append(client)
        client.send_as_far_as_it_goes(get("/a", "X: " + "y" * 15000, "Y: " + "y" * 14000)[:-2])
        if is_readable(client.sock, 0.02):
            answer = client.response()
            assert answer.status == 503 and answer.get("retry-after") == "1"
            refused += 1
    assert 0 < refused < 100 and endpoint.received == 0
    assert proxy.metrics().get("sidrail_proxy_buffered_bytes") < 2 << 20
    for client in clients:
        client.sock.close()
    with Client(proxy.port) as client:
        assert wait_until(lambda: client.ask(get()).status == 200, "there is room again")


def test_b43_a_reader_that_stops_is_let_go(edge):
    proxy, endpoint = edge
    endpoint.reset(b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 30000000)
    before = reason_count(proxy, "write_stall")
    with Client(proxy.port, receive_buffer=65536) as client:
        client.send(get())
        wait_until(lambda: reason_count(proxy, "write_stall") == before + 1, "the reader is let go")
    wait_until(lambda: endpoint.open == 0, "the endpoint's connection is closed")


def test_b43_a_reader_that_is_slow_but_reads_is_served(configured):
    proxy, _endpoint = configured({"timeouts": {"write_stall": "1s"}},
                                  b"HTTP/1.1 200 OK\r\nContent-Length: 6000000\r\n\r\n" + b"x" * 6000000)
    with Client(proxy.port, receive_buffer=4096) as client:
        client.send(get())
        began, have = time.monotonic(), b""
        while time.monotonic() - began < 3:  # far longer than write_stall, a few KiB at a time
            have += client.sock.recv(2048)
            time.sleep(0.02)
        client.held = have
        assert client.response().body == b"x" * 6000000


def test_b43_an_endpoint_that_takes_nothing_is_given_up(configured):
    proxy, endpoint = configured({"limits": {"body_bytes": 0}, "timeouts": {"write_stall": "1s"}})
    hold = threading.Event()
    endpoint.serve = lambda reader: hold.wait(30)
    with Client(proxy.port) as client:
        client.send(get("/a", "Content-Length: 100000000", method="POST"))
        client.sock.settimeout(0.5)
        try:
            while True:
                client.sock.send(b"x" * 65536)
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            pass
        client.sock.settimeout(10)
        assert client.response().status == 504
    hold.set()


def test_b43_bodies_that_are_held_have_a_common_bound(configured):
    proxy, endpoint = configured({"limits": {"buffered_bytes": "1MiB", "body_bytes": "900KiB"},
                                  "timeouts": {"request_head": "20s"}})
    clients = [Client(proxy.port) for _ in range(8)]
    for client in clients:
        data = post("/socket.io/?EIO=4&transport=polling&sid=x", b"x" * 800000)
        client.send_as_far_as_it_goes(data[:-1])
    statuses = []
    for client in clients:
        if is_readable(client.sock, 0.3):
            answer = client.response()
            statuses.append((answer.status, answer.get("retry-after")))
    assert statuses and set(statuses) == {(503, "1")} and endpoint.received == 0
    assert proxy.metrics().get("sidrail_proxy_buffered_bytes") < 3 << 20
    for client in clients:
        client.sock.close()


def test_b44_a_client_that_ends_while_its_answer_is_awaited_aborts_it(edge):
    proxy, endpoint = edge
    gone = threading.Event()

    def script(reader, _request):
        assert reader.rest() == b""  # the proxy ends it, and never half-closes before
        gone.set()
        raise EOFError
    endpoint.reset(script)
    with Client(proxy.port) as client:
        client.send(get())
        endpoint.take()
        client.finish()
        assert client.ends() == b""
        assert gone.wait(5)


def test_b44_a_client_that_ends_after_its_answer_has_begun_gets_the_rest(edge):
    proxy, endpoint = edge
    go = threading.Event()

    def script(reader, _request):
        reader.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        assert go.wait(10)
        return b"def"
    endpoint.reset(script)
    with Client(proxy.port) as client:
        client.send(get())
        client.until(b"abc")
        client.finish()
        assert client.is_silent()
        go.set()
        assert client.rest() == b"def"


def test_b44_an_abort_reaches_the_endpoint_while_a_body_flows(edge):
    proxy, endpoint = edge
    ended = threading.Event()

    def script(reader, _request):
        reader.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                reader.sock.sendall(b"5\r\nabcde\r\n")
                time.sleep(0.01)
        except OSError:
            ended.set()
            raise
    endpoint.reset(script)
    with Client(proxy.port) as client:
        client.send(get()).until(b"abcde")
    assert ended.wait(5)


def test_b44_what_was_asked_before_the_end_is_not_answered_twice(edge):
    proxy, endpoint = edge
    endpoint.reset(OK)
    with Client(proxy.port) as client:
        assert client.ask(get("/a", "Connection: close")).body == b"ok"
        client.finish()
        assert client.ends() == b""
    assert len(endpoint.requests) == 1

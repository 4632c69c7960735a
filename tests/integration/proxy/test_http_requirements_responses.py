"""HTTP requirements B17, B20-B23, B29, B31-B37 and B45: what of an endpoint's answer a client gets, and what becomes of both
connections."""
import re
import threading
import time

import pytest
from daemons import wait_until
from http_tools import OK, UPGRADE, Client, frame, get, post, switching


def raw(answer):
    """Answers with these bytes and ends the connection."""
    def script(reader, _request):
        reader.sock.sendall(answer)
        raise EOFError
    return script


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab",
    b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
    b"",
], ids=["two lengths", "signed length", "length and chunked", "bare LF", "no HTTP", "NUL", "status 99", "nothing"])
def test_b17_a_malformed_answer_is_a_502_and_its_connection_ends(edge, answer):
    proxy, endpoint = edge
    endpoint.reset(raw(answer))
    with Client(proxy.port) as client:
        assert client.ask(post()).status == 502
        endpoint.reset(OK)
        assert client.ask(get()).status == 200  # the client's connection is as good as before


def test_b20_chunks_become_an_end_of_connection_for_http_1_0(edge):
    proxy, endpoint = edge
    endpoint.reset(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n")
    with Client(proxy.port) as client:
        answer = client.ask(b"GET /old HTTP/1.0\r\n\r\n")
        assert answer.get("transfer-encoding") is None and answer.get("content-length") is None
        assert answer.body == b"abcde" and answer.get("connection") == "close"
    with Client(proxy.port) as client:
        answer = client.ask(get())
        assert answer.get("transfer-encoding") == "chunked" and answer.body == b"abcde"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_b20_and_b21_204_and_304_have_no_body_whatever_they_say(edge, status):
    proxy, endpoint = edge
    endpoint.reset(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    with Client(proxy.port) as client:
        answer = client.ask(get())
        assert answer.status == int(status[:3]) and answer.get("transfer-encoding") is None
        endpoint.reset(OK)
        assert client.ask(get()).body == b"ok"


def test_b21_a_body_after_head_poisons_nobody(edge):
    proxy, endpoint = edge
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    endpoint.reset(b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + poison)
    with Client(proxy.port) as client:
        answer = client.ask(get(method="HEAD"), "HEAD")
        assert answer.get("content-length") == "44"
        endpoint.reset(OK)
        assert client.ask(get()).body == b"ok"
    with Client(proxy.port) as client:
        assert client.ask(get()).body == b"ok"
    wait_until(lambda: endpoint.open <= 1, "the connection of HEAD is closed")


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
                                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"])
def test_b22_an_answer_that_ends_early_is_cut_and_never_completed(edge, part):
    proxy, endpoint = edge
    endpoint.reset(raw(part))
    with Client(proxy.port) as client, pytest.raises(EOFError):
        client.ask(get())
    with Client(proxy.port) as client:
        got = client.send(get()).ends()
        assert b"abc" in got and not got.endswith(b"0\r\n\r\n")


def test_b22_http_1_0_is_told_by_a_reset(edge):
    proxy, endpoint = edge
    endpoint.reset(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"))
    with Client(proxy.port) as client, pytest.raises(ConnectionResetError):
        client.send(b"GET /old HTTP/1.0\r\n\r\n").rest()


def test_b23_bytes_that_nobody_asked_for_are_no_answer(edge):
    proxy, endpoint = edge
    endpoint.reset(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    with Client(proxy.port) as client:
        assert client.ask(get()).body == b"ok"
        endpoint.reset(OK)
        assert client.ask(get()).body == b"ok"
        assert client.is_silent()
    before = endpoint.connections

    def late(reader, _request):
        reader.sock.sendall(OK)
        time.sleep(0.05)
        reader.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    endpoint.reset(late)
    with Client(proxy.port) as client:
        assert client.ask(get()).body == b"ok"
        wait_until(lambda: endpoint.open == 0, "the connection with the stray bytes is closed")
        endpoint.reset(OK)
        assert client.ask(get()).body == b"ok"
    assert endpoint.connections > before


def test_b29_interim_answers_are_passed_on_but_not_to_http_1_0(edge):
    proxy, endpoint = edge
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"
    endpoint.reset(b"HTTP/1.1 100 Continue\r\n\r\n" + early + early + OK)
    with Client(proxy.port) as client:
        answer = client.ask(get())
        assert [one.status for one in answer.interims if one.status != 100] == [103, 103] and answer.body == b"ok"
        assert answer.interims[-1].get("link") == "</a>; rel=preload" and answer.interims[-1].get("x-hop") is None
    with Client(proxy.port) as client:
        assert client.ask(b"GET /old HTTP/1.0\r\n\r\n").interims == []


def test_b29_a_flood_of_interim_answers_is_a_502(edge):
    proxy, endpoint = edge
    endpoint.reset(raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + OK))
    with Client(proxy.port) as client:
        answer = client.ask(post())
        assert answer.status == 502 and len(answer.interims) <= 16


@pytest.mark.parametrize("answer", [
    switching("AAAAAAAAAAAAAAAAAAAAAA=="), switching().replace(b"websocket", b"h2c"),
    switching().replace(b"Upgrade: websocket\r\n", b""),
], ids=["accept of another key", "another protocol", "no Upgrade"])
def test_b31_a_101_that_does_not_answer_is_a_502(edge, answer):
    proxy, endpoint = edge
    endpoint.reset(raw(answer))
    with Client(proxy.port) as client:
        assert client.ask(UPGRADE).status == 502
        client.finish()
        assert client.ends() == b""


def test_b31_a_101_that_nobody_asked_for_is_a_502(edge):
    proxy, endpoint = edge
    endpoint.reset(raw(switching()))
    with Client(proxy.port) as client:
        assert client.ask(post()).status == 502


def test_b31_an_upgrade_that_is_refused_stays_http(edge):
    proxy, endpoint = edge
    endpoint.reset(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nnope")
    with Client(proxy.port) as client:
        answer = client.ask(UPGRADE)
        assert answer.status == 401 and answer.body == b"nope"


def test_b32_client_bytes_are_held_until_the_101_and_those_behind_it_arrive(edge):
    proxy, endpoint = edge
    held = threading.Event()
    seen = []

    def script(reader, _request):
        reader.sock.settimeout(0.2)
        try:
            reader._more()
        except OSError:
            pass
        seen.append(reader.held)
        held.set()
        reader.sock.settimeout(10)
        reader.sock.sendall(switching() + frame(b"welcome", masked=False))
        seen.append(reader.exactly(len(early)))
    early = frame(b"early")
    endpoint.reset(script)
    with Client(proxy.port) as client:
        client.send(UPGRADE + early)
        assert held.wait(10) and seen[0] == b""
        assert client.response().status == 101
        assert client.frame() == (0x82, b"welcome")
        wait_until(lambda: len(seen) == 2, "the early frame arrives")
    assert seen[1] == early


def test_b33_http_1_0_gets_one_answer(edge):
    proxy, endpoint = edge
    with Client(proxy.port) as client:
        answer = client.ask(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.get("connection") == "close" and client.ends() == b""


def test_b33_an_endpoint_of_http_1_0_is_understood_and_not_kept(edge):
    proxy, endpoint = edge
    endpoint.reset(raw(b"HTTP/1.0 200 OK\r\n\r\nuntil the end"))
    with Client(proxy.port) as client:
        answer = client.ask(get())
        assert answer.body == b"until the end" and answer.get("transfer-encoding") == "chunked"
        assert client.ask(get()).body == b"until the end"


def test_b34_pipelined_requests_are_answered_in_order_and_asked_one_at_a_time(edge):
    proxy, endpoint = edge
    overlaps, running = [], threading.Lock()

    def script(_reader, request):
        overlaps.append(not running.acquire(blocking=False))
        time.sleep(0.2 if request.target == "/1" else 0)
        running.release()
        body = request.target.encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    endpoint.reset(script)
    with Client(proxy.port) as client:
        client.send(b"".join(get(f"/{i}") for i in range(1, 30)) + post("/30") + get("/31"))
        assert [client.response().body for _ in range(31)] == [b"/%d" % i for i in range(1, 32)]
    assert not any(overlaps)


def test_b34_a_client_that_pipelines_without_end_is_not_read_on(edge):
    proxy, endpoint = edge
    go = threading.Event()

    def script(_reader, _request):
        go.wait(20)
        return OK
    endpoint.reset(script)
    with Client(proxy.port) as client:
        client.sock.settimeout(0.5)
        sent = 0
        try:
            while sent < 50_000_000:
                sent += client.sock.send(get() * 100)
        except TimeoutError:
            pass
        go.set()
        assert sent < 50_000_000, "all of it was taken"
        client.sock.settimeout(10)
        assert client.response().status == 200


def test_b35_connection_close_is_honoured_both_ways(edge):
    proxy, endpoint = edge
    with Client(proxy.port) as client:
        answer = client.ask(get("/a", "Connection: close"))
        assert answer.get("connection") == "close" and client.ends() == b""
    endpoint.reset(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    with Client(proxy.port) as client:
        for _ in range(2):  # the endpoint's wish is the endpoint's
            assert client.ask(get()).get("connection") == "keep-alive"
    wait_until(lambda: endpoint.open == 0, "the endpoint's connections are closed")


@pytest.mark.parametrize("path", ["/other", "/socket.io/?EIO=4&transport=polling&sid=x"])
def test_b35_a_413_comes_before_any_byte_at_an_endpoint_and_can_be_read(edge, path):
    proxy, endpoint = edge
    with Client(proxy.port) as client:
        client.send_as_far_as_it_goes(post(path, b"x" * 5_000_000))
        answer = client.response()
        assert answer.status == 413 and answer.get("connection") == "close"
    assert endpoint.received == 0


def test_b35_a_chunked_body_above_the_limit_is_a_413(edge):
    proxy, endpoint = edge
    with Client(proxy.port) as client:
        client.send_as_far_as_it_goes(get("/a", "Transfer-Encoding: chunked", method="POST")
                                      + b"10000\r\n%s\r\n" % (b"x" * 65536) * 16)
        assert client.response().status == 413
    assert endpoint.received == 0


def test_b36_a_poll_on_a_dead_connection_is_sent_once_more_and_a_post_is_not(edge):
    proxy, endpoint = edge
    served = []

    def once(reader, request):
        served.append(request.start.split(" ")[0])
        if len(served) % 2:
            return OK
        raise EOFError  # the second request of a connection finds it ending
    for method, statuses in (("GET", [200, 200]), ("POST", [200, 502])):
        served.clear()
        endpoint.reset(once)
        with Client(proxy.port) as client:
            data = get() if method == "GET" else post()
            assert [client.ask(data).status for _ in range(2)] == statuses
        assert served == [method] * (3 if method == "GET" else 2)


def test_b36_nothing_is_sent_twice_on_a_fresh_connection(edge):
    proxy, endpoint = edge
    wait_until(lambda: endpoint.open == 0, "no connection is kept")
    endpoint.reset(raw(b""))
    with Client(proxy.port) as client:
        assert client.ask(get()).status == 502
    assert len(endpoint.requests) == 1


def test_b37_a_date_is_added_where_there_is_none(edge):
    proxy, endpoint = edge
    with Client(proxy.port) as client:
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", client.ask(get()).get("date"))
        endpoint.reset(b"HTTP/1.1 200 OK\r\nDate: yesterday\r\nContent-Length: 0\r\n\r\n")
        assert client.ask(get()).get("date") == "yesterday"


def test_b45_an_early_answer_ends_the_body_and_is_read(configured):
    proxy, endpoint = configured({"limits": {"body_bytes": 0}})
    rest = []

    def serve(reader):
        reader.until(b"\r\n\r\n")
        reader.sock.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong")
        rest.append(len(reader.rest()))  # until the proxy closes
    endpoint.serve = serve
    with Client(proxy.port) as client:
        client.send(get("/a", "Content-Length: 100000000", method="POST") + b"x" * 100000)
        answer = client.response()
        assert answer.status == 413 and answer.body == b"long" and answer.get("connection") == "close"
        client.send_as_far_as_it_goes(b"x" * 1000000)
        wait_until(lambda: rest, "the endpoint's connection is closed")
    assert rest[0] <= 100000

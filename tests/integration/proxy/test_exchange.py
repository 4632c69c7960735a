"""Requests and responses through sidrail-proxy, byte by byte, against endpoints that follow a script."""
import json
import socket
import threading
import time

import pytest
from daemons import sanitizer, wait_until
from fakes import Client, Endpoint, ok

POLL = b"/socket.io/?EIO=4&transport=polling"
OPEN = b'0{"sid":"%s","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'


def answering(answer):
    """A script: every request of the connection gets answer(line, fields, body, wire)."""
    def script(wire):
        while True:
            line, fields = wire.head()
            body = wire.body(fields)
            reply = answer(line, fields, body, wire)
            if reply is None:
                return
            wire.send(reply)
    return script


def echo(line, fields, body, _wire):
    return ok(json.dumps([line, fields, body.decode("latin1")]).encode())


def handshake(line, fields, body, wire):
    """Hands out a sid that names its port; echoes everything else."""
    if "sid=" in line:
        return echo(line, fields, body, wire)
    return ok(OPEN % (b"S%019d" % wire.sock.getsockname()[1]))


def sid_of(body):
    return json.loads(body[1:])["sid"].encode()


def test_one_client_connection_carries_many_requests(proxy):
    with Endpoint(answering(echo)) as endpoint, Client(proxy([endpoint.address]).port) as client:
        for i in range(5):
            status, fields, body = client.get(b"/path/%d?q=1" % i)
            assert status == 200 and fields["connection"] == ["keep-alive"]
            line, seen, _ = json.loads(body)
            assert line == f"GET /path/{i}?q=1 HTTP/1.1"
            assert seen["x-forwarded-for"] == ["127.0.0.1"] and seen["x-forwarded-proto"] == ["http"]
            assert len(seen["via"]) == 1
        assert len(endpoint.connections) == 1, "a clean connection to the endpoint is used again"


def test_pipelined_requests_are_answered_in_order_one_at_a_time(proxy):
    at_once, most = [0], [0]

    def slow_first(line, fields, body, _wire):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.3 if "/0" in line else 0)
        at_once[0] -= 1
        return ok(line.encode())

    with Endpoint(answering(slow_first)) as endpoint, Client(proxy([endpoint.address]).port) as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(20)))
        for i in range(20):
            assert client.response()[2] == b"GET /%d HTTP/1.1" % i
        assert most[0] == 1


def test_each_request_of_one_connection_finds_the_endpoint_of_its_session(proxy):
    with Endpoint(answering(handshake)) as a, Endpoint(answering(handshake)) as b:
        with Client(proxy([a.address, b.address]).port) as client:
            sids = set()
            for _ in range(60):
                sids.add(sid_of(client.get(POLL)[2]))
            assert len(sids) == 2, "both endpoints were used, each sid carries its tag"
            for sid in list(sids) * 10:
                status, _, body = client.get(POLL + b"&sid=" + sid)
                line, _, _ = json.loads(body)
                port = int(line.split("sid=S")[1].split(" ")[0].split("&")[0])
                assert status == 200 and sid.decode().startswith(f"S{port:019d}.")
                assert "." not in line.split("sid=")[1].split(" ")[0], "the endpoint sees its own sid"


def test_an_aborted_poll_reaches_the_endpoint_at_once(proxy):
    began, ended = threading.Event(), []

    def script(wire):
        line, _ = wire.head()
        if "sid=" not in line:
            wire.send(ok(OPEN % (b"A" * 20)))
            line, _ = wire.head()
        began.set()
        wire.fill()
        ended.append(time.monotonic())

    with Endpoint(script) as endpoint, Client(proxy([endpoint.address]).port) as client:
        sid = sid_of(client.get(POLL)[2])
        client.send(b"GET " + POLL + b"&sid=" + sid + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert began.wait(5)
        time.sleep(0.1)
        assert not ended
        left = time.monotonic()
        client.close()
        wait_until(lambda: ended, "the endpoint sees the end", 5)
        assert ended[0] - left < 1.0


def test_a_half_closed_client_is_an_abort_while_its_poll_hangs(proxy):
    ended = threading.Event()

    def script(wire):
        wire.head()
        wire.fill()
        # a half-close would leave our side writable: a reset or an end comes for writing too
        ended.set()

    with Endpoint(script) as endpoint, Client(proxy([endpoint.address]).port) as client:
        client.send(b"GET " + POLL + b"&sid=AAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        client.sock.shutdown(socket.SHUT_WR)
        assert ended.wait(3)
        assert client.rest() == b""


@pytest.mark.parametrize("cut", [None, 1, 7])
def test_a_chunked_post_arrives_with_a_content_length(proxy, cut):
    body = b"4;x=y\r\n40{\"\r\n6\r\na\":1}!\r\n0\r\nTrailer: x\r\n\r\n"
    request = (b"POST " + POLL + b"&sid=AAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    with Endpoint(answering(echo)) as endpoint, Client(proxy([endpoint.address]).port) as client:
        whole = request + body
        pieces = [whole[i:i + cut] for i in range(0, len(whole), cut)] if cut else [whole]
        client.send(*pieces, pause=0.0005)
        status, _, answer = client.response()
        _, fields, seen = json.loads(answer)
        assert status == 200 and seen == '40{"a":1}!'
        assert fields["content-length"] == ["10"] and "transfer-encoding" not in fields
        assert client.get(POLL)[0] == 200, "the connection goes on"


def test_an_expected_continue_comes_from_the_edge_at_once(proxy):
    with Endpoint(answering(echo)) as endpoint, Client(proxy([endpoint.address]).port) as client:
        client.send(b"POST " + POLL + b"&sid=AAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
                    b"Expect: 100-continue\r\n\r\n")
        assert client.head()[0].startswith("HTTP/1.1 100")
        assert endpoint.connections == [], "nothing was sent to an endpoint before the body is whole"
        client.send(b"40")
        status, _, answer = client.response()
        assert status == 200 and "expect" not in json.loads(answer)[1]


def test_a_body_that_is_too_large_is_refused_before_any_byte_and_the_client_reads_it(proxy):
    with Endpoint(answering(echo)) as endpoint, Client(proxy([endpoint.address]).port) as client:
        client.send(b"POST " + POLL + b"&sid=AAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: a\r\n"
                    b"Content-Length: 5000000\r\nOrigin: https://app.example\r\n\r\n")

        def push():
            try:
                client.sock.sendall(b"x" * 5000000)
            except OSError:
                pass

        thread = threading.Thread(target=push)
        thread.start()
        status, fields, body = client.response()
        thread.join()
        assert status == 413 and fields["connection"] == ["close"]
        assert json.loads(body)["code"] == 3
        assert fields["access-control-allow-origin"] == ["https://app.example"]
        assert fields["cache-control"] == ["no-store"]
        assert endpoint.connections == []


def test_other_paths_stream_both_ways(proxy):
    size = 600_000

    def script(wire):
        line, fields = wire.head()
        body = wire.take(10) + wire.take(size - 10)
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(0, size, 50_000):
            piece = body[i:i + 50_000]
            wire.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        wire.send(b"0\r\n\r\n")

    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    with Endpoint(script) as endpoint, Client(proxy([endpoint.address]).port) as client:
        client.send(b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size, body[:10])
        wait_until(lambda: endpoint.received().endswith(body[:10]), "the first bytes have passed", 5)
        client.send(body[10:])
        status, fields, answer = client.response()
        assert status == 200 and fields["transfer-encoding"] == ["chunked"] and answer == body


def test_old_clients_get_no_chunks_and_an_end(proxy):
    def script(wire):
        wire.head()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nab\r\n", b"2\r\ncd\r\n0\r\n\r\n", pause=0.05)

    with Endpoint(script) as endpoint:
        port = proxy([endpoint.address]).port
        with Client(port) as client:
            client.send(b"GET /x HTTP/1.0\r\n\r\n")
            line, fields = client.head()
            assert line.startswith("HTTP/1.1 200") and "transfer-encoding" not in fields
            assert fields["connection"] == ["close"] and client.rest() == b"abcd"


def test_a_response_that_is_cut_off_is_never_completed(proxy):
    def script(wire):
        line, _ = wire.head()
        if "chunked" in line:
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        else:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        time.sleep(0.1)

    with Endpoint(script) as endpoint:
        port = proxy([endpoint.address]).port
        for target, ending in ((b"/chunked", b"5\r\nhello\r\n"), (b"/length", b"hello")):
            with Client(port) as client:
                client.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                client.head()
                assert client.rest() == ending


def test_stray_bytes_and_bodies_of_head_never_reach_the_next_request(proxy):
    def script(wire):
        while True:
            line, _ = wire.head()
            if line.startswith("HEAD"):
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nMethod Not Found")
            elif "/stray" in line:
                wire.send(ok(b"ok") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            else:
                wire.send(ok(b"good"))

    with Endpoint(script) as endpoint, Client(proxy([endpoint.address]).port) as client:
        for _ in range(3):
            assert client.get(b"/x", method=b"HEAD")[1]["content-length"] == ["16"]
            assert client.get(b"/a")[2] == b"good"
            assert client.get(b"/stray")[2] == b"ok"
            assert client.get(b"/b")[2] == b"good"


def test_methods_that_an_engine_io_path_does_not_take_are_answered_by_the_edge(proxy):
    with Endpoint(answering(echo)) as endpoint, Client(proxy([endpoint.address]).port) as client:
        for method in (b"HEAD", b"PUT", b"DELETE", b"PATCH"):
            status, fields, _ = client.get(POLL, method=method)
            assert status == 405 and "GET" in fields["allow"][0]
        assert endpoint.connections == []


def test_an_unknown_session_is_a_local_400_with_cors_and_the_connection_stays(proxy):
    with Endpoint(answering(echo)) as a, Endpoint(answering(echo)) as b:
        with Client(proxy([a.address, b.address]).port) as client:
            for origin, shown in ((b"https://app.example:8443", True), (b"https://a.b/<x>", False), (b"null", True)):
                status, fields, body = client.get(POLL + b"&sid=BBBBBBBBBBBBBBBBBBBB", b"Origin: " + origin + b"\r\n")
                assert status == 400 and json.loads(body) == {"code": 1, "message": "Session ID unknown"}
                assert fields["connection"] == ["keep-alive"]
                assert fields.get("access-control-allow-origin") == ([origin.decode()] if shown else None)
            assert a.connections == [] and b.connections == []


def test_an_early_refusal_is_passed_on_and_ends_the_sending(proxy):
    def script(wire):
        wire.head()
        wire.take(10)
        wire.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        wire.fill()

    with Endpoint(script) as endpoint, Client(proxy([endpoint.address]).port) as client:
        client.send(b"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 100)
        status, fields, body = client.response()
        assert status == 403 and body == b"no" and fields["connection"] == ["close"]


def test_interim_responses_pass_but_never_a_hundred(proxy):
    def script(wire):
        wire.head()
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", ok(b"done"), pause=0.05)

    with Endpoint(script) as endpoint, Client(proxy([endpoint.address]).port) as client:
        client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        line, fields = client.head()
        assert " 103" in line and fields["link"] == ["</a>"] and "content-length" not in fields
        assert client.response()[2] == b"done"


def test_a_slow_reader_of_a_large_response_costs_no_memory(proxy):
    size = 100_000_000
    allowed = 2_000_000 if sanitizer() == "" else 8_000_000  # which has memory of its own for ours

    def script(wire):
        wire.head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = b"x" * 1_000_000
        for _ in range(size // len(block)):
            wire.send(block)

    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address])
        with Client(daemon.port) as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            before = daemon.pss()
            client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(1.0)
            client.head()
            total = len(client.buffer)
            time.sleep(0.3)
            assert daemon.pss() - before < allowed
            while total < size:
                data = client.sock.recv(1 << 20)
                assert data
                total += len(data)
            assert daemon.pss() - before < allowed


def test_a_client_that_does_not_finish_its_head_is_told_so(proxy):
    with Endpoint(answering(echo)) as endpoint:
        daemon = proxy([endpoint.address], config={"timeouts": {"request_head": "300ms"}})
        with Client(daemon.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHos")
            status, fields, _ = client.response()
            assert status == 408 and fields["connection"] == ["close"] and client.rest() == b""
        with Client(daemon.port) as client:
            assert client.rest() == b"", "a connection without a byte ends without a word"

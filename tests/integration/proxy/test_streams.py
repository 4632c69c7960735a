"""Bodies of 100 MB pass both ways, byte for byte, while the slower side sets the pace and the proxy holds next to nothing.

    slow client ◀── sidrail-proxy ◀── endpoint that writes as fast as it may      the writer stands still, memory does not grow
    fast client ──▶ sidrail-proxy ──▶ endpoint that reads nothing for a while
"""
import hashlib
import threading
import time

import pytest
from daemons import sanitizer, wait_until
from http_tools import Client, get

SIZE = 100 << 20
PIECE = 1 << 16
#: What waits at one time: a read's worth each way, socket buffers are the kernel's.
MEMORY_MAX = 2 << 20


def pieces(size=SIZE):
    """A body that differs everywhere."""
    block = hashlib.shake_256(b"streams").digest(PIECE)
    for at in range(0, size, PIECE):
        yield at.to_bytes(8, "big") + block[8:]


def digest():
    whole = hashlib.sha256()
    for piece in pieces():
        whole.update(piece)
    return whole.hexdigest()


class Flow:
    """Counts what one side has passed on; `is_still` when that no longer moves."""

    def __init__(self):
        self.count = 0

    def is_still(self):
        before = self.count
        time.sleep(0.3)
        return before > 0 and self.count == before


class Memory:
    """The most that the proxy had of its own, above what it began with."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.base = proxy.pss()
        self.most = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        while not self.stop.wait(0.05):
            self.most = max(self.most, self.proxy.pss() - self.base)

    def check(self, allowed=MEMORY_MAX):
        self.stop.set()
        self.thread.join()
        self.most = max(self.most, self.proxy.pss() - self.base)
        print(f"{self.most / 1024:.0f} KiB above the beginning")
        assert sanitizer() or self.most <= allowed, f"{self.most} bytes more"


@pytest.fixture
def quiet(configured):
    """An edge without a bound on bodies that logs nothing."""
    proxy, endpoint = configured({"log": {"level": "warn", "access": "off"}, "limits": {"body_bytes": 0},
                                  "timeouts": {"write_stall": "30s"}})
    with Client(proxy.port) as client:
        client.ask(get())
    endpoint.take()
    return proxy, endpoint


@pytest.mark.parametrize("framing", ["length", "chunked", "until the end"])
def test_a_slow_reader_sets_the_pace_of_a_large_answer(quiet, framing):
    proxy, endpoint = quiet
    flow = Flow()

    def script(reader, _request):
        head = {"length": f"Content-Length: {SIZE}\r\n", "chunked": "Transfer-Encoding: chunked\r\n", "until the end": ""}[framing]
        reader.sock.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
        for piece in pieces():
            reader.sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            flow.count += len(piece)
        if framing == "chunked":
            reader.sock.sendall(b"0\r\n\r\n")
        if framing == "until the end":
            raise EOFError
    endpoint.reset(script)
    memory = Memory(proxy)
    with Client(proxy.port, seconds=60) as client:
        client.send(get())
        wait_until(flow.is_still, "the endpoint is stopped")
        assert flow.count < SIZE
        time.sleep(0.5)
        head = client.until(b"\r\n\r\n")
        assert (b"chunked" in head) == (framing != "length")
        whole = hashlib.sha256()
        if framing == "length":
            left = SIZE
            while left:
                part = client.exactly(min(left, 1 << 20))
                whole.update(part)
                left -= len(part)
        else:
            while size := int(client.until(b"\r\n"), 16):
                whole.update(client.exactly(size))
                assert client.exactly(2) == b"\r\n"
            assert client.exactly(2) == b"\r\n"
    memory.check()
    assert whole.hexdigest() == digest()


def test_a_slow_endpoint_sets_the_pace_of_a_large_request(quiet):
    proxy, endpoint = quiet
    flow, go, seen = Flow(), threading.Event(), []

    def serve(reader):
        head = reader.until(b"\r\n\r\n")
        assert f"Content-Length: {SIZE}".encode() in head and b"chunked" not in head
        assert go.wait(60)
        whole, left = hashlib.sha256(), SIZE
        while left:
            part = reader.exactly(min(left, 1 << 20))
            whole.update(part)
            left -= len(part)
        seen.append(whole.hexdigest())
        reader.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        reader.rest()
    wait_until(lambda: endpoint.open == 0, "no connection is kept")
    endpoint.serve = serve
    memory = Memory(proxy)
    with Client(proxy.port, seconds=60) as client:
        client.send(get("/upload", f"Content-Length: {SIZE}", method="PUT"))

        def upload():
            for piece in pieces():
                client.sock.sendall(piece)
                flow.count += len(piece)
        writer = threading.Thread(target=upload, daemon=True)
        writer.start()
        wait_until(flow.is_still, "the client is stopped")
        assert flow.count < SIZE
        go.set()
        writer.join(60)
        assert client.response().body == b"ok"
    memory.check()
    assert seen == [digest()]


def test_twenty_stopped_readers_cost_what_twenty_buffers_cost(quiet):
    proxy, endpoint = quiet
    flow = Flow()

    def script(reader, _request):
        reader.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces():
            reader.sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            flow.count += len(piece)
    endpoint.reset(script)
    memory = Memory(proxy)
    clients = [Client(proxy.port, receive_buffer=65536).send(get()) for _ in range(20)]
    wait_until(flow.is_still, "all are stopped", 60)
    memory.check(20 * 3 * PIECE + MEMORY_MAX)
    for client in clients:
        client.sock.close()
    wait_until(lambda: endpoint.open == 0, "the endpoint is let go")
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_buffered_bytes") == 0, "nothing is held")

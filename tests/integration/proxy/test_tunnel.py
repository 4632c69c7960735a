"""WebSockets through sidrail-proxy."""
import os
import random
import socket
import struct
import threading
import time

import pytest
from daemons import figure, wait_until
from fakes import KEY, Client, Endpoint, accept_of, frame, masked, switching

MASK = b"\x01\x02\xfe\xff"


def echoing(wire):
    """Answers the upgrade and sends every frame back unmasked."""
    _, fields = wire.head()
    wire.send(switching(fields))
    while True:
        opcode, payload = wire.frame()
        wire.send(frame(payload, opcode))
        if opcode == 8:
            return


def connected(port, **options):
    client = Client(port)
    client.upgrade(**options)
    assert client.response()[0] == 101
    return client


def test_frames_of_every_size_come_back(proxy):
    with Endpoint(echoing) as endpoint, connected(proxy([endpoint.address]).port) as client:
        for size in (0, 1, 125, 126, 127, 65535, 65536, 65537, 1_000_000):
            payload = os.urandom(size)
            threading.Thread(target=client.send, args=(frame(payload, mask=MASK),)).start()
            assert client.frame() == (2, payload)
        client.send(frame(struct.pack(">H", 1000), 8, MASK))
        assert client.frame() == (8, struct.pack(">H", 1000))
        assert client.rest() == b""


def test_the_stream_is_the_same_however_it_is_cut(proxy):
    generator = random.Random(7)
    with Endpoint(echoing) as endpoint, connected(proxy([endpoint.address]).port) as client:
        payloads = [generator.randbytes(generator.choice((0, 1, 3, 125, 126, 300, 70000))) for _ in range(40)]
        whole = b"".join(frame(p, mask=MASK) for p in payloads)

        def push():
            at = 0
            while at < len(whole):
                size = generator.choice((1, 2, 5, 100, 5000, 65536))
                client.sock.sendall(whole[at:at + size])
                at += size

        thread = threading.Thread(target=push)
        thread.start()
        for payload in payloads:
            assert client.frame() == (2, payload)
        thread.join()


def test_bytes_behind_the_101_arrive_with_it(proxy):
    def script(wire):
        _, fields = wire.head()
        wire.send(switching(fields, frame(b'0{"sid":"x"}', 1)))
        wire.fill()

    with Endpoint(script) as endpoint, connected(proxy([endpoint.address]).port) as client:
        assert client.frame() == (1, b'0{"sid":"x"}')


@pytest.mark.parametrize("cut", range(1, 130, 16))
def test_a_101_in_pieces_is_understood(proxy, cut):
    def script(wire):
        _, fields = wire.head()
        answer = switching(fields, frame(b"hello", 1))
        wire.send(answer[:cut], answer[cut:], pause=0.03)
        wire.fill()

    with Endpoint(script) as endpoint, connected(proxy([endpoint.address]).port) as client:
        assert client.frame() == (1, b"hello")


def test_early_bytes_of_the_client_wait_for_the_101(proxy):
    early = []

    def script(wire):
        _, fields = wire.head()
        time.sleep(0.2)
        wire.sock.setblocking(False)
        try:
            early.append(wire.buffer + wire.sock.recv(100))
        except BlockingIOError:
            early.append(wire.buffer)
        wire.sock.setblocking(True)
        wire.send(switching(fields))
        opcode, payload = wire.frame()
        wire.send(frame(payload, opcode))

    with Endpoint(script) as endpoint:
        client = Client(proxy([endpoint.address]).port)
        client.upgrade(more=frame(b"too early", mask=MASK))
        assert client.response()[0] == 101
        assert client.frame() == (2, b"too early") and early == [b""]


@pytest.mark.parametrize("answer, status", [
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", 502),
    (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
     + accept_of(KEY) + b"\r\n\r\n", 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
    (b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 3\r\n\r\nerr", 500),
])
def test_only_a_right_101_opens_a_tunnel(proxy, answer, status):
    def script(wire):
        wire.head()
        wire.send(answer)
        wire.fill()

    with Endpoint(script) as endpoint:
        client = Client(proxy([endpoint.address]).port)
        client.upgrade()
        assert client.response()[0] == status


def test_a_plain_request_opens_no_tunnel(proxy):
    def script(wire):
        wire.head()
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nxx")

    with Endpoint(script) as endpoint, Client(proxy([endpoint.address]).port) as client:
        assert client.get(b"/x")[0] == 502


@pytest.mark.parametrize("bad, code", [
    (frame(b"unmasked"), 1002), (b"\xf2\x81abcdx", 1002), (b"\x8a\xfe\x01\x00abcd", 1002),
    (b"\x82\xff" + struct.pack(">Q", 300_000) + MASK, 1009),
])
def test_a_client_that_breaks_the_framing_is_told_and_the_endpoint_is_left(proxy, bad, code):
    ended = threading.Event()

    def script(wire):
        _, fields = wire.head()
        wire.send(switching(fields))
        while wire.fill():
            pass
        ended.set()

    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address], config={"limits": {"websocket_frame_bytes": "256KiB"}})
        with connected(daemon.port) as client:
            client.send(frame(b"good", mask=MASK) + bad)
            opcode, payload = client.frame()
            assert opcode == 8 and struct.unpack(">H", payload)[0] == code
            assert ended.wait(3)
            assert endpoint.received().endswith(frame(b"good", mask=MASK)) or b"good" not in bad
            assert masked(masked(b"good", MASK), MASK) == b"good"


def test_an_endpoint_that_writes_no_frames_costs_1011(proxy):
    def script(wire):
        _, fields = wire.head()
        wire.send(switching(fields))
        wire.send(b"HTTP/1.1 500 oops\r\n\r\n")
        wire.fill()

    with Endpoint(script) as endpoint, connected(proxy([endpoint.address]).port) as client:
        opcode, payload = client.frame()
        assert opcode == 8 and struct.unpack(">H", payload)[0] == 1011


def test_each_end_is_passed_on_alone(proxy):
    """The client ends its side; the endpoint may still speak, and ends later."""
    def script(wire):
        _, fields = wire.head()
        wire.send(switching(fields))
        while wire.fill():
            pass
        time.sleep(0.3)
        wire.send(frame(b"last words"))

    with Endpoint(script) as endpoint, connected(proxy([endpoint.address]).port) as client:
        client.send(frame(b"bye", mask=MASK))
        client.sock.shutdown(socket.SHUT_WR)
        assert client.frame() == (2, b"last words")
        assert client.rest() == b""


@pytest.mark.parametrize("direction", ["to_endpoint", "to_client"])
def test_a_slow_side_costs_no_memory_and_loses_nothing(proxy, direction):
    size, count = 100_000, figure(300, 3000)
    go = threading.Event()
    total = [0]

    def script(wire):
        _, fields = wire.head()
        wire.send(switching(fields))
        if direction == "to_client":
            for _ in range(count):
                wire.send(frame(b"y" * size))
            wire.fill()
            return
        go.wait(20)
        for _ in range(count):
            opcode, payload = wire.frame()
            total[0] += len(payload)
        wire.send(frame(b"done"))

    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address])
        before = daemon.pss()
        with connected(daemon.port) as client:
            if direction == "to_client":
                time.sleep(0.7)
                assert daemon.pss() - before < 1_500_000
                for _ in range(count):
                    total[0] += len(client.frame()[1])
            else:
                thread = threading.Thread(target=lambda: [client.sock.sendall(frame(b"y" * size, mask=MASK))
                                                          for _ in range(count)])
                thread.start()
                time.sleep(0.7)
                assert daemon.pss() - before < 1_500_000
                go.set()
                thread.join()
                assert client.frame() == (2, b"done")
        assert total[0] == size * count
        assert daemon.metrics().get("sidrail_proxy_tunnel_waits_total", to=direction[3:]) > 0


def test_a_silent_client_is_let_go(proxy):
    def script(wire):
        _, fields = wire.head()
        wire.send(switching(fields))
        try:
            while True:
                wire.send(frame(b"2", 1))
                time.sleep(0.1)
        except OSError:
            pass

    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address], config={"timeouts": {"tunnel_idle": "1s"}})
        with connected(daemon.port) as client:
            began = time.monotonic()
            while (got := client.frame())[0] != 8:
                pass
            assert 0.9 < time.monotonic() - began < 5
            assert struct.unpack(">H", got[1])[0] == 1001


def test_two_threads_carry_two_thousand_idle_clients(proxy):
    count = figure(1000, 2000)
    with Endpoint(echoing) as endpoint:
        daemon = proxy([endpoint.address], config={"threads": 2, "log": {"access": "errors", "level": "info"}})
        clients = [connected(daemon.port) for _ in range(count)]
        try:
            assert daemon.metrics().get("sidrail_proxy_tunnels_open") == count
            for client in random.Random(3).sample(clients, 100):
                client.send(frame(b"still there?", mask=MASK))
                assert client.frame() == (2, b"still there?")
        finally:
            for client in clients:
                client.close()
        wait_until(lambda: daemon.metrics().get("sidrail_proxy_tunnels_open") == 0, "all have gone")

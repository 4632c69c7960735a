"""SIGTERM lets clients go gently, and quickly when there are none."""
import signal
import struct
import time

from daemons import wait_until
from fakes import Client, Endpoint, frame, ok, switching

MASK = b"\x01\x02\xfe\xff"


def script(wire):
    line, fields = wire.head()
    if "upgrade" in fields:
        wire.send(switching(fields))
        while True:
            opcode, payload = wire.frame()
            wire.send(frame(payload, opcode))
    time.sleep(0.5)
    wire.send(ok(b"slow"))


def shutdown(**limits):
    return {"shutdown": {"readiness_delay": "0s", "window": "2s", "deadline": "10s", **limits}}


def test_without_clients_it_ends_at_once(proxy):
    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address], config=shutdown(window="180s", deadline="240s"))
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        daemon.wait_exit()
        assert time.monotonic() - began < 2


def test_readiness_goes_first_and_clients_are_still_taken_during_the_delay(proxy):
    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address], config=shutdown(readiness_delay="1s"))
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: daemon.status()["phase"] == "draining", "it drains", 1, interval=0.02)
        with Client(daemon.port) as client:
            assert client.get(b"/x")[2] == b"slow"
        daemon.wait_exit()


def test_an_interrupt_skips_the_delay(proxy):
    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address], config=shutdown(readiness_delay="30s", deadline="60s"))
        began = time.monotonic()
        daemon.signal(signal.SIGINT)
        daemon.wait_exit()
        assert time.monotonic() - began < 5


def test_tunnels_are_closed_with_1012_spread_over_the_window(proxy):
    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address], config=shutdown())
        clients = []
        for _ in range(60):
            client = Client(daemon.port)
            client.upgrade()
            assert client.response()[0] == 101
            clients.append(client)
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        moments = []
        for client in clients:
            client.send(frame(b"x", mask=MASK))
            frames = [client.frame()]
            while frames[-1][0] != 8:
                frames.append(client.frame())
            assert struct.unpack(">H", frames[-1][1])[0] == 1012
        for client in clients:
            client.close()
        daemon.wait_exit()
        took = time.monotonic() - began
        assert 0.5 < took < 6, moments


def test_an_answer_in_flight_is_finished(proxy):
    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address], config=shutdown())
        with Client(daemon.port) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.2)
            daemon.signal(signal.SIGTERM)
            status, fields, body = client.response()
            assert status == 200 and body == b"slow" and fields["connection"] == ["close"]
        daemon.wait_exit()


def test_a_second_interrupt_ends_everything(proxy):
    with Endpoint(script) as endpoint:
        daemon = proxy([endpoint.address], config=shutdown(window="100s", deadline="200s"))
        client = Client(daemon.port)
        client.upgrade()
        assert client.response()[0] == 101
        daemon.signal(signal.SIGINT)
        time.sleep(0.2)
        daemon.signal(signal.SIGINT)
        daemon.wait_exit()
        client.close()

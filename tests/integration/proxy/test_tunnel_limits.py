"""Limits of a tunnel, protocol-facts C1: what breaks the framing ends it with the right code, silence and stalls end it, and an end
of one side reaches the other."""
import contextlib
import threading
import time

import pytest
from daemons import wait_until
from http_tools import UPGRADE, Client, Endpoint, frame, switching

CLOSE = 0x88


class Tunnels:
    """An endpoint's script: echoes frames' bytes; `ends` has what each tunnel received when it ended."""

    def __init__(self, first=b""):
        self.first = first
        self.ends = []
        self.sockets = []

    def __call__(self, reader, _request):
        self.sockets.append(reader.sock)
        reader.sock.sendall(switching() + self.first)
        got = reader.held
        try:
            while data := reader.sock.recv(65536):
                got += data
            self.ends.append(got)
        except OSError as error:
            self.ends.append(error)
        raise EOFError

    def ended(self, count=1):
        return wait_until(lambda: len(self.ends) >= count and self.ends[count - 1], "the endpoint sees the end")


def closed(proxy, reason):
    return proxy.metrics().get("sidrail_proxy_clients_closed_total", reason=reason) or 0


def opened(proxy, endpoint, first=b"", **options):
    tunnels = Tunnels(first)
    endpoint.reset(tunnels)
    client = Client(proxy.port, **options)
    assert client.ask(UPGRADE).status == 101
    return client, tunnels


@pytest.mark.parametrize("bad", [
    frame(b"x", masked=False), frame(b"x", opcode=3), frame(b"x", rsv=2), frame(b"x", rsv=4), frame(b"x" * 126, opcode=9),
    frame(b"x", opcode=9, fin=False), frame(b"x", opcode=0), frame(b"a", fin=False) + frame(b"x"),
    b"\x82\xfe\x00\x05" + bytes(9), b"GET / HTTP/1.1\r\n\r\n",
], ids=["unmasked", "opcode", "rsv2", "rsv1 without deflate", "long ping", "fragmented ping", "continuation of nothing",
        "message in a message", "length not shortest", "HTTP"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
def test_a_client_that_breaks_the_framing_gets_1002_and_the_endpoint_an_end(edge, bad, split):
    proxy, endpoint = edge
    before = closed(proxy, "tunnel_bad_frame")
    client, tunnels = opened(proxy, endpoint)
    good = frame(b"good")
    with client:
        client.send(good)
        if split:
            for at in range(len(bad)):
                client.send_as_far_as_it_goes(bad[at:at + 1])
        else:
            client.send(bad)
        assert client.frame() == (CLOSE, (1002).to_bytes(2, "big"))
        assert client.ends() == b""
    got = tunnels.ended()
    assert isinstance(got, bytes), "a reset in place of an end"
    assert got.startswith(good) and b"GET" not in got
    wait_until(lambda: closed(proxy, "tunnel_bad_frame") == before + 1, "the reason is counted")


def test_a_frame_above_the_limit_gets_1009(edge):
    proxy, endpoint = edge
    client, tunnels = opened(proxy, endpoint)
    fits = frame(b"x" * 65536)
    with client:
        client.send(fits)
        client.send_as_far_as_it_goes(frame(b"x" * 65537)[:100])
        assert client.frame() == (CLOSE, (1009).to_bytes(2, "big"))
        assert client.ends() == b""
    got = tunnels.ended()
    assert got.startswith(fits) and len(got) in (len(fits), len(fits) + 8), "behind it at most a Close of the edge"
    wait_until(lambda: closed(proxy, "tunnel_big_frame") == 1, "the reason is counted")


def test_the_limit_is_for_clients_only(edge):
    proxy, endpoint = edge
    client, _tunnels = opened(proxy, endpoint, frame(b"x" * 200000, masked=False))
    with client:
        assert client.frame() == (0x82, b"x" * 200000)


@pytest.mark.parametrize("bytes_of_endpoint", [b"HTTP/1.1 500 Internal Server Error\r\n\r\n", frame(b"x"), b"\x83\x00"],
                         ids=["HTTP", "masked", "opcode"])
def test_an_endpoint_that_writes_no_frames_costs_the_client_1011(edge, bytes_of_endpoint):
    proxy, endpoint = edge
    before = closed(proxy, "tunnel_not_frames")
    client, tunnels = opened(proxy, endpoint, frame(b"good", masked=False))
    with client:
        assert client.frame() == (0x82, b"good")
        tunnels.sockets[0].sendall(bytes_of_endpoint)
        assert client.frame() == (CLOSE, (1011).to_bytes(2, "big"))
        assert client.ends() == b""
    tunnels.ended()
    wait_until(lambda: closed(proxy, "tunnel_not_frames") == before + 1, "the reason is counted")


def test_silence_of_the_client_ends_a_tunnel_and_the_endpoints_chatter_does_not_help(configured):
    proxy, endpoint = configured({"timeouts": {"tunnel_idle_other": "2s"}})
    client, tunnels = opened(proxy, endpoint)
    with client:
        for _ in range(15):  # alive as long as the client says something
            client.send(frame(b"x", opcode=9))
            time.sleep(0.2)
        assert closed(proxy, "tunnel_idle") == 0
        stop = threading.Event()

        def chatter():
            while not stop.wait(0.1):
                try:
                    tunnels.sockets[0].sendall(frame(b"tick", masked=False))
                except OSError:
                    return
        threading.Thread(target=chatter, daemon=True).start()
        while (got := client.frame()) == (0x82, b"tick"):
            pass
        assert got == (CLOSE, (1001).to_bytes(2, "big"))
        stop.set()
    wait_until(lambda: closed(proxy, "tunnel_idle") == 1, "the reason is counted")


def test_a_client_that_does_not_read_ends_its_tunnel_and_keeps_nothing(edge):
    proxy, endpoint = edge
    before = closed(proxy, "tunnel_stall")
    client, tunnels = opened(proxy, endpoint, receive_buffer=4096)
    with client:
        sock = tunnels.sockets[0]
        sock.settimeout(10)
        sent = 0
        try:
            while sent < 100_000_000:
                sent += sock.send(frame(b"x" * 60000, masked=False))
        except OSError:
            pass
        assert sent < 100_000_000
        wait_until(lambda: closed(proxy, "tunnel_stall") == before + 1, "the stall is found out")
    wait_until(lambda: (proxy.metrics().get("sidrail_proxy_tunnels_open") or 0) == 0, "it is gone")


def test_an_endpoint_that_does_not_read_stops_the_client_and_ends_the_tunnel(edge):
    proxy, endpoint = edge
    hold = threading.Event()
    before = closed(proxy, "tunnel_stall")

    def script(reader, _request):
        reader.sock.sendall(switching())
        hold.wait(20)
        raise EOFError
    endpoint.reset(script)
    with Client(proxy.port) as client:
        assert client.ask(UPGRADE).status == 101
        client.sock.settimeout(10)
        sent = 0
        try:
            while sent < 100_000_000:
                sent += client.sock.send(frame(b"x" * 60000))
        except OSError:
            pass
        assert sent < 100_000_000
    wait_until(lambda: closed(proxy, "tunnel_stall") == before + 1, "the reason is counted")
    hold.set()


def test_an_end_of_the_client_reaches_the_endpoint_and_the_other_way_stays_open(edge):
    proxy, endpoint = edge
    got = []

    def script(reader, _request):
        reader.sock.sendall(switching())
        got.append(reader.rest())
        time.sleep(0.2)
        return_frames = frame(b"last words", masked=False) + b"\x88\x02\x03\xe8"
        reader.sock.sendall(return_frames)
        raise EOFError
    endpoint.reset(script)
    with Client(proxy.port) as client:
        assert client.ask(UPGRADE).status == 101
        client.send(frame(b"bye")).finish()
        assert client.frame() == (0x82, b"last words")
        assert client.frame() == (CLOSE, (1000).to_bytes(2, "big"))
        assert client.ends() == b""
    assert len(got[0]) == len(frame(b"bye"))
    wait_until(lambda: closed(proxy, "tunnel_done") >= 1, "it ended well")


def test_a_client_whose_endpoint_ended_without_a_close_is_told_at_once_when_it_sends(servers):
    rest = []

    def script(reader, _request):
        reader.sock.sendall(switching())
        reader.sock.shutdown(1)
        rest.append(reader.rest())
        raise EOFError
    endpoint = Endpoint(script)
    proxy = servers.proxy([], config={"upstreams": [
        {"name": "chat", "discovery": {"static": [endpoint.address]}, "health_check": {"type": "none"}, "herd_spread": "1h"}]})
    with contextlib.closing(endpoint), Client(proxy.port, seconds=30) as client:
        assert client.ask(UPGRADE).status == 101
        time.sleep(0.3)  # the end has arrived
        client.send(frame(b"still"))  # this way is open
        assert client.frame() == (CLOSE, (1012).to_bytes(2, "big"))
        assert client.ends() == b""
        wait_until(lambda: closed(proxy, "tunnel_endpoint_left") == 1, "it is counted")
        wait_until(lambda: rest, "the endpoint sees the end")
    assert len(rest[0]) == len(frame(b"still")) + 8, "and a Close"

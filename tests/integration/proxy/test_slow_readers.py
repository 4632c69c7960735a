"""Clients that read slowly: how long they may stand still is for timeouts.write_stall to say, not for the kernel."""
import time

import pytest
from http_tools import UPGRADE, Client, frame, get, switching

SIZE = 8 << 20
CONFIG = {"tcp": {"user_timeout": "1s"}, "timeouts": {"write_stall": "20s"}, "limits": {"websocket_frame_bytes": 0}}


def download(_reader, _request):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + bytes(SIZE)


def push(reader, _request):
    reader.sock.sendall(switching() + frame(bytes(SIZE), masked=False))
    reader.sock.recv(1)  # until the client has gone


@pytest.mark.parametrize("answer, request_bytes", [(download, get("/large")), (push, UPGRADE)], ids=["response", "WebSocket"])
def test_a_closed_window_is_not_a_lost_peer(configured, answer, request_bytes):
    """The kernel counts the probes of a closed window towards tcp.user_timeout though they are answered."""
    proxy, _ = configured(CONFIG, answer)
    with Client(proxy.port, receive_buffer=16384, seconds=30) as client:
        client.send(request_bytes)
        time.sleep(2.5)
        if answer is download:
            assert len(client.response().body) == SIZE
        else:
            client.until(b"\r\n\r\n")
            assert len(client.frame()[1]) == SIZE
    assert proxy.metrics().get("sidrail_proxy_clients_closed_total", reason="client_reset") in (0, None)

"""Endpoints that refuse, die, hang or close at the wrong moment."""
import json
import socket
import threading
import time

from daemons import free_port, wait_until
from fakes import Client, Endpoint, frame, ok, switching

POLL = b"/socket.io/?EIO=4&transport=polling"
OPEN = b'0{"sid":"%s","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'


def opening(wire):
    while True:
        line, fields = wire.head()
        wire.body(fields)
        wire.send(ok(b"2") if "sid=" in line else ok(OPEN % (b"S" * 20)))


def sid_of(body):
    return json.loads(body[1:])["sid"].encode()


def test_a_handshake_goes_to_another_endpoint_when_one_refuses(proxy):
    with Endpoint(opening) as endpoint:
        daemon = proxy([f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", endpoint.address])
        for _ in range(20):
            with Client(daemon.port) as client:
                assert client.get(POLL)[0] == 200
                assert client.get(b"/other")[0] == 200
        assert daemon.metrics().get("sidrail_proxy_endpoint_retries_total", to="other") > 0


def test_when_all_refuse_the_client_gets_502(proxy):
    daemon = proxy([f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"])
    with Client(daemon.port) as client:
        status, fields, body = client.get(POLL)
        assert status == 502 and json.loads(body)["code"] == 3
        assert client.get(b"/other")[0] == 502, "and the connection goes on"


def test_a_session_waits_for_its_own_endpoint_and_never_goes_to_another(proxy):
    first, second = Endpoint(opening), Endpoint(opening)
    try:
        daemon = proxy([first.address, second.address])
        with Client(daemon.port) as client:
            sids = {}
            while len(sids) < 2:
                status, fields, body = client.get(POLL)
                sid = sid_of(body)
                sids[sid] = sid
            first_connections = len(second.connections)
            first.close()
            time.sleep(1.2)  # idle connections to it have gone
            answers = {sid: client.get(POLL + b"&sid=" + sid)[0] for sid in sids}
            assert sorted(answers.values()) == [200, 502]
            assert daemon.metrics().get("sidrail_proxy_endpoint_retries_total", to="same") == 3
            lost = next(sid for sid, status in answers.items() if status == 502)
            # comes back within the time that a request waits
            revived = []
            timer = threading.Timer(0.1, lambda: revived.append(Endpoint(opening, first.port)))
            timer.start()
            assert client.get(POLL + b"&sid=" + lost)[0] == 200
            timer.join()
            revived[0].close()
            assert first_connections <= len(second.connections)
    finally:
        first.close()
        second.close()


def test_a_reused_connection_that_ends_without_a_byte_is_tried_once_more_for_polls_only(proxy):
    def one_then_close_on_next(wire):
        line, fields = wire.head()
        wire.body(fields)
        wire.send(ok(OPEN % (b"S" * 20)) if "sid=" not in line else ok(b"2"))
        wire.head()  # the second request is read, and the connection closed: an idle close lost the race

    with Endpoint(one_then_close_on_next) as endpoint, Client(proxy([endpoint.address]).port) as client:
        sid = sid_of(client.get(POLL)[2])
        assert client.get(POLL + b"&sid=" + sid)[0] == 200, "the poll was sent again"
        client.send(b"POST " + POLL + b"&sid=" + sid + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n3")
        assert client.response()[0] == 502, "a POST is never sent twice"
        posts = sum(wire.received.count(b"POST ") for wire in endpoint.connections)
        assert posts == 1


def test_no_post_is_lost_to_an_endpoint_that_closes_idle_connections(proxy):
    """gunicorn closes after 2 s of idleness; ours are given up after 1 s."""
    def closing_after_two_seconds(wire):
        wire.sock.settimeout(2.0)
        opening(wire)

    with Endpoint(closing_after_two_seconds) as endpoint, Client(proxy([endpoint.address]).port) as client:
        sid = sid_of(client.get(POLL)[2])
        for pause in (0.95, 1.05, 1.95, 2.0, 2.05):
            time.sleep(pause)
            client.send(b"POST " + POLL + b"&sid=" + sid + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n3")
            assert client.response()[0] == 200


def test_an_endpoint_that_does_not_answer_is_given_up(proxy):
    def silent(wire):
        wire.head()
        wire.fill()

    with Endpoint(silent) as endpoint:
        daemon = proxy([endpoint.address], config={"timeouts": {"poll": "1s"}})
        with Client(daemon.port) as client:
            assert client.get(b"/x")[0] == 504


def test_clients_of_an_endpoint_that_dies_are_told(proxy):
    """As kill -9 does it: every socket of the endpoint ends at once."""
    def script(wire):
        line, fields = wire.head()
        if "upgrade" in fields:
            wire.send(switching(fields))
        while wire.fill():
            pass

    endpoint = Endpoint(script)
    daemon = proxy([endpoint.address])
    with Client(daemon.port) as poll, Client(daemon.port) as socket_client:
        poll.send(b"GET " + POLL + b"&sid=AAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: a\r\n\r\n")
        socket_client.upgrade()
        assert socket_client.response()[0] == 101
        wait_until(lambda: len(endpoint.connections) == 2, "both have arrived")
        socket_client.send(frame(b"x", mask=b"abcd"))
        time.sleep(0.1)
        for wire in endpoint.connections:
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            wire.sock.shutdown(socket.SHUT_RD)
        endpoint.close()
        assert poll.response()[0] == 502
        assert socket_client.rest() == b"\x88\x02\x03\xf4", "1012"

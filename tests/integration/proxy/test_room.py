"""Connections or descriptors are used up: what is idle longest makes room."""
import os
import resource
import threading

import pytest
from daemons import wait_until
from http_tools import OK, UPGRADE, Client, get, switching


def closed(proxy, reason="made_room"):
    return proxy.metrics().get("sidrail_proxy_clients_closed_total", reason=reason) or 0


def descriptors(proxy):
    return len(os.listdir(f"/proc/{proxy.pid}/fd"))


def test_a_newcomer_takes_the_place_of_the_client_that_is_idle_longest(configured):
    proxy, _ = configured({"threads": 1, "limits": {"connections": 4}, "timeouts": {"keep_alive": "60s"}})
    clients = [Client(proxy.port) for _ in range(4)]
    for client in clients:
        assert client.ask(get()).status == 200
    assert clients[0].ask(get()).status == 200  # so that the second is idle longest
    with Client(proxy.port) as newcomer:
        assert newcomer.ask(get()).status == 200
        assert clients[1].ends() == b""
        assert all(client.ask(get()).status == 200 for client in clients[:1] + clients[2:])
    assert closed(proxy) == 1
    for client in clients:
        client.sock.close()


def test_clients_in_the_middle_of_something_stay(configured):
    gate = threading.Event()

    def answer(reader, request):
        if "ws" in request.target:
            return switching()
        gate.wait(20)
        return OK

    proxy, _ = configured({"threads": 1, "limits": {"connections": 2}}, answer)
    with Client(proxy.port) as tunnel, Client(proxy.port) as poll:
        assert tunnel.ask(UPGRADE).status == 101
        poll.send(get())
        wait_until(lambda: proxy.metrics().get("sidrail_proxy_clients_open") == 2, "both are there")
        with Client(proxy.port) as newcomer:
            assert newcomer.send_as_far_as_it_goes(get()).ends() == b""
        gate.set()
        assert poll.response().status == 200
        assert tunnel.is_silent()
    assert closed(proxy) == 0


def test_idle_clients_of_other_threads_make_room_too(configured):
    proxy, _ = configured({"threads": 4, "limits": {"connections": 8}, "timeouts": {"keep_alive": "60s"}})
    clients = [Client(proxy.port) for _ in range(8)]
    assert all(client.ask(get()).status == 200 for client in clients)

    def is_served():
        with Client(proxy.port) as newcomer:
            return newcomer.ask(get()).status == 200

    for _ in range(8):
        wait_until(is_served, "a newcomer is served")
    for client in clients:
        client.sock.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_idle_endpoint_connections_make_room_for_upgrades(configured, threads):
    count = 30
    together = threading.Barrier(count)

    def answer(_reader, request):
        if "ws" in request.target:
            return switching()
        together.wait(20)
        return OK

    proxy, _ = configured({"threads": threads, "timeouts": {"endpoint_keep_alive": "60s"}}, answer)
    before = descriptors(proxy)
    clients = [Client(proxy.port) for _ in range(count)]
    for client in clients:
        client.send(get())
    assert all(client.response().status == 200 for client in clients)
    for client in clients:
        client.sock.close()
    wait_until(lambda: descriptors(proxy) <= before + count + 2, "only connections to the endpoint are left")
    _, hard = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (before + 2 * count + 5, hard))
    tunnels = [Client(proxy.port) for _ in range(count)]
    assert [tunnel.ask(UPGRADE).status for tunnel in tunnels] == [101] * count
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (hard, hard))
    for tunnel in tunnels:
        tunnel.sock.close()

"""A pod whose subscriber's connection ends gets what it has not acknowledged on its next one: once, in order."""
import json
import shutil
import socket
import subprocess
import time

import pytest
from daemons import figure, free_port, wait_until
from named_pods import Listener, Pod, emit_all, in_own_network, number_of, parked
from resp_client import Raw, command, emit


def publish(port, count, pause, shut_down, every):
    """`count` messages; each `every` seconds the listener's connection ends."""
    due = time.monotonic() + every
    with Raw(port) as raw:
        for number in range(count):
            assert isinstance(raw.call("PUBLISH", "flask-socketio", emit("r", number)), int)
            if time.monotonic() > due:
                shut_down()
                due += every
            time.sleep(pause)


@pytest.mark.parametrize("shards", [0, 2])
def test_a_pod_whose_connection_is_shut_down_misses_nothing_and_sees_nothing_twice(redis_server, broker, shards):
    b = broker(redis_server(shards) if shards else [])
    if shards:
        wait_until(lambda: b.status()["shards_up"] == shards, "shards are up")
    listener = Listener(f"redis://127.0.0.1:{b.port}?client_name=pod-1")
    check_shut_down_pod(b, listener, figure(8, 60))


def test_a_pod_on_a_unix_socket_is_known_by_its_process(broker, tmp_path):
    path = tmp_path / "broker.sock"
    port = free_port()
    b = broker(config={"listeners": [{"address": f"127.0.0.1:{port}"}, {"address": f"unix:{path}"}]})
    b.port = port
    check_shut_down_pod(b, Listener(f"unix://{path}"), figure(5, 60))


def check_shut_down_pod(b, listener, seconds):
    wait_until(lambda: b.status()["subscribers"] == 1, "it is subscribed")
    count = 500 * seconds
    publish(b.port, count, 0.0016, listener.shut_down, 2)
    wait_until(lambda: len(listener.received) >= count, "everything is there", 10)
    time.sleep(0.3)
    assert listener.received == list(range(count))
    assert listener.reconnects >= seconds // 2 - 1
    assert b.metrics().get("sidrail_broker_messages_replayed_total") > 0
    assert b.metrics().get("sidrail_broker_parked_subscribers") == 0
    listener.close()


def test_what_came_while_a_named_pod_was_away_is_there_on_its_return(broker):
    b = broker()
    pod = Pod(b.port)
    emit_all(b.port, 0, 5)
    assert pod.read(5) == list(range(5))
    pod.raw.close()
    wait_until(lambda: parked(b) == 1, "it is waited for")
    emit_all(b.port, 5, 500)
    again = Pod(b.port)
    emit_all(b.port, 500, 510)
    assert again.read(505) == list(range(5, 510))
    assert parked(b) == 0


def test_a_pod_without_a_name_is_not_waited_for(broker):
    b = broker()
    pod = Pod(b.port, name=None)
    pod.raw.close()
    wait_until(lambda: b.status()["clients_open"] == 0, "it is gone")
    assert parked(b) == 0


def test_another_name_gets_nothing_of_it(broker):
    b = broker()
    pod = Pod(b.port, "one")
    pod.raw.close()
    wait_until(lambda: parked(b) == 1, "it is waited for")
    emit_all(b.port, 0, 5)
    other = Pod(b.port, "two")
    emit_all(b.port, 5, 6)
    assert other.read(1) == [5]
    assert Pod(b.port, "one").read(6) == list(range(6))


def test_who_stays_away_is_given_up(broker):
    b = broker(config={"replay": {"window": "1s"}})
    pod = Pod(b.port)
    pod.raw.close()
    wait_until(lambda: parked(b) == 1, "it is waited for")
    emit_all(b.port, 0, 5)
    wait_until(lambda: parked(b) == 0, "it is given up", 5)
    assert b.metrics().get("sidrail_broker_replays_expired_total") == 1
    assert b.metrics().get("sidrail_broker_messages_lost_total", reason="ring") == 5
    again = Pod(b.port)
    emit_all(b.port, 5, 6)
    assert again.read(1) == [5]


def test_what_waits_is_bounded(broker):
    b = broker(config={"replay": {"bytes": "64KiB"}})
    pod = Pod(b.port)
    pod.raw.close()
    wait_until(lambda: parked(b) == 1, "it is waited for")
    emit_all(b.port, 0, 1000)
    wait_until(lambda: parked(b) == 0, "it is given up", 5)
    assert b.metrics().get("sidrail_broker_replays_expired_total") == 1


def test_a_pod_that_closes_with_much_on_its_way_gets_the_rest(broker):
    b = broker()
    pod = Pod(b.port, receive_buffer=65536)
    payload = "x" * 100_000
    with Raw(b.port) as raw:
        for number in range(100):
            raw.send(command("PUBLISH", "flask-socketio", emit(number, payload)))
        for _ in range(100):
            raw.read()
    pod.raw.close()  # unread bytes: the kernel resets the connection
    wait_until(lambda: parked(b) == 1, "it is waited for")
    again = Pod(b.port)
    with Raw(b.port) as raw:
        raw.call("PUBLISH", "flask-socketio", emit(100, ""))
    numbers = []
    while not numbers or numbers[-1] != 100:
        numbers.append(json.loads(again.raw.read()[2])["room"])
    # what the pod's kernel held unread is lost with it; the rest is whole and in order
    assert len(numbers) > 5 and numbers == list(range(numbers[0], 101))


def test_what_a_dead_pod_had_not_read_comes_again_with_overlap(broker):
    b = broker(config={"replay": {"tail": "overlap"}})
    pod = Pod(b.port)
    emit_all(b.port, 0, 20)
    time.sleep(1.5)
    emit_all(b.port, 20, 60)
    assert pod.read(25) == list(range(25))
    time.sleep(0.3)
    pod.raw.close()  # 35 are in its kernel, unread
    wait_until(lambda: parked(b) == 1, "it is waited for")
    again = Pod(b.port)
    emit_all(b.port, 60, 61)
    numbers = again.read(41)
    # nothing is lost, and doubled is what came within the last second
    assert numbers == list(range(20, 61))


def test_with_overlap_a_pod_that_had_read_all_for_a_second_sees_nothing_twice(broker):
    b = broker(config={"replay": {"tail": "overlap"}})
    pod = Pod(b.port)
    emit_all(b.port, 0, 20)
    assert pod.read(20) == list(range(20))
    time.sleep(1.5)
    pod.raw.close()
    wait_until(lambda: parked(b) == 1, "it is waited for")
    again = Pod(b.port)
    emit_all(b.port, 20, 21)
    assert again.read(1) == [20]


def own_address():
    """An address of this machine that is not loopback, or None. (A datagram socket's connect sends nothing.)"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        host = probe.getsockname()[0]
    return None if host.startswith("127.") else host


@pytest.fixture
def reached_from_outside(broker):
    host = own_address()
    if host is None:
        pytest.skip("this machine has no address but loopback")
    port = free_port()
    b = broker(config={"listeners": [{"address": f"0.0.0.0:{port}"}]})
    b.port = port
    return b, host


def test_a_pod_without_a_name_is_known_by_its_address(reached_from_outside):
    b, host = reached_from_outside
    pod = Pod(b.port, name=None, host=host)
    publishing = Raw(b.port, host=host)  # a pod has more connections than one
    assert publishing.call("PUBLISH", "flask-socketio", emit("r", -1)) == 1
    assert pod.read(1) == [-1]
    pod.raw.close()
    wait_until(lambda: parked(b) == 1, "it is waited for")
    emit_all(b.port, 0, 5)
    assert Pod(b.port, name=None, host=host).read(5) == list(range(5))
    publishing.close()


def test_two_pods_behind_one_address_are_not_mistaken_for_each_other(reached_from_outside):
    b, host = reached_from_outside
    pods = [Pod(b.port, name=None, host=host) for _ in range(2)]
    for pod in pods:
        pod.raw.close()
    wait_until(lambda: b.status()["clients_open"] == 0, "they are gone")
    assert parked(b) == 0


@pytest.mark.skipif(shutil.which("ip") is None, reason="ip is not there")
def test_a_pod_whose_path_was_cut_gets_what_was_sent_into_the_void(servers):
    """The address of a pod goes: nothing comes from it any more, not even a reset. It returns from another one."""
    def work():
        for address in ("10.99.0.7", "10.99.0.8"):
            subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
        port = free_port()
        b = servers.broker(config={"listeners": [{"address": f"0.0.0.0:{port}"}]})
        pod = Pod(port, source="10.99.0.7")
        emit_all(port, 0, 5)
        assert pod.read(5) == list(range(5))
        subprocess.run(["ip", "addr", "del", "10.99.0.7/32", "dev", "lo"], check=True)
        emit_all(port, 5, 10)
        time.sleep(0.4)  # no pod notices it sooner
        again = Pod(port, source="10.99.0.8")
        emit_all(port, 10, 12)
        assert again.read(7) == list(range(5, 12))
        assert b.metrics().get("sidrail_broker_clients_closed_total", reason="broken") == 1
        b.stop()

    in_own_network(work)

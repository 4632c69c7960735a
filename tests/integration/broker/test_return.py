"""Pods that return in odd ways: killed from afar, over a cut path at once, after a reload, as one of several of a name."""
import contextlib
import shutil
import subprocess
import time

import pytest
import yaml
from daemons import free_port, wait_until
from named_pods import Pod, emit_all, in_own_network, parked
from resp_client import Raw


def client_id(port, name):
    with Raw(port) as raw:
        for line in raw.call("CLIENT", "LIST").decode().splitlines():
            if f" name={name} " in line:
                return line.split()[0].removeprefix("id=")
    raise AssertionError(f"{name} is not connected")


def test_a_pod_that_is_killed_from_afar_misses_nothing(broker):
    b = broker()
    pod = Pod(b.port)
    emit_all(b.port, 0, 5)
    with Raw(b.port) as raw:
        assert raw.call("CLIENT", "KILL", "ID", client_id(b.port, "pod")) == 1
    emit_all(b.port, 5, 10)
    assert pod.read(5) == list(range(5))  # what was under way
    with pytest.raises(EOFError):
        pod.raw.read()
    pod.raw.close()
    assert Pod(b.port).read(5) == list(range(5, 10))
    assert b.metrics().get("sidrail_broker_clients_closed_total", reason="killed") == 1


def test_a_pod_whose_user_was_read_again_misses_nothing(broker, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("one\n")
    port = free_port()
    users = [{"name": "pods", "password_file": str(secret)}]
    b = broker(config={"listeners": [{"address": f"127.0.0.1:{port}", "users": users}]})

    def log_in(*more):
        raw = Raw(port, timeout=5)
        assert raw.call("AUTH", "pods", "one") == "OK"
        for words in more:
            raw.call(*words)
        return raw

    pod = log_in(("CLIENT", "SETNAME", "pod"), ("SUBSCRIBE", "flask-socketio"))
    secret.write_text("one\ntwo\n")
    b.config["log"]["level"] = "info"
    b.config_path.write_text(yaml.safe_dump(b.config))
    b.wait_log("info main reloaded")
    pod.close()
    wait_until(lambda: parked(b) == 1, "it is waited for")
    publisher = log_in()
    assert publisher.call("PUBLISH", "flask-socketio", "while it was away") == 0
    again = log_in(("CLIENT", "SETNAME", "pod"), ("SUBSCRIBE", "flask-socketio"))
    assert again.read()[2] == b"while it was away"


@contextlib.contextmanager
def addresses(*all_of_them):
    for address in all_of_them:
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    yield lambda address: subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)


needs_ip = pytest.mark.skipif(shutil.which("ip") is None, reason="ip is not there")


@needs_ip
@pytest.mark.parametrize("is_busy", [False, True])
def test_a_pod_that_is_back_at_once_over_another_path_misses_nothing_and_sees_nothing_twice(servers, is_busy):
    """Nothing that was sent is unanswered yet when it subscribes: only asking tells that the old path is cut."""
    def work():
        with addresses("10.99.0.7", "10.99.0.8", "10.99.0.9") as cut:
            port = free_port()
            b = servers.broker(config={"listeners": [{"address": f"0.0.0.0:{port}"}]})
            pod = Pod(port, source="10.99.0.7")
            emit_all(port, 0, 5)
            assert pod.read(5) == list(range(5))
            time.sleep(0.3)
            cut("10.99.0.7")
            end = 10 if is_busy else 5
            emit_all(port, 5, end)
            again = Pod(port, source="10.99.0.8")
            emit_all(port, end, 12)
            assert again.read(7) == list(range(5, 12))
            assert b.status()["subscribers"] == 1
            again.raw.close()
            wait_until(lambda: parked(b) == 1, "it is waited for")
            emit_all(port, 12, 15)
            assert Pod(port, source="10.99.0.9").read(3) == [12, 13, 14]
            assert parked(b) == 0
            b.stop()

    in_own_network(work)


@needs_ip
def test_a_pod_that_is_cut_off_is_noticed_though_it_does_not_return(servers):
    def work():
        with addresses("10.99.0.7", "10.99.0.8") as cut:
            port = free_port()
            b = servers.broker(config={"listeners": [{"address": f"0.0.0.0:{port}"}], "heartbeat": "1s"})
            Pod(port, source="10.99.0.7")
            cut("10.99.0.7")
            wait_until(lambda: parked(b) == 1, "it is noticed", 15)
            emit_all(port, 0, 5)
            assert Pod(port, source="10.99.0.8").read(5) == list(range(5))
            # heartbeats that went into the void are no messages
            assert b.metrics().get("sidrail_broker_messages_replayed_total") == 5
            b.stop()

    in_own_network(work)


@needs_ip
def test_of_several_pods_of_one_name_each_gets_what_it_missed_itself(servers):
    def work():
        with addresses("10.99.0.7", "10.99.0.8"):
            port = free_port()
            b = servers.broker(config={"listeners": [{"address": f"0.0.0.0:{port}"}]})
            sources = ("10.99.0.7", "10.99.0.8")
            pods = [Pod(port, source=source) for source in sources]
            pods[0].raw.close()
            wait_until(lambda: parked(b) == 1, "the one is waited for")
            emit_all(port, 0, 5)
            assert pods[1].read(5) == list(range(5))
            pods[1].raw.close()
            wait_until(lambda: parked(b) == 2, "so is the other")
            emit_all(port, 5, 10)
            assert Pod(port, source=sources[1]).read(5) == list(range(5, 10))
            assert Pod(port, source=sources[0]).read(10) == list(range(10))
            b.stop()

    in_own_network(work)


def test_a_pod_beside_another_of_its_name_does_not_wait_long_for_it(broker):
    """The other one is asked whether it is there, and is."""
    b = broker()
    pods = [Pod(b.port) for _ in range(4)]
    assert b.log().count("several subscribers have one name and address") == 1
    assert b.status()["subscribers"] == 4
    emit_all(b.port, 0, 3)
    for pod in pods:
        assert pod.read(3) == list(range(3))
    assert b.metrics().get("sidrail_broker_clients_closed_total", reason="broken") == 0

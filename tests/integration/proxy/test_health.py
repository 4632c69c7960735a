"""Health checks: an endpoint that fails is degraded, never gone; its sessions stay, handshakes avoid it."""
import pytest
from daemons import wait_until
from discovery_tools import Pod, handshake, poll, sessions_on, wait_for_states

QUICK = {"interval": "100ms", "timeout": "500ms", "rise": 2, "fall": 3}


@pytest.fixture
def pods():
    made = [Pod(f"pod-{i}") for i in range(3)]
    yield made
    for pod in made:
        pod.close()


def upstream(pods, check, **more):
    rows = [{"address": pod.address, "id": pod.name} for pod in pods]
    return {"upstreams": [{"name": "chat", "discovery": {"static": rows}, "health_check": check, **more}]}


def test_one_that_fails_is_degraded_and_comes_back(proxy, pods):
    """NotReady for a while and back: no session is lost, and no new one lands there meanwhile."""
    daemon = proxy([], config=upstream(pods, {"type": "http", "path": "/health?deep=1", **QUICK}))
    held = sessions_on(daemon.port, pods)
    assert wait_until(lambda: all(pod.probes > 2 for pod in pods), "all are probed")
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready", "pod-2": "ready"})
    pods[0].health = b"503 Service Unavailable"
    wait_for_states(daemon, {"pod-0": "degraded", "pod-1": "ready", "pod-2": "ready"})
    before = pods[0].handshakes
    for _ in range(40):
        handshake(daemon.port)
    assert pods[0].handshakes == before, "handshakes avoid it"
    for name, sids in held.items():
        assert [poll(daemon.port, sid) for sid in sids] == [(200, name)] * len(sids), "sessions stay"
    pods[0].health = b"204 No Content"
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready", "pod-2": "ready"})
    sessions_on(daemon.port, pods)
    assert all(pod.strangers == 0 for pod in pods)
    log = daemon.log()
    assert 'state="ready -> degraded"' in log and 'state="degraded -> ready"' in log
    assert daemon.metrics().get("sidrail_proxy_health_probes_total", result="failed") >= 3


def test_fewer_failures_than_fall_change_nothing(proxy, pods):
    daemon = proxy([], config=upstream(pods[:1], {"type": "http", "path": "/health", **QUICK, "fall": 100}))
    pods[0].health = b"500 Oh"
    wait_until(lambda: pods[0].probes > 5, "it has failed some")
    wait_for_states(daemon, {"pod-0": "ready"})


def test_when_all_fail_all_are_still_used(proxy, pods):
    daemon = proxy([], config=upstream(pods, {"type": "http", "path": "/health", **QUICK}))
    for pod in pods:
        pod.health = b"503 Service Unavailable"
    wait_for_states(daemon, {"pod-0": "degraded", "pod-1": "degraded", "pod-2": "degraded"})
    held = sessions_on(daemon.port, pods)
    assert [poll(daemon.port, sid)[0] for sid in held["pod-0"]] == [200] * len(held["pod-0"])


def test_tcp_checks_find_one_that_is_down_and_up_again(proxy, pods):
    daemon = proxy([], config=upstream(pods[:2], {"type": "tcp", **QUICK}))
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready"})
    port = pods[0].port
    pods[0].close()
    wait_for_states(daemon, {"pod-0": "degraded", "pod-1": "ready"})
    again = Pod("pod-0", port)
    try:
        wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready"})
        assert again.handshakes == 0, "a probe found it, not a client"
        sessions_on(daemon.port, [again, pods[1]])
    finally:
        again.close()


def test_one_that_accepts_and_says_nothing_fails_http_checks_and_passes_tcp_ones(proxy):
    from fakes import Endpoint

    def silent(wire):
        while wire.fill():
            pass
    with Endpoint(silent) as one:
        rows = {"discovery": {"static": [one.address]}}
        check = {**QUICK, "timeout": "100ms"}
        http = proxy([], config={"upstreams": [{"name": "chat", **rows, "health_check": {"type": "http", **check}}]})
        tcp = proxy([], config={"upstreams": [{"name": "chat", **rows, "health_check": {"type": "tcp", **check}}]})
        wait_for_states(http, {one.address: "degraded"})
        wait_until(lambda: tcp.metrics().get("sidrail_proxy_health_probes_total", result="passed") > 3, "it passes")
        wait_for_states(tcp, {one.address: "ready"})


def test_unix_endpoints_are_checked_too(proxy, tmp_path):
    import socket
    import threading
    path = tmp_path / "app.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)
    answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                if b"GET /health HTTP/1.1\r\n" in sock.recv(4096):
                    sock.sendall(answer[0])
    threading.Thread(target=serve, daemon=True).start()
    where = f"unix:{path}"
    daemon = proxy([], config={"upstreams": [{"name": "chat", "discovery": {"static": [where]},
                                              "health_check": {"type": "http", "path": "/health", **QUICK}}]})
    wait_until(lambda: daemon.metrics().get("sidrail_proxy_health_probes_total", result="passed") > 3, "it passes")
    answer[0] = b"SSH-2.0-OpenSSH_9.2\r\n"
    wait_for_states(daemon, {where: "degraded"})
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_suspect_endpoint_is_cleared_by_a_probe_before_clients_try_it(proxy, pods):
    """Clients cannot connect; no handshake is its probe while checks are on."""
    daemon = proxy([], config=upstream(pods[:2], {"type": "tcp", **QUICK, "fall": 100}))
    port = pods[0].port
    pods[0].close()
    for _ in range(30):
        handshake(daemon.port)
    suspects = {row["id"]: row["suspect"] for row in daemon.status()["endpoints"]}
    assert suspects["pod-0"] is True
    again = Pod("pod-0", port)
    try:
        wait_until(lambda: not any(row["suspect"] for row in daemon.status()["endpoints"]), "the suspicion ends", 3)
        assert again.handshakes == 0
        sessions_on(daemon.port, [again, pods[1]])
    finally:
        again.close()

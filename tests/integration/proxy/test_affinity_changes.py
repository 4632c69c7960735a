"""Sessions while pods come and go under load: acceptance tests 2 and 4 of affinity.

    2   3 pods ─▶ 6 ─▶ 3: scaling up moves nobody, scaling down loses the sessions of removed pods only
    4   a pod that is not ready for a while keeps its sessions and gets no new one

Test 3 (a replica that learns late) and 10 (a recycled address) are in test_discovery_file.py and test_discovery_k8s.py, 5
and 6 (drain and death) in test_drain.py.
"""
import contextlib
import json
import socket
import threading
import time

import pytest
from daemons import figure, free_port, wait_until
from discovery_tools import Pod, handshake, poll, states, wait_for_states
from k8s_api import Api, endpoint, slice_of


@pytest.fixture
def api():
    server = Api(free_port())
    yield server
    server.close()


@pytest.fixture
def pods():
    port = free_port()
    made = [Pod(f"u-{i}", port, f"127.0.5.{i + 1}") for i in range(6)]
    yield made
    for pod in made:
        pod.close()


def show(api, pods, **conditions):
    """Lists these pods; conditions: {name: {ready, serving, terminating}} of those that are not simply ready."""
    api.put(slice_of("chat-1", [endpoint(pod.name, pod.host_ip, **conditions.get(pod.name.replace("-", "_"), {}))
                                for pod in pods], [("http", pods[0].port)]))


def start(proxy, api):
    chosen = {"namespace": "prod", "service": "chat", "ports": ["http"], "api_server": api.url, "token_file": ""}
    return proxy([], config={"upstreams": [{"name": "chat", "discovery": {"kubernetes": chosen}, "place_after": "0s"}]})


def end(pod):
    """As a process ends: a close alone leaves a socket open that a thread reads from."""
    for wire in pod.connections:
        with contextlib.suppress(OSError):
            wire.sock.shutdown(socket.SHUT_RDWR)
    pod.close()


class Load:
    """Threads that open sessions, poll those they have, and drop the oldest by and by, until told to stop."""

    def __init__(self, daemon, pods, threads=3):
        self.daemon = daemon
        self.pods = {pod.name: pod for pod in pods}
        self.homes = {}     # sid: name of the pod that opened it
        self.lost = {}      # sid: the name of its pod; it was told that it is unknown
        self.troubles = []
        self.ending = set() # names of pods that may end while they answer a poll
        self.opened = self.polled = 0
        self.is_over = False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, number):
        mine, turn = [], 0
        try:
            while not self.is_over:
                turn += 1
                if turn % 8 == 0 and mine:
                    mine.pop(0)
                if len(mine) < 40:
                    mine.append(self._open())
                sid = mine[turn % len(mine)]
                if not self._poll(sid):
                    mine.remove(sid)
        except Exception as error:
            self.troubles.append(f"thread {number}: {error!r}")

    def _open(self):
        sid = handshake(self.daemon.port)
        bare = sid.rsplit(".", 1)[0]
        with self.lock:
            self.opened += 1
            self.homes[sid] = next(name for name, pod in self.pods.items() if bare in pod.sids)
        return sid

    def _poll(self, sid):
        status, said = poll(self.daemon.port, sid)
        with self.lock:
            self.polled += 1
            if status == 200:
                if said != self.homes[sid]:
                    self.troubles.append(f"a session of {self.homes[sid]} was at {said}")
                return True
            was_cut = status == 502 and self.homes[sid] in self.ending
            if not was_cut and (status != 400 or json.loads(said)["code"] != 1):
                self.troubles.append(f"a poll was answered {status} {said}")
            self.lost[sid] = self.homes[sid]
            return False

    def go_on(self, polls):
        """Waits for so many more polls."""
        wanted = self.polled + polls
        wait_until(lambda: self.polled >= wanted or self.troubles, f"{polls} more polls", 60)
        assert not self.troubles, self.troubles[:5]

    def end(self):
        self.is_over = True
        for thread in self.threads:
            thread.join(30)
        assert not self.troubles, self.troubles[:5]


def test_scaling_up_moves_no_session_and_scaling_down_loses_those_of_removed_pods_only(proxy, api, pods):
    polls = figure(400, 8000)
    show(api, pods[:3])
    daemon = start(proxy, api)
    load = Load(daemon, pods)
    load.go_on(polls)
    show(api, pods)
    wait_for_states(daemon, {pod.name: "ready" for pod in pods})
    load.go_on(polls)
    assert not load.lost, "scaling up loses nothing"
    wait_until(lambda: all(pod.handshakes for pod in pods), "the new ones have their share")

    terminating = {"ready": False, "serving": True, "terminating": True}
    show(api, pods, u_3=terminating, u_4=terminating, u_5=terminating)
    wait_for_states(daemon, {pod.name: "ready" if pod in pods[:3] else "draining" for pod in pods})
    load.go_on(100)
    assert not load.lost, "who terminates serves on"
    show(api, pods[:3])
    load.ending.update(pod.name for pod in pods[3:])
    for pod in pods[3:]:
        end(pod)
    wait_for_states(daemon, {pod.name: "ready" for pod in pods[:3]})
    load.go_on(polls)
    load.end()
    assert load.lost and set(load.lost.values()) <= {pod.name for pod in pods[3:]}
    assert all(pod.strangers == 0 for pod in pods), "no pod was asked for a session of another"
    assert daemon.metrics().get("sidrail_proxy_upstream_session_unknown_total") == 0


def test_a_pod_that_is_not_ready_for_a_while_keeps_its_sessions_and_gets_no_new_one(proxy, api, pods):
    show(api, pods[:3])
    daemon = start(proxy, api)
    load = Load(daemon, pods[:3])
    load.go_on(150)
    show(api, pods[:3], u_0={"ready": False, "serving": False})
    wait_for_states(daemon, {"u-0": "degraded", "u-1": "ready", "u-2": "ready"})
    before, until = pods[0].handshakes, time.monotonic() + figure(2, 10)
    while time.monotonic() < until:
        handshake(daemon.port)
        load.go_on(20)
    assert pods[0].handshakes == before
    show(api, pods[:3])
    wait_for_states(daemon, {"u-0": "ready", "u-1": "ready", "u-2": "ready"})
    load.go_on(150)
    load.end()
    assert not load.lost and all(pod.strangers == 0 for pod in pods)
    assert states(daemon)["u-0"] == "ready"
    assert handshake(daemon.port)

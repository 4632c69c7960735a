"""A draining endpoint loses its WebSockets little by little, each with a 1012 between two frames; polls go on. One that dies
loses them at once, but its clients do not come back at once. (Acceptance tests 5 and 6 of affinity.)
"""
import json
import os
import socket
import subprocess
import time

import pytest
from daemons import BUILD, PATIENCE, figure, wait_until
from discovery_tools import handshake, poll, sessions_on, states, wait_for_states
from fakes import Client, frame
from riders import CLOSE, WEBSOCKET, MortalPod, Pod, Rider, bursts, require_spread, ride


@pytest.fixture
def path(tmp_path):
    return tmp_path / "endpoints.json"


def write(path, pods, draining=()):
    new = path.with_suffix(".new")
    new.write_text(json.dumps([{"address": pod.address, "id": pod.name,
                                "state": "draining" if pod.name in draining else "ready"} for pod in pods]))
    os.rename(new, path)


def upstream(path, **more):
    return {"upstreams": [{"name": "chat", "discovery": {"file": str(path)}, "place_after": "0s", **more}]}


def closes(daemon, how):
    return daemon.metrics().get("sidrail_proxy_drain_closes_total", how=how)


def test_websockets_of_a_draining_endpoint_leave_evenly_and_find_another(proxy, pods, riders, path):
    window = 5 * PATIENCE
    write(path, pods)
    daemon = proxy([], config=upstream(path, drain={"delay": "500ms", "window": f"{window}s"}))
    leaving = ride(riders, daemon, pods, figure(100, 1000))
    staying = [r for r in riders if r not in leaving]
    held = sessions_on(daemon.port, pods, 2)[pods[0].name]
    handshakes = pods[0].handshakes

    began = time.monotonic()
    write(path, pods, draining=["pod-0"])
    wait_for_states(daemon, {"pod-0": "draining", "pod-1": "ready", "pod-2": "ready"})
    wait_until(lambda: all(r.closed for r in leaving), "all have left", window + 10)
    wait_until(lambda: all(len(r.pods) == 2 or r.trouble for r in leaving), "all are back")

    assert not [r.trouble for r in riders if r.trouble]
    assert {code for r in leaving for _, code in r.closed} == {1012}
    require_spread([r.closed[0][0] - began - 0.5 for r in leaving], window)
    assert min(r.closed[0][0] for r in leaving) - began > 0.5, "not before the delay is over"
    assert all(r.pods[1] != "pod-0" for r in leaving)
    assert not any(r.closed for r in staying)
    assert pods[0].handshakes == handshakes, "no handshake on it while another is ready"
    wait_until(lambda: len(pods[0].closes) == len(leaving), "the endpoint is told")
    assert set(pods[0].closes) == {(1001, True)}
    assert [poll(daemon.port, sid) for sid in held] == [(200, "pod-0")] * len(held), "polls go on"
    assert all(pod.strangers == 0 for pod in pods)
    assert closes(daemon, "told") == len(leaving) and closes(daemon, "cut") == 0
    assert daemon.metrics().get("sidrail_proxy_clients_closed_total", reason="drained") == len(leaving)


def upgraded(riders, daemon, sids):
    made = [Rider(daemon.port, WEBSOCKET + b"&sid=" + sid.encode(), comes_back=False) for sid in sids]
    riders += made
    wait_until(lambda: all(r.pods or r.trouble for r in made), "they are connected")
    assert not [r.trouble for r in made if r.trouble] and {r.pods[0] for r in made} == {"pod-0"}
    return made


def test_sessions_that_upgrade_on_a_draining_endpoint_leave_with_the_others(proxy, pods, riders, path):
    """Its pod ends after the window; late comers must be gone by then."""
    write(path, pods[:2])
    daemon = proxy([], config=upstream(path, drain={"delay": "500ms", "window": "4s"}, herd_spread="500ms"))
    sids = sessions_on(daemon.port, pods[:2], 8)["pod-0"]
    began = time.monotonic()
    write(path, pods[:2], draining=["pod-0"])
    wait_for_states(daemon, {"pod-0": "draining", "pod-1": "ready"})
    time.sleep(1.5)
    late = upgraded(riders, daemon, sids[:8])
    wait_until(lambda: all(r.closed for r in late), "they have left")
    moments = [r.closed[0][0] - began for r in late]
    assert {r.closed[0][1] for r in late} == {1012}
    assert max(moments) < 4.5 + 2 * PATIENCE and max(moments) - min(moments) > 1


def test_sessions_have_time_on_a_draining_endpoint_when_there_is_no_other(proxy, pods, riders, path):
    """They would come back to it at once, again and again. Drained by an operator, whom no endpoint elsewhere stops."""
    write(path, pods[:1])
    daemon = proxy([], config=upstream(path, drain={"delay": "1s", "window": "100ms"}, herd_spread="0s"))
    sids = sessions_on(daemon.port, pods[:1], 1)["pod-0"]
    assert ctl(daemon, "drain", "pod-0")[0] == 0
    wait_for_states(daemon, {"pod-0": "draining"})
    time.sleep(1.5)
    began = time.monotonic()
    late = upgraded(riders, daemon, sids[:1])
    wait_until(lambda: all(r.closed for r in late), "it has left")
    assert late[0].closed[0][1] == 1012 and late[0].closed[0][0] - began >= 1


def test_a_drain_that_is_called_off_closes_nothing_more(proxy, pods, riders, path):
    write(path, pods[:2])
    daemon = proxy([], config=upstream(path, drain={"delay": "0s", "window": "20s"}))
    leaving = ride(riders, daemon, pods[:2], 30)
    write(path, pods[:2], draining=["pod-0"])
    wait_until(lambda: sum(bool(r.closed) for r in leaving) >= 2, "some have left", 30)
    write(path, pods[:2])
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready"})
    time.sleep(0.3)
    left = sum(len(r.closed) for r in riders)
    time.sleep(3)
    assert sum(len(r.closed) for r in riders) == left, "30 over 20 s would be 4 more"
    assert not [r.trouble for r in riders if r.trouble]


@pytest.mark.parametrize("mode", ["wait", "none"])
def test_other_modes_leave_them_alone(proxy, pods, riders, path, mode):
    write(path, pods[:2])
    config = upstream(path, drain={"mode": mode, "delay": "500ms", "window": "1s"}, herd_spread="200ms")
    daemon = proxy([], config=config)
    leaving = ride(riders, daemon, pods[:2], 10)
    began = time.monotonic()
    write(path, pods[:2], draining=["pod-0"])
    if mode == "none":
        time.sleep(2.5)
        assert not any(r.closed for r in leaving)
        return
    wait_until(lambda: all(r.closed for r in leaving), "all have left")
    assert min(r.closed[0][0] for r in leaving) - began >= 1.5, "each had delay and window to end by itself"
    assert {code for r in leaving for _, code in r.closed} == {1012}


def test_what_the_endpoint_sent_arrives_whole_before_the_close(proxy, riders, path):
    def stream(wire):
        """Frames of all sizes, written in pieces that never end where a frame does."""
        number, pending = 0, b""
        while True:
            body = number.to_bytes(4, "big") * (1 + number * 37 % 5000)
            pending += frame(body)
            cut = len(pending) - 1 - number % 3
            wire.send(pending[:cut])
            pending = pending[cut:]
            number += 1
            time.sleep(0.002)

    pods = [Pod("pod-0", stream), Pod("pod-1")]
    write(path, pods)
    daemon = proxy([], config=upstream(path, drain={"delay": "0s", "window": "1s"}))
    leaving = ride(riders, daemon, pods, 10)
    write(path, pods, draining=["pod-0"])
    wait_until(lambda: all(len(r.pods) > 1 or r.trouble for r in leaving), "all are back", 20)
    assert not [r.trouble for r in riders if r.trouble]
    for rider in leaving:
        assert rider.closed[0][1] == 1012
        numbers = [int.from_bytes(payload[:4], "big") for payload in rider.frames if payload[:1] != b"4"]
        assert numbers == list(range(len(numbers))) and numbers
    assert closes(daemon, "told") == len(leaving)
    for pod in pods:
        pod.close()


def test_a_frame_that_does_not_end_is_waited_for_a_second(proxy, riders, path):
    def stream(wire):
        wire.send(frame(b"x" * 1000)[:500])

    pods = [Pod("pod-0", stream), Pod("pod-1")]
    write(path, pods)
    daemon = proxy([], config=upstream(path, drain={"delay": "0s", "window": "0s"}))
    leaving = ride(riders, daemon, pods, 3)
    time.sleep(0.2)
    began = time.monotonic()
    write(path, pods, draining=["pod-0"])
    wait_until(lambda: all(r.closed for r in leaving), "all have left")
    assert {code for r in leaving for _, code in r.closed} == {None}
    assert min(r.closed[0][0] for r in leaving) - began >= 1
    assert closes(daemon, "cut") == len(leaving)
    for pod in pods:
        pod.close()


@pytest.fixture
def mortal():
    pod = MortalPod("mortal")
    yield pod
    pod.close()


def test_clients_of_a_killed_endpoint_come_back_little_by_little(proxy, pods, riders, path, mortal):
    """kill -9: the kernel ends all its sockets in one moment. The survivors are not flooded."""
    spread = 3 * PATIENCE
    survivors = pods[:2]
    write(path, [mortal, *survivors])
    daemon = proxy([], config=upstream(path, herd_spread=f"{spread}s"))
    leaving = ride(riders, daemon, [mortal, *survivors], figure(100, 1000))
    began = time.monotonic()
    mortal.kill()
    wait_until(lambda: all(len(r.pods) == 2 or r.trouble for r in leaving), "all are back", spread + 30)

    assert not [r.trouble for r in riders if r.trouble]
    assert {code for r in leaving for _, code in r.closed} == {1012}
    require_spread([r.closed[0][0] - began for r in leaving], spread)
    fair = len(leaving) / len(survivors) / 5
    worst = max(bursts([moment for moment in pod.arrivals if moment > began], spread / 5) for pod in survivors)
    assert worst <= 2 * fair, f"{worst} handshakes within a fifth of the spread, {fair} would be even"
    assert not any(r.closed for r in riders if r not in leaving)
    ended = daemon.metrics().by("sidrail_proxy_clients_closed_total", "reason")
    assert ended["tunnel_endpoint_left"] + ended["tunnel_reset"] == len(leaving)
    assert closes(daemon, "told") == 0, "that is not a drain"


def test_a_client_of_a_dead_endpoint_that_sends_is_let_go_at_once(proxy, path, mortal):
    write(path, [mortal])
    daemon = proxy([], config=upstream(path, herd_spread="1h"))
    with Client(daemon.port) as sender, Client(daemon.port) as idler:
        for client in (sender, idler):
            client.upgrade()
            assert client.response()[0] == 101 and client.frame()[1] == b"4mortal"
        mortal.kill()
        time.sleep(0.5)
        assert daemon.metrics().get("sidrail_proxy_tunnels_open") == 2, "both wait for their time"
        sender.send(frame(b"x", mask=b"\x01\x02\xfe\xff"))
        assert sender.frame() == (CLOSE, b"\x03\xf4")
        wait_until(lambda: daemon.metrics().get("sidrail_proxy_tunnels_open") == 1, "the other one waits on")
        idler.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: daemon.metrics().get("sidrail_proxy_tunnels_open") == 0, "who leaves has left")


def ctl(daemon, *words):
    """(exit status, what it said) of a ctl command."""
    done = subprocess.run([BUILD / "sidrail-proxy", "ctl", "--socket", daemon.folder / f"{daemon.name}.sock", *words],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_an_operator_drains_one_endpoint_and_takes_it_back(proxy, pods, riders, path):
    write(path, pods[:2])
    daemon = proxy([], config=upstream(path, drain={"delay": "0s", "window": "1s"}))
    leaving = ride(riders, daemon, pods[:2], 10)
    code, said = ctl(daemon, "drain", "pod-0")
    assert code == 0 and "is draining" in said
    assert states(daemon)["pod-0"] == "draining", "at once"
    assert {row["id"]: row["draining_s"] > 0 for row in daemon.status()["endpoints"]} == {"pod-0": True, "pod-1": False}
    said = ctl(daemon, "endpoints")[1]
    assert [" s  by operator" in line for line in said.splitlines() if "draining" in line] == [True], said
    assert daemon.metrics().get("sidrail_proxy_endpoints", upstream="chat", state="draining") == 1
    wait_until(lambda: all(len(r.pods) == 2 or r.trouble for r in leaving), "all are elsewhere")
    assert not [r.trouble for r in riders if r.trouble]
    assert all(r.pods[1] == "pod-1" and r.closed[0][1] == 1012 for r in leaving)

    write(path, pods)  # a snapshot that has nothing to do with it
    wait_for_states(daemon, {"pod-0": "draining", "pod-1": "ready", "pod-2": "ready"})
    assert {row["id"]: row["by_operator"] for row in daemon.status()["endpoints"]} == {
        "pod-0": True, "pod-1": False, "pod-2": False}
    before = pods[0].handshakes
    for _ in range(20):
        handshake(daemon.port)
    assert pods[0].handshakes == before
    code, said = ctl(daemon, "undrain", pods[0].address, "--json")
    assert code == 0 and [(row["id"], row["state"], row["by_operator"]) for row in json.loads(said)] == [
        ("pod-0", "ready", False)]
    sessions_on(daemon.port, pods, 2)
    assert ctl(daemon, "drain", "nobody")[0] == 1
    assert ctl(daemon, "drain", "--upstream")[0] == 1
    assert ctl(daemon, "drain", "--upstream", "nothing")[0] == 1


def test_an_operator_drains_an_upstream_and_its_members_to_come(proxy, pods, riders, path):
    write(path, pods[:2])
    daemon = proxy([], config=upstream(path, drain={"delay": "0s", "window": "1s"},
                                       affinity={"place_on_draining": "never"}))
    everyone = [Rider(daemon.port, comes_back=False) for _ in range(20)]
    riders += everyone
    wait_until(lambda: all(r.pods for r in everyone), "they are connected")
    held = sessions_on(daemon.port, pods[:2], 1)
    assert ctl(daemon, "drain", "--upstream", "chat")[0] == 0
    write(path, pods)
    wait_for_states(daemon, {"pod-0": "draining", "pod-1": "draining", "pod-2": "draining"})
    wait_until(lambda: all(r.closed for r in everyone), "all have left")
    assert {r.closed[0][1] for r in everyone} == {1012}
    with Client(daemon.port) as client:
        assert client.get(b"/socket.io/?EIO=4&transport=polling")[0] == 503
    for name, sids in held.items():
        assert poll(daemon.port, sids[0]) == (200, name)
    assert ctl(daemon, "undrain", "--upstream", "chat")[0] == 0
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready", "pod-2": "ready"})
    handshake(daemon.port)


def test_an_operator_changes_a_weight(proxy, pods, path):
    write(path, pods[:2])
    daemon = proxy([], config=upstream(path))
    held = sessions_on(daemon.port, pods[:2], 1)
    assert ctl(daemon, "weight", "pod-0", "0")[0] == 0
    before = pods[0].handshakes
    write(path, pods)
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready", "pod-2": "ready"})
    for _ in range(40):
        handshake(daemon.port)
    assert pods[0].handshakes == before and poll(daemon.port, held["pod-0"][0]) == (200, "pod-0")
    assert ctl(daemon, "weight", "pod-0", "auto")[0] == 0
    sessions_on(daemon.port, pods, 2)
    for wrong in ("-1", "1000000000", "x", ""):
        assert ctl(daemon, "weight", "pod-0", wrong)[0] != 0

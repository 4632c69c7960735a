"""Endpoints from a file that changes: they come, go, flap and drain; sessions keep theirs while it is there."""
import json
import os
import threading
import time

import pytest
from daemons import http_get, wait_until
from discovery_tools import Pod, handshake, poll, sessions_on, states, wait_for_states


@pytest.fixture
def pods():
    made = [Pod(f"pod-{i}") for i in range(4)]
    yield made
    for pod in made:
        pod.close()


def write(path, rows):
    """As an editor does it: a new file, renamed over the old one."""
    text = rows if isinstance(rows, str) else json.dumps(rows)
    new = path.with_suffix(".new")
    new.write_text(text)
    os.rename(new, path)


def row(pod, **more):
    return {"address": pod.address, "id": pod.name, **more}


def upstream(path, **more):
    return {"upstreams": [{"name": "chat", "discovery": {"file": str(path)}, **more}]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "endpoints.json"


def test_endpoints_come_and_go_and_sessions_keep_theirs(proxy, pods, path):
    write(path, [row(pods[0]), row(pods[1])])
    daemon = proxy([], config=upstream(path))
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready"})
    held = sessions_on(daemon.port, pods[:2])
    generation = daemon.status()["generation"]

    write(path, [row(pod) for pod in pods])
    wait_for_states(daemon, {pod.name: "ready" for pod in pods})
    assert daemon.status()["generation"] > generation
    for name, sids in held.items():
        assert [poll(daemon.port, sid) for sid in sids] == [(200, name)] * len(sids), "scaling up moves nobody"
    wait_until(lambda: "warming" not in states(daemon).values(), "the new ones are ready")
    held = sessions_on(daemon.port, pods)

    write(path, [row(pods[1]), row(pods[2])])
    wait_for_states(daemon, {"pod-1": "ready", "pod-2": "ready"})
    for name, sids in held.items():
        for sid in sids:
            status, body = poll(daemon.port, sid)
            if name in ("pod-1", "pod-2"):
                assert (status, body) == (200, name)
            else:
                assert status == 400 and json.loads(body)["code"] == 1, "lost, not delivered to another"
    assert all(pod.strangers == 0 for pod in pods)
    metrics = daemon.metrics()
    assert metrics.get("sidrail_proxy_endpoints", upstream="chat", state="ready") == 2
    assert metrics.get("sidrail_proxy_discovery_generation", source="file") >= 3
    assert metrics.get("sidrail_proxy_discovery_synced", source="file") == 1


def test_an_endpoint_absent_for_a_moment_never_was_gone(proxy, pods, path):
    write(path, [row(pods[0]), row(pods[1])])
    daemon = proxy([], config=upstream(path))
    held = sessions_on(daemon.port, pods[:2])
    generation = daemon.status()["generation"]
    for _ in range(4):
        lists = daemon.metrics().get("sidrail_proxy_discovery_generation")
        write(path, [row(pods[0])])
        wait_until(lambda: daemon.metrics().get("sidrail_proxy_discovery_generation") > lists, "the list is read")
        assert poll(daemon.port, held["pod-1"][0]) == (200, "pod-1")
        write(path, [row(pods[0]), row(pods[1])])
        wait_until(lambda: daemon.metrics().get("sidrail_proxy_discovery_generation") > lists + 1, "and the next")
    time.sleep(1.2)
    assert states(daemon).keys() == {"pod-0", "pod-1"}
    assert daemon.status()["generation"] == generation, "no snapshot was needed"


def test_a_draining_endpoint_keeps_its_sessions_and_gets_no_handshake(proxy, pods, path):
    write(path, [row(pods[0]), row(pods[1])])
    daemon = proxy([], config=upstream(path))
    held = sessions_on(daemon.port, pods[:2])
    write(path, [row(pods[0], state="draining"), row(pods[1])])
    wait_for_states(daemon, {"pod-0": "draining", "pod-1": "ready"})
    before = pods[0].handshakes
    for _ in range(40):
        handshake(daemon.port)
    assert pods[0].handshakes == before
    for name, sids in held.items():
        assert [poll(daemon.port, sid) for sid in sids] == [(200, name)] * len(sids)
    # back again, as a drain that was called off
    write(path, [row(pods[0]), row(pods[1])])
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready"})
    sessions_on(daemon.port, pods[:2])


def test_a_recycled_address_with_another_identity_gets_none_of_the_old_sessions(proxy, pods, path):
    write(path, [row(pods[0]), row(pods[1])])
    daemon = proxy([], config=upstream(path))
    held = sessions_on(daemon.port, pods[:2])
    write(path, [row(pods[0]), {"address": pods[1].address, "id": "new-1"}])
    wait_for_states(daemon, {"pod-0": "ready", "new-1": "ready"})
    for sid in held["pod-1"]:
        status, body = poll(daemon.port, sid)
        assert status == 400 and json.loads(body)["message"] == "Session ID unknown"
    assert pods[1].strangers == 0
    assert [poll(daemon.port, sid) for sid in held["pod-0"]] == [(200, "pod-0")] * len(held["pod-0"])


def test_a_replica_that_learns_late_holds_the_request_until_it_knows(proxy, pods, path, tmp_path, affinity_keys):
    late = tmp_path / "late.json"
    write(path, [row(pods[0]), row(pods[1])])
    write(late, [row(pods[0])])
    grace = {"affinity": {"unknown_tag_grace": "5s"}}
    first = proxy([], config=upstream(path, **grace), keys=affinity_keys)
    second = proxy([], config=upstream(late, **grace), keys=affinity_keys)
    held = sessions_on(first.port, pods[:2])
    answers = []
    threads = [threading.Thread(target=lambda sid=sid: answers.append(poll(second.port, sid)))
               for sid in held["pod-1"]]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert answers == [], "they wait"
    write(late, [row(pods[0]), row(pods[1])])
    for thread in threads:
        thread.join(20)
    assert answers == [(200, "pod-1")] * len(threads)
    assert pods[0].strangers == 0


def test_a_tag_that_nobody_lists_is_lost_after_the_grace(proxy, pods, path, tmp_path, affinity_keys):
    other = tmp_path / "other.json"
    write(path, [row(pods[1])])
    write(other, [row(pods[0])])
    first = proxy([], config=upstream(path), keys=affinity_keys)
    second = proxy([], config=upstream(other, affinity={"unknown_tag_grace": "300ms"}), keys=affinity_keys)
    sid = handshake(first.port)
    began = time.monotonic()
    status, body = poll(second.port, sid)
    assert status == 400 and json.loads(body)["code"] == 1
    assert time.monotonic() - began >= 0.2, "the grace, less the step of the clock"
    assert pods[0].strangers == 0


@pytest.mark.parametrize("text, why", [
    ('[\n  {"address": "127.0.0.1:1"},\n  oops]', "endpoints.json:3:"),
    ('[\n  {"address": "127.0.0.1:1"},\n  {"adress": "127.0.0.1:1"}]', "endpoints.json:3:3: adress is not a key"),
    ('["somewhere.test:80"]', "endpoints.json:1:2:"),
])
def test_a_bad_file_leaves_the_last_list_and_says_where(proxy, pods, path, text, why):
    write(path, [row(pods[0])])
    daemon = proxy([], config=upstream(path))
    sid = handshake(daemon.port)
    write(path, text)
    wait_until(lambda: why in daemon.status()["upstreams"][0]["discovery_trouble"], "the error is told")
    assert daemon.metrics().get("sidrail_proxy_discovery_synced") == 0
    assert why in daemon.log()
    time.sleep(1.2)
    assert poll(daemon.port, sid) == (200, "pod-0")
    path.unlink()
    wait_until(lambda: "No such file" in daemon.status()["upstreams"][0]["discovery_trouble"], "it is missed")
    assert poll(daemon.port, sid) == (200, "pod-0")
    write(path, [row(pods[0]), row(pods[1])])
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready"})
    assert daemon.metrics().get("sidrail_proxy_discovery_synced") == 1


def test_it_is_not_ready_before_the_first_list(proxy, pods, path):
    daemon = proxy([], config=upstream(path), wait=False)
    wait_until(lambda: "no endpoints of chat yet" in http_get(f"{daemon.admin}/readyz")[1], "it waits")
    write(path, [row(pods[0])])
    wait_until(daemon.is_ready, "it is ready")
    wait_until(lambda: handshake(daemon.port), "a session is opened")


def test_links_swapped_as_a_config_map_does_are_followed(proxy, pods, tmp_path):
    for version, listed in (("..1", pods[:1]), ("..2", pods[:2])):
        (tmp_path / version).mkdir()
        (tmp_path / version / "endpoints.json").write_text(json.dumps([row(pod) for pod in listed]))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "endpoints.json").symlink_to("..data/endpoints.json")
    daemon = proxy([], config=upstream(tmp_path / "endpoints.json"))
    wait_for_states(daemon, {"pod-0": "ready"})
    (tmp_path / "..data_tmp").symlink_to("..2")
    os.rename(tmp_path / "..data_tmp", tmp_path / "..data")
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready"}, seconds=4)

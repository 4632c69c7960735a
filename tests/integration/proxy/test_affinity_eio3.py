"""Old clients (socket.io-client 2, EIO=3) keep their sessions, and their id, although their sid may not be tagged.

For EIO=3 the Engine.IO sid is `socket.id` on both ends, so a tag in it would be seen by the application. One proxy
learns which endpoint a sid belongs to; two proxies, which share nothing but the key file, need the affinity cookie.
"""
import json
import os
import subprocess

import pytest
from daemons import PODS, figure, node_env
from splitter import Splitter

CLIENTS = figure(12, 120)


def lives_of_clients(url, jar):
    """Runs the clients; returns what each of them has seen."""
    done = subprocess.run(["node", str(PODS / "eio3_clients.js"), url, str(CLIENTS), jar], capture_output=True,
                          text=True, timeout=120, env={**os.environ, **{k: str(v) for k, v in node_env().items()}})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def judge(lives, pods, proxies):
    for number, life in enumerate(lives):
        assert not life["errors"], f"client {number}: {life['errors']}"
        assert life["transport"] == ("websocket" if number % 2 else "polling")
        assert life["id"] == life["answer"]["socket_id"], "socket.id differs between client and pod"
        assert life["engine"] == life["answer"]["engine_sid"], "the Engine.IO sid differs between client and pod"
    assert len({life["answer"]["pod"] for life in lives}) > 1, "all clients went to one pod"
    for pod in pods:
        assert not pod.facts()["refused"], f"{pod.name} refused requests: {pod.facts()['refused']}"
    for proxy in proxies:
        assert proxy.metrics().get("sidrail_proxy_upstream_session_unknown_total") == 0


@pytest.mark.smoke
def test_one_proxy_learns_the_sids_of_clients_without_cookies(servers):
    pods = [servers.pod("node") for _ in range(3)]
    proxy = servers.proxy(pods)
    lives = lives_of_clients(proxy.url, "no-jar")
    judge(lives, pods, [proxy])


def test_two_proxies_follow_the_cookie(servers, affinity_keys, start):
    pods = [servers.pod("node") for _ in range(3)]
    proxies = [servers.proxy(pods, keys=affinity_keys) for _ in range(2)]
    splitter = start(Splitter("splitter", servers.folder, proxies))
    lives = lives_of_clients(splitter.url, "jar")
    assert all(life.get("jar") == ["sidrail_chat"] for life in lives), "a client got no affinity cookie"
    judge(lives, pods, proxies)

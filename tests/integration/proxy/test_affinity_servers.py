"""The rules of affinity with real servers and real clients: what scripted endpoints cannot show.

    clients without cookies ──▶ splitter ──▶ proxies that differ (their keys, a restart between) ──▶ pods
"""
import collections
import itertools
import json
import re
import secrets

import pytest
from crowd import Crowd, wish, wishes
from daemons import figure
from engine_pods import POLLING, UPGRADE_FIELDS, WEBSOCKET
from http_tools import Client, get, post
from splitter import Splitter

SERVERS = {"node": ("node", {}), "Flask-SocketIO 5.6": ("flask", {}), "Flask-SocketIO 5.3": ("flask", {"environment": "sio57"})}


def unknown_total(edge):
    return edge.metrics().get("sidrail_proxy_upstream_session_unknown_total")


def key_file(folder, name, *keys):
    path = folder / f"{name}.keys"
    path.write_text("".join(f"{key_id} {key}\n" for key_id, key in keys))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_forgot_its_sessions_is_counted_in_its_own_words(servers, kind):
    name, options = SERVERS[kind]
    pod = servers.pod(name, **options)
    edge = servers.proxy([pod])
    with Client(edge.port) as client:
        answer = client.ask(get(POLLING))
        sid = json.loads(answer.body.decode()[1:])["sid"]
        assert client.ask(post(f"{POLLING}&sid={sid}", b"40")).status == 200
        assert client.ask(get(f"{POLLING}&sid={sid}")).status == 200
    assert unknown_total(edge) == 0
    pod.kill()
    pod.start()
    for number, (path, *fields) in enumerate([(f"{POLLING}&sid={sid}",), (f"{WEBSOCKET}&sid={sid}", *UPGRADE_FIELDS)], 1):
        with Client(edge.port) as client:
            answer = client.ask(get(path, *fields))
            assert answer.status == 400
            assert re.search(b"Session ID unknown|Invalid session", answer.body), answer
            if b"Invalid session " in answer.body:
                assert sid.rpartition(".")[0].encode() in answer.body and sid.encode() not in answer.body
        assert unknown_total(edge) == number
    with Client(edge.port) as client:
        assert client.ask(post(f"{POLLING}&sid={sid}", b"3")).status == 400
    assert unknown_total(edge) == 3


@pytest.mark.parametrize("kind", ["node", "flask"])
def test_clients_stay_while_replicas_rotate_their_keys(servers, start, tmp_path, kind):
    old, new = ("a", secrets.token_hex(16)), ("b", secrets.token_hex(16))
    pods = [servers.pod(kind, wait=False) for _ in range(3)]
    for pod in pods:
        pod.wait_ready()
    for step, (mine, other) in enumerate([((old,), (old, new)), ((old, new), (new, old))]):
        proxies = [servers.proxy(pods, keys=key_file(tmp_path, f"{step}{i}", *keys)) for i, keys in enumerate((mine, other))]
        splitter = start(Splitter(servers.name("splitter"), servers.folder, proxies))
        made = [w for library, transport in itertools.product(("js", "python"), ("polling", "upgrade"))
                for w in wishes(library, transport, figure(3, 20), [f"{library} {transport}"])]
        with Crowd(splitter.url, made) as crowd:
            connected = crowd.connect()
            for _ in range(3):
                crowd.echo()
            answers = crowd.call("whoami")
            assert all(answers[name]["pod"] == about["pod"] for name, about in connected.items())
            for proxy in proxies:
                assert unknown_total(proxy) == 0
                assert proxy.metrics().get("sidrail_proxy_route_refused_total") == 0
                assert proxy.metrics().get("sidrail_proxy_route_decisions_total", why="tag") > 0


def test_sessions_of_a_split_stay_with_their_member_through_two_replicas(servers, start, affinity_keys):
    """A canary of another kind than the rest: each session hears one kind of server from its begin to its end."""
    chat, canary = [servers.pod("node") for _ in range(2)], [servers.pod("flask") for _ in range(2)]
    config = {"routes": [{"host": "*", "path": "/", "split": [{"upstream": "chat", "weight": 60},
                                                             {"upstream": "canary", "weight": 40}]}]}
    proxies = [servers.proxy({"chat": chat, "canary": canary}, config=config, keys=affinity_keys) for _ in range(2)]
    splitter = start(Splitter("splitter", servers.folder, proxies))
    made = [wish(f"{library} {transport} {i}", transport, [f"{library}"], library) for i in range(figure(5, 20))
            for library in ("js", "python") for transport in ("polling", "upgrade", "websocket")]
    with Crowd(splitter.url, made) as crowd:
        connected = crowd.connect()
        crowd.echo()
        answers = crowd.call("whoami")
        assert all(answers[name]["pod"] == about["pod"] for name, about in connected.items())
        kinds = collections.Counter("canary" if "flask" in about["pod"] else "chat" for about in connected.values())
        assert min(kinds["chat"], kinds["canary"]) >= 3, kinds
        for proxy in proxies:
            assert unknown_total(proxy) == 0
            assert proxy.metrics().get("sidrail_proxy_route_refused_total") == 0

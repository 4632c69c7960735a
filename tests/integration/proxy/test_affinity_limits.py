"""Limits on silence, which the proxy learns from what endpoints announce: per upstream, from every form of a handshake."""
import threading
import time

import pytest
from crowd import Crowd, wish
from daemons import is_full, wait_until
from engine_pods import UPGRADE_FIELDS, WEBSOCKET, Browser, engine_pods, upstream
from http_tools import Client, frame, get

QUERIES = {"polling": "EIO=4&transport=polling", "EIO=3": "EIO=3&transport=polling", "JSONP": "EIO=3&transport=polling&j=3"}


def limit_of(edge, name="chat"):
    return next(about["silence_limit_s"] for about in edge.status()["upstreams"] if about["name"] == name)


@pytest.mark.parametrize("form", [*QUERIES, "WebSocket"])
def test_each_upstream_has_the_limit_of_the_longest_heartbeat_that_it_announced(servers, form):
    with engine_pods("a", intervals=(100000, 60000)) as chat, engine_pods("b", intervals=(300, 200)) as quick:
        edge = servers.proxy([], config={
            "upstreams": [upstream(chat), upstream(quick, "quick"), upstream(quick, "unseen")],
            "routes": [{"host": "quick.test", "path": "/", "upstream": "quick"}, {"host": "*", "path": "/", "upstream": "chat"}]})
        assert [limit_of(edge, name) for name in ("chat", "quick", "unseen")] == [300, 300, 300]
        for host in ("quick.test", "edge.test"):
            with Client(edge.port) as client:
                if form == "WebSocket":
                    assert client.ask(get(WEBSOCKET, *UPGRADE_FIELDS, host=host)).status == 101
                    assert client.frame()[1].startswith(b"0{")
                else:
                    assert client.ask(get(f"/socket.io/?{QUERIES[form]}", host=host)).status == 200
        assert limit_of(edge) == pytest.approx(200), "1.25 × (100 + 60)"
        assert limit_of(edge, "quick") == 60, "not less than a minute"
        assert limit_of(edge, "unseen") == 300, "nothing seen"
        # the longest counts, not the last
        chat[0].intervals = (5000, 5000)
        Browser(edge).open()
        assert limit_of(edge) == pytest.approx(200)
        # absurd announcements are bounded
        chat[0].intervals = (4000000000, 4000000000)
        Browser(edge).open()
        assert limit_of(edge) <= 2 * 3600 * 1.25


@pytest.mark.parametrize("kind, library", [("node", "js"), ("node", "python"), ("flask", "python")])
def test_sessions_that_begin_as_websockets_on_real_servers_tell_it_too(servers, kind, library):
    """Not Flask to JS: simple-websocket compresses every frame when the client offers it, and payloads stay opaque."""
    pod = servers.pod(kind, env={"POD_PING_INTERVAL": 100, "POD_PING_TIMEOUT": 100})
    edge = servers.proxy([pod])
    with Crowd(edge.url, [wish("first", "websocket", [], library)]) as crowd:
        crowd.connect()
        crowd.echo()
        wait_until(lambda: limit_of(edge) == pytest.approx(250), "the limit is learned", 5)


def silent_and_heartbeating(edge, seconds, limit):
    """A silent client is closed after `limit` s, one that answers pings is not within `seconds`."""
    with Client(edge.port, seconds=seconds + 60) as silent, Client(edge.port) as alive:
        for client in (silent, alive):
            assert client.ask(get(WEBSOCKET, *UPGRADE_FIELDS)).status == 101
            client.frame()
        began = time.monotonic()
        silent_for = None
        while time.monotonic() - began < seconds:
            alive.send(frame(b"3", 1))
            assert alive.frame()[1] == b"3"
            if silent_for is None and not silent.is_silent(0.05):
                first, payload = silent.frame()
                assert first == 0x88 and payload == b"\x03\xe9", "1001"
                silent_for = time.monotonic() - began
            time.sleep(limit / 10)
        assert silent_for is not None and limit / 2 <= silent_for <= limit * 2
        alive.send(frame(b"3", 1))
        assert alive.frame()[1] == b"3"
    assert edge.metrics().get("sidrail_proxy_clients_closed_total", reason="tunnel_idle") == 1


def test_a_client_that_is_silent_for_too_long_is_closed_and_one_that_answers_is_not(servers):
    with engine_pods("a") as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods)], "timeouts": {"tunnel_idle": "1500ms"}})
        silent_and_heartbeating(edge, 4, 1.5)


@pytest.mark.skipif(not is_full(), reason="takes more than a minute")
def test_auto_closes_after_a_minute_of_silence_when_heartbeats_are_short(servers):
    with engine_pods("a", intervals=(500, 500)) as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods)]})
        silent_and_heartbeating(edge, 75, 60)


def test_a_poll_may_hang_as_long_as_its_upstream_says(servers):
    """timeouts.poll: a poll that hangs longer is given up, and a shorter one is not touched."""
    with engine_pods("a") as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods)], "timeouts": {"poll": "1s"}})
        session = Browser(edge).open()
        pods[0].hold = hold = threading.Event()
        began = time.monotonic()
        answer = session.poll()
        assert answer.status == 504 and 0.5 <= time.monotonic() - began <= 2
        hold.set()
        assert session.is_at_home()

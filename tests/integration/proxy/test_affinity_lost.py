"""A session that names no endpoint is refused by the edge itself, in Engine.IO's words, and no endpoint hears of it."""
import json

import pytest
from daemons import wait_until
from engine_pods import LOST, POLLING, UPGRADE_FIELDS, WEBSOCKET, Browser, engine_pods, lost_count, upstream
from http_tools import Client, get, post

ORIGIN = "https://app.example:8443"
UNKNOWN = {  # by the reason that is counted
    "unknown_tag": "AAAAAAAAAAAAAAAAAAAA.kAAAAAAAAAAA",
    "no_route": "AAAAAAAAAAAAAAAAAAAA",
}


@pytest.fixture
def two(servers, tmp_path):
    keys = tmp_path / "k.keys"
    keys.write_text("k 00112233445566778899aabbccddeeff\n")
    keys.chmod(0o600)
    with engine_pods("a", "b") as pods:
        yield servers.proxy([], config={"upstreams": [upstream(pods)]}, keys=keys), pods


def require_lost(answer, origin=None):
    assert answer.status == 400
    assert answer.body.decode() == LOST
    assert answer.get("content-type") == "application/json"
    assert answer.get("content-length") == str(len(LOST))
    assert answer.get("cache-control") == "no-store"
    assert answer.get("set-cookie") is None and answer.get("x-pod") is None
    assert answer.get("access-control-allow-origin") == origin
    assert answer.get("access-control-allow-credentials") == ("true" if origin else None)
    assert answer.get("vary") == ("Origin" if origin else None)


@pytest.mark.smoke
@pytest.mark.parametrize("reason", UNKNOWN)
def test_a_lost_session_is_told_so_by_the_edge(two, reason):
    edge, pods = two
    sid = UNKNOWN[reason]
    with Client(edge.port) as client:  # one connection: the answer keeps it
        require_lost(client.ask(get(f"{POLLING}&sid={sid}")))
        require_lost(client.ask(get(f"{POLLING}&sid={sid}", f"Origin: {ORIGIN}")), ORIGIN)
        require_lost(client.ask(post(f"{POLLING}&sid={sid}", b"40", f"Origin: {ORIGIN}")), ORIGIN)
        require_lost(client.ask(get(f"{POLLING}&sid={sid}", f"Origin: {ORIGIN}", method="OPTIONS"), "OPTIONS"), ORIGIN)
        answer = client.ask(get(f"{WEBSOCKET}&sid={sid}", *UPGRADE_FIELDS, f"Origin: {ORIGIN}"))
        require_lost(answer, ORIGIN)
        assert answer.get("connection") == "close"
        assert client.ends() == b""
    assert lost_count(edge, reason) == 5
    assert edge.metrics().get("sidrail_proxy_edge_answers_total", reason="session_unknown") == 5
    assert [pod.lines for pod in pods] == [[], []], "an endpoint has heard of it"


def test_the_endpoint_that_left_the_configuration_is_gone(servers, two):
    """Another proxy has the same key and no longer that endpoint: its tag is unknown, at once, to static discovery."""
    edge, pods = two
    keys = edge.config["affinity_keys"]
    other = servers.proxy([], config={"upstreams": [upstream(pods[:1])]}, keys=keys)
    browser = Browser(edge, jar=False)
    session = next(s for s in (browser.open() for _ in range(200)) if s.pod == "b")
    require_lost(session.poll(through=other))
    assert lost_count(other, "unknown_tag") == 1
    assert session.is_at_home()


def test_an_origin_is_echoed_only_when_it_is_one(two):
    edge, _ = two
    path = f"{POLLING}&sid={UNKNOWN['no_route']}"
    for origin in ("null", "http://a", "https://[::1]:8080", "capacitor://localhost", "https://a-b.example",
                   "https://" + "a.b-" * 60 + "z"):
        with Client(edge.port) as client:
            require_lost(client.ask(get(path, f"Origin: {origin}")), origin)
    for origin in ("*", "http://", "a", "http://a/path", "http://a b", 'http://a"', "http://a, http://b", "http://a\tb",
                   "://a", "http://a<script>", "http://" + "a" * 300, "http://user@a", "http://a?q", "http://a\\b"):
        with Client(edge.port) as client:
            answer = client.ask(get(path, f"Origin: {origin}"))
            if answer.body.decode() == LOST:
                require_lost(answer)
            else:
                assert answer.status == 400 and answer.get("access-control-allow-origin") is None


def test_nothing_else_of_a_request_is_reflected(two):
    edge, _ = two
    mark = "rEfLeCtEd"
    path = f"{POLLING}&sid={mark}&t={mark}"
    with Client(edge.port) as client:
        answer = client.ask(get(path, "Origin: https://ok.example", f"Cookie: {mark}={mark}", f"X-Request-Id: {mark}",
                                f"Access-Control-Request-Headers: {mark}", f"Referer: http://{mark}/", host=f"{mark}.test"))
    require_lost(answer, "https://ok.example")
    assert mark.lower().encode() not in answer.raw.lower()


def test_other_errors_of_engine_io_paths_are_readable_across_origins_too(servers):
    """503 without an endpoint; the same answer on another path has no CORS fields."""
    with engine_pods("a") as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods, a={"state": "draining"}, options={
            "affinity": {"place_on_draining": "never"}})]})
        with Client(edge.port) as client:
            answer = client.ask(get(POLLING, f"Origin: {ORIGIN}"))
            assert answer.status == 503
            assert answer.get("retry-after") == "1"
            assert answer.get("access-control-allow-origin") == ORIGIN
            assert answer.get("access-control-allow-credentials") == "true"
            assert answer.get("vary") == "Origin"
            assert json.loads(answer.body)["code"] == 3
            assert ORIGIN.encode() not in answer.body
            answer = client.ask(get(POLLING, f"Origin: {ORIGIN}", method="DELETE"))
            assert answer.status == 405 and answer.get("access-control-allow-origin") == ORIGIN
            answer = client.ask(get("/other", f"Origin: {ORIGIN}"))
            assert answer.status == 503 and answer.get("access-control-allow-origin") is None
        with Client(edge.port) as client:
            answer = client.ask(get(WEBSOCKET, *UPGRADE_FIELDS, f"Origin: {ORIGIN}"))
            assert answer.status == 503 and answer.get("connection") == "close"
            assert client.ends() == b""
        assert lost_count(edge, "no_endpoint") == 3
        assert pods[0].lines == []


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with a length", "chunked"])
@pytest.mark.parametrize("dialect", ["node", "python"])
def test_endpoints_that_forget_a_session_are_counted(servers, dialect, is_chunked):
    """In the words of both servers; their answer reaches the client as it is."""
    with engine_pods("a", "b", dialect=dialect, is_chunked=is_chunked) as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods)]})
        session = Browser(edge, jar=False).open()
        assert session.is_at_home()
        assert edge.metrics().get("sidrail_proxy_upstream_session_unknown_total") == 0
        for pod in pods:
            pod.sids.clear()
        answers = [session.poll(), session.post()]
        for answer in answers:
            assert answer.status == 400 and answer.get("x-pod") == session.pod
            expected = LOST if dialect == "node" else f'"Invalid session {session.bare}"'
            assert answer.body.decode() == expected
        assert session.upgrade().status == 400
        wait_until(lambda: edge.metrics().get("sidrail_proxy_upstream_session_unknown_total") == 3, "three are counted")
        assert edge.metrics().get("sidrail_proxy_route_refused_total") == 0
        status = edge.status()
        assert status["upstreams"][0]["session_unknown"] == 3

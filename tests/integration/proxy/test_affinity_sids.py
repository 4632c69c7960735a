"""The sid: tagged on its way to the client, cut on its way back, learned where it cannot be tagged."""
import json
import pathlib
import random
import re
import secrets
import time
import urllib.parse

import pytest
from daemons import figure, wait_until
from engine_pods import (LOST, POLLING, TAGGED, UPGRADE_FIELDS, WEBSOCKET, Browser, engine_pods, in_threads,
                         lost_count, upstream)
from http_tools import Client, Endpoint, get, post

FIRST, SECOND = secrets.token_hex(16), secrets.token_hex(16)


def key_file(folder, name, *keys):
    path = folder / f"{name}.keys"
    path.write_text("".join(f"{key_id} {key}\n" for key_id, key in keys))
    path.chmod(0o600)
    return path


@pytest.fixture
def two(servers, tmp_path):
    with engine_pods("a", "b") as pods:
        yield servers.proxy([], config={"upstreams": [upstream(pods)]}, keys=key_file(tmp_path, "k", ("k", FIRST))), pods


def sessions_on_all(edge, pods, jar=False, **options):
    """One session on each pod, by pod name."""
    found = {}
    for _ in range(300):
        session = Browser(edge, jar=jar).open(**options)
        found.setdefault(session.pod, session)
        if len(found) == len(pods):
            return found
    raise AssertionError(f"of 300 sessions all were on {list(found)}")


# --- the query -----------------------------------------------------------------------------------------------

def targets_of(sid, bare):
    """(what the client asks, what the endpoint must see)."""
    encoded = sid.replace(".", "%2E")
    raw = "".join(f"%{ord(c):02x}" for c in sid)
    rest = raw[:3 * len(bare)]
    return [
        (f"{POLLING}&sid={sid}", f"{POLLING}&sid={bare}"),
        (f"{POLLING}&sid={sid}&t=1", f"{POLLING}&sid={bare}&t=1"),
        (f"/socket.io/?sid={sid}&EIO=4&transport=polling", f"/socket.io/?sid={bare}&EIO=4&transport=polling"),
        (f"{POLLING}&sid={encoded}", f"{POLLING}&sid={bare}"),
        (f"{POLLING}&sid={encoded.lower()}" if encoded.lower().replace("%2e", ".") == sid else f"{POLLING}&sid={sid}",
         f"{POLLING}&sid={bare}"),
        (f"{POLLING}&sid={raw}&b=%20", f"{POLLING}&sid={rest}&b=%20"),
        (f"{POLLING}&s%69d={sid}", f"{POLLING}&s%69d={bare}"),
        (f"{POLLING}&xsid=other.kAAAAAAAAAAA&sid={sid}&sidx=1", f"{POLLING}&xsid=other.kAAAAAAAAAAA&sid={bare}&sidx=1"),
        (f"{POLLING}&sid={sid}&u=http://x/?sid=y", f"{POLLING}&sid={bare}&u=http://x/?sid=y"),
        (f"{POLLING}&&sid={sid}&", f"{POLLING}&&sid={bare}&"),
        (f"{POLLING}&a={sid}&sid={sid}&b={sid}", f"{POLLING}&a={sid}&sid={bare}&b={sid}"),
        (f"/socket.io/more?EIO=4&transport=polling&sid={sid}", f"/socket.io/more?EIO=4&transport=polling&sid={bare}"),
    ]


@pytest.mark.smoke
def test_only_the_tag_is_cut_and_every_other_byte_stays_however_the_bytes_come(two):
    edge, pods = two
    for session in sessions_on_all(edge, pods).values():
        home = next(pod for pod in pods if pod.name == session.pod)
        assert TAGGED.fullmatch(session.sid), session.sid
        for asked, seen in targets_of(session.sid, session.bare):
            home.lines.clear()
            request = get(asked)
            with Client(edge.port) as client:
                assert client.ask(request).get("x-pod") == session.pod, asked
                for byte in request:  # one byte a segment
                    client.send(bytes([byte]))
                assert client.response().get("x-pod") == session.pod, asked
            assert home.lines == [f"GET {seen} HTTP/1.1"] * 2


def test_a_request_in_two_pieces_is_read_alike_wherever_it_is_split(two):
    edge, pods = two
    session = Browser(edge, jar=False).open()
    home = next(pod for pod in pods if pod.name == session.pod)
    request = post(f"{POLLING}&sid={session.sid}", b"4hello")
    home.lines.clear()
    with Client(edge.port) as client:
        for split in range(1, len(request)):
            client.send(request[:split])
            time.sleep(0.001)
            answer = client.send(request[split:]).response()
            assert answer.status == 200 and answer.get("x-pod") == session.pod, split
    assert set(home.lines) == {f"POST {POLLING}&sid={session.bare} HTTP/1.1"}
    assert {message.body for message in home.requests if message.start.startswith("POST")} == {b"4hello"}


def test_what_could_be_read_in_two_ways_reaches_nobody(two):
    edge, pods = two
    a, b = sessions_on_all(edge, pods).values()
    for pod in pods:
        pod.lines.clear()
    refused = [f"{POLLING}&sid={a.sid}&sid={b.sid}", f"{POLLING}&sid={a.sid}&sid={a.sid}", f"{POLLING}&sid={a.sid}&s%69d={b.sid}",
               f"{POLLING}&sid={a.sid}&sid=", f"{POLLING}&sid={a.sid}&sid", f"{POLLING}&EIO=4&sid={a.sid}",
               f"{POLLING}&transport=websocket&sid={a.sid}", f"{POLLING}&sid={a.sid}%00", f"{POLLING}&sid={a.sid}%2",
               f"{POLLING}&sid={a.sid}+", f"{POLLING}&sid=%2e%2e%2f{a.sid}", f"{POLLING}&sid={'A' * 300}.{a.sid}",
               f"{POLLING}&sid={a.sid}#frag", f"{POLLING}#&sid={a.sid}", f"/socket.io/#?sid={a.sid}"]
    for path in refused:
        with Client(edge.port) as client:
            answer = client.ask(get(path))
            assert answer.status == 400 and answer.get("x-pod") is None, (path, answer)
    assert [pod.lines for pod in pods] == [[], []]


def test_a_sid_elsewhere_than_in_its_parameter_names_no_session(two):
    edge, pods = two
    session = Browser(edge, jar=False).open()
    for path in (f"{POLLING}&xsid={session.sid}", f"{POLLING}&SID={session.sid}", f"{POLLING}&sid[]={session.sid}",
                 f"/socket.io/sid={session.sid}?EIO=4&transport=polling", f"{POLLING}&t=sid={session.sid}"):
        for pod in pods:
            pod.lines.clear()
        answer = Browser(edge, jar=False).ask(path)
        assert answer.status == 200 and answer.body.startswith(b"0{"), "a handshake"
        assert [f"GET {path} HTTP/1.1"] in [pod.lines for pod in pods], "as it was"


def test_a_thousand_changed_sids_lead_home_or_nowhere(two):
    """Whatever is done to a sid, the endpoint that made it gets it, cut or whole, or nobody does."""
    edge, pods = two
    dice = random.Random(3)
    found = sessions_on_all(edge, pods)
    alphabet = "AZaz09-_.~k"
    with Client(edge.port) as client:
        for _ in range(figure(1000, 10000)):
            session = found[dice.choice("ab")]
            sid = list(session.sid)
            for _ in range(dice.randint(1, 3)):
                at = dice.randrange(len(sid))
                deed = dice.randrange(4)
                if deed == 0:
                    sid[at] = dice.choice(alphabet)
                elif deed == 1:
                    sid.insert(at, dice.choice(alphabet))
                elif deed == 2 and len(sid) > 1:
                    del sid[at]
                else:
                    sid = sid[at:] + sid[:at]
            sid = "".join(sid)
            answer = client.ask(get(f"{POLLING}&sid={urllib.parse.quote(sid, safe=dice.choice(['', '.~']))}"))
            tag_stays = sid[-13:] == session.sid[-13:] and len(sid) > 13
            if answer.get("x-pod") is None:
                assert answer.status == 400 and answer.body.decode() == LOST, sid
                assert not tag_stays, sid
            else:
                assert tag_stays and answer.get("x-pod") == session.pod, sid
                assert answer.status == (200 if sid[:-13] == session.bare else 400)
    for pod in pods:
        assert not any(re.search(r"\.k[A-Za-z0-9_-]{11}$", sid) for sid in pod.asked if len(sid) == 33), "a tag was not cut"


# --- the answer ----------------------------------------------------------------------------------------------

def test_the_answer_is_tagged_however_its_bytes_come(servers, tmp_path):
    packet = '0{"sid":"SSSSSSSSSSSSSSSSSSSS","upgrades":["websocket","webtransport"],"pingInterval":25000,"pingTimeout":20000}'
    later = packet + '\x1e2{"sid":"not this"}\x1e4\u00e9'
    shapes = {
        "length": lambda body: b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
        "chunks": lambda body: (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
                                b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"),
        "close": lambda body: b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body,
    }
    endpoint = Endpoint()
    edge = servers.proxy([endpoint.address], keys=key_file(tmp_path, "k", ("k", FIRST)))
    try:
        for text in (packet, later):
            for shape, write in shapes.items():
                for way in ("whole", "bytes"):
                    def answer(reader, _request, data=write(text.encode()), way=way, shape=shape):
                        for piece in ([data] if way == "whole" else [bytes([byte]) for byte in data]):
                            reader.sock.sendall(piece)
                        if shape == "close":
                            raise EOFError

                    endpoint.reset(answer)
                    with Client(edge.port) as client:
                        got = client.ask(get(POLLING))
                    found = TAGGED.search(got.body.decode())
                    assert found, (shape, way, got)
                    assert got.get("content-length") == str(len(got.body)) and got.get("transfer-encoding") is None
                    expected = text.replace("SSSSSSSSSSSSSSSSSSSS", found[0]).replace(',"webtransport"', "")
                    assert got.body.decode() == expected
    finally:
        endpoint.close()


def test_an_edge_in_front_of_a_sidecar_adds_and_cuts_its_own_tag_only(servers, tmp_path):
    """Two proxies in a row with keys of their own; only the last suffix is anybody's."""
    with engine_pods("a", "b") as first, engine_pods("c", "d") as second:
        near = key_file(tmp_path, "near", ("n", SECOND))
        sidecars = [servers.proxy([], config={"upstreams": [upstream(pods)]}, keys=near) for pods in (first, second)]
        edge = servers.proxy(sidecars, keys=key_file(tmp_path, "far", ("f", FIRST)))
        sessions = [Browser(edge, jar=False).open() for _ in range(16)]
        assert len({session.pod for session in sessions}) == 4
        for session in sessions:
            bare, near_tag, far_tag = session.sid.split(".")
            assert near_tag[0] == "n" and far_tag[0] == "f" and len(near_tag) == len(far_tag) == 12
            assert session.is_at_home() and session.post().status == 200
            assert session.upgrade().get("x-pod") == session.pod
        for pod in first + second:
            assert pod.asked and all("." not in sid for sid in pod.asked)


# --- keys ----------------------------------------------------------------------------------------------------

def test_no_session_is_lost_in_any_step_of_a_rotation(servers, tmp_path):
    """Append everywhere, move to the front everywhere, take the old one away when its sessions have ended: replicas
    take each step at different times, and a session goes through any of them."""
    old, new = ("a", FIRST), ("b", SECOND)
    with engine_pods("a", "b", "c") as pods:
        config = {"upstreams": [upstream(pods)]}
        steps = [servers.proxy([], config=config, keys=key_file(tmp_path, f"step{i}", *keys))
                 for i, keys in enumerate([(old,), (old, new), (new, old), (new,)])]
        for i, maker in enumerate(steps):
            made = [Browser(maker).open() for _ in range(9)]
            assert {session.sid.rpartition(".")[2][0] for session in made} == {"a" if i < 2 else "b"}
            for j, other in enumerate(steps):
                if abs(i - j) > 1:
                    continue  # these two never run at the same time
                for session in made:
                    assert session.is_at_home(through=other), (i, j)
                    assert session.upgrade(through=other).get("x-pod") == session.pod
                    # the cookie too, and it is written anew when the key in use is another
                    jar = dict(session.browser.cookies)
                    answer = session.browser.handshake(through=other)
                    assert answer.get("x-pod") == session.pod, (i, j)
                    assert (answer.get("set-cookie") is None) == ((i < 2) == (j < 2))
                    session.browser.cookies = jar
        # the key has gone: what it made is as good as untagged. Without a cookie that is lost
        for _ in range(3):
            session = Browser(steps[0], jar=False).open()
            assert session.poll(through=steps[3]).body.decode() == LOST
        assert lost_count(steps[3], "no_route") == 3


def test_without_a_key_file_a_warning_and_sessions_for_one_life(servers):
    with engine_pods("a", "b") as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods)]})
        edge.wait_log(r"warn.*affinity_keys")
        browser = Browser(edge)
        session = browser.open()
        assert session.is_at_home()
        key = browser.cookies["sidrail_chat"].split(".")[2]
        edge.restart()
        answer = session.poll()
        assert answer.status == 400 and answer.body.decode() == LOST and answer.get("x-pod") is None
        assert lost_count(edge, "unknown_tag") == 1
        browser.open()
        assert browser.cookies["sidrail_chat"].split(".")[2] == key, "the client key outlives it"


# --- the learned table ---------------------------------------------------------------------------------------

def wakes_of_threads(edge):
    """How often each thread of the proxy has slept and woken."""
    found = {}
    for task in pathlib.Path(f"/proc/{edge.pid}/task").iterdir():
        found[task.name] = int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.M)[1])
    return found


FORMS = {"EIO=3": "EIO=3&transport=polling", "JSONP": "EIO=3&transport=polling&j=0",
         "JSONP of EIO=4": "EIO=4&transport=polling&j=7"}


@pytest.mark.smoke
@pytest.mark.parametrize("form", FORMS)
def test_all_threads_know_the_sids_that_one_has_learned(servers, form):
    """Each request is a connection of its own, and connections go to either thread."""
    with engine_pods("a", "b", "c") as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods)], "threads": 3})
        clients = figure(60, 600)
        sessions = [None] * clients
        before = wakes_of_threads(edge)

        def live(i):
            for at in range(i, clients, 6):
                sessions[at] = session = Browser(edge, jar=False).open(query=FORMS[form])
                assert not TAGGED.search(session.sid)
                for _ in range(4):
                    assert session.is_at_home() and session.post().status == 200

        in_threads(6, live)
        assert len({session.pod for session in sessions}) == 3
        assert all(session.upgrade().get("x-pod") == session.pod for session in sessions[:20])
        metrics = edge.metrics()
        assert metrics.get("sidrail_proxy_learned_sids", upstream="chat") == clients
        assert metrics.get("sidrail_proxy_route_decisions_total", why="learned") == clients * 8 + 20
        assert metrics.get("sidrail_proxy_upstream_session_unknown_total") == 0
        assert sum(wakes - before.get(task, 0) > clients for task, wakes in wakes_of_threads(edge).items()) >= 2


def test_with_tags_switched_off_sids_are_learned(servers):
    with engine_pods("a", "b") as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods, options={"affinity": {"sid_tag": False}})]})
        for session in sessions_on_all(edge, pods).values():
            assert "." not in session.sid
            assert session.is_at_home()
        assert edge.metrics().get("sidrail_proxy_sid_rewrites_total", result="tagged") == 0


def test_a_flood_of_handshakes_does_not_grow_the_table_beyond_its_bound(servers):
    with engine_pods("a", "b") as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods, options={"affinity": {"learned_sids": 256}})]})
        last = []

        def flood(_):
            with Client(edge.port) as client:
                for _ in range(figure(400, 4000)):
                    answer = client.ask(get("/socket.io/?EIO=3&transport=polling"))
                    last.append((json.loads(answer.body.decode().partition(":")[2].rpartition("2:40")[0][1:])["sid"],
                                 answer.get("x-pod")))

        in_threads(4, flood)
        count = edge.metrics().get("sidrail_proxy_learned_sids", upstream="chat")
        assert 128 <= count <= 256
        for sid, pod in last[-8:]:  # the freshest are there still
            answer = Browser(edge, jar=False).ask(f"/socket.io/?EIO=3&transport=polling&sid={sid}")
            assert answer.get("x-pod") == pod
        answer = Browser(edge, jar=False).ask(f"/socket.io/?EIO=3&transport=polling&sid={last[0][0]}")
        assert answer.status == 400 and answer.get("x-pod") is None
        assert lost_count(edge, "no_route") == 1


def test_a_learned_sid_lives_as_long_as_requests_come(servers):
    """Twice the heartbeat after the last one; here 2 × (0.5 + 0.5) s."""
    with engine_pods("a", "b", intervals=(500, 500)) as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods)]})
        kept, idle = [Browser(edge, jar=False).open(query="EIO=3&transport=polling") for _ in range(2)]
        began = time.monotonic()
        while time.monotonic() - began < 4.2:
            asked = time.monotonic()
            assert kept.is_at_home() or time.monotonic() - asked > 1
            time.sleep(0.2)
        answer = idle.poll()
        assert answer.status == 400 and answer.get("x-pod") is None
        assert kept.is_at_home()
        wait_until(lambda: lost_count(edge, "no_route") == 1, "it is counted")


def test_a_session_that_its_endpoint_has_ended_is_told_so_by_the_endpoint(servers):
    with engine_pods("a", "b") as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods)]})
        for query in ("EIO=4&transport=polling", "EIO=3&transport=polling"):
            session = Browser(edge, jar=False).open(query=query)
            home = next(pod for pod in pods if pod.name == session.pod)
            home.sids.discard(session.bare)
            answer = session.poll()
            assert answer.status == 400 and answer.get("x-pod") == session.pod
        assert edge.metrics().get("sidrail_proxy_upstream_session_unknown_total") == 2


def test_the_only_endpoint_gets_what_nothing_places(servers):
    with engine_pods("a") as pods:
        edge = servers.proxy([], config={"upstreams": [upstream(pods)]})
        pods[0].sids.add("AAAA")
        assert Browser(edge).ask(f"{POLLING}&sid=AAAA").get("x-pod") == "a"
        assert Browser(edge).ask(f"{WEBSOCKET}&sid=AAAA", *UPGRADE_FIELDS).status == 101
        whys = edge.metrics().by("sidrail_proxy_route_decisions_total", "why")
        assert (whys["only"], whys["learned"]) == (1, 1), "the endpoint has answered for it"

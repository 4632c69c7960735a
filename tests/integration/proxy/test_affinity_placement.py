"""Which endpoint gets a new session: balance, weights, keys, limits, states, splits, failures."""
import collections
import time

import pytest
from daemons import figure, wait_until
from engine_pods import POLLING, UPGRADE_FIELDS, WEBSOCKET, Browser, engine_pods, in_threads, lost_count, upstream
from http_tools import Client, get


def spread(edge, count, *fields, query="EIO=4&transport=polling"):
    """How many of `count` sessions without cookies each pod gets."""
    return collections.Counter(Browser(edge, jar=False).open(*fields, query=query).pod for _ in range(count))


def edge_of(servers, pods, options=None, facts=None, **more):
    return servers.proxy([], config={"upstreams": [upstream(pods, options=options, **(facts or {}))], **more})


def test_newcomers_are_spread_by_weight(servers):
    with engine_pods("a", "b", "c") as pods:
        edge = edge_of(servers, pods, facts={"b": {"weight": 2}, "c": {"weight": 0}})
        placed = spread(edge, 90)
        assert placed["c"] == 0, "weight 0 takes no strangers"
        assert 50 <= placed["b"] <= 70 and placed["a"] + placed["b"] == 90


@pytest.mark.parametrize("policy, status", [("last_resort", 200), ("never", 503)])
def test_a_draining_endpoint_keeps_its_sessions_and_gets_others_as_a_last_resort_only(servers, tmp_path, policy, status):
    keys = tmp_path / "k.keys"
    keys.write_text("k 00112233445566778899aabbccddeeff\n")
    keys.chmod(0o600)
    options = {"affinity": {"place_on_draining": policy}}
    with engine_pods("a", "b") as pods:
        before = servers.proxy([], keys=keys, config={"upstreams": [upstream(pods)]})
        browsers = [Browser(before) for _ in range(12)]
        sessions = [browser.open() for browser in browsers]
        drains_a = servers.proxy([], keys=keys, config={"upstreams": [upstream(
            pods, options=options, a={"state": "draining"})]})
        assert {session.pod for session in sessions} == {"a", "b"}
        for session in sessions:
            assert session.is_at_home(through=drains_a)
            assert session.upgrade(through=drains_a).get("x-pod") == session.pod
            # a session of its own is new: it goes where it can stay
            assert session.browser.open(through=drains_a).pod == "b"
        drains_both = servers.proxy([], keys=keys, config={"upstreams": [upstream(
            pods, options=options, a={"state": "draining"}, b={"state": "draining"})]})
        assert Browser(drains_both).handshake().status == status
        assert all(session.is_at_home(through=drains_both) for session in sessions)


def test_balanced_ignores_the_tag_of_the_cookie_for_new_sessions_and_follows_it_for_old_ones(servers):
    """Persistent: the second session of a browser goes where the first is. Balanced: to the less loaded again."""
    with engine_pods("a", "b") as pods:
        edge = edge_of(servers, pods, {"affinity": {"mode": "balanced"}})
        browser = Browser(edge)
        first = browser.open()
        held = first.pod
        second = browser.open()
        assert second.pod != held, "the other one has no load"
        assert first.is_at_home() and second.is_at_home()
        # the client key stays, so that equal loads lead to the same endpoint
        key = browser.cookies["sidrail_chat"].split(".")[2]
        browser.open()
        assert browser.cookies["sidrail_chat"].split(".")[2] == key
        # an untagged sid follows the cookie
        for pod in pods:
            pod.sids.add("untagged")
        home = next(name for name in "ab" if browser.ask(f"{POLLING}&sid=untagged").get("x-pod") == name)
        assert {browser.ask(f"{POLLING}&sid=untagged").get("x-pod") for _ in range(5)} == {home}


KEYS = {
    "header:X-Room": lambda room: ((f"X-Room: {room}",), "EIO=4&transport=polling"),
    "query:room": lambda room: ((), f"EIO=4&transport=polling&room={room}"),
    "cookie:room": lambda room: ((f"Cookie: x=y; room={room}",), "EIO=4&transport=polling"),
    "client_ip": lambda room: ((f"X-Forwarded-For: 10.0.0.{room}",), "EIO=4&transport=polling"),
}


@pytest.mark.parametrize("hash_by", KEYS)
def test_equal_keys_meet_and_no_endpoint_gets_more_than_the_bounded_load(servers, hash_by):
    with engine_pods("a", "b", "c", "d") as pods:
        edge = edge_of(servers, pods, {"affinity": {"hash_by": hash_by, "bounded_load": 4.0}},
                       trusted_proxies=["127.0.0.0/8"])
        homes = {}
        for turn in range(2):
            for room in range(12):
                fields, query = KEYS[hash_by](room)
                pod = Browser(edge, jar=False).open(*fields, query=query).pod
                assert homes.setdefault(room, pod) == pod, f"room {room} is on {homes[room]} and on {pod}"
        assert len(set(homes.values())) >= 2
        assert edge.metrics().get("sidrail_proxy_route_decisions_total", why="key") == 24
        assert set(Browser(edge, jar=False).open().pod for _ in range(12)) <= {"a", "b", "c", "d"}
    with engine_pods("a", "b", "c", "d") as pods:
        edge = edge_of(servers, pods, {"affinity": {"hash_by": hash_by, "bounded_load": 1.25}},
                       trusted_proxies=["127.0.0.0/8"])
        fields, query = KEYS[hash_by]("7")
        placed = spread(edge, 40, *fields, query=query)
        # cap = ceil(1.25 × (40 / 4)) = 13 while all of them count (10 s); a slow machine lets the first ones expire
        assert max(placed.values()) <= 16 and len(placed) == 4, placed


def test_a_key_in_the_query_is_the_same_however_a_client_writes_it(servers):
    with engine_pods("a", "b", "c", "d") as pods:
        edge = edge_of(servers, pods, {"affinity": {"hash_by": "query:room", "bounded_load": 16.0}})
        for number in range(6):
            ways = (f"room+{number}%40x", f"room%20{number}@x", f"%72oom%20{number}%40x")
            assert len({Browser(edge, jar=False).open(query=f"EIO=4&transport=polling&room={way}").pod
                        for way in ways}) == 1


def test_a_key_comes_before_the_cookie_for_new_sessions_and_the_tag_before_the_key_for_old_ones(servers):
    with engine_pods("a", "b", "c", "d") as pods:
        edge = edge_of(servers, pods, {"affinity": {"hash_by": "header:X-Room", "bounded_load": 8.0}})
        browser = Browser(edge)
        rooms = {room: browser.open(f"X-Room: {room}").pod for room in range(10)}
        assert len(set(rooms.values())) > 1
        session = browser.open("X-Room: 0")
        for room in range(10):
            assert session.is_at_home(None, f"X-Room: {room}")


def test_a_session_limit_refuses_when_all_are_full_and_leaves_sessions_alone(servers):
    with engine_pods("a", "b") as pods:
        edge = edge_of(servers, pods, {"max_sessions_per_endpoint": 3})
        clients = [Client(edge.port) for _ in range(6)]
        placed = collections.Counter()
        for client in clients:  # tunnels; each counts as a handshake too, for 10 s
            answer = client.ask(get(WEBSOCKET, *UPGRADE_FIELDS))
            if answer.status == 101:
                placed[answer.get("x-pod")] += 1
                continue
            assert answer.status == 503 and answer.get("retry-after") == "1"
        assert sorted(placed) == ["a", "b"] and 1 <= min(placed.values()) and max(placed.values()) <= 3
        browser = Browser(edge)
        assert browser.handshake().status == 503
        assert browser.ask(WEBSOCKET, *UPGRADE_FIELDS).status == 503
        assert lost_count(edge, "all_full") >= 2
        # what is no new session goes on
        assert browser.ask("/other").status == 200
        assert browser.ask(POLLING, method="OPTIONS").status == 204
        # room again, once tunnels have ended and handshakes are 10 s old
        for client in clients:
            client.sock.close()
        wait_until(lambda: Browser(edge).handshake().status == 200, "there is room again", 30)
        session = browser.open()
        while Browser(edge).handshake().status != 503:
            pass
        assert session.is_at_home() and session.post().status == 200 and session.upgrade().status == 101


def test_a_handshake_rate_queues_for_a_second_at_most_then_refuses(servers):
    with engine_pods("a", "b") as pods:
        edge = edge_of(servers, pods, {"max_handshake_rate": 4})
        answers = []
        began = time.monotonic()
        in_threads(48, lambda _: answers.append((Browser(edge, jar=False).handshake(), time.monotonic() - began)))
        passed = time.monotonic() - began
        opened = [seconds for answer, seconds in answers if answer.status == 200]
        refused = [answer for answer, _ in answers if answer.status == 503]
        assert len(opened) + len(refused) == 48
        # 8 a second, and every wait ends behind one turn of the second at least
        assert 12 <= len(opened) <= (int(passed) + 2) * (8 + 2), "two threads may both take the last place"
        assert refused and all(answer.get("retry-after") == "1" for answer in refused)
        assert min(seconds for answer, seconds in answers if answer.status == 503) > 0.5, "refused without a wait"
        assert lost_count(edge, "too_fast") == len(refused)
        # requests of sessions, and others, have no limit
        browser = Browser(edge)
        session = wait_until(lambda: browser.open(), "a session opens", 10)
        for _ in range(30):
            assert session.is_at_home() and browser.ask("/other").status == 200
        assert lost_count(edge, "too_fast") == len(refused)


def test_a_queued_client_that_leaves_is_forgotten(servers):
    with engine_pods("a") as pods:
        edge = edge_of(servers, pods, {"max_handshake_rate": 1})
        clients = [Client(edge.port).send(get(POLLING)) for _ in range(10)]
        time.sleep(0.1)
        for client in clients:
            client.sock.close()
        wait_until(lambda: edge.metrics().get("sidrail_proxy_clients_open") == 0, "all are closed")
        assert len(pods[0].lines) <= 3


# --- splits --------------------------------------------------------------------------------------------------

def split_config(chat, canary, weights=(95, 5), **more):
    return {"upstreams": [upstream(chat), upstream(canary, "canary")],
            "routes": [{"host": "*", "path": "/", "split": [{"upstream": "chat", "weight": weights[0]},
                                                             {"upstream": "canary", "weight": weights[1]}]}], **more}


def test_a_split_follows_its_weights_and_its_sessions_stay_over_a_restart(servers, tmp_path):
    keys = tmp_path / "k.keys"
    keys.write_text("k 00112233445566778899aabbccddeeff\n")
    keys.chmod(0o600)
    count = figure(400, 2000)
    with engine_pods("a", "b") as chat, engine_pods("c", "d") as canary:
        edge = servers.proxy([], config=split_config(chat, canary), keys=keys)
        sessions = [Browser(edge).open() for _ in range(count)]
        in_canary = [session for session in sessions if session.pod in "cd"]
        # binomial: mean 5 %, four standard deviations
        slack = 4 * (count * 0.05 * 0.95) ** 0.5
        assert abs(len(in_canary) - count * 0.05) <= slack
        sample = in_canary[:20] + [session for session in sessions if session.pod in "ab"][:20]
        edge.restart()
        for session in sample:
            assert session.is_at_home()
            assert session.upgrade().get("x-pod") == session.pod
            assert session.poll(method="OPTIONS").get("x-pod") == session.pod
            again = session.browser.open()
            assert again.pod == session.pod, "its next session is there too, by the cookie"
            assert session.browser.ask("/other").get("x-pod") == session.pod
        # weight 0: newcomers all go to the other; who was there stays
        other = servers.proxy([], config=split_config(chat, canary, (1, 0)), keys=keys)
        for session in sample:
            assert session.is_at_home(through=other)
            assert session.browser.open(through=other).pod == session.pod
        assert not set("cd") & set(spread(other, 60))


def test_nothing_that_a_client_sends_leads_to_an_endpoint_of_another_upstream(servers, tmp_path):
    keys = tmp_path / "k.keys"
    keys.write_text("k 00112233445566778899aabbccddeeff\n")
    keys.chmod(0o600)
    with engine_pods("a", "b") as mine, engine_pods("c") as secret:
        edge = servers.proxy([], keys=keys, config={
            "upstreams": [upstream(mine), upstream(secret, "secret")],
            "routes": [{"host": "secret.test", "path": "/", "upstream": "secret"}, {"host": "*", "path": "/", "upstream": "chat"}]})
        with Client(edge.port) as client:
            answer = client.ask(get(POLLING, host="secret.test"))
        assert answer.get("x-pod") == "c"
        name, value = answer.get("set-cookie").split(";")[0].split("=")
        sid = answer.body.decode().split('"')[3]
        tag = sid.rpartition(".")[2]
        lines = len(secret[0].lines)
        browser = Browser(edge, jar=False)
        for cookie in (f"{name}={value}", f"sidrail_chat={value}", f"sidrail_chat={value[:12]}{'.AAAAAA.AAAAAAAAAAA'}"):
            for path in (POLLING, "/other", f"{POLLING}&sid=AAAA", f"{POLLING}&sid={sid}", f"{POLLING}&sid=x.{tag}"):
                for fields in ((), ("X-Forwarded-Host: secret.test",), ("Forwarded: host=secret.test",)):
                    answer = browser.ask(path, f"Cookie: {cookie}", *fields)
                    assert answer.get("x-pod") != "c"
        assert len(secret[0].lines) == lines


# --- failures ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes", [False, True])
def test_other_paths_follow_a_cookie_to_a_dead_endpoint_only_without_change_on_failure(servers, changes):
    with engine_pods("a", "b") as pods:
        edge = edge_of(servers, pods, {"affinity": {"change_on_failure": changes, "cookie": {"on": "all"}}})
        browser = Browser(edge)
        first = browser.ask("/other").get("x-pod")
        session = browser.open()
        dead, alive = (pods if first == "a" else pods[::-1])
        dead.close()
        wait_until(lambda: dead.open == 0, "kept connections have gone")
        # a new one is refused from here on: the listener is closed
        before = dict(browser.cookies)
        answer = browser.ask("/other")
        if changes:
            assert answer.status == 200 and answer.get("x-pod") == alive.name
            assert answer.get("set-cookie") is not None and browser.cookies != before
        else:
            assert answer.status == 502 and answer.get("set-cookie") is None
        # a session is never moved
        assert session.poll().status == 502
        # a new session goes where it can, and takes the cookie along
        browser.cookies = before
        assert browser.open().pod == alive.name
        assert browser.ask("/other").get("x-pod") == alive.name

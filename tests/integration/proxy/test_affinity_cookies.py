"""The affinity cookie: when it is set, with which attributes, what of it is believed, and what endpoints see of it."""
import hashlib
import re
import secrets

import pytest
from engine_pods import POLLING, UPGRADE_FIELDS, WEBSOCKET, Browser, engine_pods, upstream
from http_tools import Client, get

VALUE = r"k[A-Za-z0-9_-]{11}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{11}"
KEY = "k 00112233445566778899aabbccddeeff\n"


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "k.keys"
    path.write_text(KEY)
    path.chmod(0o600)
    return path


def edge_of(servers, pods, keys, cookie=None, affinity=None, **config):
    options = {"affinity": {**({"cookie": cookie} if cookie else {}), **(affinity or {})}}
    return servers.proxy([], keys=keys, config={"upstreams": [upstream(pods, options=options)], **config})


def set_cookie(answer, name="sidrail_chat"):
    """The attributes of the one cookie that was set, in order; None: none was."""
    line = answer.get("set-cookie")
    if line is None:
        return None
    first, *attributes = line.split("; ")
    assert re.fullmatch(rf"{name}={VALUE}", first), line
    return attributes


@pytest.mark.smoke
def test_it_is_set_on_answers_to_handshakes_alone_and_only_when_it_says_something_new(servers, keys):
    with engine_pods("a", "b") as pods:
        edge = edge_of(servers, pods, keys)
        browser = Browser(edge)
        answer = browser.handshake()
        assert set_cookie(answer) == ["Path=/", "HttpOnly", "SameSite=Lax"]
        home = answer.get("x-pod")
        session = browser.open()
        assert session.pod == home, "the cookie places the next session"
        assert set_cookie(browser.handshake()) is None, "unchanged"
        stranger = Browser(edge, jar=False)
        session = stranger.open()
        for answer in (session.poll(), session.post(), session.upgrade(), session.poll(method="OPTIONS"),
                       stranger.ask(POLLING, method="OPTIONS"), stranger.ask("/other"),
                       stranger.ask("/socket.io/socket.io.js"),
                       stranger.ask(f"{POLLING}&sid={'A' * 20}")):
            assert answer.get("set-cookie") is None, answer
        answer = stranger.ask(WEBSOCKET, *UPGRADE_FIELDS)
        assert answer.status == 101 and set_cookie(answer) is not None
        # an endpoint's refusal is no answer to a handshake
        for pod in pods:
            pod.reset(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        assert Browser(edge, jar=False).handshake().get("set-cookie") is None


@pytest.mark.parametrize("cookie, fields, expected", [
    ({}, (), ["Path=/", "HttpOnly", "SameSite=Lax"]),
    ({}, ("Origin: http://edge.test",), ["Path=/", "HttpOnly", "SameSite=Lax"]),
    ({}, ("Origin: http://other.test",), ["Path=/", "HttpOnly", "SameSite=Lax"]),
    ({}, ("X-Forwarded-Proto: https",), ["Path=/", "HttpOnly", "Secure", "SameSite=Lax"]),
    ({}, ("X-Forwarded-Proto: https", "Origin: https://edge.test"), ["Path=/", "HttpOnly", "Secure", "SameSite=Lax"]),
    ({}, ("X-Forwarded-Proto: https", "Origin: https://other.test"),
     ["Path=/", "HttpOnly", "Secure", "SameSite=None", "Partitioned"]),
    ({}, ("X-Forwarded-Proto: https", "Origin: null"),
     ["Path=/", "HttpOnly", "Secure", "SameSite=None", "Partitioned"]),
    ({"same_site": "strict"}, ("X-Forwarded-Proto: https", "Origin: https://other.test"),
     ["Path=/", "HttpOnly", "Secure", "SameSite=Strict"]),
    ({"same_site": "none"}, (), ["Path=/", "HttpOnly", "Secure", "SameSite=None"]),
    ({"same_site": "lax", "secure": True}, (), ["Path=/", "HttpOnly", "Secure", "SameSite=Lax"]),
    ({"secure": False}, ("X-Forwarded-Proto: https",), ["Path=/", "HttpOnly", "SameSite=Lax"]),
    ({"path": "/socket.io/", "domain": "edge.test", "max_age": "90s"}, (),
     ["Path=/socket.io/", "Domain=edge.test", "Max-Age=90", "HttpOnly", "SameSite=Lax"]),
])
def test_attributes_follow_the_options_the_site_and_the_trusted_scheme(servers, keys, cookie, fields, expected):
    with engine_pods("a") as pods:
        edge = edge_of(servers, pods, keys, cookie, trusted_proxies=["127.0.0.0/8"])
        assert set_cookie(Browser(edge).handshake(*fields)) == expected
        answer = Browser(edge).ask(WEBSOCKET, *UPGRADE_FIELDS, *fields)
        assert answer.status == 101 and set_cookie(answer) == expected


def test_the_scheme_that_a_stranger_claims_is_not_believed(servers, keys):
    with engine_pods("a") as pods:
        edge = edge_of(servers, pods, keys)
        answer = Browser(edge).handshake("X-Forwarded-Proto: https", "Origin: https://other.test")
        assert set_cookie(answer) == ["Path=/", "HttpOnly", "SameSite=Lax"]


def test_endpoints_do_not_see_it_but_all_other_cookies(servers, keys):
    with engine_pods("a") as pods:
        edge = edge_of(servers, pods, keys)
        browser = Browser(edge)
        browser.open()
        value = browser.cookies["sidrail_chat"]
        pods[0].take()
        for sent, seen in ((f"sidrail_chat={value}", None), (f"a=1; sidrail_chat={value}; b=2", "a=1; b=2"),
                           (f"sidrail_chat={value}; sidrail_chat=x; xsidrail_chat=y", "xsidrail_chat=y")):
            for path in (POLLING, "/other", f"{POLLING}&sid=x"):
                with Client(edge.port) as client:
                    client.ask(get(path, f"Cookie: {sent}"))
                assert pods[0].take().get("cookie") == seen


def test_on_all_other_paths_set_and_follow_it_too(servers, keys):
    with engine_pods("a", "b", "c") as pods:
        edge = edge_of(servers, pods, keys, {"on": "all"})
        browser = Browser(edge)
        first = browser.ask("/other")
        assert set_cookie(first) is not None
        for _ in range(5):
            answer = browser.ask("/other")
            assert answer.get("x-pod") == first.get("x-pod") and answer.get("set-cookie") is None
        assert browser.open().pod == first.get("x-pod")
        answer = browser.ask("/other", method="OPTIONS")
        assert answer.get("set-cookie") is None
        assert Browser(edge).ask("/other", method="OPTIONS").get("set-cookie") is None
        # the answers before the answer carry none
        for pod in pods:
            pod.reset(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        with Client(edge.port) as client:
            answer = client.ask(get("/other"))
            assert [interim.get("set-cookie") for interim in answer.interims] == [None]
            assert set_cookie(answer) is not None


def test_by_default_other_paths_follow_it_but_do_not_set_it(servers, keys):
    with engine_pods("a", "b", "c") as pods:
        edge = edge_of(servers, pods, keys)
        browser = Browser(edge)
        assert browser.ask("/other").get("set-cookie") is None
        home = browser.open().pod
        assert {browser.ask("/other").get("x-pod") for _ in range(6)} == {home}
        strangers = {Browser(edge, jar=False).ask("/other").get("x-pod") for _ in range(60)}
        assert strangers == {"a", "b", "c"} - {home}, "the least loaded: a session was placed on the other"


def test_forged_truncated_and_foreign_values_are_as_good_as_none(servers, keys):
    with engine_pods("a", "b") as pods, engine_pods("c", "d") as others:
        routes = [{"host": "*", "path": path, "upstream": name} for path, name in (("/socket.io/", "chat"), ("/", "other"))]
        same_name = {"affinity": {"cookie": {"name": "same"}}}
        edge = servers.proxy([], keys=keys, config={
            "upstreams": [upstream(pods, options=same_name), upstream(others, "other", {"affinity": {"cookie": {
                "name": "same", "on": "all"}}})], "routes": routes})
        browser = Browser(edge)
        browser.open()
        value = browser.cookies["same"]
        foreign = Browser(edge)
        foreign.ask("/other")
        foreign_value = foreign.cookies["same"]
        # what another upstream gave names an endpoint of that one alone
        answer = Browser(edge, jar=False).handshake(f"Cookie: same={foreign_value}")
        assert answer.get("x-pod") in ("a", "b") and set_cookie(answer, "same") is not None
        # the tag of a foreign upstream under our upstream's hash
        spliced = foreign_value[:12] + value[12:]
        mutants = [value[:-1], value + "A", value[:12], "", "k", "." * 31, value.upper(), value.replace(".", "-"), spliced,
                   "k" + "A" * 11 + value[12:], value[:12] + ".AAAAAA." + value[20:], f"k{secrets.token_hex(15)}",
                   *[value[:i] + ("A" if value[i] != "A" else "B") + value[i + 1:] for i in range(20)]]
        for mutant in mutants:
            for path in (POLLING, "/socket.io/?EIO=4&transport=polling&sid=AAAA"):
                answer = Browser(edge, jar=False).ask(path, f"Cookie: same={mutant}")
                if "sid=" in path:
                    assert answer.status == 400 and answer.get("x-pod") is None, (mutant, answer)
                else:
                    assert answer.status == 200 and set_cookie(answer, "same") is not None, (mutant, answer)
        # quoted, among others, behind a bad one: believed
        for line in (f'same="{value}"', f"x=1; same={value}; y=2", f"same=bad; same={value}",
                     f"same={foreign_value}; same={value}"):
            answer = Browser(edge, jar=False).handshake(f"Cookie: {line}")
            assert answer.get("set-cookie") is None, line


def ingress_nginx_value(name, address, has_check=True):
    """As ingress-nginx makes it in persistent mode."""
    def md5(text):
        return hashlib.md5(text.encode()).hexdigest()

    return md5(name + address) + (f"|{md5(md5(name) + name)}" if has_check else "")


@pytest.mark.parametrize("has_check", [True, False], ids=["with its check", "alone"])
def test_a_cookie_of_ingress_nginx_is_honoured_and_then_replaced(servers, keys, has_check):
    name = "prod-chat-5000"
    with engine_pods("a", "b", "c", "d") as pods:
        edge = edge_of(servers, pods, keys, affinity={
            "accept_ingress_nginx_cookie": {"name": "INGRESSCOOKIE", "upstream_name": name}})
        for pod in pods:
            browser = Browser(edge)
            browser.cookies["INGRESSCOOKIE"] = ingress_nginx_value(name, pod.address, has_check)
            # a session that began before the change has an untagged sid
            pod.sids.add(f"old-session-of-{pod.name}")
            assert browser.ask(f"{POLLING}&sid=old-session-of-{pod.name}").get("x-pod") == pod.name
            del browser.cookies["sidrail_chat"]
            assert browser.ask("/other").get("x-pod") == pod.name
            answer = browser.handshake()
            assert answer.get("x-pod") == pod.name and set_cookie(answer) is not None
            assert browser.handshake().get("set-cookie") is None
            other = next(p for p in pods if p is not pod)
            browser.cookies["INGRESSCOOKIE"] = ingress_nginx_value(name, other.address, has_check)
            assert browser.open().pod == pod.name, "ours comes first"
        whys = edge.metrics().by("sidrail_proxy_route_decisions_total", "why")
        assert whys["legacy_cookie"] == 12
        wrong = [ingress_nginx_value("prod-other-5000", pods[0].address),
                 ingress_nginx_value(name, pods[0].address)[:-1], ingress_nginx_value(name, "10.0.0.1:5000"),
                 ingress_nginx_value(name, pods[0].address, False) + "|", "x" * 32]
        for value in wrong:
            answer = Browser(edge, jar=False).ask(f"{POLLING}&sid=old-session-of-it", f"Cookie: INGRESSCOOKIE={value}")
            assert answer.status == 400 and answer.get("x-pod") is None, value


def test_a_running_session_outlives_the_cookie_of_ingress_nginx(servers, keys):
    """It keeps its endpoint by the cookie and by what each proxy has learned, alone or together."""
    name = "prod-chat-5000"
    with engine_pods("a", "b", "c") as pods:
        edge, replica = (edge_of(servers, pods, keys, affinity={
            "accept_ingress_nginx_cookie": {"name": "INGRESSCOOKIE", "upstream_name": name}}) for _ in range(2))
        for pod in pods:
            old = f"{POLLING}&sid=old-of-{pod.name}"
            legacy = f"Cookie: INGRESSCOOKIE={ingress_nginx_value(name, pod.address)}"
            assert edge_poll(edge, old, legacy).status == 400, "its endpoint does not know it: nothing is learned"
            assert edge_poll(edge, old).get("x-pod") is None
            pod.sids.add(f"old-of-{pod.name}")
            options = Browser(edge, jar=False).ask(old, legacy, method="OPTIONS")
            assert options.get("x-pod") == pod.name and options.get("set-cookie") is None
            first = edge_poll(edge, old, legacy)
            assert first.get("x-pod") == pod.name
            ours = f"Cookie: {first.get('set-cookie').partition(';')[0]}"
            assert edge_poll(edge, old).get("x-pod") == pod.name, "without any cookie"
            assert edge_poll(replica, old, ours).get("x-pod") == pod.name, "where it is not known"
            # a session of the same client that begins elsewhere takes the cookie along
            other = next(p for p in pods if p is not pod)
            there = edge_poll(replica, POLLING, f"Cookie: INGRESSCOOKIE={ingress_nginx_value(name, other.address)}")
            assert there.get("x-pod") == other.name
            moved = f"Cookie: {there.get('set-cookie').partition(';')[0]}"
            assert [edge_poll(proxy, old, moved).get("x-pod") for proxy in (edge, replica)] == [pod.name] * 2


def edge_poll(edge, path, *fields):
    return Browser(edge, jar=False).ask(path, *fields)


def test_no_address_of_an_endpoint_is_in_anything_that_a_client_gets(servers, keys):
    with engine_pods("a", "b") as pods:
        edge = servers.proxy([], keys=keys, config={"upstreams": [{"name": "chat", "discovery": {
            "static": [pod.address for pod in pods]}, "affinity": {"cookie": {"on": "all"}}}]})
        seen = b""
        browser = Browser(edge)
        session = browser.open()
        for answer in (browser.handshake(), session.poll(), session.upgrade(), browser.ask("/other"),
                       Browser(edge).ask("/other"), Browser(edge).handshake(),
                       browser.ask(f"{POLLING}&sid=AAAA.kAAAAAAAAAAA")):
            seen += answer.raw
        for pod in pods:
            pod.close()
        for port in [pod.port for pod in pods]:
            assert str(port).encode() not in seen
        for text in ("127.0.0.1", *[hashlib.md5(pod.address.encode()).hexdigest() for pod in pods]):
            assert text.encode() not in seen

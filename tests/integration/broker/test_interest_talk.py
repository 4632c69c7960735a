"""The client manager's words by themselves, and the broker's answers to a manager that says them wrongly."""
import json
import shutil
import subprocess
import sys
import time

import pytest
from daemons import BUILD, ENVIRONMENTS, ROOT, is_full, wait_until
from resp_client import Error, Raw, command, emit

sys.path.insert(0, str(ROOT / "broker" / "python" / "src"))
from sidrail_socketio.rooms import canonical  # noqa: E402
from sidrail_socketio.talk import SEEN_AT_ONCE, State, Talk  # noqa: E402

HOST = "0123456789abcdef" * 2
CHANNEL = "flask-socketio"
GREETING = f"{CHANNEL}.sidrail.{HOST}".encode()


# ── the manager's side ──

def greeted(rooms=(), **options):
    talk = Talk(lambda: list(rooms), **options)
    talk.begin()
    return talk, talk.hear(b"hello 1 c1")


def test_rooms_are_canonical_as_the_broker_writes_them():
    for room in ("lobby", "", "zimmer ü", "\ud800", 0, 1, -7, True, 42.0, 1.5, 1e300, -0.0, 2.0**53, 2.0**60, 2**63 - 1, 2**63,
                 float("inf"), 0.1 + 0.2, 5e-324, "{tag}:x"):
        check_canonical(room)


def check_canonical(room):
    payload = json.dumps({"method": "emit", "event": "e", "data": [1], "namespace": "/", "room": room})
    told = json.loads(subprocess.run([BUILD / "sidrail-broker", "explain"], input=payload.encode(),
                                     capture_output=True, check=True).stdout)
    name = canonical(room)
    if not room:
        assert told["rooms"] == []  # as an emit it is for everybody: a pod that has somebody there gets it too
    elif told["rooms"] is None:
        assert name is None
    elif room != "\ud800":  # of which JSON for people has no form
        assert told["rooms"] == [name.decode()]


def test_what_has_no_canonical_form_opens_the_pod():
    assert canonical(("a", "b")) is canonical(float("nan")) is canonical(object()) is None
    assert greeted([("/", None), ("/", ("a", "b"))])[1][-1] == (b"SIDRAIL", b"ALL")
    talk, _ = greeted([("/", None)])
    talk.note(True, "/", ("a", "b"))
    assert talk.flush() == [(b"SIDRAIL", b"ALL")]
    assert talk.is_joined()
    talk.note(True, "/", "room")
    assert talk.flush() == []


def test_a_greeting_is_answered_with_all_rooms():
    _, said = greeted([("/", None), ("/", "a"), ("/n", 7)], dialect=b"json15")
    assert said == [(b"SIDRAIL", b"HELLO", b"1", b"own", b"json15"),
                    (b"SIDRAIL", b"ROOMS", b"1", b"0", b"/", b"", b"/", b"s:a", b"/n", b"i:7")]
    _, said = greeted([("/", i) for i in range(1200)])
    assert [(command[1], command[3], len(command)) for command in said[1:]] == [
        (b"ROOMS", b"1", 1004), (b"ROOMS", b"1", 1004), (b"ROOMS", b"0", 404)]


def test_joins_wait_for_their_number_and_leaves_for_nothing():
    talk, _ = greeted()
    talk.note(True, "/", "a")
    talk.note(True, "/", "b")
    talk.note(False, "/", "a")
    talk.note(True, "/", "a")
    assert not talk.is_joined()
    assert talk.flush() == [(b"SIDRAIL", b"JOIN", b"1", b"1", b"/", b"s:a", b"/", b"s:b"),
                            (b"SIDRAIL", b"LEAVE", b"1", b"2", b"/", b"s:a"),
                            (b"SIDRAIL", b"JOIN", b"1", b"3", b"/", b"s:a")]
    talk.hear(b"joined 1 1")
    assert not talk.is_joined()
    talk.hear(b"joined 1 3")
    assert talk.is_joined()
    talk.note(False, "/", "a")
    assert talk.is_joined()


def test_a_snapshot_takes_in_what_was_not_told_yet():
    talk, _ = greeted()
    talk.note(True, "/", "a")
    assert talk.hear(b"again")[0][1:3] == (b"ROOMS", b"2")
    assert talk.flush() == []
    talk.hear(b"joined 1 9")
    assert not talk.is_joined()
    talk.hear(b"joined 2 0")
    assert talk.is_joined()


def test_without_a_greeting_nothing_is_said_and_nothing_waits():
    talk = Talk(lambda: [("/", "a")])
    talk.begin()
    talk.note(True, "/", "a")
    assert not talk.is_joined()  # a greeting may come
    talk.confirm()
    assert talk.state is State.PLAIN and talk.is_joined()
    talk.note(True, "/", "b")
    assert talk.flush() == talk.count() == [] and talk.is_joined()
    talk.end()
    assert talk.is_joined()


@pytest.mark.parametrize("payload", [b"", b"hello", b"hello 2 c1", b"joined", b"joined x y", b"joined 1", b"\xff\x00", b"later words"])
def test_words_that_are_not_known_change_nothing(payload):
    talk = Talk(lambda: [])
    talk.begin()
    assert talk.hear(payload) == []
    talk.confirm()
    assert talk.state is State.PLAIN


def test_connections_are_named_until_one_is_known_to_be_heard():
    talk, _ = greeted()
    talk.hear(b"joined 1 0")
    for _ in range(SEEN_AT_ONCE + 3):
        talk.count()
    talk.end()
    assert not talk.flush()
    hello = talk.hear(b"hello 1 c2")[0]
    assert hello[5:] == (b"c1", b"%d" % (SEEN_AT_ONCE + 3))
    talk.end()  # nothing came: did the broker hear it?
    assert talk.hear(b"hello 1 c3")[0][5:] == (b"c2", b"0", b"c1", b"%d" % (SEEN_AT_ONCE + 3))
    talk.count()
    talk.end()
    assert talk.hear(b"hello 1 c4")[0][5:] == (b"c3", b"1")


def test_what_was_seen_is_told_now_and_then():
    talk, _ = greeted()
    said = [command for _ in range(3 * SEEN_AT_ONCE) for command in talk.count()]
    assert said[-1][1] == b"SEEN" and 3 <= len(said) <= 5


# ── the broker's side ──

class Manager:
    """Says what it likes over one connection."""

    def __init__(self, broker):
        self.raw = Raw(broker.port, timeout=10)
        self.say("SUBSCRIBE", GREETING.decode(), CHANNEL)
        assert self.raw.read()[0] == b"subscribe"
        kind, channel, words = self.raw.read()
        assert (kind, channel) == (b"message", GREETING) and words.startswith(b"hello 1 ")
        self.connection = words.split()[2]
        assert self.raw.read() == [b"subscribe", CHANNEL.encode(), 2]

    def say(self, *words):
        self.raw.send(command(*words))

    def heard(self):
        kind, channel, payload = self.raw.read()
        return payload if channel == GREETING else json.loads(payload)["data"][0]


def publish(broker, room, data):
    with Raw(broker.port) as raw:
        assert isinstance(raw.call("PUBLISH", CHANNEL, emit(room, data)), int)


def pod_state(broker):
    return [pod["state"] for pod in broker.status()["pods"]]


@pytest.mark.parametrize("words", [
    ("HELLO", "2", "own", "auto"), ("HELLO", "1", "own", "auto", "c1"), ("HELLO", "x", "own", "auto"), ("ROOMS", "1", "0"),
    ("JOIN", "1", "1", "/", "s:a"), ("LEAVE", "1", "1")], ids=lambda words: " ".join(words))
def test_a_manager_that_begins_wrongly_gets_everything(broker, words):
    b = broker()
    manager = Manager(b)
    manager.say("SIDRAIL", *words)
    wait_until(lambda: pod_state(b) == ["open"], "it is open")
    publish(b, "any room", 5)
    assert manager.heard() == 5


@pytest.mark.parametrize("words", [
    ("JOIN", "1", "2", "/", "s:a"), ("JOIN", "2", "1", "/", "s:a"), ("LEAVE", "1", "2"), ("ROOMS", "0", "0"), ("ROOMS", "1", "x"),
    ("JOIN", "1", "1", "/"), ("ALL",)], ids=lambda words: " ".join(words))
def test_a_change_out_of_order_opens_the_pod(broker, words):
    b = broker()
    manager = Manager(b)
    manager.say("SIDRAIL", "HELLO", "1", "own", "auto")
    manager.say("SIDRAIL", "ROOMS", "1", "0", "/", "s:a")
    assert manager.heard() == b"joined 1 0"
    publish(b, "b", 1)
    publish(b, "a", 2)
    assert manager.heard() == 2
    manager.say("SIDRAIL", *words)
    wait_until(lambda: pod_state(b) == ["open"], "it is open")
    publish(b, "b", 3)
    assert manager.heard() == 3
    if words[:3] == ("JOIN", "1", "2") or is_full() and words[0] != "ALL":
        assert manager.heard() == b"again"  # after 5 s
    manager.say("SIDRAIL", "ROOMS", "7", "0", "/", "s:b")
    assert manager.heard() == b"joined 7 0"
    publish(b, "a", 4)
    publish(b, "b", 5)
    assert manager.heard() == 5


def test_a_manager_that_says_nothing_gets_everything_after_a_second(broker):
    b = broker()
    manager = Manager(b)
    assert pod_state(b) == ["greeted"]
    wait_until(lambda: pod_state(b) == ["open"], "it is open", 5)
    publish(b, "any room", 5)
    assert manager.heard() == 5


def test_a_join_that_redis_does_not_confirm_opens_the_pod_and_is_answered(broker, redis_server):
    server = redis_server()
    b = broker([server])
    wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
    manager = Manager(b)
    manager.say("SIDRAIL", "HELLO", "1", "own", "auto")
    manager.say("SIDRAIL", "ROOMS", "1", "0", "/", "s:a")
    assert manager.heard() == b"joined 1 0"
    server.pause()
    begun = time.monotonic()
    manager.say("SIDRAIL", "JOIN", "1", "1", "/", "s:b")
    assert manager.heard() == b"joined 1 1"
    assert 0.9 < time.monotonic() - begun
    server.resume()
    assert b.metrics().get("sidrail_broker_pods_failed_open_total") == 1


def test_the_next_connection_goes_on_behind_what_was_seen(broker):
    b = broker()
    first = Manager(b)
    first.say("SIDRAIL", "HELLO", "1", "own", "auto")
    first.say("SIDRAIL", "ROOMS", "1", "0", "/", "s:a")
    assert first.heard() == b"joined 1 0"
    for number in range(10):
        publish(b, "a", number)
    assert [first.heard() for _ in range(10)] == list(range(10))
    first.say("SIDRAIL", "SEEN", "2")
    # of ten that its kernel has had, four were handled
    second = Manager(b)
    publish(b, "a", 10)
    second.say("SIDRAIL", "HELLO", "1", "own", "auto", "none-1", "0", first.connection, "4")
    assert [second.heard() for _ in range(7)] == [4, 5, 6, 7, 8, 9, 10]
    publish(b, "b", 11)
    publish(b, "a", 12)
    assert second.heard() == 12  # its rooms are known before it tells them again
    assert pod_state(b) == ["spoken"] or pod_state(b) == ["open"]


@pytest.mark.parametrize(("dialect", "data"), [("json14", [[1]]), ("json15", [1]), ("auto", [1])])
def test_what_a_manager_publishes_is_read_by_the_dialect_that_it_named(broker, dialect, data):
    """Data that is a list: one argument of json14, or all arguments of json15. The publishing connection says nothing."""
    b = broker()
    manager = Manager(b)
    manager.say("SIDRAIL", "HELLO", "1", "own", dialect)
    manager.say("SIDRAIL", "ROOMS", "1", "0")
    assert manager.heard() == b"joined 1 0"
    other = Raw(b.port, timeout=5)
    other.call("CLIENT", "SETNAME", "other:json15")
    other.call("SUBSCRIBE", CHANNEL)
    payload = {"method": "emit", "event": "e", "data": [1], "namespace": "/", "room": "r", "host_id": HOST}
    with Raw(b.port) as raw:
        raw.call("PUBLISH", CHANNEL, json.dumps(payload))
    assert json.loads(other.read()[2])["data"] == data
    basis = "assumed" if dialect == "auto" else "named"
    assert b.metrics().by("sidrail_broker_messages_by_dialect_basis_total", "basis")[basis] == 1
    other.close()


def test_who_is_no_manager_is_told_so(broker):
    b = broker()
    with Raw(b.port) as raw:
        for words in (("HELLO", "1", "own", "auto"), ("SEEN", "1"), ("ALL",), ("JOIN", "1", "1")):
            assert raw.call("SIDRAIL", *words) == Error("ERR SIDRAIL is for a client manager that was greeted")
        assert raw.call("SUBSCRIBE", GREETING.decode()) == [b"subscribe", GREETING, 1]


@pytest.mark.skipif(not is_full(), reason="installs build tools from a registry")
def test_the_package_installs_and_is_typed(tmp_path):
    python = ENVIRONMENTS / "current" / "bin" / "python"
    package, place = tmp_path / "package", tmp_path / "place"
    shutil.copytree(ROOT / "broker" / "python", package)  # setuptools writes beside what it builds
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--target", place, package], check=True)
    assert (place / "sidrail_socketio" / "py.typed").exists()
    subprocess.run([python, "-c", "import sidrail_socketio as s; s.SidrailManager, s.AsyncSidrailManager"], check=True,
                   env={"PYTHONPATH": str(place)})

"""What a Redis client says and hears: handshakes, errors, states and texts, as Redis has them; and the client libraries
that pods use, unmodified."""
import json
import os
import subprocess
import time

import pytest
from client_programs import PYTHON_ASYNC, PYTHON_SYNC, run_python
from daemons import node_env, wait_until
from resp_client import Error, Push, Raw, command, emit


@pytest.fixture(scope="module")
def hub(module_servers):
    return module_servers.broker(config={"heartbeat": "1s"})


@pytest.fixture
def raw(hub):
    with Raw(hub.port) as raw:
        yield raw


def is_error(reply, text):
    return isinstance(reply, Error) and reply == text


def test_errors_have_redis_texts(raw):
    assert is_error(raw.call("FOO", "a", "b"), "ERR unknown command 'FOO', with args beginning with: 'a' 'b' ")
    assert is_error(raw.call("PUBLISH", "a"), "ERR wrong number of arguments for 'publish' command")
    assert is_error(raw.call("client", "setname"), "ERR wrong number of arguments for 'client|setname' command")
    assert is_error(raw.call("CLIENT", "FOO"), "ERR unknown subcommand 'FOO'. Try CLIENT HELP.")
    assert is_error(raw.call("CLIENT", "MAINT_NOTIFICATIONS", "ON"),
                    "ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.")
    assert is_error(raw.call("HELLO", "4"), "NOPROTO unsupported protocol version")
    assert is_error(raw.call("SELECT", "x"), "ERR value is not an integer or out of range")
    assert raw.call("PING") == "PONG"


def test_a_protocol_error_is_told_and_ends_the_connection(hub):
    with Raw(hub.port) as raw:
        raw.send(b"*1\r\nPING\r\n")
        assert is_error(raw.read(), "ERR Protocol error: expected '$', got 'P'")
        with pytest.raises(EOFError):
            raw.read()


def test_the_small_commands_answer(raw):
    assert raw.call("ping", "x") == b"x"
    assert raw.call("ECHO", b"\x00\xff") == b"\x00\xff"
    assert raw.call("SELECT", "3") == "OK"
    assert raw.call("CLIENT", "GETNAME") is None
    assert raw.call("CLIENT", "SETNAME", "pod-1") == "OK"
    assert raw.call("CLIENT", "GETNAME") == b"pod-1"
    assert raw.call("CLIENT", "SETINFO", "LIB-NAME", "redis-py") == "OK"
    assert isinstance(raw.call("CLIENT", "ID"), int)
    assert b"name=pod-1" in raw.call("CLIENT", "LIST")
    assert b"lib-name=redis-py" in raw.call("CLIENT", "INFO")
    assert raw.call("CONFIG", "GET", "save") == []
    assert raw.call("COMMAND", "DOCS") == []
    assert raw.call("COMMAND") == []
    assert raw.call("COMMAND", "COUNT") > 15
    assert raw.call("ROLE")[0] == b"master"
    assert len(raw.call("TIME")) == 2
    info = raw.call("INFO").decode()
    for line in ("redis_version:7", "redis_mode:standalone", "loading:0", "role:master", "connected_clients:"):
        assert line in info
    assert b"redis_version" not in raw.call("INFO", "clients")
    assert raw.call("AUTH", "whatever") == "OK"  # a listener without users takes URLs with a password
    masters = raw.call("SENTINEL", "MASTERS")
    assert masters[0][:2] == [b"name", b"mymaster"]
    assert raw.call("QUIT") == "OK"
    with pytest.raises(EOFError):
        raw.read()


def test_a_resp2_subscriber_may_say_little_and_ping_has_its_form(raw):
    raw.call("SUBSCRIBE", "c")
    assert raw.call("GET", "x").startswith("ERR unknown command")
    assert is_error(raw.call("PUBLISH", "c", "x"),
                    "ERR Can't execute 'publish': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "
                    "are allowed in this context")
    assert raw.call("CLIENT", "LIST").startswith("ERR Can't execute 'client|list': only (P|S)SUBSCRIBE")
    assert raw.call("PING") == [b"pong", b""]
    assert raw.call("PING", "x") == [b"pong", b"x"]
    assert raw.call("RESET") == "RESET"
    assert raw.call("PING") == "PONG"
    assert raw.call("PUBLISH", "c", "x") == 0


def test_resp3_pushes_and_allows_all_commands_while_subscribed(raw):
    hello = raw.call("HELLO", "3", "SETNAME", "three")
    assert hello[b"proto"] == 3 and hello[b"role"] == b"master" and hello[b"server"] == b"redis"
    assert raw.call("SUBSCRIBE", "c", "d") == Push([b"subscribe", b"c", 1])
    assert raw.read() == Push([b"subscribe", b"d", 2])
    raw.send(command("PUBLISH", "c", "x"))
    assert raw.read() == Push([b"message", b"c", b"x"])
    assert raw.read() == 1
    assert raw.call("CONFIG", "GET", "x") == {}
    assert raw.call("PING") == "PONG"


def test_pipelined_requests_are_answered_in_order(raw):
    raw.send(b"PING a\r\n" + command("ECHO", "b") + b"*0\r\n\r\n" + command("PUBLISH", "n", "x") + b"PING\r\n")
    assert [raw.read() for _ in range(4)] == [b"a", b"b", 0, "PONG"]


@pytest.mark.smoke
def test_requests_of_one_byte_at_a_time_are_understood(hub):
    with Raw(hub.port) as raw:
        for byte in command("SUBSCRIBE", "drip") + b"PING x\r\n":
            raw.send(bytes([byte]))
        assert raw.read() == [b"subscribe", b"drip", 1]
        assert raw.read() == [b"pong", b"x"]


def test_a_subscriber_hears_a_heartbeat_that_says_nothing_on_its_channel(hub, raw):
    raw.call("SUBSCRIBE", "flask-socketio")
    with Raw(hub.port) as generic:
        generic.call("SUBSCRIBE", "other")
        assert raw.read() == [b"message", b"flask-socketio", b"{}"]
        generic.send(b"PING\r\n")
        assert generic.read() == [b"pong", b""]  # who does not listen to messages of pods gets none


def test_nothing_is_pushed_to_a_client_that_has_not_subscribed(hub):
    with Raw(hub.port, timeout=2.5) as idle:
        idle.call("PING")
        with pytest.raises(TimeoutError):
            idle.socket.recv(1)


def test_pickles_that_carry_code_are_refused_and_told_once(hub):
    attack = b"\x80\x04c" + b"os\nsystem\n" + b"\x8c\x02id\x85R."
    with Raw(hub.port) as raw:
        for _ in range(3):
            reply = raw.call("PUBLISH", "flask-socketio", attack)
            assert isinstance(reply, Error) and "GLOBAL" in reply
        assert raw.call("PUBLISH", "other", attack) == 0  # only channels of messages are looked at
    assert hub.metrics().get("sidrail_broker_messages_refused_total", reason="unsafe") == 3
    assert hub.log().count("message refused") == 1


def test_a_client_that_leaves_with_its_publish_unanswered_has_published(hub):
    with Raw(hub.port) as subscriber:
        subscriber.call("SUBSCRIBE", "flask-socketio")
        raw = Raw(hub.port)
        raw.send(command("PUBLISH", "flask-socketio", emit("r", 1)))
        raw.close()
        while True:
            message = subscriber.read()
            if message[1] == b"flask-socketio":
                break
        assert message[2] == emit("r", 1)


def test_client_kill_ends_a_connection(hub, raw):
    with Raw(hub.port) as victim:
        number = victim.call("CLIENT", "ID")
        assert raw.call("CLIENT", "KILL", "ID", number) == 1
        with pytest.raises(EOFError):
            victim.read()


# --- authentication ------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def guarded(module_servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "pods").write_text("old-secret\nnew-secret\n")
    (folder / "celery").write_text("celery-secret\n")
    users = [{"name": "pods", "password_file": str(folder / "pods")},
             {"name": "celery", "password_file": str(folder / "celery"), "publish_only": True,
              "channels": ["flask-socketio"]}]
    return module_servers.broker(config="""
        listeners:
          - address: ${LISTEN}
            users: %s
        admin: {address: "${ADMIN}", socket: ""}
        """ % json.dumps(users))


def test_without_a_password_only_the_handshake_is_allowed(guarded):
    with Raw(guarded.port) as raw:
        assert is_error(raw.call("PUBLISH", "a", "b"), "NOAUTH Authentication required.")
        assert is_error(raw.call("SUBSCRIBE", "a"), "NOAUTH Authentication required.")
        assert raw.call("HELLO", "3").startswith("NOAUTH ")
        assert raw.call("AUTH", "pods", "wrong").startswith("WRONGPASS ")
        assert raw.call("AUTH", "nobody", "old-secret").startswith("WRONGPASS ")
        assert raw.call("AUTH", "old-secret").startswith("WRONGPASS ")  # two users: the name is needed
        assert raw.call("AUTH", "pods", "old-secret") == "OK"
        assert raw.call("PUBLISH", "a", "b") == 0
        assert raw.call("RESET") == "RESET"
        assert is_error(raw.call("PING"), "NOAUTH Authentication required.")
        assert raw.call("HELLO", "3", "AUTH", "pods", "new-secret")[b"proto"] == 3


def test_a_user_is_held_to_publishing_and_to_its_channels(guarded):
    with Raw(guarded.port) as raw:
        assert raw.call("AUTH", "celery", "celery-secret") == "OK"
        assert raw.call("PUBLISH", "flask-socketio", emit("r", 1)) == 0
        assert raw.call("PUBLISH", "other", "x").startswith("NOPERM ")
        assert raw.call("SUBSCRIBE", "flask-socketio").startswith("NOPERM ")


#: The broker's own words for Redis' ACL rules of the same users.
LIMITED = {"celery": ({"publish_only": True, "channels": ["mine"]}, ["-@all", "+@connection", "-client|list",
                                                                     "-client|kill", "+publish", "&mine"]),
           "pods": ({"channels": ["mine"]}, ["-@all", "+@connection", "-client|list", "-client|kill", "+publish",
                                             "+subscribe", "+psubscribe", "+unsubscribe", "+punsubscribe", "&mine"]),
           "watch": ({"commands": ["pubsub"]}, ["-@all", "+@connection", "-client|list", "-client|kill", "+pubsub",
                                                "&*"]),
           "admin": ({"commands": ["clients", "pubsub", "publish", "subscribe"]}, ["+@all", "&*"])}


def asked_of(port, name):
    """What a user is answered to everything that is of a class."""
    words = ["PUBLISH mine x", "PUBLISH other x", "CLIENT LIST TYPE master", "CLIENT KILL ID 999999", "client kill x:1",
             "PUBSUB CHANNELS none*", "PUBSUB NUMPAT", "PUBSUB NUMSUB", "CLIENT SETNAME me", "CLIENT GETNAME",
             "CLIENT NO-EVICT on", "PING", "ECHO x", "SUBSCRIBE other", "PSUBSCRIBE *", "SUBSCRIBE mine other",
             "PSUBSCRIBE mine", "PUNSUBSCRIBE", "SUBSCRIBE mine", "UNSUBSCRIBE mine"]
    with Raw(port) as raw:
        assert raw.call("AUTH", name, "secret") == "OK"
        answers = {}
        for word in words:
            answers[word] = raw.call(*word.split())
            if word.startswith(("SUBSCRIBE", "PSUBSCRIBE")) and not isinstance(answers[word], Error):
                for channel in word.split()[2:]:
                    raw.read()
                raw.call("RESET")
                raw.call("AUTH", name, "secret")
        return answers


def test_users_have_the_commands_and_channels_that_the_same_users_have_at_redis(module_servers, tmp_path):
    (tmp_path / "secret").write_text("secret\n")
    users = [{"name": name, "password_file": str(tmp_path / "secret"), **rows} for name, (rows, _) in LIMITED.items()]
    broker = module_servers.broker(config="""
        listeners: [{address: "${LISTEN}", users: %s}]
        admin: {address: "${ADMIN}", socket: ""}
        """ % json.dumps(users))
    redis = module_servers.redis_server()
    with Raw(redis.port) as raw:
        for name, (_, rules) in LIMITED.items():
            assert raw.call("ACL", "SETUSER", name, "on", ">secret", "resetchannels", *rules) == "OK"
    for name in LIMITED:
        assert asked_of(broker.port, name) == asked_of(redis.port, name), name


def test_a_user_with_channels_sees_these_alone(module_servers, tmp_path):
    (tmp_path / "secret").write_text("secret\n")
    users = [{"name": "one", "password_file": str(tmp_path / "secret"), "channels": ["mine"],
              "commands": ["pubsub", "subscribe"]},
             {"name": "all", "password_file": str(tmp_path / "secret")}]
    broker = module_servers.broker(config="""
        listeners: [{address: "${LISTEN}", users: %s}]
        admin: {address: "${ADMIN}", socket: ""}
        """ % json.dumps(users))
    with Raw(broker.port) as every, Raw(broker.port) as one:
        every.call("HELLO", "3", "AUTH", "all", "secret")
        one.call("HELLO", "3", "AUTH", "one", "secret")
        for channel in ("mine", "hidden"):
            every.call("SUBSCRIBE", channel)
        every.call("PSUBSCRIBE", "h*")
        assert sorted(every.call("PUBSUB", "CHANNELS")) == [b"hidden", b"mine"]
        assert one.call("PUBSUB", "CHANNELS") == [b"mine"]
        assert one.call("PUBSUB", "NUMSUB", "mine") == [b"mine", 1]
        assert one.call("PUBSUB", "NUMSUB", "mine", "hidden").startswith("NOPERM ")
        assert (every.call("PUBSUB", "NUMPAT"), one.call("PUBSUB", "NUMPAT")) == (1, 0)
        assert is_error(one.call("PUBLISH", "mine", "x"),
                        "NOPERM this user has no permissions to run the 'publish' command")


def test_who_has_not_logged_in_may_not_send_large_requests(guarded):
    with Raw(guarded.port) as raw:
        raw.send(b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$1000000\r\n")
        assert "unauthenticated" in raw.read()


# --- client libraries ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("environment", ["redis3", "redis4", "redis5", "redis6", "redis7", "current"])
def test_redis_py_works_unmodified(hub, environment):
    run_python(environment, PYTHON_SYNC, hub.url)
    if environment != "redis3":
        run_python(environment, PYTHON_ASYNC, hub.url)


def test_valkey_py_works_unmodified(hub):
    run_python("valkey", PYTHON_SYNC.replace("redis", "valkey"), hub.url.replace("redis://", "valkey://"))


def test_redis_cli_works(hub):
    for flags in ([], ["-3"]):
        result = subprocess.run(["redis-cli", *flags, "-p", str(hub.port), "PUBLISH", "c", "x"], capture_output=True,
                                text=True, timeout=20)
        assert result.stdout.strip() in ("0", "(integer) 0"), result
    result = subprocess.run(["redis-cli", "-p", str(hub.port)], input="PING\nPUBLISH c x\n", capture_output=True,
                            text=True, timeout=20)
    assert result.stdout.split() == ["PONG", "0"]


def test_the_admin_port_tells_health_metrics_status_and_a_page(hub):
    from daemons import http_get
    for path in ("/livez", "/readyz", "/startupz"):
        assert http_get(hub.admin + path)[0] == 200
    assert "sidrail_broker_clients " in http_get(hub.admin + "/metrics")[1]
    page = http_get(hub.admin + "/")[1]
    assert page.startswith("<!doctype html>") and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    with Raw(hub.port) as raw:
        raw.call("SUBSCRIBE", "flask-socketio")
        status = wait_until(lambda: hub.status() if hub.status()["channels"] else None, "the channel is told")
        assert status["mode"] == "hub" and status["phase"] == "ready"
        assert {"name": "flask-socketio", "subscribers": 1} in status["channels"]


def test_idle_clients_cost_no_buffers(hub):
    """An idle client that has published and been answered keeps neither input nor output memory."""
    raws = [Raw(hub.port) for _ in range(200)]
    for raw in raws:
        raw.call("PUBLISH", "flask-socketio", emit("r", "x" * 1000))
    before = hub.pss()
    more = [Raw(hub.port) for _ in range(1000)]
    for raw in more:
        raw.call("PUBLISH", "flask-socketio", emit("r", "x" * 1000))
    time.sleep(0.1)
    grown = (hub.pss() - before) / len(more)
    from daemons import sanitizer
    if not sanitizer():
        assert grown < 3000, grown
    for raw in raws + more:
        raw.close()


# --- Node ----------------------------------------------------------------------------------------------------

IOREDIS = """
const Redis = require(process.argv[1]);
const url = process.argv[2];
(async () => {
    const subscriber = new Redis(url), publisher = new Redis(url);
    const got = [];
    subscriber.on("message", (channel, text) => got.push(text));
    if (await subscriber.subscribe("node") !== 1) throw new Error("subscribe");
    for (let i = 0; i < 20; i++) if (await publisher.publish("node", "x" + i) !== 1) throw new Error("publish");
    while (got.length < 20) await new Promise(done => setTimeout(done, 10));
    await subscriber.quit(); await publisher.quit();
    console.log(got.every((text, i) => text === "x" + i) ? "well" : got);
})();
"""

NODE_REDIS = """
const { createClient } = require(process.argv[1]);
const url = process.argv[2];
(async () => {
    const publisher = createClient({ url }), subscriber = publisher.duplicate();
    await publisher.connect(); await subscriber.connect();
    const got = [];
    await subscriber.subscribe("node", text => got.push(text));
    for (let i = 0; i < 20; i++) if (await publisher.publish("node", "x" + i) !== 1) throw new Error("publish");
    while (got.length < 20) await new Promise(done => setTimeout(done, 10));
    await subscriber.quit(); await publisher.quit();
    console.log(got.every((text, i) => text === "x" + i) ? "well" : got);
})();
"""


@pytest.mark.parametrize("package,code", [("ioredis-5", IOREDIS), ("ioredis-6", IOREDIS), ("redis-4", NODE_REDIS),
                                          ("redis-6", NODE_REDIS)])
def test_node_libraries_work_unmodified(hub, package, code):
    folder = node_env()["NODE_PATH"] / package
    if not folder.exists():
        pytest.skip(f"{package} is not installed")
    result = subprocess.run(["node", "-e", code, package, f"redis://127.0.0.1:{hub.port}"], capture_output=True,
                            text=True, timeout=30, env={**os.environ, "NODE_PATH": str(folder.parent)})
    assert result.stdout.strip() == "well", result.stderr

"""Sequences of commands are answered byte for byte as a redis-server 7 answers them.

A line is what one connection sends at once, commands between semicolons; then it closes its end, and reads to the
end of what comes back."""
import random
import re
import shlex
import socket

import pytest
from daemons import figure, wait_until
from resp_client import Raw, command

TRANSACTIONS = r"""
MULTI; PUBLISH a b; PING; EXEC
MULTI; EXEC
EXEC
DISCARD
MULTI; DISCARD; EXEC; PING
MULTI; PING; DISCARD; PING
MULTI; MULTI; PING; EXEC; PING
MULTI; FOO a b; PUBLISH a b; EXEC; EXEC; PING
MULTI; PUBLISH a; PING; EXEC; PING
MULTI; FOO; DISCARD; MULTI; PING; EXEC
MULTI; FOO; MULTI; EXEC
MULTI x
MULTI; MULTI x; EXEC
EXEC x
MULTI; EXEC x; PING; EXEC
MULTI; PING; EXEC x; PING
MULTI; DISCARD x; EXEC
WATCH a b; MULTI; PING; EXEC; UNWATCH
WATCH
UNWATCH x
MULTI; WATCH a; PING; EXEC
MULTI; UNWATCH; PING; EXEC
MULTI; QUIT; PING
MULTI; PING; RESET; EXEC
MULTI; SUBSCRIBE a b; PING; PUBLISH c x; EXEC; PING
MULTI; SUBSCRIBE a; PUBLISH a hello; EXEC; PING
MULTI; SUBSCRIBE a; EXEC; MULTI
MULTI; SUBSCRIBE a; FOO; EXEC; PUBLISH a x
HELLO 3; MULTI; SUBSCRIBE a; PUBLISH a hello; EXEC; PING
HELLO 3; SUBSCRIBE a; MULTI; PING; PUBLISH a x; UNSUBSCRIBE; EXEC
MULTI; PSUBSCRIBE a*; PUNSUBSCRIBE; EXEC; PING
MULTI; UNSUBSCRIBE; EXEC
SUBSCRIBE a; MULTI
SUBSCRIBE a; EXEC
SUBSCRIBE a; DISCARD
MULTI; HELLO 3; PING; CLIENT GETNAME; EXEC
HELLO 3; MULTI; HELLO 2; CLIENT GETNAME; EXEC
MULTI; CLIENT GETNAME; CLIENT SETNAME x; CLIENT GETNAME; EXEC
MULTI; CLIENT FOO; PING; EXEC
MULTI; CLIENT; PING; EXEC
MULTI; CLIENT SETNAME; EXEC
MULTI; CLIENT SETNAME "a b"; PING; EXEC
MULTI; SELECT y; ECHO x; PING a b; EXEC
MULTI; PUBSUB NUMSUB a; PUBSUB CHANNELS; PUBSUB NUMPAT; EXEC
MULTI; ECHO "\x00\r\n*1\r\n"; EXEC
MULTI; multi; exec; Exec
"""


OTHERS = r"""
PUBSUB HELP
PUBSUB help
PUBSUB HELP x
PUBSUB
PUBSUB FOO
PUBSUB CHANNELS a b
PUBSUB CHANNELS
PUBSUB NUMSUB
PUBSUB NUMPAT x
PUBSUB SHARDCHANNELS
PUBSUB SHARDCHANNELS a b
PUBSUB SHARDNUMSUB
PUBSUB SHARDNUMSUB a
SUBSCRIBE a; PUBSUB HELP
MULTI; PUBSUB HELP; CLIENT REPLY; EXEC
CLIENT LIST TYPE
CLIENT LIST TYPE foo
CLIENT LIST ID
CLIENT LIST ID x
CLIENT LIST ID 1 -1
CLIENT LIST ID 999999
CLIENT LIST ID 0
CLIENT LIST FOO
CLIENT LIST TYPE master
CLIENT LIST TYPE slave
CLIENT LIST TYPE REPLICA
CLIENT LIST TYPE pubsub
CLIENT LIST TYPE normal x
CLIENT KILL
CLIENT KILL 1.2.3.4:5
CLIENT KILL ID
CLIENT KILL ID x
CLIENT KILL ID 0
CLIENT KILL ID -1
CLIENT KILL ID 999999
CLIENT KILL ADDR 1.1.1.1:1
CLIENT KILL LADDR 1.1.1.1:1
CLIENT KILL USER nobody
CLIENT KILL TYPE foo
CLIENT KILL TYPE pubsub
CLIENT KILL TYPE master
CLIENT KILL TYPE slave
CLIENT KILL TYPE replica
CLIENT KILL SKIPME maybe
CLIENT KILL FOO bar
CLIENT KILL ID 999999 SKIPME
CLIENT KILL ID 999999 SKIPME no
CLIENT KILL ID 1 ID 999999
CLIENT KILL TYPE foo ID x
CLIENT KILL ID x TYPE foo
CLIENT KILL TYPE pubsub ID 99999 SKIPME no
CLIENT KILL a b c
CLIENT NO-EVICT on
CLIENT NO-EVICT foo
CLIENT NO-EVICT
CLIENT TRACKING off
CLIENT TRACKING foo
CLIENT TRACKING off foo
CLIENT TRACKING
CLIENT REPLY ON; PING
CLIENT REPLY foo
CLIENT REPLY
CLIENT REPLY SKIP; PING; ECHO a
CLIENT REPLY SKIP; CLIENT REPLY SKIP; PING; ECHO a
CLIENT REPLY SKIP; FOO; PING
CLIENT REPLY SKIP; PUBLISH a; PING
CLIENT REPLY SKIP; CLIENT REPLY foo; PING
CLIENT REPLY OFF; PING; FOO; CLIENT REPLY ON; PING
CLIENT REPLY OFF; CLIENT REPLY SKIP; PING; CLIENT REPLY ON; PING
CLIENT REPLY OFF; PING; RESET; PING
CLIENT REPLY OFF; QUIT
CLIENT REPLY SKIP; RESET; PING
CLIENT REPLY OFF; MULTI; PING; EXEC; CLIENT REPLY ON; PING
MULTI; CLIENT REPLY OFF; PING; EXEC; PING; CLIENT REPLY ON
MULTI; CLIENT REPLY SKIP; PING; EXEC; PING; PING
MULTI; CLIENT REPLY OFF; PING; CLIENT REPLY ON; PING; EXEC; PING
CLIENT REPLY SKIP; MULTI; PING; EXEC
MULTI; PING; CLIENT REPLY ON; EXEC
CLIENT GETNAME x
CLIENT ID x
CLIENT INFO x
CLIENT SETNAME "a b"
CLIENT SETNAME "a\nb"
CLIENT SETNAME ""; CLIENT GETNAME
CLIENT foo bar
CLIENT
client "fo\no"
PING a b
ECHO
HELLO 2 x
HELLO 3 SETNAME
HELLO 3 SETNAME "a b"
HELLO x
HELLO 4
AUTH
AUTH a b c
SELECT -1
SELECT 3
SELECT x
QUIT x
RESET x
COMMAND FOO
CONFIG GET
CONFIG GET nosuch
TIME x
ROLE x
ROLE
SUBSCRIBE
UNSUBSCRIBE
UNSUBSCRIBE a
PUNSUBSCRIBE a b
SUBSCRIBE a; FOO
SUBSCRIBE a; CLIENT FOO
SUBSCRIBE a; CLIENT
SUBSCRIBE a; CLIENT GETNAME
SUBSCRIBE a; PUBLISH
SUBSCRIBE a; HELLO 3; PING
SUBSCRIBE a; AUTH x
SUBSCRIBE a; QUIT
SUBSCRIBE a; RESET; PING
PUBLISH a b c
FOO
foo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b
"a\r\nb" "c\nd"
POST x; PING
MULTI; host:; EXEC
"""


def lines(text):
    return [line for line in text.splitlines() if line]


def talk(port, line):
    """All bytes that come back, without the numbers of connections."""
    out = b""
    for words in line.split(";"):
        out += command(*(word.encode().decode("unicode_escape").encode("latin1") for word in shlex.split(words)))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as end:
        end.sendall(out)
        end.shutdown(socket.SHUT_WR)
        got = b""
        while data := end.recv(65536):
            got += data
    return re.sub(rb"(\$2\r\nid\r\n:)\d+", rb"\1N", got)


@pytest.fixture(scope="module")
def hub(module_servers):
    return module_servers.broker()


@pytest.fixture(scope="module")
def redis(module_servers):
    return module_servers.redis_server()


#: A message of `a` as it comes by its channel or by `a*`, in RESP2 or RESP3.
OWN_MESSAGE = re.compile(rb"[*>](?:3\r\n\$7\r\nmessage|4\r\n\$8\r\npmessage\r\n\$2\r\na\*)\r\n\$1\r\n[ab]\r\n\$\d+\r\n\w*\r\n")


def is_as_redis(line, one, other):
    """Equal; but what a connection publishes to itself in a transaction comes behind EXEC's answer here, as from Redis 7.2 on,
    where 7.0 writes it into the answer."""
    if one == other or "EXEC" not in line:
        return one == other
    return OWN_MESSAGE.sub(b"", one) == OWN_MESSAGE.sub(b"", other) and OWN_MESSAGE.findall(one) == OWN_MESSAGE.findall(other)


def differences(redis, hub, text):
    found = [(line, talk(redis.port, line), talk(hub.port, line)) for line in lines(text)]
    return "".join(f"\n{line}\n  Redis  {one}\n  broker {other}" for line, one, other in found if not is_as_redis(line, one, other))


@pytest.mark.smoke
def test_transactions(hub, redis):
    assert differences(redis, hub, TRANSACTIONS) == ""


def test_what_one_publishes_to_itself_comes_behind_the_answer_of_exec(hub):
    answer = talk(hub.port, "MULTI; SUBSCRIBE a; PUBLISH a hello; PUBLISH a you; EXEC; PING")
    assert answer.index(b":1\r\n:1\r\n:1\r\n") < answer.index(b"hello") < answer.index(b"you") < answer.index(b"pong")


def test_all_else(hub, redis):
    assert differences(redis, hub, OTHERS) == ""


#: For any order of these; a bare UNSUBSCRIBE of several channels has no order at Redis.
WORDS = ["MULTI", "MULTI", "EXEC", "EXEC", "DISCARD", "WATCH a", "UNWATCH", "PING", "PING x", "PING a b", "ECHO x", "ECHO",
         "SUBSCRIBE a", "SUBSCRIBE a a", "SUBSCRIBE", "UNSUBSCRIBE", "UNSUBSCRIBE a", "PSUBSCRIBE a*", "PUNSUBSCRIBE",
         "PUBLISH a x", "PUBLISH a x", "PUBLISH b y", "PUBLISH a", "FOO", "CLIENT", "CLIENT FOO", "CLIENT SETNAME n",
         "CLIENT GETNAME", "CLIENT SETNAME 'a b'", "HELLO 3", "HELLO 2", "HELLO 9", "RESET", "QUIT", "CLIENT REPLY ON",
         "CLIENT REPLY SKIP", "CLIENT REPLY x", "AUTH", "AUTH a b c", "CLIENT KILL ID 99999", "CLIENT LIST TYPE master",
         "PUBSUB NUMSUB q", "PUBSUB NUMPAT q", "SELECT 3", "EXEC x", "MULTI x", "CLIENT NO-EVICT on", "CLIENT TRACKING off",
         "PUBSUB FOO", "PUBSUB"]


def test_any_sequence(hub, redis):
    dice = random.Random(11)
    text = "\n".join("; ".join(dice.choice(WORDS) for _ in range(dice.randint(2, 12))) for _ in range(figure(400, 8000)))
    assert differences(redis, hub, text) == ""


def help_of(port, container):
    """Each subcommand's lines."""
    blocks = []
    with Raw(port) as raw:
        head, *rest = raw.call(container, "HELP")
    for line in rest:
        if not line.startswith(" "):
            blocks.append(line)
        else:
            blocks[-1] += "\n" + line
    return head, blocks


@pytest.mark.parametrize("container", ["CLIENT", "COMMAND", "CONFIG", "PUBSUB"])
def test_help_has_the_lines_of_redis_for_what_there_is(hub, redis, container):
    head, blocks = help_of(hub.port, container)
    redis_head, redis_blocks = help_of(redis.port, container)
    assert head == redis_head
    later = ("SETINFO", "NO-TOUCH")  # of Redis 7.2, as MAXAGE is of 7.4
    blocks = [block.split("\n    * MAXAGE")[0] for block in blocks if not block.startswith(later)]
    assert [block for block in redis_blocks if block in blocks] == blocks
    with Raw(hub.port) as raw:  # and it is there
        for block in blocks:
            if not block.startswith("("):
                reply = raw.call(container, block.split()[0], "x", "y", "z")
                assert not str(reply).startswith("ERR unknown subcommand '"), block


KILLS = [("{other}",), ("ID", "{id}"), ("ADDR", "{other}"), ("LADDR", "{local}"), ("TYPE", "pubsub"),
         ("TYPE", "normal"), ("TYPE", "normal", "SKIPME", "no"), ("USER", "default"), ("TYPE", "pubsub", "ID", "{id}"),
         ("ADDR", "{other}", "ID", "{id}", "SKIPME", "yes"), ("ID", "{me}"), ("ID", "{me}", "SKIPME", "no"), ("{mine}",),
         ("ADDR", "{mine}"), ("ADDR", "{mine}", "SKIPME", "no"), ("SKIPME", "yes"), ("SKIPME", "no")]


def is_alive(raw):
    try:
        raw.send(command("PING"))
        return "pong" in str(raw.read()).lower()
    except (OSError, EOFError):
        return False


def killed(port, words):
    """The reply, and who is left: the killer, a client, a subscriber."""
    def text(address):
        return "%s:%d" % address

    with Raw(port) as me, Raw(port) as other, Raw(port) as subscriber:
        subscriber.call("SUBSCRIBE", "channel")
        fill = {"me": me.call("CLIENT", "ID"), "id": other.call("CLIENT", "ID"),
                "mine": text(me.socket.getsockname()), "other": text(other.socket.getsockname()),
                "local": text(me.socket.getpeername())}
        reply = me.call("CLIENT", "KILL", *(word.format(**fill) for word in words))
        return reply, is_alive(me), is_alive(other), is_alive(subscriber)


@pytest.mark.parametrize("words", KILLS, ids=" ".join)
def test_client_kill_ends_whom_redis_would_end(hub, redis, words):
    for port in (hub.port, redis.port):
        with Raw(port) as raw:  # those of the test before are gone
            wait_until(lambda raw=raw: raw.call("CLIENT", "LIST").count(b"\n") == 1, "nobody else is there")
    assert killed(hub.port, words) == killed(redis.port, words)


def test_client_kill_by_age_and_list_by_numbers(hub):
    with Raw(hub.port) as old, Raw(hub.port) as raw:
        numbers = [old.call("CLIENT", "ID"), raw.call("CLIENT", "ID")]
        listed = raw.call("CLIENT", "LIST", "ID", numbers[1], numbers[0], numbers[1], "999999").decode().splitlines()
        assert [int(line.split()[0][3:]) for line in listed] == numbers[::-1]
        assert raw.call("CLIENT", "KILL", "MAXAGE", "1000") == 0
        assert raw.call("CLIENT", "KILL", "MAXAGE", "x") == "ERR maxage is not an integer or out of range"
        assert raw.call("CLIENT", "KILL", "ID", numbers[0], "MAXAGE", "1000") == 0
        assert raw.call("CLIENT", "TRACKING", "ON").startswith("ERR ")


def test_a_client_that_wants_no_answers_gets_messages(hub):
    with Raw(hub.port) as raw, Raw(hub.port) as other:
        raw.send(command("CLIENT", "REPLY", "OFF") + command("PUBLISH", "c", "x") + command("SUBSCRIBE", "c"))
        assert raw.read() == [b"subscribe", b"c", 1]  # as Redis since 7.2
        assert other.call("PUBLISH", "c", "y") == 1
        assert raw.read() == [b"message", b"c", b"y"]

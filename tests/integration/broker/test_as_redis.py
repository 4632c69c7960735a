"""Sequences of commands are answered byte for byte as a redis-server 7 answers them.

A line is what one connection sends at once, commands between semicolons; then it closes its end, and reads to the
end of what comes back."""
import re
import shlex
import socket

import pytest
from resp_client import command

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


@pytest.mark.smoke
def test_transactions(hub, redis):
    wrong = [(line, talk(redis.port, line), talk(hub.port, line)) for line in lines(TRANSACTIONS)]
    wrong = [f"{line}\n  Redis  {one}\n  broker {other}" for line, one, other in wrong if one != other]
    assert not wrong, "\n" + "\n".join(wrong)

"""A ctl command of any length is answered, and the daemon lives on.

Lines of some lengths once came from memory that must not be given to free(), so that a word too many ended the proxy."""
import socket

import pytest


def ask(path, line):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(line.encode() + b"\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer.decode()


@pytest.mark.smoke
@pytest.mark.parametrize("daemon", ["proxy", "broker"])
def test_a_command_of_any_length_is_answered(servers, daemon):
    server = servers.proxy(["127.0.0.1:1"]) if daemon == "proxy" else servers.broker()
    path = server.folder / f"{server.name}.sock"
    for level in ("debug", "info", "warn", "error", "debug"):
        assert ask(path, f"log-level {level}").startswith("ok\n"), level
    for length in range(1, 80):
        assert ask(path, "x" * length).startswith("error\n"), length
    assert ask(path, "status").startswith("ok\n")

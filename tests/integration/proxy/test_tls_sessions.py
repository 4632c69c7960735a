"""Listeners that share ticket keys: a session of one that asks for no certificate opens none that does."""
import secrets
import socket
import ssl

import pytest
from daemons import free_port
from http_tools import Endpoint, get
from tls_tools import Authority, client_context


@pytest.fixture
def doors(servers, tmp_path):
    """(CA, port of an open door, port of one that asks for certificates), in front of an endpoint."""
    ca = Authority(tmp_path)
    files = ca.issue("server", ["DNS:localhost", "IP:127.0.0.1"])
    keys = tmp_path / "tickets"
    keys.write_text(secrets.token_hex(80) + "\n")
    keys.chmod(0o600)
    endpoint = Endpoint()
    ports = [free_port(), free_port()]
    shared = {"certificates": [{"cert": str(files[0]), "key": str(files[1])}], "ticket_keys": str(keys)}
    servers.proxy([endpoint.address], config={"listeners": [
        {"address": f"127.0.0.1:{ports[0]}", "tls": shared},
        {"address": f"127.0.0.1:{ports[1]}", "tls": {**shared, "client_ca": str(ca.crt)}}]})
    yield ca, *ports
    endpoint.close()


def ask(port, context, session=None):
    """(bytes that came back, whether the session was resumed, the session of this connection)"""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as sock:
            sock.sendall(get("/other"))
            return sock.recv(1000), sock.session_reused, sock.session


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_session_opens_no_door_that_asks_for_a_certificate(doors, version):
    ca, open_port, closed_port = doors
    context = client_context(ca.crt)
    context.maximum_version = getattr(ssl.TLSVersion, version)
    answer, _, session = ask(open_port, context)
    assert answer
    answer, is_resumed, _ = ask(open_port, context, session)
    assert answer and is_resumed
    with pytest.raises((ssl.SSLError, ConnectionError)):
        answer = ask(closed_port, context, session)[0]
        assert answer == b"", answer
        raise ConnectionError("closed without a word")

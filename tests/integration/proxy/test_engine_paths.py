"""No spelling of the path reaches a real Engine.IO server without affinity, or past access.origins.

Each server reads paths in its own way; what it takes for Engine.IO, asked directly, the proxy has to route as Engine.IO or to
refuse.
"""
import json

import pytest
from daemons import PODS, Pod, free_port, node_env, python_of
from engine_pods import TAGGED
from http_tools import Client, get

QUERY = "?EIO=4&transport=polling"
GOOD, EVIL = "https://good.test", "https://evil.test"
SPELLINGS = [
    "/socket.io/", "/socket.io", "/socket.io/x", "/socket.iox", "/socket.io-admin/", "/socket.io;v=1", "/socket.io;v=1/",
    "//socket.io/", "//socket.io", "///socket.io/", "/%2Fsocket.io/", "/%2fsocket.io", "/socket.io//", "/socket.io%2F",
    "/socket.io%2f%2f", "/%73ocket.io/", "/%73ocket.io", "/socket%2Eio/", "/%73%6f%63%6b%65%74%2e%69%6f", "/Socket.io/",
    "/SOCKET.IO", "/./socket.io/", "/%2e/socket.io", "/x/../socket.io/", "/x/..%2fsocket.io/", "/x%2f..%2fsocket.io",
    "/%2e%2e/socket.io/", "/..;/socket.io/", "/socket.io/../x", "/socket.io/..", "/socket.io/.", "/socket.io/%2e%2e/x",
    "/%5csocket.io/", "/socket.io%5c", "/x/%5c../socket.io/", "/socket.io%00", "/socket.io%20/", "/socket.io%3f/",
    "/%2573ocket.io/", "/socket.io%", "/socket.io%c0%af", "/x//socket.io/", "/socket.io&", "/socket.io,",
    "http://edge.test/socket.io", "http://edge.test//socket.io/", "http://other.test/%73ocket.io",
]
GUNICORN = ["-m", "gunicorn", "--chdir", PODS, "--no-control-socket", "--graceful-timeout", 1]


def argv_of(kind, port):
    if kind.startswith("node"):
        return ["node", PODS / "path_pod.js", str(kind == "node").lower()]
    if kind in ("wsgi", "asgi"):
        worker = ["-k", "asgi"] if kind == "asgi" else ["-k", "gthread"]
        return [python_of("current"), *GUNICORN, *worker, "--bind", f"127.0.0.1:{port}", f"path_pod:{kind}"]
    return [python_of("loops" if kind in ("eventlet", "gevent") else "current"), PODS / "path_pod.py", kind]


class PathPod(Pod):
    def __init__(self, name, folder, kind):
        port = free_port()
        super().__init__(name, argv_of(kind, port), folder, port, node_env())


def ask(port, target, *fields):
    """The bare sid that an Engine.IO server gave, as the client sees it; None: no Engine.IO server answered."""
    with Client(port) as client:
        try:
            answer = client.ask(get(target + QUERY, *fields))
        except (EOFError, ConnectionError):
            return None
        return json.loads(answer.body[1:])["sid"] if answer.status == 200 and answer.body[:2] == b"0{" else None


@pytest.mark.parametrize("kind", ["node", "node without slash", "wsgi", "asgi", "werkzeug", "eventlet", "gevent", "aiohttp"])
def test_no_spelling_reaches_a_server_without_affinity_or_past_origins(servers, affinity_keys, kind):
    pod = servers.start(PathPod("pod", servers.folder, kind))
    edge = servers.proxy([pod], config={"access": {"origins": [GOOD]}}, keys=affinity_keys)
    took = [target for target in SPELLINGS if target[0] == "/" and ask(pod.port, target)]
    assert "/socket.io/" in took
    untagged, passed = [], []
    for target in SPELLINGS:
        sid = ask(edge.port, target, f"Origin: {GOOD}")
        if sid and not TAGGED.fullmatch(sid):
            untagged.append(target)
        if ask(edge.port, target, f"Origin: {EVIL}"):
            passed.append(target)
    assert not untagged and not passed, (untagged, passed)
    assert ask(edge.port, "/socket.io/", f"Origin: {GOOD}")
    if "/socket.io" in took:
        assert ask(edge.port, "/socket.io", f"Origin: {GOOD}")
    print(kind, "takes", took)

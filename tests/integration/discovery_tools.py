"""Endpoints and clients for tests of discovery: what is listed changes, sessions are watched.

    Pod()              a scripted Engine.IO endpoint that knows its sessions; answers who it is
    wait_for_states()  until the admin port tells these states of endpoints
"""
import json
import secrets
import threading

from daemons import wait_until
from fakes import Client, Endpoint, ok

POLL = b"/socket.io/?EIO=4&transport=polling"


class Pod(Endpoint):
    """Opens sessions and answers polls of those it has opened; another's sid is a session it does not know."""

    def __init__(self, name, port=0, host="127.0.0.1"):
        self.name = name
        self.host_ip = host
        self.sids = set()
        self.strangers = 0
        self.handshakes = 0
        self.health = b"200 OK"
        self.probes = 0
        self._lock = threading.Lock()
        super().__init__(self._serve, port, host)

    def _serve(self, wire):
        while True:
            line, fields = wire.head()
            wire.body(fields)
            target = line.split(" ")[1]
            if target.startswith("/health"):
                self.probes += 1
                wire.send(b"HTTP/1.1 " + self.health + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            wire.send(self._answer(target))

    def _answer(self, target):
        if "sid=" not in target:
            sid = secrets.token_urlsafe(15)
            with self._lock:
                self.handshakes += 1
                self.sids.add(sid)
            return ok(b'0' + json.dumps({"sid": sid, "upgrades": ["websocket"], "pingInterval": 25000,
                                         "pingTimeout": 20000, "maxPayload": 1000000}).encode())
        sid = target.split("sid=")[1].split("&")[0]
        if sid not in self.sids:
            self.strangers += 1
            return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        return ok(b"4" + self.name.encode())


def handshake(port):
    """A new session: its sid, with the tag, as the client has it. A fresh client each time."""
    with Client(port) as client:
        status, _, body = client.get(POLL)
        assert status == 200, (status, body)
        return json.loads(body[1:])["sid"]


def poll(port, sid):
    """(status, name of the pod or the body) of a poll of that session."""
    with Client(port) as client:
        status, _, body = client.get(POLL + b"&sid=" + sid.encode())
        return status, body.decode()[1:] if status == 200 else body.decode()


def states(daemon):
    """{id: state} of all endpoints."""
    return {row["id"]: row["state"] for row in daemon.status()["endpoints"]}


def wait_for_states(daemon, wanted, seconds=20.0):
    """Waits until the endpoints are exactly these; warming counts as ready."""
    found = {}

    def is_so():
        found.clear()
        found.update({key: "ready" if state == "warming" else state for key, state in states(daemon).items()})
        return found == wanted
    try:
        wait_until(is_so, f"the endpoints are {wanted}", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; they are {found}") from None


def sessions_on(port, pods, each=4):
    """Opens sessions until each pod has at least `each`; {pod name: [sid, …]}."""
    found = {pod.name: [] for pod in pods}
    for _ in range(400):
        sid = handshake(port)
        for pod in pods:
            if sid.rsplit(".", 1)[0] in pod.sids:
                found[pod.name].append(sid)
        if all(len(sids) >= each for sids in found.values()):
            return found
    raise AssertionError(f"the sessions are {({name: len(sids) for name, sids in found.items()})}")

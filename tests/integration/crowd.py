"""Many Socket.IO clients of a test, in processes of their own, without cookies and without reconnecting.

    with Crowd(url, [wish("js-0", "polling", ["red"]), …]) as crowd:
        crowd.connect()          every client is connected, on the transport it asked for, and in its rooms
        crowd.echo()             what it sends to its pod comes back
        crowd.say(3)             it says three lines to each of its rooms; every member gets each line once

A client whose library is "js" runs socket.io-client 4.8 in Node, one of "python" the current python-socketio (by
turns synchronous and asyncio). What they do and answer is in tests/demo/js_clients.js.
"""
import collections
import sys

from daemons import ENVIRONMENTS, PATIENCE, ROOT, python_of, wait_until

sys.path.insert(0, str(ROOT / "tests" / "demo"))
from client_groups import ask_all, js_group, python_group  # noqa: E402

#: What a client uses in the end.
LAST_TRANSPORT = {"polling": "polling", "upgrade": "websocket", "websocket": "websocket"}
STEP_SECONDS = 60 * PATIENCE


def wish(name, transport, rooms, library="js", url=None, kind=None):
    """One client: `kind` is sync or async, of Python clients."""
    made = {"name": name, "transport": transport, "rooms": list(rooms), "library": library}
    made.update({key: value for key, value in (("url", url), ("kind", kind)) if value})
    return made


def wishes(library, transport, count, rooms):
    """`count` clients alike; client i is in room i and in room i + 1, modulo their number."""
    return [wish(f"{library}-{transport}-{i}", transport, {rooms[i % len(rooms)], rooms[(i + 1) % len(rooms)]}, library)
            for i in range(count)]


class Crowd:
    def __init__(self, url, clients):
        self.url = url
        self.clients = clients
        self.members = collections.defaultdict(list)
        for client in clients:
            for room in client["rooms"]:
                self.members[room].append(client["name"])
        self.expected = collections.Counter()
        self.groups = {}

    def __enter__(self):
        libraries = {client["library"] for client in self.clients}
        if "js" in libraries:
            self.groups[js_group(ENVIRONMENTS / "node" / "node_modules")] = "js"
        if "python" in libraries:
            self.groups[python_group(python_of("current"))] = "python"
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self._ask({"do": "close"})
        finally:
            for group in self.groups:
                group.stop()

    def _ask(self, order):
        return ask_all(list(self.groups), order, STEP_SECONDS).values()

    def connect(self):
        """Connects all; returns {name: {pod, transport, sid}}."""
        def hello(group):
            mine = [c for c in self.clients if c["library"] == self.groups[group]]
            return {"url": self.url, "clients": mine, "seconds": 20 * PATIENCE}

        connected = {}
        for answer in self._ask(hello):
            connected.update(answer["clients"])
        self.require_no_complaint()
        for client in self.clients:
            about = connected[client["name"]]
            assert about["connected"], f"{client['name']} is not connected"
            assert about["transport"] == LAST_TRANSPORT[client["transport"]], f"{client['name']} is on {about}"
        return connected

    def report(self):
        """{name: {connected, received, errors}} of all clients."""
        return {name: client for answer in self._ask({"do": "report"}) for name, client in answer["clients"].items()}

    def require_no_complaint(self, report=None):
        """No client has seen an error, or lost its session."""
        for name, client in (report or self.report()).items():
            assert not client["errors"], f"{name} complains: {client['errors']}"

    def echo(self):
        for answer in self._ask({"do": "echo"}):
            assert not answer["bad"], f"no right echo at {answer['bad']}: {self.report()[answer['bad'][0]]['errors']}"

    def call(self, event, data=None):
        """Every client emits the event and waits for its acknowledgement: {name: answer}."""
        answers = {name: a for group in self._ask({"do": "call", "event": event, "data": data})
                   for name, a in group["answers"].items()}
        self.require_no_complaint()
        return answers

    def expect(self, room, number, readers=None):
        """A line must arrive at these clients (default: the members of the room), once."""
        for reader in self.members[room] if readers is None else readers:
            self.expected[reader, str(room), number] += 1

    def say(self, each):
        """All clients speak at once; waits until everything is where it must be, and nothing more."""
        for answer in self._ask({"do": "say", "each": each}):
            assert not answer["failed"], f"{answer['failed']} could not speak: {self.report()[answer['failed'][0]]}"
            for room, number in answer["sent"]:
                self.expect(room, number)
        return self.settle()

    def received(self, report):
        return collections.Counter((name, str(room), number) for name, client in report.items()
                                   for room, number in client["received"])

    def settle(self):
        """Waits until no expected line is missing; fails if one came twice or to a stranger. Returns the report."""
        def missing():
            return self.expected - self.received(self.report())

        try:
            wait_until(lambda: not missing(), "every line has arrived", 20 + sum(self.expected.values()) / 1000)
        except AssertionError:
            self.require_no_complaint()
            lost = missing()
            raise AssertionError(f"{sum(lost.values())} of {sum(self.expected.values())} lines are missing, "
                                 f"among them {list(lost)[:5]}") from None
        report = self.report()
        surplus = self.received(report) - self.expected
        assert not surplus, f"{sum(surplus.values())} lines are doubled or astray, among them {list(surplus)[:5]}"
        self.require_no_complaint(report)
        return report

    def wait_heard(self, room, numbers):
        """Waits until these lines are at all members of the room; other lines are not judged."""
        def heard():
            report = self.report()
            return all([room, number] in report[name]["received"]
                       for name in self.members[room] for number in numbers)

        wait_until(heard, f"{room} has heard {numbers}")

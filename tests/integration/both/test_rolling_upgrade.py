"""Three real pods are upgraded one at a time, version after version, under traffic: every client gets every event as a cluster
of one version delivers it.

    pod-0 pod-1 pod-2     5.7.2 ▶ 5.13 ▶ 5.14.2 ▶ 5.15.0 ▶ current        (short: 5.7.2 ▶ 5.14.2 ▶ current)

Between two replacements each pod calls in every form to everybody, to rooms, to one client, leaving one out; asks clients of
other pods and gets their answers; moves and disconnects them. While a pod is replaced the others go on emitting, and their
clients hear each line once and in order. With named dialects nothing is wrong; with `auto`, what docs/dialects.md says.
"""
import collections
import itertools
import json
import threading
import time
import urllib.request

import pytest
import socketio
from daemons import ENVIRONMENTS, FlaskPod, figure, is_full, wait_until

LADDER = {"sio57": (5, 7), "sio5130": (5, 13), "sio5142": (5, 14, 2), "sio5150": (5, 15, 0), "current": (5, 18)}
STEPS = figure(["sio57", "sio5142", "current"], list(LADDER))
FORMS = ("text", "dict", "list", "list_of_one", "arguments", "bytes", "bytes_within", "bytes_among_arguments")
PICKLE, JSON14, JSON15 = "pickle", "json14", "json15"


def dialect_of(environment):
    version = LADDER[environment]
    return PICKLE if version < (5, 14) else JSON14 if version < (5, 15, 1) else JSON15


def heard(kind, number, publisher, reader, is_local):
    """The arguments that a client's handler gets. json14 has one form for several arguments and for a list of them."""
    form = {
        "text": (number,),
        "dict": ({"number": number, "list": [1, [2.5, None]], "é": "\u20ac\u2028"},),
        "list": ([number, 1],),
        "list_of_one": ([number],),
        "arguments": (number, {"a": [1]}),
        "bytes": (number.encode(),),
        "bytes_within": ({"number": number, "bytes": [b"\x00\xff", {"more": b""}]},),
        "bytes_among_arguments": (number, b"\x00\xff"),
    }[kind]
    if len(form) > 1 and not is_local and JSON14 in (publisher, reader):
        return (list(form),)
    return form


class UpgradePod(FlaskPod):
    """pods/upgrade_pod.py. Versions that have an environment of python-socketio alone lie over the current one."""

    def __init__(self, name, folder, version, broker, query):
        over = version not in ("sio57", "current")
        env = {}
        if over:
            (site,) = (ENVIRONMENTS / version / "lib").glob("python3.*/site-packages")
            env["PYTHONPATH"] = str(site)
        super().__init__(name, folder, "current" if over else version, f"{broker.url}?{query}", env=env)
        self.argv[-1] = "upgrade_pod:app"
        self.version = version
        self.dialect = dialect_of(version)

    def do(self, op, **order):
        request = urllib.request.Request(f"{self.url}/do", json.dumps({"op": op, **order}).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["answer"]


def keep_order(eio):
    """The client handles each message in a thread of its own: here one after the other."""
    trigger = eio._trigger_event

    def trigger_in_order(event, *arguments, **options):
        return trigger(event, *arguments, **{**options, "run_async": options.get("run_async", False) and event != "message"})

    eio._trigger_event = trigger_in_order


class Client:
    def __init__(self, place, name):
        self.place, self.name = place, name
        self.rooms = [f"room-{place}", "everyone" if name.endswith("0") else "some"]
        self.received = []
        self.sio = None

    def connect(self, pod):
        self.sio = socketio.Client(reconnection=False)
        self.sio.on("got", lambda *arguments: self.received.append(arguments))
        self.sio.on("ask", lambda number: (number, self.name, [1, 2]))
        keep_order(self.sio.eio)
        self.sio.connect(pod.url, transports=["websocket"], wait_timeout=20)
        self.sid = self.sio.get_sid()
        for room in self.rooms:
            self.sio.call("join", {"room": room}, timeout=20)

    def disconnect(self):
        self.sio.disconnect()


def flat(value):
    """Comparable, and its bytes kept apart from texts."""
    return json.dumps(value, default=lambda raw: {"bytes": bytes(raw).hex()}, sort_keys=True)


class Cluster:
    def __init__(self, servers, broker, is_named):
        self.servers, self.broker, self.is_named = servers, broker, is_named
        self.numbers = itertools.count()
        self.pods = [None] * 3
        self.clients = [[Client(place, f"{place}-{i}") for i in range(2)] for place in range(3)]
        self.wrong = collections.Counter()

    def everybody(self):
        return [client for clients in self.clients for client in clients]

    def make(self, place, version):
        suffix = f":{dialect_of(version)}" if self.is_named else ""
        return UpgradePod(self.servers.name(f"pod-{place}-{version}"), self.servers.folder, version, self.broker,
                          f"client_name=pod-{place}-{version}{suffix}")

    def put(self, place, version):
        """Replaces the pod at a place; its clients connect to the new one."""
        old = self.pods[place]
        new = self.make(place, version)
        self.servers.start(new, wait=False)
        new.wait_ready()
        if old is not None:
            for client in self.clients[place]:
                client.disconnect()
            old.stop()
        self.pods[place] = new
        for client in self.clients[place]:
            client.connect(new)

    def wait_heard(self):
        """All pods hear each other (a pod subscribes with its first client)."""
        def all_hear_all():
            calls = [(pod, f"hello {next(self.numbers)}") for pod in self.pods]
            for pod, number in calls:
                pod.do("send", calls=[{"kind": "text", "number": number, "to": None}])
            try:
                return wait_until(lambda: all(any(args == (number,) for args in client.received)
                                              for _, number in calls for client in self.everybody()), "all hear all", 2)
            except AssertionError:
                return False

        wait_until(all_hear_all, "all pods hear each other", 30)
        for client in self.everybody():
            client.received.clear()

    def judge(self):
        """Every form from every pod to everybody, to rooms, to one client."""
        expected = collections.defaultdict(list)  # client: what it must get
        for place, pod in enumerate(self.pods):
            other = self.clients[(place + 1) % 3]
            targets = [(None, None, self.everybody()), (f"room-{(place + 1) % 3}", None, other),
                       (["everyone", f"room-{place}"], None,
                        [c for c in self.everybody() if "everyone" in c.rooms or c.place == place]),
                       (other[0].sid, None, other[:1]), (f"room-{(place + 1) % 3}", other[0].sid, other[1:])]
            calls = []
            for kind, (to, skip, readers) in itertools.product(FORMS, targets):
                if kind == "bytes_among_arguments" and pod.dialect == JSON14:
                    continue  # a TypeError in that version
                number = f"{place}:{next(self.numbers)}"
                calls.append({"kind": kind, "number": number, "to": to, "skip": skip})
                for reader in readers:
                    reads = self.pods[reader.place]
                    expected[reader].append((flat(heard(kind, number, pod.dialect, reads.dialect, reader.place == place)),
                                             (kind, pod.version, reads.version)))
            pod.do("send", calls=calls)
        self.compare(expected)

    def compare(self, expected):
        def are_complete():
            return all(len(client.received) >= len(expected[client]) for client in self.everybody())

        try:
            wait_until(are_complete, "everything has arrived", 10 if self.is_named else 4)
        except AssertionError:
            pass
        time.sleep(0.2)  # for what comes too often
        for client in self.everybody():
            got = collections.Counter(flat(args) for args in client.received)
            client.received.clear()
            for wanted, about in expected[client]:
                if got[wanted] > 0:
                    got[wanted] -= 1
                else:
                    self.wrong[about] += 1
            surplus = +got
            if self.is_named:
                assert not surplus, f"{client.name} got too much: {list(surplus)[:3]}"
        if self.is_named:
            assert not self.wrong, f"wrong or missing: {self.wrong}"

    def judge_orders(self):
        """Callbacks, rooms and disconnects across pods."""
        for place, pod in enumerate(self.pods):
            other = self.clients[(place + 1) % 3][0]
            there = self.pods[other.place]
            number = f"ask {next(self.numbers)}"
            answer = pod.do("ask", sid=other.sid, number=number)
            assert answer == [number, other.name, [1, 2]], f"{pod.version} asked at {there.version}: {answer}"
            if min(LADDER[pod.version], LADDER[there.version]) < (5, 10):
                continue  # moves only its own clients
            pod.do("enter", sid=other.sid, room="moved")
            self.until(other, pod, "moved", True)
            pod.do("leave", sid=other.sid, room="moved")
            self.until(other, pod, "moved", False)
        victim = self.clients[1][1]
        self.pods[0].do("disconnect", sid=victim.sid)
        wait_until(lambda: not victim.sio.connected, "a remote client is disconnected")
        victim.disconnect()
        victim.connect(self.pods[1])
        for client in self.everybody():
            client.received.clear()

    def until(self, client, pod, room, hears):
        def is_so():
            number = f"probe {next(self.numbers)}"
            last = f"last {next(self.numbers)}"
            pod.do("send", calls=[{"kind": "text", "number": number, "to": room},
                                  {"kind": "text", "number": last, "to": client.sid}])
            wait_until(lambda: (last,) in client.received, "the client hears", 10)
            time.sleep(0.02)
            return ((number,) in client.received) == hears

        wait_until(is_so, f"{client.name} {'is in' if hears else 'has left'} {room}")

    def replace_under_traffic(self, place, version):
        """The other pods emit line after line meanwhile."""
        stays = [p for p in range(3) if p != place]
        stopping = threading.Event()
        sent, errors = {p: [] for p in stays}, []

        def emit(p):
            try:
                while not stopping.is_set():
                    number = f"steady:{p}:{len(sent[p])}"
                    self.pods[p].do("send", calls=[{"kind": "text", "number": number, "to": None}])
                    sent[p].append(number)
                    time.sleep(0.01)
            except Exception as error:  # shown below
                errors.append(error)

        threads = [threading.Thread(target=emit, args=(p,)) for p in stays]
        for thread in threads:
            thread.start()
        try:
            self.put(place, version)
            time.sleep(0.5)
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
        assert not errors, errors
        for client in self.everybody():
            for p in stays:
                self.require_lines(client, p, sent[p], client.place != place)
        for client in self.everybody():
            client.received.clear()

    def require_lines(self, client, p, sent, was_there):
        def lines():
            return [args[0] for args in client.received if str(args[0]).startswith(f"steady:{p}:")]

        wait_until(lambda: sent[-1] in lines(), f"{client.name} hears the last of {len(sent)} lines of pod {p}", 10)
        got = lines()
        missing = [i for i, number in enumerate(sent) if number not in set(got)]
        if not was_there and missing:  # while it went from the old pod to the new one
            assert missing == list(range(missing[0], missing[-1] + 1))
            sent = sent[:missing[0]] + sent[missing[-1] + 1:]
        assert got == sent, f"{client.name}: lines of pod {p} lost, doubled or disordered"


def run(servers, broker, is_named, steps):
    cluster = Cluster(servers, broker, is_named)
    for place in range(3):
        cluster.put(place, steps[0])
    cluster.wait_heard()
    cluster.judge()
    for version in steps[1:]:
        for place in (1, 2, 0):
            cluster.replace_under_traffic(place, version)
            cluster.wait_heard()
            cluster.judge()
            cluster.judge_orders()
    for client in cluster.everybody():
        client.disconnect()
    return cluster


@pytest.mark.parametrize("shards", figure([2], [0, 2]))
def test_named_pods_are_upgraded_one_at_a_time_and_no_client_notices(servers, shards):
    broker = servers.broker(servers.redis_server(shards) if shards else [])
    if shards:
        wait_until(lambda: broker.status()["shards_up"] == shards, "shards are up")
    run(servers, broker, True, STEPS)
    metrics = broker.metrics()
    assert metrics.get("sidrail_broker_deliveries_missed_total") == 0
    for dialect in (PICKLE, JSON14, JSON15):
        assert metrics.get("sidrail_broker_messages_transcoded_total", dialect=dialect) > 0


@pytest.mark.skipif(not is_full(), reason="a second upgrade through five versions takes half a minute")
def test_pods_that_publish_are_guessed_right_all_the_way(servers):
    cluster = run(servers, servers.broker([]), False, STEPS)
    assert not cluster.wrong, cluster.wrong


#: docs/dialects.md, "What is guessed wrong": (form, what the publisher is, what the reader is).
GUESSED_WRONG = (
    {(kind, publisher, "silent pickle") for kind in ("bytes", "bytes_within") for publisher in (PICKLE, JSON14, JSON15)} |
    {(kind, publisher, "silent pickle") for kind in ("arguments", "bytes_among_arguments") for publisher in (PICKLE, JSON15)} |
    {(kind, publisher, "silent json15") for kind in ("list", "list_of_one") for publisher in (PICKLE, JSON14, JSON15)} |
    {("arguments", JSON14, "silent json15")} |  # which json14 publishes as a list
    {("list", "lists only json14", reader) for reader in (PICKLE, JSON15, "silent json15")} |
    {("list_of_one", "lists only json14", reader)
     for reader in (PICKLE, JSON14, JSON15, "silent pickle", "silent json14", "silent json15")})


@pytest.mark.skipif(not is_full(), reason="starts seven pods of three versions, about a minute")
def test_what_is_guessed_wrong_is_what_the_documentation_says(servers):
    """Three pods that publish, three that only listen, and one that has published nothing but lists; none is named."""
    broker = servers.broker([])
    versions = {PICKLE: "sio57", JSON14: "sio5142", JSON15: "current"}
    pods = {}
    for about, version in ([(dialect, versions[dialect]) for dialect in versions] +
                           [(f"silent {dialect}", versions[dialect]) for dialect in versions] +
                           [("lists only json14", "sio5142")]):
        name = servers.name("pod-" + about.replace(" ", "-"))
        pods[about] = UpgradePod(name, servers.folder, version, broker, f"client_name={name}")
        pods[about].env["POD_SILENT"] = "1"
        servers.start(pods[about], wait=False)
    for pod in pods.values():
        pod.wait_ready()
    clients = {about: Client(place, f"{place}-0") for place, about in enumerate(pods)}
    for about, client in clients.items():
        client.connect(pods[about])
    wait_until(lambda: broker.status()["subscribers"] == len(pods), "all are subscribed")
    for dialect in versions:  # is known from here on
        pods[dialect].do("send", calls=[{"kind": "text", "number": "known", "to": "nobody"}])
    wrong = set()
    for about, kinds in ((*((dialect, FORMS) for dialect in versions), ("lists only json14", ("list", "list_of_one")))):
        pod = pods[about]
        for kind in kinds:
            if kind == "bytes_among_arguments" and pod.dialect == JSON14:
                continue
            number = f"{about} {kind}"
            pod.do("send", calls=[{"kind": kind, "number": number, "to": None}])
            for reader, client in clients.items():
                if reader == about:
                    continue
                wait_until(lambda: client.received, f"{reader} hears {number}")
                if flat(client.received.pop()) != flat(heard(kind, number, pod.dialect, pods[reader].dialect, False)):
                    wrong.add((kind, about, reader))
            clients[about].received.clear()
    for client in clients.values():
        client.disconnect()
    assert wrong == GUESSED_WRONG, (sorted(wrong - GUESSED_WRONG), sorted(GUESSED_WRONG - wrong))

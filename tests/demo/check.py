"""`--check`: 60 clients that prove the demo works, and a table of what they saw.

Half the clients are socket.io-client in Node, half python-socketio; a third of each stays on
polling, a third goes from polling to WebSocket, a third begins with WebSocket.  Every client
joins two of 16 rooms and says three numbered lines to each, so that every room has members on
several pods.  Then every line must be at every member of its room, once.
"""

import collections
import json
import time
import urllib.error
import urllib.request

from client_groups import GroupFailed, ask_all, js_group, python_group
from services import Failed

CLIENTS_PER_GROUP = 30
TRANSPORTS = ("polling", "upgrade", "websocket")
ROOMS = [f"check {i}" for i in range(16)]
LINES_PER_ROOM = 3
ARRIVAL_SECONDS = 20
STEP_SECONDS = 60
# Rooms are spread by hash; a Redis that carried fewer than this share of the lines did not take part.
LEAST_SHARE = 0.02


def wishes(group_name):
    """What each client of a group is: name, transport, rooms."""
    first = 0 if group_name == "js" else CLIENTS_PER_GROUP
    return [
        {
            "name": f"{group_name}-{i}",
            "transport": TRANSPORTS[i % 3],
            "rooms": [ROOMS[(first + i) % 16], ROOMS[(first + 5 * i + 7) % 16]],
        }
        for i in range(CLIENTS_PER_GROUP)
    ]


def expected_lines(members, sent):
    """How often each client must see each line: Counter of (client, room, number)."""
    inside = collections.defaultdict(list)
    for name, rooms in members.items():
        for room in set(rooms):
            inside[room].append(name)
    return collections.Counter(
        (reader, room, number) for room, number in sent for reader in inside[room]
    )


def received_lines(reports):
    return collections.Counter(
        (name, *line)
        for report in reports.values()
        for name, client in report["clients"].items()
        for line in client["received"]
    )


def carried(settings):
    """Messages that came back to the broker from each Redis (heartbeats between brokers are not among them)."""
    if not settings.redis_ports:
        return {}
    try:
        with urllib.request.urlopen(f"{settings.broker_status}status.json", timeout=5) as answer:
            shards = json.load(answer)["shards"]
    except OSError as error:
        raise Failed(f"the broker does not tell what it carried: {error}") from error
    received = {shard["name"]: shard["received"] for shard in shards}
    return {port: received[f"127.0.0.1:{port}"] for port in settings.redis_ports}


def session_errors_of_edge(metrics_url):
    """What the proxy itself counted as answers "session unknown", or None if it does not say."""
    try:
        with urllib.request.urlopen(metrics_url, timeout=5) as answer:
            text = answer.read().decode()
    except (OSError, urllib.error.URLError):
        return None
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    values = [float(row[-1]) for row in rows if row and "session_unknown" in row[0]]
    return int(sum(values)) if values else None


def print_table(rows):
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())


def run_check(settings, require_running):
    """Runs the check against the demo that `settings` describe.  Returns the list of what is wrong.

    `require_running` is called between the steps and raises Failed when a process has ended.
    """
    groups = {}
    try:
        groups = {"js": js_group(settings.node_modules), "python": python_group()}
        return judge(settings, groups, require_running)
    except GroupFailed as error:
        require_running()
        raise Failed(f"the clients failed: {error}") from None
    finally:
        for group in groups.values():
            group.stop()


def judge(settings, groups, require_running):
    key_of = {group: key for key, group in groups.items()}
    everyone = list(groups.values())
    members = {w["name"]: w["rooms"] for key in groups for w in wishes(key)}
    transports = {w["name"]: w["transport"] for key in groups for w in wishes(key)}

    def ask(order):
        return ask_all(everyone, order, STEP_SECONDS, require_running)

    def hello(group):
        return {"url": settings.url, "clients": wishes(key_of[group]), "seconds": 20}

    connected = {}
    for answer in ask(hello).values():
        connected.update(answer["clients"])
    before = carried(settings)
    echoed = ask({"do": "echo"})
    said = ask({"do": "say", "each": LINES_PER_ROOM})
    sent = [line for answer in said.values() for line in answer["sent"]]
    expected = expected_lines(members, map(tuple, sent))
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while True:
        require_running()
        reports = ask({"do": "report"})
        received = received_lines(reports)
        if not expected - received or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    time.sleep(0.5)  # a doubled line may come a little later
    reports = ask({"do": "report"})
    received = received_lines(reports)
    after = carried(settings)
    ask({"do": "close"})

    missing = sum((expected - received).values())
    doubled = sum((received - expected).values())
    clients = {name: c for report in reports.values() for name, c in report["clients"].items()}
    complaints = {name: c["errors"] for name, c in clients.items() if c["errors"]}
    at_edge = session_errors_of_edge(f"{settings.proxy_status}metrics")
    pods = collections.Counter(c["pod"] for c in connected.values() if c["connected"])
    last_transport = {"polling": "polling", "upgrade": "websocket", "websocket": "websocket"}
    off_track = [n for n, c in connected.items() if c["transport"] != last_transport[transports[n]]]

    wrong = []
    print("\nsessions")
    rows = [("pod", *TRANSPORTS, "all")]
    for pod in settings.pod_names:
        counts = [sum(c["pod"] == pod and c["connected"] and transports[n] == t for n, c in connected.items())
                  for t in TRANSPORTS]
        rows.append((pod, *counts, sum(counts)))
        if not pods[pod]:
            wrong.append(f"{pod} has no session")
    print_table(rows)
    up = sum(c["connected"] for c in clients.values())
    echoes = sum(answer["good"] for answer in echoed.values())
    print("\nclients")
    print_table([
        ("opened", "connected", "on the right transport", "echoed", "session errors", "seen by the proxy"),
        (len(members), up, len(members) - len(off_track), echoes, sum(map(len, complaints.values())),
         "not counted" if at_edge is None else at_edge),
    ])
    print("\nroom messages")
    print_table([
        ("said", "expected", "received", "missing", "doubled"),
        (len(sent), sum(expected.values()), sum(received.values()), missing, doubled),
    ])
    if settings.redis_ports:
        print("\nmessages carried")
        print_table([("Redis", "messages")] +
                    [(f"127.0.0.1:{port}", after[port] - before[port]) for port in settings.redis_ports])
    print(flush=True)

    if up != len(members):
        wrong.append(f"{len(members) - up} of {len(members)} clients are not connected")
    if off_track:
        wrong.append(f"not on the transport asked for: {', '.join(off_track[:5])}")
    if echoes != len(members):
        wrong.append(f"{len(members) - echoes} clients had no echo")
    if complaints:
        name, errors = next(iter(complaints.items()))
        wrong.append(f"session errors at {len(complaints)} clients, the first at {name}: {errors[0]}")
    if at_edge:
        wrong.append(f"the proxy saw {at_edge} answers that a session is unknown")
    if len(sent) != len(members) * 2 * LINES_PER_ROOM:
        wrong.append(f"only {len(sent)} of {len(members) * 2 * LINES_PER_ROOM} lines could be said")
    if missing:
        wrong.append(f"{missing} room messages are missing")
    if doubled:
        wrong.append(f"{doubled} room messages came more than once, or to the wrong client")
    for port in settings.redis_ports:
        if after[port] - before[port] < LEAST_SHARE * len(sent):
            wrong.append(f"Redis on port {port} carried {after[port] - before[port]} of {len(sent)} messages")
    return wrong

#!/usr/bin/env python3
"""What messages cost the pods that do not need them: CPU of 20 Flask workers of which 2 have somebody in the room.

    publisher ─ PUBLISH, paced ─▶ Redis                        ─▶ 20 × gunicorn, Flask-SocketIO   "Redis"
                               ▶ sidrail-broker ─ Redis ─ same ─▶ 20 × the same                   "broker"
                               ▶ sidrail-broker ─ Redis ─ same ─▶ 20 × with SidrailManager        "broker, manager"

Each worker has one client, connected by WebSocket; two of them are in the room, and what they receive is counted. The CPU is
what the kernel accounts to the workers' processes, less what they use while nothing is published.

    interest_bench.py [--pods N] [--seconds S] [--rate R] [--markdown FILE]
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "integration"))

import socketio  # noqa: E402
from daemons import Broker, FlaskPod, Redis, stop_together, wait_until  # noqa: E402
from resp_client import Raw  # noqa: E402

ROOM = "the room"
PAYLOADS = {"200 bytes": "x" * 60, "10 KB": [{"id": i, "name": f"name {i}", "price": i * 1.5, "tags": ["a", "b"]}
                                            for i in range(150)]}


def message(data):
    return json.dumps({"method": "emit", "event": "said", "data": [data], "binary": False, "namespace": "/",
                       "room": ROOM, "skip_sid": None, "callback": None, "host_id": "0" * 32})


def ticks(pids):
    """CPU seconds of the processes."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def workers_of(pods):
    """The processes that serve: gunicorn's children."""
    masters = {pod.process.pid for pod in pods}
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) in masters:
            found.append(int(stat.parent.name))
    return found


class Fleet:
    def __init__(self, folder, count, queue, env):
        self.received = 0
        self.lock = threading.Lock()
        self.pods = [FlaskPod(f"pod{i}", folder, "current", queue, threads=4, env=env) for i in range(count)]
        self.clients = []
        for first in range(0, count, 4):
            for pod in self.pods[first:first + 4]:
                pod.start(wait=False)
            for pod in self.pods[first:first + 4]:
                pod.wait_ready()
        for number, pod in enumerate(self.pods):
            client = socketio.Client(reconnection=False)
            client.on("said", self._on_said)
            client.connect(pod.url, transports=["websocket"])
            client.call("join", {"room": ROOM if number in (0, count // 2) else f"room {number}"})
            self.clients.append(client)
        self.pids = workers_of(self.pods)
        assert len(self.pids) == count

    def _on_said(self, _data):
        with self.lock:
            self.received += 1

    def stop(self):
        for client in self.clients:
            client.disconnect()
        stop_together(self.pods)


def run(fleet, port, payload, rate, seconds):
    """CPU of all workers for `seconds` at `rate` messages a second, as cores; how many messages came and should have."""
    idle, begun = ticks(fleet.pids), time.monotonic()
    time.sleep(3)
    idle = (ticks(fleet.pids) - idle) / (time.monotonic() - begun)
    before, received, begun = ticks(fleet.pids), fleet.received, time.monotonic()
    count = int(rate * seconds)
    with Raw(port) as raw:
        for number in range(count):
            time.sleep(max(0, begun + number / rate - time.monotonic()))
            raw.call("PUBLISH", "flask-socketio", payload)
    wait_until(lambda: fleet.received - received >= 2 * count, "all have come", 120)
    took = time.monotonic() - begun
    return (ticks(fleet.pids) - before) / took - idle, fleet.received - received, 2 * count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--markdown", type=pathlib.Path)
    options = parser.parse_args()
    results = {}
    for name in ("Redis", "broker", "broker, manager"):
        with tempfile.TemporaryDirectory() as folder:
            redis = Redis("redis", folder).start()
            broker = Broker("broker", folder, [redis]).start() if name != "Redis" else None
            if broker is not None:
                wait_until(lambda: broker.status()["shards_up"] == 1, "the shard is up")
            queue = broker or redis
            fleet = Fleet(folder, options.pods, f"redis://127.0.0.1:{queue.port}",
                          {"POD_MANAGER": "sidrail" if "manager" in name else "", "POD_PING_TIMEOUT": "120"})
            for label, data in PAYLOADS.items():
                cores, came, due = run(fleet, queue.port, message(data), options.rate, options.seconds)
                results[name, label] = cores
                print(f"{name}, {label}: {cores:.3f} cores, {came} of {due} messages", flush=True)
            fleet.stop()
            for server in (broker, redis):
                if server is not None:
                    server.stop()
    lines = ["| cores of all workers | " + " | ".join(PAYLOADS) + " |", "| --- |" + " --- |" * len(PAYLOADS)]
    for name in ("Redis", "broker", "broker, manager"):
        cells = (f"{results[name, label]:.3f} ({results[name, label] / results['Redis', label]:.2f})"
                 for label in PAYLOADS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")


main()

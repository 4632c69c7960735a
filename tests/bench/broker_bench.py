#!/usr/bin/env python3
"""What the broker costs against a bare Redis in the same run; prints the table of docs/performance.md.

    broker_bench.py [--rounds 3] [--seconds 2] [--plot docs/broker-performance.svg] [--ports 27000]

Each round measures every row once, a bare Redis before each, so that what the machine does meanwhile meets all of
them alike; a figure is the median over the rounds of its ratio to the bare Redis measured just before it. Servers
are started on loopback from the build (SIDRAIL_BUILD, default build/) and stopped at the end."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SIDRAIL_BUILD", ROOT / "build"))

# name, target of the ratio of CPU a delivery, server, rate (0: closed loop, 16 unanswered a publisher), payload
ROWS = [
    ("hub, closed loop", 1.0, "hub", 0, 200),
    ("1 shard, closed loop", 1.0, "one", 0, 200),
    ("4 shards, closed loop", None, "four", 0, 200),
    ("hub, 1,000/s", 1.0, "hub", 1000, 200),
    ("1 shard, 1,000/s", 1.6, "one", 1000, 200),
    ("1 shard, 1,000/s, 2 ms window", 0.75, "window", 1000, 200),
]
FAULTS = ("lost", "missing", "disordered", "broken")


class Servers:
    def __init__(self, folder, port):
        self.folder, self.port, self.started = folder, port, []
        self.redis = [self.start("redis-server", "--port", str(port + i), "--save", "", "--appendonly", "no")
                      for i in range(5)]
        self.of = {"bare": (port, self.redis[:1]),
                   "hub": self.broker("hub", 10, 0), "one": self.broker("one", 11, 1),
                   "four": self.broker("four", 12, 4), "window": self.broker("window", 13, 1, "2ms")}
        time.sleep(1.5)

    def start(self, *command):
        self.started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return self.started[-1]

    def broker(self, name, offset, shards, window="auto"):
        config = {"listeners": [{"address": f"127.0.0.1:{self.port + offset}"}], "cluster": {"name": name},
                  "admin": {"address": f"127.0.0.1:{self.port + offset + 10}", "socket": f"{self.folder}/{name}.sock"},
                  "delivery": {"flush_window": window}}
        if shards:
            config["shards"] = [{"name": f"s{i}", "url": f"redis://127.0.0.1:{self.port + i}"}
                                for i in range(1, shards + 1)]
        path = pathlib.Path(self.folder, f"{name}.yaml")
        path.write_text(json.dumps(config))  # JSON is YAML
        daemon = self.start(str(BUILD / "sidrail-broker"), "--config", str(path))
        return self.port + offset, [daemon, *self.redis[1:shards + 1]]

    def stop(self):
        for server in self.started:
            server.terminate()
        for server in self.started:
            server.wait()


def measure(load, servers, name, rate, size, seconds):
    port, processes = servers.of[name]
    pids = ",".join(str(process.pid) for process in processes)
    command = [load, str(port), "20", "20", str(rate), "16", str(seconds), str(size), pids]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run(load, servers, arguments):
    """For each row the list of (bare Redis, measured) of all rounds."""
    results = {row[0]: [] for row in ROWS}
    for round_number in range(arguments.rounds):
        for name, _, server, rate, size in ROWS:
            bare = measure(load, servers, "bare", rate, size, arguments.seconds)
            results[name].append((bare, measure(load, servers, server, rate, size, arguments.seconds)))
        print(f"round {round_number + 1} of {arguments.rounds}", file=sys.stderr)
    return results


def summary(results):
    rows = []
    for name, target, _, rate, _ in ROWS:
        pairs = results[name]
        rows.append({
            "name": name, "target": target, "rate": rate,
            "ratios": sorted(ours["cpu_per_delivery"] / bare["cpu_per_delivery"] for bare, ours in pairs),
            "deliveries": statistics.median(ours["delivered"] / bare["delivered"] for bare, ours in pairs),
            "p50": statistics.median(ours["p50"] for _, ours in pairs),
            "bare_p50": statistics.median(bare["p50"] for bare, _ in pairs),
            "faults": sum(ours[fault] for _, ours in pairs for fault in FAULTS)})
    return rows


def table(rows):
    print("| | CPU a delivery, of bare Redis (lowest, highest) | target | deliveries, of bare Redis | p50, bare Redis "
          "| lost, out of order |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        ratios, target = row["ratios"], row["target"]
        print(f"| {row['name']} | {statistics.median(ratios):.2f} ({ratios[0]:.2f}, {ratios[-1]:.2f}) "
              f"| {f'≤ {target}' if target else '–'} | {row['deliveries']:.2f} "
              f"| {row['p50'] / 1000:.1f} ms, {row['bare_p50'] / 1000:.1f} ms | {row['faults']} |")


def scan(folder):
    """What reading one message costs, with what the daemon is built of; printed as it comes."""
    program = f"{folder}/scan_messages"
    libraries = [BUILD / "libsidrail_broker.a", BUILD / "libsidrail_shared.a"]
    subprocess.run(["cc", "-O2", "-std=gnu11", f"-I{ROOT}", "-o", program, ROOT / "tests" / "bench" / "scan_messages.c",
                    *libraries, "-levent", "-lcrypto", "-lm"], check=True)
    print("\n" + subprocess.run([program], check=True, capture_output=True, text=True).stdout, end="")


def plot(rows, path):
    """A bar for each row, a line for its target; no library needed."""
    left, scale, height = 230, 190, 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="700" height="{len(rows) * height + 60}" '
           'font-family="sans-serif" font-size="13">',
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="10" y="20">CPU a delivery, broker and its Redis, of a bare Redis (bar: median; line: lowest to '
           'highest; red: target)</text>']
    for i, row in enumerate(rows):
        y = 36 + i * height
        low, middle, high = row["ratios"][0], statistics.median(row["ratios"]), row["ratios"][-1]
        out.append(f'<text x="10" y="{y + 15}">{row["name"]}</text>'
                   f'<rect x="{left}" y="{y}" width="{middle * scale:.0f}" height="20" fill="#7aa6c2"/>'
                   f'<path d="M{left + low * scale:.0f} {y + 10}H{left + high * scale:.0f}" stroke="#234"/>'
                   f'<text x="{left + max(middle, high) * scale + 8:.0f}" y="{y + 15}">{middle:.2f}</text>')
        if row["target"]:
            x = left + row["target"] * scale
            out.append(f'<path d="M{x:.0f} {y - 3}v26" stroke="#c22" stroke-width="2"/>')
    pathlib.Path(path).write_text("\n".join(out) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--ports", type=int, default=27400)
    parser.add_argument("--plot")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load = f"{folder}/publish_load"
        source = ROOT / "tests" / "bench" / "publish_load.c"
        subprocess.run(["cc", "-O2", "-o", load, source, "-lpthread"], check=True)
        servers = Servers(folder, arguments.ports)
        try:
            rows = summary(run(load, servers, arguments))
        finally:
            servers.stop()
        table(rows)
        scan(folder)
    if arguments.plot:
        plot(rows, arguments.plot)
    return 1 if any(row["faults"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

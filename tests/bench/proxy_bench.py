#!/usr/bin/env python3
"""sidrail-proxy against nginx, HAProxy and a blind relay: CPU for each operation, as ratios.

All of them run at the same time behind one load and before the same two endpoints, and are measured in turn for a second
each; the order turns from round to round. A figure is the median over the rounds of the ratio within the round, so a
slow minute of the machine meets everybody alike. System calls are counted by strace, apart from the CPU.

  proxy_bench.py [--rounds N] [--seconds S] [--first-port P] [--markdown FILE] [--plot FILE]

SIDRAIL_BUILD names the folder with sidrail-proxy. Ports P..P+9 of 127.0.0.1 are used (default 28400). At most ten
minutes."""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("SIDRAIL_BUILD", HERE.parents[1] / "build"))

# mode, users, message bytes
LOADS = {
    "echo 64 B": ("echo", 100, 64),
    "echo 16 KiB": ("echo", 20, 16384),
    "polling": ("poll", 100, 64),
    "connect, upgrade, echo, close": ("connect", 50, 64),
    "polling handshake, then upgrade": ("full", 50, 64),
}
STORM = "storm of 5,000 connects, seconds"
STORM_CPU = "storm, for each WebSocket"
# what is measured, who it is compared with, the most that the ratio may be
TARGETS = [
    ("echo 64 B", "nginx", 1.0), ("echo 64 B", "relay", 1.1), ("echo 16 KiB", "haproxy", 0.6), ("polling", "nginx", 0.75),
    ("connect, upgrade, echo, close", "nginx", 0.95), ("polling handshake, then upgrade", "nginx", 0.9),
    (STORM, "haproxy", 0.75),
    ("echo 64 B", "two", 1.05), ("polling", "two", 1.05), ("connect, upgrade, echo, close", "two", 1.05),
    ("polling handshake, then upgrade", "two", 1.05),
]
CALLS_MAX = 4.3  # system calls for each round trip of echo
NAMES = {"sidrail": "sidrail-proxy", "two": "sidrail-proxy, 2 threads", "nginx": "nginx", "haproxy": "HAProxy", "relay": "blind relay"}


class Bench:
    def __init__(self, options):
        self.options = options
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sidrail-bench-"))
        self.processes = []
        self.ports = {}
        self.pids = {}

    def compile(self, name, *libraries):
        subprocess.run(["cc", "-O2", "-o", str(self.folder / name), str(HERE / f"{name}.c"), *libraries], check=True)
        return str(self.folder / name)

    def spawn(self, *command):
        log = open(self.folder / "log", "ab")
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env=dict(os.environ, XDG_RUNTIME_DIR=str(self.folder)))
        self.processes.append(process)
        return process

    def peer_config(self, name, port):
        text = (HERE / "peers" / name).read_text()
        for word, value in (("FOLDER", self.folder), ("PORT", port), ("ENDPOINT1", self.endpoints[0]),
                            ("ENDPOINT2", self.endpoints[1])):
            text = text.replace(f"@{word}@", str(value))
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self):
        first = self.options.first_port
        self.endpoints = [first, first + 1]
        self.load_program = self.compile("proxy_load")
        self.spawn(self.compile("endpoint", "-lcrypto"), *self.endpoints)
        for at, name in enumerate(NAMES):
            self.ports[name] = first + 2 + at
        upstream = ",".join(f"127.0.0.1:{port}" for port in self.endpoints)
        started = {}
        for name, threads, admin in (("sidrail", 1, first + 8), ("two", 2, first + 9)):
            config = self.folder / f"{name}.yaml"
            config.write_text(json.dumps({
                "threads": threads, "admin": {"address": f"127.0.0.1:{admin}", "socket": ""},
                "listeners": [{"address": f"127.0.0.1:{self.ports[name]}"}],
                "upstreams": [{"name": "bench", "discovery": {"static": upstream.split(",")}}],
                "log": {"access": "off"}, "limits": {"connections_per_ip": 0}}))
            started[name] = self.spawn(BUILD / "sidrail-proxy", "--config", config)
        started["nginx"] = self.spawn("nginx", "-p", self.folder, "-c", self.peer_config("nginx.conf", self.ports["nginx"]))
        started["haproxy"] = self.spawn("haproxy", "-db", "-f", self.peer_config("haproxy.cfg", self.ports["haproxy"]))
        started["relay"] = self.spawn(self.compile("relay", "-levent_core"), self.ports["relay"],
                                      self.endpoints[0])  # it cannot tell which endpoint a session is on
        for name, process in started.items():
            self.wait_for(name, process)
            self.pids[name] = ",".join(str(pid) for pid in family(process.pid))

    def wait_for(self, name, process):
        until = time.monotonic() + 10
        while time.monotonic() < until and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.ports[name]), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{name} did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def load(self, name, mode, users, size, seconds):
        """The result of one window: a dictionary."""
        done = subprocess.run([self.load_program, mode, str(self.ports[name]), str(users), str(seconds), str(size),
                               self.pids[name]], capture_output=True, text=True, timeout=130)
        if done.returncode != 0:
            sys.exit(f"{mode} through {name} failed: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def measure(self):
        """figure -> name -> one value a round."""
        names, figures = list(NAMES), {}
        for turn in range(self.options.rounds):
            order = names[turn % len(names):] + names[:turn % len(names)]
            for figure, (mode, users, size) in LOADS.items():
                for name in order:
                    result = self.load(name, mode, users, size, self.options.seconds)
                    figures.setdefault(figure, {}).setdefault(name, []).append(result["cpu_us"])
            for name in order:
                result = self.load(name, "storm", 5000, 64, 1)
                figures.setdefault(STORM_CPU, {}).setdefault(name, []).append(result["cpu_us"])
                figures.setdefault(STORM, {}).setdefault(name, []).append(result["seconds"])
                time.sleep(0.5)
            print(f"round {turn + 1} of {self.options.rounds} is over", file=sys.stderr)
        return figures

    def count_calls(self):
        """System calls of sidrail-proxy for each operation, by load; empty without strace."""
        calls = {}
        for figure, (mode, users, size) in LOADS.items() if shutil.which("strace") else ():
            path = self.folder / "calls"
            pid = self.pids["sidrail"]
            before = self.counted(pid, path, mode, users, size)
            if before:
                calls[figure] = before
        return calls

    def counted(self, pid, path, mode, users, size):
        load = subprocess.Popen([self.load_program, mode, str(self.ports["sidrail"]), str(users), "3", str(size), pid],
                                stdout=subprocess.PIPE, text=True)
        time.sleep(0.7)
        trace = subprocess.Popen(["strace", "-c", "-f", "-o", str(path), "-p", pid], stderr=subprocess.DEVNULL)
        time.sleep(1.2)
        trace.send_signal(signal.SIGINT)
        trace.wait()
        load.communicate()
        rows = [line.split() for line in path.read_text().splitlines()]
        count = {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit()}
        # what one operation has exactly so many of
        unit = {"echo": count.get("recvfrom", 0) / 2, "poll": count.get("recvfrom", 0) / 2, "connect": count.get("socket", 0),
                "full": count.get("socket", 0)}[mode]
        return sum(value for word, value in count.items() if word != "total") / unit if unit else None

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def family(pid):
    """The process and its children: nginx's worker is one."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [one for child in children for one in family(int(child))]


def ratio(figures, figure, name, other):
    return statistics.median(a / b for a, b in zip(figures[figure][name], figures[figure][other]))


def table(figures, calls):
    """Lines of Markdown."""
    lines = ["| operation, µs of CPU | " + " | ".join(NAMES.values()) + " |", "| --- " * (len(NAMES) + 1) + "|"]
    for figure, values in figures.items():
        cells = [f"{statistics.median(values[name]):.3g} ({ratio(figures, figure, name, 'nginx'):.2f})" for name in NAMES]
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    lines += ["", "In brackets: the ratio to nginx.", "", "| | compared with | ratio | target | |", "| --- | --- | --- | --- | --- |"]
    for figure, other, most in TARGETS:
        value = ratio(figures, figure, "two", "sidrail") if other == "two" else ratio(figures, figure, "sidrail", other)
        what = "two threads against one" if other == "two" else NAMES[other]
        lines.append(f"| {figure} | {what} | {value:.2f} | ≤ {most} | {'met' if round(value, 2) <= most else 'missed'} |")
    for figure, value in calls.items():
        target = f"≤ {CALLS_MAX}" if figure == "echo 64 B" else ""
        verdict = ("met" if value <= CALLS_MAX else "missed") if target else ""
        lines.append(f"| {figure} | system calls | {value:.2f} | {target} | {verdict} |")
    return lines


def plot(figures):
    """The ratios to nginx as bars."""
    colours = {"sidrail": "#1f6feb", "two": "#79b0ff", "nginx": "#9aa4ad", "haproxy": "#d08b4c", "relay": "#d5d9dd"}
    bar, left, scale = 14, 250, 300
    height = 40 + len(figures) * (len(NAMES) * bar + 18)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" font-size="12">',
             f'<rect width="760" height="{height}" fill="white"/>',
             f'<line x1="{left + scale}" y1="20" x2="{left + scale}" y2="{height - 10}" stroke="#9aa4ad" stroke-dasharray="4 3"/>',
             f'<text x="{left + scale}" y="14" text-anchor="middle" fill="#555">nginx = 1</text>']
    y = 26
    for figure in figures:
        parts.append(f'<text x="{left - 10}" y="{y + bar * len(NAMES) / 2 + 4}" text-anchor="end">{figure}</text>')
        for name in NAMES:
            value = ratio(figures, figure, name, "nginx")
            width = min(value, 1.45) * scale
            parts.append(f'<rect x="{left}" y="{y}" width="{width:.0f}" height="{bar - 2}" fill="{colours[name]}"/>')
            parts.append(f'<text x="{left + width + 4:.0f}" y="{y + bar - 4}" font-size="10" fill="#333">{value:.2f} {NAMES[name]}</text>')
            y += bar
        y += 18
    return "\n".join(parts + ["</svg>", ""])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--first-port", type=int, default=28400)
    parser.add_argument("--markdown")
    parser.add_argument("--plot")
    options = parser.parse_args()
    if not 1 <= options.rounds <= 9 or not 0.2 <= options.seconds <= 5:
        parser.error("1..9 rounds of 0.2..5 seconds")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where nginx and HAProxy are
    bench = Bench(options)
    try:
        bench.start()
        figures = bench.measure()
        lines = table(figures, bench.count_calls())
    finally:
        bench.stop()
    print("\n".join(lines))
    if options.markdown:
        pathlib.Path(options.markdown).write_text("\n".join(lines) + "\n")
    if options.plot:
        pathlib.Path(options.plot).write_text(plot(figures))


main()

#!/usr/bin/env python3
"""Starts everything that a first look needs, and shows where it is.

    browser ─▶ sidrail-proxy ─▶ pod-1 pod-2 pod-3 ─▶ sidrail-broker ─▶ redis-a redis-b
                :8080, :9090     gunicorn, :5001 …     :6390, :9091     :6391 …

`./run demo` installs and builds what is needed and calls this.  --check runs 60 clients and
ends; --no-redis leaves the Redis servers out (the broker is then its own hub).  Everything
listens on 127.0.0.1 and is gone at the end.  Ports and places come from the environment; see
SETTINGS below, or --help.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from services import Failed, Service, require_free_port  # noqa: E402

READY_SECONDS = 20
# name, default, what it is
SETTINGS = [
    ("DEMO_PROXY_PORT", 8080, "sidrail-proxy: the chat page"),
    ("DEMO_PROXY_STATUS_PORT", 9090, "sidrail-proxy: status page"),
    ("DEMO_BROKER_PORT", 6390, "sidrail-broker: where the pods think Redis is"),
    ("DEMO_BROKER_STATUS_PORT", 9091, "sidrail-broker: status page"),
    ("DEMO_REDIS_PORT", 6391, "the first redis-server; the others follow it"),
    ("DEMO_POD_PORT", 5001, "the first pod; the others follow it"),
    ("DEMO_REDIS_SERVERS", 2, "how many redis-servers"),
    ("DEMO_PODS", 3, "how many pods"),
]


class Settings:
    """Where everything is."""

    def __init__(self, arguments, environment):
        values = {}
        for name, default, _ in SETTINGS:
            text = environment.get(name, str(default))
            if not text.isdigit() or not 1 <= int(text) <= 65535:
                raise Failed(f"{name} is '{text}', but must be a number from 1 to 65535")
            values[name] = int(text)
        redis_servers = 0 if arguments.no_redis else values["DEMO_REDIS_SERVERS"]
        self.proxy_port = values["DEMO_PROXY_PORT"]
        self.proxy_status_port = values["DEMO_PROXY_STATUS_PORT"]
        self.broker_port = values["DEMO_BROKER_PORT"]
        self.broker_status_port = values["DEMO_BROKER_STATUS_PORT"]
        self.redis_ports = [values["DEMO_REDIS_PORT"] + i for i in range(redis_servers)]
        self.pod_ports = [values["DEMO_POD_PORT"] + i for i in range(values["DEMO_PODS"])]
        self.pod_names = [f"pod-{i + 1}" for i in range(values["DEMO_PODS"])]
        self.message_queue = environment.get("DEMO_MESSAGE_QUEUE", f"redis://127.0.0.1:{self.broker_port}/0")
        self.build = pathlib.Path(arguments.build).resolve()
        self.node_modules = pathlib.Path(arguments.node_modules).resolve()
        self.url = f"http://127.0.0.1:{self.proxy_port}/"
        self.proxy_status = f"http://127.0.0.1:{self.proxy_status_port}/"
        self.broker_status = f"http://127.0.0.1:{self.broker_status_port}/"

    def require_parts(self):
        """Fails when a program or a port that we need is not there."""
        for program in ("sidrail-proxy", "sidrail-broker"):
            if not os.access(self.build / program, os.X_OK):
                raise Failed(f"{self.build / program} is missing; build it first (./run demo does)")
        if self.redis_ports and not shutil.which("redis-server"):
            raise Failed("redis-server is not installed")
        if not (self.node_modules / "socket.io-client" / "dist").is_dir():
            raise Failed(f"socket.io-client is not in {self.node_modules}")
        wanted = [
            (self.proxy_port, "the chat page", "DEMO_PROXY_PORT"),
            (self.proxy_status_port, "the proxy's status page", "DEMO_PROXY_STATUS_PORT"),
            (self.broker_port, "the broker", "DEMO_BROKER_PORT"),
            (self.broker_status_port, "the broker's status page", "DEMO_BROKER_STATUS_PORT"),
        ]
        wanted += [(port, "a redis-server", "DEMO_REDIS_PORT") for port in self.redis_ports]
        wanted += [(port, "a pod", "DEMO_POD_PORT") for port in self.pod_ports]
        taken = {}
        for port, what, setting in wanted:
            if port > 65535:
                raise Failed(f"port {port} for {what} does not exist; lower {setting}")
            if port in taken:
                raise Failed(f"port {port} is asked for {taken[port]} and for {what}; change {setting}")
            taken[port] = what
            require_free_port(port, what, setting)


def answers_ping(port):
    """True when something that speaks Redis answers there."""

    def probe():
        with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
            s.sendall(b"*1\r\n$4\r\nPING\r\n")
            return s.recv(64).startswith(b"+PONG")

    return probe


def answers_http(url):
    """True when a GET is answered with 200."""

    def probe():
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200

    return probe


def redis_service(settings, port, folder):
    number = settings.redis_ports.index(port)
    name = f"redis-{chr(ord('a') + number)}" if number < 26 else f"redis-{number + 1}"
    command = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no",
               "--dir", folder]
    return Service(name, command, folder, answers_ping(port))


def broker_service(settings, folder):
    command = [settings.build / "sidrail-broker", "--listen", f"127.0.0.1:{settings.broker_port}",
               "--admin", f"127.0.0.1:{settings.broker_status_port}"]
    for port in settings.redis_ports:
        command += ["--shard", f"redis://127.0.0.1:{port}"]
    return Service("sidrail-broker", command, folder, answers_ping(settings.broker_port))


def pod_service(settings, name, port, folder):
    # One worker and threads: each polling GET and each WebSocket holds a thread.
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "-w", "1", "--threads", "200",
               "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "1", "--chdir", HERE,
               "--log-level", "warning", "app:app"]
    environment = {
        "DEMO_POD": name,
        "DEMO_MESSAGE_QUEUE": settings.message_queue,
        "DEMO_CLIENT_LIBRARY": str(settings.node_modules / "socket.io-client" / "dist"),
        "DEMO_STATUS_PORTS": f"{settings.proxy_status_port},{settings.broker_status_port}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Service(name, command, folder, answers_http(f"http://127.0.0.1:{port}/healthz"), environment)


def proxy_service(settings, folder):
    # JSON is YAML.  A tab that comes back finds its pod by cookie; the page's extra clients name
    # themselves in the query, so that they spread although they share the browser's cookies.
    config = {
        "listeners": [{"address": f"127.0.0.1:{settings.proxy_port}"}],
        "admin": {"address": f"127.0.0.1:{settings.proxy_status_port}", "socket": str(folder / "proxy.sock")},
        "upstreams": [{
            "name": "chat",
            "discovery": {"static": [f"127.0.0.1:{port}" for port in settings.pod_ports]},
            "affinity": {"hash_by": "query:client"},
        }],
        "routes": [{"host": "*", "path": "/", "upstream": "chat"}],
        "shutdown": {"readiness_delay": "0s", "window": "0s", "deadline": "2s"},
    }
    path = folder / "proxy.yaml"
    path.write_text(json.dumps(config, indent=2))
    command = [settings.build / "sidrail-proxy", "--config", path]
    return Service("sidrail-proxy", command, folder, answers_http(f"{settings.url}healthz"))


class Demo:
    """All services, in the order in which they start; they end in the opposite one."""

    def __init__(self, settings, folder):
        self.stages = [
            [redis_service(settings, port, folder) for port in settings.redis_ports],
            [broker_service(settings, folder)],
            [pod_service(settings, name, port, folder)
             for name, port in zip(settings.pod_names, settings.pod_ports)],
            [proxy_service(settings, folder)],
        ]

    def start(self):
        for stage in self.stages:
            for service in stage:
                service.start()
            for service in stage:
                service.wait_ready(READY_SECONDS)

    def require_running(self):
        for stage in self.stages:
            for service in stage:
                service.require_running()

    def stop(self):
        for stage in reversed(self.stages):
            for service in stage:
                service.ask_to_stop()
            for service in stage:
                service.stop()


def print_places(settings):
    """What runs where."""
    rows = []
    for i, port in enumerate(settings.redis_ports):
        rows.append((f"redis-{chr(ord('a') + i)}", f"127.0.0.1:{port}", "carries the rooms that hash to it"))
    hub = "shards rooms over them" if settings.redis_ports else "embedded hub, no Redis"
    rows.append(("sidrail-broker", f"127.0.0.1:{settings.broker_port}", hub))
    for name, port in zip(settings.pod_names, settings.pod_ports):
        rows.append((name, f"127.0.0.1:{port}", f"Flask-SocketIO, message_queue={settings.message_queue}"))
    rows.append(("sidrail-proxy", f"127.0.0.1:{settings.proxy_port}", "in front of the pods"))
    print()
    for name, address, what in rows:
        print(f"  {name:<15} {address:<17} {what}")
    print(f"\n  chat page       {settings.url}")
    print(f"  proxy status    {settings.proxy_status}")
    print(f"  broker status   {settings.broker_status}\n", flush=True)


def parse_arguments():
    listing = "\n".join(f"  {name:<24} {default:<6} {what}" for name, default, what in SETTINGS)
    parser = argparse.ArgumentParser(
        description="Starts the Sidrail demo on this machine.",
        epilog=f"environment:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="run 60 clients, print what they saw, and end")
    parser.add_argument("--no-redis", action="store_true", help="let the broker be its own hub")
    parser.add_argument("--build", default=os.environ.get("SIDRAIL_BUILD", ROOT / "build"),
                        help="folder of the two daemons")
    parser.add_argument("--node-modules", default=os.environ.get("NODE_PATH") or ROOT / "node_modules",
                        help="folder that holds socket.io-client")
    return parser.parse_args()


class Stopped(Exception):
    """A signal asked us to end."""


def on_signal(number, _frame):
    signal.signal(number, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


def run(arguments):
    settings = Settings(arguments, os.environ)
    settings.require_parts()
    with tempfile.TemporaryDirectory(prefix="sidrail-demo-") as folder:
        demo = Demo(settings, pathlib.Path(folder))
        try:
            demo.start()
            print_places(settings)
            if arguments.check:
                from check import run_check

                wrong = run_check(settings, demo.require_running)
                demo.require_running()
                for line in wrong:
                    print(f"demo: {line}", file=sys.stderr)
                print("demo: check failed" if wrong else "demo: check passed", flush=True)
                return 1 if wrong else 0
            print("  Ctrl-C ends all of it.", flush=True)
            while True:
                time.sleep(0.3)
                demo.require_running()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            demo.stop()


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    arguments = parse_arguments()
    try:
        return run(arguments)
    except Stopped:
        print("\ndemo: stopped, nothing is left running", flush=True)
        return 1 if arguments.check else 0
    except Failed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

"""Pods of every version that the documents name, doing nothing: a heartbeat keeps them, and none of them notices it."""
import collections
import os
import subprocess
import threading

from daemons import ENVIRONMENTS, ROOT, has_environment, python_of, wait_until
from resp_client import Raw, emit

IDLE_POD = ROOT / "tests" / "integration" / "pods" / "idle_pod.py"

# python-socketio, and redis-py where that is an environment of its own; what its listeners are.
SYNC, BOTH = ("sync",), ("sync", "async")
VERSIONS = {
    "5.0.4 aioredis 1": ("sio50", None, BOTH),
    "5.3.0 aioredis 1": ("sio53", None, BOTH),
    "5.4.1 aioredis 1": ("sio54", None, BOTH),
    "5.5.2": ("sio55", None, SYNC),
    "5.7.2": ("sio57", None, BOTH),
    "5.13.0 redis-py 5": ("sio5130", "redis5", BOTH),
    "5.14.0 redis-py 6": ("sio5140", "redis6", BOTH),
    "5.14.2 redis-py 6": ("sio5142", "redis6", BOTH),
    "5.15.0 redis-py 7": ("sio5150", "redis7", BOTH),
    "5.15.1 redis-py 7": ("sio5151", "redis7", BOTH),
    "newest": ("current", None, BOTH),
    "newest, redis-py 8.0.0": ("current", "redis80", BOTH),
    "newest, redis-py 5": ("current", "redis5", BOTH),
    "newest, valkey": ("current", "valkey", BOTH),
}


def site_packages(environment):
    return next((ENVIRONMENTS / environment / "lib").glob("python3*/site-packages"))


class IdlePod:
    def __init__(self, name, kind, broker, *options):
        environment, library, _ = VERSIONS[name]
        env = dict(os.environ)
        if library:
            env["PYTHONPATH"] = str(site_packages(library))
        url = ("valkey" if library == "valkey" else "redis") + f"://127.0.0.1:{broker.port}/0"
        self.name = f"{name} {kind}"
        self.lines = collections.Counter()
        self.process = subprocess.Popen([python_of(environment), IDLE_POD, kind, url, *options], env=env, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines[line.strip()] += 1

    def oddities(self):
        return [line for line in self.lines
                if line not in ("heard", "pubsub message: emit") and not line.endswith("backend initialized.")]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.reader.join(20)
        self.process.stdout.close()


def test_idle_pods_of_every_version_stay_and_say_nothing(broker):
    b = broker(config={"heartbeat": "1s"})
    names = [name for name, (*needs, _) in VERSIONS.items() if all(has_environment(it) for it in needs if it)]
    # 2 s are to the heartbeat here what 5 s, the default of redis-py 8.0.0, are to the one that is configured
    pods = [IdlePod(name, kind, b, *(["socket_timeout=2"] if "8.0.0" in name else ()))
            for name in names for kind in VERSIONS[name][2]]
    try:
        wait_until(lambda: b.status()["subscribers"] == len(pods), "all have subscribed", 60)
        with Raw(b.port) as raw:
            before = b.metrics().get("sidrail_broker_heartbeats_total")
            clients = b.metrics().get("sidrail_broker_clients_accepted_total")
            wait_until(lambda: b.metrics().get("sidrail_broker_heartbeats_total") >= before + 3 * len(pods),
                       "each had three heartbeats", 30)
            raw.call("PUBLISH", "socketio", emit("r", "still there?"))
        wait_until(lambda: all(pod.lines["heard"] == 1 for pod in pods), "each hears a message", 20)
        assert b.metrics().get("sidrail_broker_clients_accepted_total") == clients
        assert [line for pod in pods for line in pod.oddities()] == []
    finally:
        for pod in pods:
            pod.stop()
            print(pod.name, dict(pod.lines))

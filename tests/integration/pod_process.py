"""Drives pods/interest_pods.py: many pods in one process, each order a future.

    pods = PodProcess("current", "threading", "sidrail", url, 20)
    sid = pods.do(3, "connect"); pods.start(3, "enter", sid=sid, room="r") ─▶ Future
"""
import concurrent.futures
import itertools
import json
import os
import pathlib
import subprocess
import threading

import daemons

SCRIPT = pathlib.Path(__file__).parent / "pods" / "interest_pods.py"


def packages(environment):
    return str(next((daemons.ENVIRONMENTS / environment).glob("lib/python3*/site-packages")))


#: Where python-socketio comes from, and where else to look for what that environment lacks.
VERSIONS = {"5.7": ("sio57", ()), "5.14.2": ("sio5142", ("redis6",)), "current": ("current", ())}


class PodProcess:
    def __init__(self, version, loop, manager, url, count):
        environment, more = VERSIONS[version]
        more += ("loops",) if loop == "gevent" else ()
        python = daemons.ENVIRONMENTS / environment / "bin" / "python"
        self.count = count
        self.ids = itertools.count(1)
        self.futures = {}
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [python, SCRIPT, loop, manager, url, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "MORE_PATH": ":".join(packages(one) for one in more)})
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.ready = concurrent.futures.Future()

    def _read(self):
        for line in self.process.stdout:
            if line.strip() == "ready":
                self.ready.set_result(True)
                continue
            answer = json.loads(line)
            future = self.futures.pop(answer["id"])
            if "error" in answer:
                future.set_exception(AssertionError(answer["error"]))
            else:
                future.set_result(answer["result"])
        for future in [self.ready, *self.futures.values()]:
            if not future.done():
                future.set_exception(AssertionError("the pods have ended"))

    def start(self, pod, op, **order):
        """The future of an order's result."""
        number, future = next(self.ids), concurrent.futures.Future()
        self.futures[number] = future
        with self.lock:
            self.process.stdin.write(json.dumps({"id": number, "pod": pod, "op": op, **order}) + "\n")
            self.process.stdin.flush()
        return future

    def do(self, pod, op, **order):
        return self.start(pod, op, **order).result(30 * daemons.PATIENCE)

    def facts(self, pod):
        return self.do(pod, "facts")

    def received(self, pod):
        return self.do(pod, "received")

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.process.stdout.close()

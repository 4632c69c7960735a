"""Drives js_clients.js and python_clients.py: one child process a group, JSON lines both ways."""

import concurrent.futures
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent


class GroupFailed(Exception):
    """A group of clients did not answer, or ended; the text says which and why."""


class ClientGroup:
    """One process with many clients of one library."""

    def __init__(self, name, command, environment=None):
        self.name = name
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.answers = queue.Queue()
        self.noise = []
        threading.Thread(target=self._read_answers, daemon=True).start()
        threading.Thread(target=self._read_noise, daemon=True).start()

    def _read_answers(self):
        for line in self.child.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def _read_noise(self):
        for line in self.child.stderr:
            self.noise = (self.noise + [line.rstrip()])[-20:]

    def ask(self, order, timeout):
        """Sends one order; returns its answer.  Raises GroupFailed after `timeout` seconds."""
        try:
            self.child.stdin.write(json.dumps(order) + "\n")
            self.child.stdin.flush()
            line = self.answers.get(timeout=timeout)
        except queue.Empty:
            raise GroupFailed(f"{self.name}: no answer within {timeout} s") from None
        except OSError as error:
            raise GroupFailed(f"{self.name}: {error}; {' | '.join(self.noise[-3:])}") from None
        if line is None:
            raise GroupFailed(f"{self.name}: ended; {' | '.join(self.noise[-3:])}")
        return json.loads(line)

    def stop(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


def js_group(node_modules, name="JS clients"):
    return ClientGroup(
        name, ["node", str(HERE / "js_clients.js")], {"NODE_PATH": str(node_modules)}
    )


def python_group(python=sys.executable, name="Python clients"):
    return ClientGroup(name, [str(python), str(HERE / "python_clients.py")])


def ask_all(groups, order, timeout, meanwhile=None):
    """The same order to every group at once; {group: answer}.  `order` may be a function of the group.

    `meanwhile` is called several times a second; what it raises ends the waiting.
    """
    pool = concurrent.futures.ThreadPoolExecutor(max(1, len(groups)))
    try:
        jobs = {
            group: pool.submit(group.ask, order(group) if callable(order) else order, timeout)
            for group in groups
        }
        while concurrent.futures.wait(jobs.values(), 0.3).not_done:
            if meanwhile:
                meanwhile()
        return {group: job.result() for group, job in jobs.items()}
    finally:
        pool.shutdown(wait=False)  # a thread that still waits ends with its group

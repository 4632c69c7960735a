"""Pods that emit on request, and clients that are known to hear all of them."""
import contextlib
import json
import urllib.request

from crowd import Crowd
from daemons import FlaskPod, wait_until


class BackplanePod(FlaskPod):
    """pods/backplane_pod.py under gunicorn."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.argv[-1] = "backplane_pod:app"

    def do(self, op, **order):
        """Has the pod do something; returns its answer."""
        request = urllib.request.Request(f"{self.url}/do", json.dumps({"op": op, **order}).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["answer"]


@contextlib.contextmanager
def connected_crowd(pods, clients):
    with Crowd(None, clients) as crowd:
        crowd.sid_of = {name: about["sid"] for name, about in crowd.connect().items()}
        wait_subscribed(pods, crowd)
        yield crowd


def wait_subscribed(pods, crowd):
    """A pod subscribes when its first client connects: waits until broadcasts of each pod reach all clients."""
    tries = iter(range(-1000, 0))

    def all_hear_all():
        number = next(tries)
        for pod in pods:
            pod.do("emit", rooms=None, first=number)
        lines = [[None, f"{pod.name}:{number}"] for pod in pods]

        def heard():
            return all(line in client["received"] for line in lines for client in crowd.report().values())

        try:
            return wait_until(lambda: heard() or None, "a broadcast is everywhere", 1)
        except AssertionError:
            return False

    wait_until(all_hear_all, "all pods hear each other", 20)
    crowd.expected = crowd.received(crowd.report())  # what comes from here on is judged

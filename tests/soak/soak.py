#!/usr/bin/env python3
"""Two brokers over three Redis for a long time: 2,000 messages a second, while shards and pods are killed in turn.

    soak.py [MINUTES] [--rate 2000]        default: an hour

    publish_load ─▶ broker, broker ═ redis a, b, c      every few seconds: a shard is killed, hangs, loses its connections,
         ▲              └▶ pods with a name             or a pod is killed; each comes back
         └─ checks every message

Ends with one line and status 0 if nothing was lost, doubled or out of order, no connection and no descriptor is left over,
and memory is flat: its peak in the last third is not above that in the middle third. A run below five minutes
keeps less for sending again, so that what is kept is full early."""
import argparse
import itertools
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

import daemons  # noqa: E402
from broker_tools import shard_states, wait_up  # noqa: E402
from publish_load import PublishLoad, no_faults  # noqa: E402

SUBSCRIBERS, PUBLISHERS, PODS = 4, 8, 6
LISTENER = """
import sys, time, redis
listener = redis.Redis.from_url(sys.argv[1]).pubsub()
listener.subscribe("flask-socketio")
while True:
    try:
        listener.get_message(timeout=1)
    except redis.ConnectionError:
        time.sleep(0.1)
"""
#: Of the peak in the middle third, and beside it: what malloc and a hold of one gap make of the same load.
GROWTH, SLACK = 1.15, 4 << 20


class Pod:
    """A process that listens under a name, and is killed and started again."""

    def __init__(self, index, broker):
        self.words = [sys.executable, "-c", LISTENER, f"{broker.url}?client_name=pod-{index}"]
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.words)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def replace(self):
        self.kill()
        self.start()


class Scene:
    def __init__(self, folder, is_short):
        self.shards = [daemons.Redis(f"redis-{i}", folder) for i in range(3)]
        config = {"log": {"level": "warn"}}
        if is_short:
            config |= {"resend": {"window": "4s", "bytes": "2MiB"}, "replay": {"bytes": "2MiB"}}
        for shard in self.shards:
            shard.start()
        self.brokers = [daemons.Broker(f"broker-{i}", folder, self.shards, config) for i in range(2)]
        for broker in self.brokers:
            broker.start()
        wait_up(*self.brokers)
        self.pods = [Pod(i, self.brokers[i % 2]) for i in range(PODS)]

    def faults(self):
        """Without end: names and deeds, shards and pods by turns."""
        random.seed(1)
        for turn in itertools.count():
            shard = random.choice(self.shards)
            yield [("shard killed", lambda: self.kill(shard)), ("shard hangs", lambda: self.hang(shard)),
                   ("connections of a shard reset", lambda: self.reset(shard))][turn % 3]
            yield "pod killed", random.choice(self.pods).replace

    @staticmethod
    def kill(shard):
        shard.kill()
        time.sleep(1)
        shard.start()

    @staticmethod
    def hang(shard):
        shard.pause()
        time.sleep(1.5)
        shard.resume()

    @staticmethod
    def reset(shard):
        with shard.client() as client:
            for one in client.client_list():
                if one["name"].startswith("sidrail-broker-"):
                    client.client_kill_filter(_id=one["id"])

    def stop(self):
        for pod in self.pods:
            pod.kill()
        for server in (*self.brokers, *self.shards):
            server.stop()
        return [problem for server in (*self.brokers, *self.shards) for problem in server.problems()]


def memory(brokers):
    """Bytes that each has made its own. (PSS also counts its share of libraries, which grows when others end.)"""
    def anonymous(broker):
        text = pathlib.Path(f"/proc/{broker.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Anonymous:\s+(\d+) kB", text, re.M).group(1)) * 1024
    return [anonymous(broker) for broker in brokers]


def soak(scene, load, seconds, rate):
    """Returns what the load found, and [(second, [bytes of each broker])]."""
    process = load.start(scene.brokers, subscribers=SUBSCRIBERS, publishers=PUBLISHERS, rate=rate, seconds=seconds)
    pause = min(max(seconds / 30, 1.5), 15)
    begun = time.monotonic()
    samples, faults, due, told = [], scene.faults(), 2 * pause, 0.0
    while process.poll() is None and (passed := time.monotonic() - begun) < seconds + 60:
        samples.append((passed, memory(scene.brokers)))
        if due < passed < seconds - 2 * pause:
            name, deed = next(faults)
            deed()
            due = time.monotonic() - begun + pause
            if passed - told > 10 or seconds < 120:
                told = passed
                sizes = " ".join(f"{size / (1 << 20):.1f}" for size in samples[-1][1])
                print(f"{passed:7.0f} s  {sizes} MiB  {name}", flush=True)
        time.sleep(min(1, pause / 4))
    return load.result(process), samples


def peaks(samples, seconds):
    """[(peak in the middle third, in the last)] of each broker."""
    def peak(index, first, last):
        return max(sizes[index] for passed, sizes in samples if first <= passed / seconds < last)
    return [(peak(i, 1 / 3, 2 / 3), peak(i, 2 / 3, 9)) for i in range(len(samples[0][1]))]


def verdict(scene, result, samples, seconds, descriptors):
    wrong = []
    if not no_faults(result):
        wrong.append(f"the load found {result}")
    for broker, (middle, last) in zip(scene.brokers, peaks(samples, seconds)):
        print(f"{broker.name}: peak {middle / (1 << 20):.1f} MiB in the middle third, {last / (1 << 20):.1f} in the last")
        if last > middle * GROWTH + SLACK:
            wrong.append(f"{broker.name} has grown from {middle} to {last} bytes")
        if (lost := broker.metrics().get("sidrail_broker_messages_lost_total")) > 0:
            wrong.append(f"{broker.name} counts {lost} as lost")
        if set(shard_states(broker).values()) != {"up"}:
            wrong.append(f"{broker.name} has not all shards again")
    for broker, before in zip(scene.brokers, descriptors):
        # pods that were killed a moment ago may still come back
        if broker.open_fds() > before + PODS:
            wrong.append(f"{broker.name} has {broker.open_fds()} descriptors, and had {before}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("minutes", type=float, nargs="?", default=60)
    parser.add_argument("--rate", type=int, default=2000)
    arguments = parser.parse_args()
    seconds = max(arguments.minutes * 60, 10)
    with tempfile.TemporaryDirectory(prefix="sidrail-soak-") as folder:
        scene = Scene(pathlib.Path(folder), seconds < 300)
        try:
            descriptors = [broker.open_fds() for broker in scene.brokers]
            result, samples = soak(scene, PublishLoad(pathlib.Path(folder)), seconds, arguments.rate)
            wait_up(*scene.brokers)
            wrong = verdict(scene, result, samples, seconds, descriptors)
        finally:
            problems = scene.stop()
    for line in wrong + problems:
        print(f"wrong: {line}")
    print(f"{result['total']} messages to {SUBSCRIBERS} subscribers in {seconds / 60:.1f} minutes: "
          f"{result['lost']} lost, {result['disordered']} doubled or out of order; "
          f"{'memory is flat' if not wrong + problems else 'FAILED'}")
    return 1 if wrong + problems else 0


if __name__ == "__main__":
    sys.exit(main())

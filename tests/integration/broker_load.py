"""Publishers and subscribers at several brokers, and what must hold of what they sent and got.

    load = Load(brokers); …; load.check()      everything came to everyone, once, in order
"""
import threading
import time

from daemons import wait_until
from resp_client import Error, Pod, Raw, emit

ROOMS = [f"room {i}" for i in range(16)]


class Load:
    """Publishers at each broker, at a steady pace, until stop(); then what they have published is checked."""

    def __init__(self, brokers, publishers=2, pause=0.02, at=None):
        self.brokers = brokers
        self.counts = {}
        self.refused = []
        self.stopping = threading.Event()
        self.pods = {f"{broker.name}/{i}": Pod(broker.port) for broker in brokers for i in range(2)}
        self.threads = [threading.Thread(target=self._publish, args=(broker.port, f"{broker.name}.{i}", pause))
                        for broker in at or brokers for i in range(publishers)]
        for thread in self.threads:
            thread.start()

    def _publish(self, port, name, pause):
        number = 0
        with Raw(port) as raw:
            while not self.stopping.is_set():
                for room in ROOMS:
                    reply = raw.call("PUBLISH", "flask-socketio", emit(room, [name, number]))
                    if isinstance(reply, Error):
                        self.refused.append(reply)
                number += 1
                time.sleep(pause)
        self.counts[name] = number

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def check(self):
        self.stop()
        assert not self.refused
        assert len(self.counts) == len(self.threads)
        total = sum(self.counts.values()) * len(ROOMS)
        try:
            for name, pod in self.pods.items():
                wait_until(lambda pod=pod: len(pod.received) >= total, f"{name} has everything", 20)
        finally:
            missing = {name: total - len(pod.received) for name, pod in self.pods.items()}
            print("published", total, "missing", missing)
        time.sleep(0.5)
        for pod in self.pods.values():
            by_room = pod.by_room()
            for room in ROOMS:
                for publisher, count in self.counts.items():
                    assert [n for who, n in by_room[room] if who == publisher] == list(range(count)), room
            assert len(pod.received) == total
            pod.close()
        for broker in self.brokers:
            assert broker.metrics().get("sidrail_broker_messages_lost_total") == 0

"""What tests of brokers over shards share: a relay in front of a Redis that fails on demand, waiting for shards, reloads."""
import socket
import struct
import subprocess
import threading
import time

import yaml
from daemons import free_port, wait_until


class Relay:
    """A TCP relay in front of a server: resets its connections, or stalls one direction. `rates`: bytes a second that a
    connection passes "up" (to the server) or "down"; nothing: as fast as it can."""

    def __init__(self, target):
        self.target = target
        self.port = free_port()
        self.pairs = []
        self.rates = {}
        self.flows = {"up": threading.Event(), "down": threading.Event()}
        for flow in self.flows.values():
            flow.set()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.pairs.append((client, server))
            for source, sink, way in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._copy, args=(source, sink, way), daemon=True).start()

    def _copy(self, source, sink, way):
        try:
            while data := source.recv(65536):
                self.flows[way].wait()
                if way in self.rates:
                    time.sleep(len(data) / self.rates[way])
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def reset(self):
        """Ends every connection with RST; what is under way is lost."""
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()

    def stall(self, direction, seconds):
        """Nothing passes "up" (to Redis) or "down" for so long."""
        self.flows[direction].clear()
        time.sleep(seconds)
        self.flows[direction].set()

    def close(self):
        self.listener.close()
        for flow in self.flows.values():
            flow.set()
        self.reset()


def ctl(broker, *words):
    done = subprocess.run([broker.argv[0], "ctl", "--socket", broker.config["admin"]["socket"], *words],
                          capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout + done.stderr


def wait_settled(brokers, names, seconds=25):
    for broker in brokers:
        wait_until(lambda broker=broker: broker.status()["map_state"] == "settled"
                   and set(shard_states(broker)) == set(names), f"{broker.name} has only {names}", seconds)


def shard_states(broker):
    return {shard["name"]: shard["state"] for shard in broker.status()["shards"]}


def wait_up(*brokers, seconds=20):
    for broker in brokers:
        wait_until(lambda broker=broker: set(shard_states(broker).values()) == {"up"}, f"{broker.name}: shards are up",
                   seconds)
        wait_until(lambda broker=broker: broker.status()["live_brokers"] == len(brokers) - 1,
                   f"{broker.name} hears the others", seconds)


def shards_of(**servers):
    return [{"name": name, "url": server.url} for name, server in servers.items()]


def rewrite(broker, **changes):
    """The file gets another content, in one step; the broker watches it."""
    broker.config = {**broker.config, **changes}
    draft = broker.config_path.with_suffix(".draft")
    draft.write_text(yaml.safe_dump(broker.config, sort_keys=False))
    draft.rename(broker.config_path)


def wait_used(brokers, names, seconds=20):
    for broker in brokers:
        wait_until(lambda broker=broker: broker.status()["map_state"] != "loaded"
                   and {s["name"] for s in broker.status()["shards"] if s["partitions"] > 0} == set(names),
                   f"{broker.name} uses {names}", seconds)


def sum_of(brokers, metric):
    return sum(broker.metrics().get(metric) for broker in brokers)

"""Plays a schedule of the model (tests/model/faults.py) against three real brokers over three real Redis.

    broker 0 ─▶ path 0a ─▶ redis a         a path is a relay of its own for each broker and shard: it tells the publishing
             ─▶ path 0b ─▶ redis b         from the subscribing connection, resets or stalls either, blocks both and
    broker 1 ─▶ path 1a ─▶ …               whoever comes, or refuses whoever comes
"""
import json
import socket
import struct
import subprocess
import sys
import threading
import time

from broker_tools import ctl, rewrite
from daemons import ROOT, Redis, free_port

SHARDS = "abc"
DIRECTIONS = ("up", "down")


def export(fault, seed):
    """The schedule of a class of faults and a seed, as the model exports it."""
    out = subprocess.run([sys.executable, ROOT / "tests" / "model" / "world.py", "--fault", fault, "--seed", str(seed), "--export"],
                         capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def judged_by_model(fault, seed):
    """What the model finds wrong when it plays the same schedule: a list of lines."""
    code = ("import sys, json; sys.path.insert(0, sys.argv[1]); import world; "
            "print(json.dumps(world.judge(sys.argv[2], int(sys.argv[3]))[0]))")
    out = subprocess.run([sys.executable, "-c", code, ROOT / "tests" / "model", fault, str(seed)],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


class Gate:
    """Lets bytes pass unless it is shut."""

    def __init__(self):
        self.event = threading.Event()
        self.event.set()

    def shut(self, is_shut):
        (self.event.clear if is_shut else self.event.set)()


class Wire:
    """One connection through a path."""

    def __init__(self, path, client, server):
        self.path, self.ends = path, (client, server)
        self.side = None  # publishing or subscribing, as soon as it has said so
        self.gates = {direction: Gate() for direction in DIRECTIONS}
        self.is_over = False
        for direction, source, sink in (("up", client, server), ("down", server, client)):
            threading.Thread(target=self._copy, args=(direction, source, sink), daemon=True).start()

    def _copy(self, direction, source, sink):
        gates = (self.gates[direction], self.path.gates[direction])
        try:
            while data := source.recv(65536):
                if self.side is None and direction == "up":
                    self.side = "publishing" if b"ROLE" in data else "subscribing"
                while not all(gate.event.wait(0.1) for gate in gates):
                    if self.is_over:
                        return
                sink.sendall(data)
        except OSError:
            pass
        self.end(False)

    def end(self, is_reset):
        """Closes both connections; with a reset what is under way is lost."""
        self.is_over = True
        for end in self.ends:
            try:
                if is_reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.close()
                else:
                    end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Path:
    """Between one broker and one shard."""

    def __init__(self, server):
        self.server = server
        self.wires = []
        self.gates = {direction: Gate() for direction in DIRECTIONS}
        self.refuses = False
        self.port = free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.url = f"redis://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                if self.refuses:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self.server.port))
            except OSError:
                client.close()
                continue
            self.wires = [wire for wire in self.wires if not wire.is_over] + [Wire(self, client, server)]

    def wires_of(self, side):
        return [wire for wire in self.wires if wire.side == side and not wire.is_over]

    def close(self):
        self.listener.close()
        for wire in self.wires:
            wire.end(True)


class Player:
    """`people` is who stands at the brokers; it has a method for each deed of theirs: burst(slot, count), need and
    leave(slot, partition), end_pod(pod, how, seconds away), and arrive(slot) when a slot has a new broker."""

    def __init__(self, servers, people, schedule, config):
        self.servers, self.people, self.config = servers, people, config
        shards = sorted({*SHARDS, *"".join(each.get("shards", "") for each in schedule)})
        self.redis = dict(zip(shards, servers.redis_server(len(shards))))
        self.all_redis = list(self.redis.values())
        self.paths = {(slot, shard): Path(self.redis[shard]) for slot in range(3) for shard in shards}
        self.maps = {"m1": SHARDS}
        self.map = "m1"  # the newest that any broker has loaded
        self.loaded = [None] * 3
        self.slots = [None] * 3
        self.crashed = set()
        self.lag = 0.0   # how late the latest deed was
        for slot in range(3):
            self.launch(slot)

    def shards_of(self, slot, name):
        return [{"name": shard, "url": self.paths[slot, shard].url} for shard in self.maps[name]]

    def launch(self, slot):
        self.loaded[slot] = self.map
        self.slots[slot] = self.servers.broker(config={**self.config, "shards": self.shards_of(slot, self.map)})

    def play(self, schedule, seconds):
        begun = time.monotonic()
        for each in schedule:
            time.sleep(max(0.0, begun + each["at"] / 1000 - time.monotonic()))
            getattr(self, f"do_{each['do']}")(each)
            self.lag = max(self.lag, time.monotonic() - begun - each["at"] / 1000)
        time.sleep(max(0.0, begun + seconds - time.monotonic()))

    def end_faults(self):
        """Whatever the schedule left: all shards are there, all paths are open, all brokers run."""
        for path in self.paths.values():
            path.refuses = False
            for gate in (*path.gates.values(), *(gate for wire in path.wires for gate in wire.gates.values())):
                gate.shut(False)
        for server in self.all_redis:
            if server.is_running():
                server.resume()
        for shard in self.redis.values():
            if not shard.is_running():
                shard.start()
        for slot, broker in enumerate(self.slots):
            if broker.is_running():
                broker.resume()
            else:
                self.do_launch({"broker": slot})
            if self.loaded[slot] != self.map:
                self.load(slot, self.map)

    def load(self, slot, name):
        """A stopped broker reads the file when it wakes."""
        self.loaded[slot] = name
        rewrite(self.slots[slot], shards=self.shards_of(slot, name))

    def close(self):
        for path in self.paths.values():
            path.close()

    # --- deeds, named as in a schedule ---

    def do_kill(self, each):
        if self.redis[each["shard"]].is_running():
            self.redis[each["shard"]].kill()

    def do_start(self, each):
        if not self.redis[each["shard"]].is_running():
            self.redis[each["shard"]].start(wait=False)

    def do_stop(self, each):
        if self.redis[each["shard"]].is_running():
            self.redis[each["shard"]].pause()

    def do_continue(self, each):
        if self.redis[each["shard"]].is_running():
            self.redis[each["shard"]].resume()

    def paths_of(self, each):
        return [self.paths[slot, each["shard"]] for slot in range(3)]

    def do_refuse(self, each):
        for path in self.paths_of(each):
            path.refuses = True

    def do_admit(self, each):
        for path in self.paths_of(each):
            path.refuses = False

    def do_demote(self, each):
        old = self.redis[each["shard"]]
        new = self.servers.start(Redis(self.servers.name("redis"), self.servers.folder))
        self.all_redis.append(new)
        self.redis[each["shard"]] = new
        with old.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(new.port))
        for path in self.paths_of(each):
            path.server = new
            for wire in path.wires if not each["kept"] else []:
                wire.end(True)

    def wires(self, each):
        return self.paths[each["broker"], each["shard"]].wires_of(each["side"])

    def do_reset(self, each):
        for wire in self.wires(each):
            wire.end(True)

    def do_stall(self, each):
        for wire in self.wires(each):
            wire.gates[each["direction"]].shut(True)

    def do_flow(self, _each):
        for path in self.paths.values():
            for wire in path.wires:
                for gate in wire.gates.values():
                    gate.shut(False)

    def do_block(self, each):
        self.paths[each["broker"], each["shard"]].gates[each["direction"]].shut(True)

    def do_unblock(self, each):
        self.paths[each["broker"], each["shard"]].gates[each["direction"]].shut(False)

    def do_pause(self, each):
        if self.slots[each["broker"]].is_running():
            self.slots[each["broker"]].pause()

    def do_wake(self, each):
        if self.slots[each["broker"]].is_running():
            self.slots[each["broker"]].resume()

    def do_crash(self, each):
        self.crashed.add(each["broker"])
        self.slots[each["broker"]].kill()

    def do_launch(self, each):
        if not self.slots[each["broker"]].is_running():
            self.launch(each["broker"])
            self.people.arrive(each["broker"])

    def do_load(self, each):
        slot, name = each["broker"], each["map"]
        self.maps[name] = each["shards"]
        self.map = max(self.map, name)
        if not self.slots[slot].is_running() or name < self.loaded[slot]:
            return
        self.load(slot, name)
        for late in each["without"]:
            origin = self.slots[late].status()["origin"]
            code, text = ctl(self.slots[slot], "reload", "--without", origin)
            assert code == 0, text

    def do_burst(self, each):
        self.people.burst(each["broker"], each["count"])

    def do_need(self, each):
        self.people.need(each["broker"], each["partition"])

    def do_leave(self, each):
        self.people.leave(each["broker"], each["partition"])

    def do_end_pod(self, each):
        self.people.end_pod(each["pod"], each["how"], each["away"] / 1000)

#!/usr/bin/env python3
"""sidrail-proxy between hostile clients and hostile endpoints, while it is reloaded, drained and its endpoints die.

    torture.py [--seconds 60] [--seed N] [--riders 24] [--attackers 24]

    Rider, Attacker ─▶ sidrail-proxy (one process, built as SIDRAIL_BUILD says) ─▶ Endpoint, RudeEndpoint
        │                    ▲ reload, ctl, lists, signals                          │ in this process
        └──── Oracle ◀── Operator ──────────────────────────────────────────────────┘

A run is rounds of fifteen seconds, each with the seed N, N + 1, …; calm ones, in which no endpoint is disturbed and so
nothing excuses a failure, take turns with rough ones. After each round all is quiet, and nothing may be left over.
Ends with one line, status 0 when no promise was broken; else the violations, the last deeds and the seed of the round.
What the seed decides is what everybody does; how the machine interleaves it, it does not."""
import argparse
import asyncio
import contextlib
import json
import logging
import pathlib
import random
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "integration"), str(pathlib.Path(__file__).parent)]

import daemons  # noqa: E402
import tls_tools  # noqa: E402
from attackers import Attacker  # noqa: E402
from endpoints import Endpoint, RudeEndpoint  # noqa: E402
from operator_deeds import Operator  # noqa: E402
from oracle import Oracle  # noqa: E402
from sessions import Rider, request  # noqa: E402
from wire import Wire  # noqa: E402

ROUND = 15.0
CASES = ROOT / "tests" / "cases" / "smuggling-cases.jsonl"


class Edge:
    """What clients know of the proxy."""

    def __init__(self, scene, tls_share):
        self.scene = scene
        self.port = scene.proxy.port
        self.tls_port = scene.tls_port
        self.tls_context = tls_tools.client_context(scene.authority.crt)
        self.tls_share = tls_share
        self.engine_paths = ["/socket.io/", "/socket.io/", "/secure/socket.io/"]
        self.rude_kinds = sorted(RudeEndpoint.ANSWERS)

    def any_disturbed(self, since):
        return any(self.scene.oracle.is_disturbed(endpoint.name, since) for endpoint in self.scene.endpoints)


class Scene:
    """The proxy, its files and its endpoints."""

    def __init__(self, folder, oracle, seed):
        self.folder = folder
        self.oracle = oracle
        self.tls_port, self.spare_port = daemons.free_port(), daemons.free_port()
        self.authority = tls_tools.Authority(folder)
        self.certificate = self.authority.issue("edge", ["DNS:edge.test"])
        inside = self.authority.issue("inside", ["DNS:inside.test"])
        self.key_lines = [f"A {random.Random(seed).randbytes(16).hex()}"]
        self.keys_path = folder / "affinity.keys"
        self.keys_path.write_text(self.key_lines[0] + "\n")
        self.keys_path.chmod(0o600)
        self.list_path = folder / "endpoints.json"
        # two take little at a time, so that what comes for them waits in the proxy
        self.endpoints = [Endpoint(name, daemons.free_port(), oracle, seed, receive_buffer=4096 if name in "cd" else None)
                          for name in "abcd"]
        self.secure = [Endpoint(name, daemons.free_port(), oracle, seed, tls_tools.server_context(inside),
                                receive_buffer=4096) for name in "st"]
        self.rude = RudeEndpoint(daemons.free_port(), seed)
        for endpoint in self.endpoints:
            endpoint.is_victim = False
            endpoint.others_take_sessions = lambda: any(
                not e.is_victim and not oracle.is_disturbed(e.name, oracle.now()) for e in self.endpoints)
        self.list_path.write_text(json.dumps([{"address": e.address, "id": e.name} for e in self.endpoints]))
        self.proxy = daemons.Proxy("proxy", folder, [], keys=self.keys_path, config={
            "listeners": [], "timeouts": {name: f"{seconds * daemons.PATIENCE}s" for name, seconds in (
                ("request_head", 10), ("write_stall", 20), ("connect", 5), ("keep_alive", 60))},
            "limits": {"connections": 3000, "body_bytes": 1000000, "buffered_bytes": "256MiB"},
            "engine_io_paths": ["/socket.io/", "/secure/socket.io/", "/rude/socket.io/"],
            "upstreams": [
                {"name": "chat", "discovery": {"file": str(self.list_path)}, "place_after": "0s", "herd_spread": "300ms",
                 "health_check": {"type": "tcp", "interval": "500ms"}, "drain": {"delay": "100ms", "window": "1s"}},
                {"name": "secure", "discovery": {"static": [{"address": e.address, "id": e.name} for e in self.secure]},
                 "health_check": {"type": "tcp", "interval": "500ms"},
                 "tls": {"ca": str(self.authority.crt), "server_name": "inside.test"}},
                {"name": "rude", "discovery": {"static": [self.rude.address]}, "health_check": {"type": "none"}}],
            "routes": [{"host": "*", "path": "/rude/", "upstream": "rude"},
                       {"host": "*", "path": "/secure/", "upstream": "secure"},
                       {"host": "*", "path": "/", "upstream": "chat"}],
            "log": {"level": "info", "access": "off"}})
        config = self.proxy.config
        config["listeners"] = [
            {"address": self.proxy.address},
            {"address": f"127.0.0.1:{self.tls_port}",
             "tls": {"certificates": [{"cert": str(self.certificate[0]), "key": str(self.certificate[1])}]}}]
        self.config = config
        self.proxy._write_config(config)  # the same path

    def renew_certificate(self):
        self.authority.issue("edge", ["DNS:edge.test"])

    async def open(self):
        for server in [*self.endpoints, *self.secure, self.rude]:
            await server.open()
        await asyncio.to_thread(self.proxy.start, False)
        await asyncio.to_thread(self.proxy.wait_ready)

    async def close(self):
        await asyncio.to_thread(self.proxy.stop)
        for server in [*self.endpoints, *self.secure, self.rude]:
            await server.close()

    async def ctl(self, *words):
        """Exit status of `sidrail-proxy ctl`."""
        process = await asyncio.create_subprocess_exec(
            self.proxy.argv[0], "ctl", "--socket", self.config["admin"]["socket"], *words,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
        return await asyncio.wait_for(process.wait(), 30 * self.oracle.patience)

    async def status(self):
        wire = await Wire.open(self.proxy.admin_port)
        try:
            await wire.send(b"GET /status.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return json.loads((await asyncio.wait_for(wire.answer(), 30 * self.oracle.patience)).body)
        finally:
            wire.close()

    async def endpoint_rows(self):
        return [row for row in (await self.status())["endpoints"] if row["upstream"] == "chat"]


async def quiet(scene, oracle, base_fds):
    """Nothing is left over: no client, no buffer, no exchange, no descriptor; and everything answers."""
    deadline = time.monotonic() + 30 * oracle.patience
    left = None
    while time.monotonic() < deadline:
        status = await scene.status()
        left = {key: status[key] for key in ("clients_open", "tunnels_open", "buffered_bytes")}
        left["exchanges"] = sum(row["exchanges"] for row in status["endpoints"])
        left["tunnels"] = sum(row["tunnels"] for row in status["endpoints"])
        left["descriptors"] = max(0, scene.proxy.open_fds() - base_fds - 8)
        if not any(left.values()):
            break
        await asyncio.sleep(0.2)
    else:
        oracle.violation("left over", str(left))
    oracle.all_is_quiet()
    wire = await Wire.open(scene.proxy.port)
    try:
        for _ in range(5):
            await wire.send(request("GET", "/socket.io/?EIO=4&transport=polling"))
            answer = await asyncio.wait_for(wire.answer(), 10 * oracle.patience)
            if answer.status != 200:
                oracle.violation("no answer when quiet", answer.start)
    finally:
        wire.close()


async def play_round(scene, oracle, seed, people, seconds, is_calm):
    rng = random.Random(seed)
    edge = Edge(scene, rng.choice((0.3, 0.5, 1.0)))
    cases = [bytes(json.loads(line)["raw"], "latin1").decode("unicode_escape").encode("latin1")
             for line in CASES.read_text().splitlines()]
    until = oracle.now() + seconds
    oracle.deed(f"round with seed {seed}, {'calm' if is_calm else 'rough'}")
    actors = [Rider(f"r{seed}.{i}", edge, oracle, random.Random(f"{seed}/rider/{i}")).run(until) for i in range(people[0])]
    actors += [Attacker(f"x{seed}.{i}", edge, oracle, random.Random(f"{seed}/attacker/{i}"), cases).run(until)
               for i in range(people[1])]
    operator = Operator(scene, oracle, random.Random(f"{seed}/operator"))
    await asyncio.gather(*actors, operator.run(until, is_calm))


async def torture(options, folder):
    oracle = Oracle(daemons.PATIENCE)
    scene = Scene(folder, oracle, options.seed)
    await scene.open()
    sizes, seed = [], options.seed
    try:
        await asyncio.sleep(1)
        base_fds = scene.proxy.open_fds()
        end = time.monotonic() + options.seconds
        while time.monotonic() < end and not oracle.violations and scene.proxy.is_running():
            seconds = min(ROUND, max(3.0, end - time.monotonic()))
            await play_round(scene, oracle, seed, (options.riders, options.attackers), seconds, is_calm=seed % 2 == 0)
            await quiet(scene, oracle, base_fds)
            sizes.append(scene.proxy.pss())
            seed += 1
    except (OSError, EOFError) as error:
        oracle.violation("the proxy", repr(error))
    finally:
        await scene.close()
    for problem in scene.proxy.problems():
        oracle.violation("the proxy", problem)
    # the first rounds fill caches; a sanitizer keeps what is freed
    if not daemons.sanitizer() and len(sizes) > 4 and sizes[-1] > 1.5 * max(sizes[1:3]) + (16 << 20):
        oracle.violation("memory grows", f"MiB after each round: {[size >> 20 for size in sizes]}")
    return oracle, scene, seed - 1, sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--riders", type=int, default=24)
    parser.add_argument("--attackers", type=int, default=24)
    parser.add_argument("--folder", help="an empty folder, where the proxy's files and its log stay")
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # hostile ends of connections are no news
    with contextlib.ExitStack() as stack:
        folder = options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="sidrail-torture-"))
        oracle, scene, seed, sizes = asyncio.run(torture(options, pathlib.Path(folder)))
        memory = f"memory {sizes[0] >> 20} to {sizes[-1] >> 20} MiB" if sizes else "no round"
        print(f"torture ({daemons.sanitizer() or 'no'} sanitizer): seeds {options.seed} to {seed}, {memory}; {oracle.summary()}")
        if not oracle.violations:
            return 0
        print("\nlast deeds:\n  " + "\n  ".join(oracle.deeds))
        print(f"\nlog of the proxy, its end:\n{scene.proxy.log_tail(6000)}")
        print("\nbroken promises:\n  " + "\n  ".join(oracle.violations))
        print(f"\nagain: ./run torture --seed {seed} --seconds {ROUND:.0f}")
        return 1


if __name__ == "__main__":
    sys.exit(main())

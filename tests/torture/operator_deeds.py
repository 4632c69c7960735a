"""What operators and clusters do to a proxy while it works: reloads, lists, drains, endpoints that die or hang,
certificates that are renewed. Every deed that a session may feel is noted as a disturbance of its endpoint.
"""
import asyncio
import json
import os
import signal

import yaml


class Operator:
    def __init__(self, scene, oracle, rng):
        self.scene = scene
        self.oracle = oracle
        self.rng = rng
        self.states = {}  # endpoint's name: "draining" or "removed"; the others are ready

    # ── the configuration ──

    def varied(self):
        """The configuration with changes that no open session may feel."""
        config = json.loads(json.dumps(self.scene.config))
        rng = self.rng
        config["timeouts"]["keep_alive"] = rng.choice(("300s", "400s"))
        config["limits"]["body_bytes"] = rng.choice((1000000, 2000000))
        config["limits"]["buffered_bytes"] = rng.choice(("128MiB", "256MiB"))
        config["log"]["level"] = rng.choice(("info", "warn"))
        config["upstreams"][0]["health_check"]["interval"] = rng.choice(("300ms", "1s"))
        config["upstreams"][0]["affinity"] = {"bounded_load": rng.choice((1.25, 2)), "mode": rng.choice(("persistent", "balanced"))}
        config["routes"][-1]["response_headers"] = {"set": {"X-Edge": str(rng.randrange(9))}}
        if rng.random() < 0.5:
            config["listeners"].append({"address": f"127.0.0.1:{self.scene.spare_port}"})
        if rng.random() < 0.3:
            config["access"] = {"deny": ["192.0.2.0/24"], "origins": []}
        return yaml.safe_dump(config, sort_keys=False)

    def write(self, path, text):
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        os.rename(fresh, path)

    async def reload(self):
        self.oracle.deed("reload")
        self.write(self.scene.proxy.config_path, self.varied())
        if self.rng.random() < 0.5:
            self.scene.proxy.signal(signal.SIGHUP)
        else:
            status = await self.scene.ctl("reload")
            if status != 0:
                self.oracle.violation("reload refused", "a good configuration")

    async def reload_bad(self):
        self.oracle.deed("bad reload")
        text = self.varied()
        bad = self.rng.choice((text.replace("upstreams:", "upstream:"), text[:len(text) // 2] + "\n  - [", "", "\x00" + text,
                               text + "\nnonsense: 1\n", "[" * 5000, text.replace("threads: 2", "threads: 2000")))
        self.write(self.scene.proxy.config_path, bad)
        if await self.scene.ctl("reload") == 0:
            self.oracle.violation("reload accepted", f"a bad configuration: {bad[:80]!r}")
        self.write(self.scene.proxy.config_path, self.varied())
        await self.scene.ctl("reload")

    async def reload_dripping(self):
        """The file is written in place, little by little, as editors and scp do."""
        self.oracle.deed("dripping file")
        text = self.varied()
        with open(self.scene.proxy.config_path, "w", encoding="utf-8") as file:
            step = max(1, len(text) // self.rng.randrange(3, 12))
            for begin in range(0, len(text), step):
                file.write(text[begin:begin + step])
                file.flush()
                await asyncio.sleep(self.rng.random() * 0.1)

    async def renew_certificate(self):
        self.oracle.deed("new certificate")
        await asyncio.to_thread(self.scene.renew_certificate)
        if self.rng.random() < 0.5:
            await self.scene.ctl("reload")

    async def new_keys(self):
        """Rotation of affinity keys: a new one is added, the first goes on writing."""
        self.oracle.deed("affinity keys")
        lines = [*self.scene.key_lines, f"{self.rng.choice('XYZ')} {self.rng.randbytes(16).hex()}"]
        self.write(self.scene.keys_path, "\n".join(lines) + "\n")

    # ── the list of endpoints ──

    def write_list(self):
        rows = [{"address": endpoint.address, "id": endpoint.name,
                 "state": "draining" if self.states.get(endpoint.name) == "draining" else "ready"}
                for endpoint in self.scene.endpoints if self.states.get(endpoint.name) != "removed"]
        self.rng.shuffle(rows)
        self.write(self.scene.list_path, json.dumps(rows))

    def victim(self):
        """One of those that may be disturbed; the first endpoint never is."""
        free = [e for e in self.scene.endpoints[1:] if not e.is_victim]
        return self.rng.choice(free) if free else None

    async def wait_for_state(self, endpoint, wanted):
        """Until the proxy shows it: "draining", "ready", or None for not listed."""
        for _ in range(200):
            rows = {row["id"]: row["state"] for row in await self.scene.endpoint_rows()}
            state = rows.get(endpoint.name)
            shown = "ready" if state in ("warming", "degraded") else "draining" if state == "closing" else state
            if shown == wanted or (wanted is None and state in (None, "gone", "draining", "closing")):
                return True
            await asyncio.sleep(0.05)
        self.oracle.violation("list not applied", f"{endpoint.name} should be {wanted}, the proxy shows {rows}")
        return False

    async def list_change(self):
        endpoint = self.victim()
        if endpoint is None:
            return
        state = self.rng.choice(("draining", "removed"))
        await self.disturb(endpoint, state, self.list_states(endpoint, state))

    async def list_states(self, endpoint, state):
        self.states[endpoint.name] = state
        self.write_list()
        if await self.wait_for_state(endpoint, "draining" if state == "draining" else None):
            endpoint.refuses_sessions_since = self.oracle.now()
        await asyncio.sleep(self.rng.random() * 4)
        endpoint.refuses_sessions_since = None
        del self.states[endpoint.name]
        self.write_list()
        await self.wait_for_state(endpoint, "ready")

    async def ctl_drain(self):
        endpoint = self.victim()
        if endpoint is None:
            return

        async def drained():
            if await self.scene.ctl("drain", endpoint.name) != 0:
                self.oracle.violation("drain refused", endpoint.name)
            endpoint.refuses_sessions_since = self.oracle.now()
            await asyncio.sleep(self.rng.random() * 4)
            endpoint.refuses_sessions_since = None
            await self.scene.ctl("undrain", endpoint.name)
        await self.disturb(endpoint, "ctl drain", drained())

    async def kill(self):
        endpoint = self.victim()
        if endpoint is None:
            return

        async def killed():
            await endpoint.close()
            await asyncio.sleep(self.rng.random() * 3)
            await endpoint.open()
        await self.disturb(endpoint, "killed", killed())

    async def pause(self):
        endpoint = self.victim()
        if endpoint is None:
            return

        async def paused():
            endpoint.pause()
            await asyncio.sleep(self.rng.random() * 3)
            endpoint.resume()
        await self.disturb(endpoint, "paused", paused())

    async def disturb(self, endpoint, why, deed):
        endpoint.is_victim = True
        try:
            with self.oracle.disturbing(endpoint.name, why):
                await deed
        finally:
            endpoint.is_victim = False

    async def ask_around(self):
        verb = self.rng.choice((["status"], ["endpoints"], ["clients"], ["endpoints", "--json"], ["clients", "--json"]))
        if await self.scene.ctl(*verb) != 0:
            self.oracle.violation("ctl refused", " ".join(verb))

    #: What happens in a round: a calm one disturbs no endpoint, so that nothing excuses anything.
    CALM = ("reload", "reload", "reload_bad", "reload_dripping", "renew_certificate", "new_keys", "ask_around")
    ROUGH = (*CALM, "list_change", "list_change", "ctl_drain", "kill", "kill", "pause")

    async def run(self, until, is_calm):
        """Deed after deed, several at a time in a rough round."""
        async def one_after_another(kinds):
            while self.oracle.now() < until:
                await getattr(self, self.rng.choice(kinds))()
                await asyncio.sleep(self.rng.random() * (1.0 if is_calm else 0.5))
        # files are written by one of them alone
        deeds = [one_after_another(self.CALM)]
        if not is_calm:
            deeds.append(one_after_another([kind for kind in self.ROUGH if kind not in self.CALM]))
        await asyncio.gather(*deeds)

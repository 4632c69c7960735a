"""Every option at both ends of its range, every word of every enum, and the empty value, through --check, reload and
start. The values come from --print-options: an option that is added is walked too.

    one value ─┬─ --check ──▶ 0, or 1 with one clear line that names the option    (what a table allows)
               └─ reload ───▶ the same verdict, and the daemon answers afterwards  (what the code makes of it)
    values that need a restart ─▶ start, SIGTERM ─▶ ends by itself; the others together, all lows, all highs
"""
import concurrent.futures
import copy
import json
import os
import re
import socket
import subprocess

import pytest
import yaml
from daemons import BUILD, PATIENCE, Broker, Proxy, figure, free_port
from tls_tools import Authority

PROXY, BROKER = "sidrail-proxy", "sidrail-broker"

#: Options that are no business of a walk: where the daemon listens, and what the harness steers it with.
APART = {"admin.address", "admin.socket", "listeners[].address"}

#: What must stand beside an option for it to mean something: the longest matching beginning counts.
AROUND = {
    PROXY: {
        "listeners[].tls": {"listeners[].tls.certificates[].cert": "CERT", "listeners[].tls.certificates[].key": "KEY"},
        "listeners[].proxy_protocol": {"trusted_proxies": ["127.0.0.0/8"]},
        "upstreams[].discovery.file": {"upstreams[].discovery": {}},
        "upstreams[].discovery.dns": {"upstreams[].discovery": {"dns": {
            "name": "pods.invalid", "port": 80, "server": "127.0.0.1:9"}}},
        "upstreams[].discovery.kubernetes": {"upstreams[].discovery": {"kubernetes": {
            "namespace": "it", "service": "chat", "ports": ["http"], "api_server": "http://127.0.0.1:9"}}},
        "upstreams[].affinity.accept_ingress_nginx_cookie": {
            "upstreams[].affinity.accept_ingress_nginx_cookie.upstream_name": "ns-chat-80"},
        "upstreams[].tls.cert": {"upstreams[].tls.key": "KEY"},
        "upstreams[].tls.key": {"upstreams[].tls.cert": "CERT"},
        "routes[].split": {"routes": [{"split": [{"upstream": "chat", "weight": 1}]}]},
        "shutdown": {"shutdown": {"readiness_delay": "0s", "window": "0s", "deadline": "25h"}},
    },
    BROKER: {
        "listeners[].users": {"listeners[].users": [{"name": "default", "password_file": "PASSWORD"}]},
        "listeners[].tls": {"listeners[].tls": {"cert": "CERT", "key": "KEY"}},
        "shards[].tls": {"shards[].url": "rediss://127.0.0.1:9"},
        "shards[].tls.cert": {"shards[].url": "rediss://127.0.0.1:9", "shards[].tls.key": "KEY"},
        "shards[].tls.key": {"shards[].url": "rediss://127.0.0.1:9", "shards[].tls.cert": "CERT"},
    },
}

#: Files that --check wants, but a daemon waits for.
AWAITED = {"file", "token_file", "ca_file"}

#: What an item of a list of text looks like, where it is not any text.
ITEMS = {"access.origins": "https://h{}.test", "engine_io_paths": "/x{}/"}

AMOUNT = re.compile(r"(-?[\d.]+)([A-Za-z]*)$")


def beside(bound, step):
    """A value just outside of the range: "100ms" becomes "99ms"."""
    number, unit = AMOUNT.match(bound).groups()
    if "." in number:
        return f"{float(number) + step}{unit}"
    return f"{int(number) + step}{unit}"


def plain(text):
    """Numbers stay numbers, so that YAML shows them without quotes."""
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def values_of(path, kind, spread):
    """(value, must it be refused) for a row of --print-options."""
    spread = spread.removesuffix(" bytes").removesuffix(" items")
    if kind in ("enum", "bool"):
        words = spread.split("|")
        good = [word == "true" for word in words] if kind == "bool" else words
        return [(word, False) for word in good] + [("", True), ("nonsense", True)]
    words, bounds = [], None
    for part in spread.split("|"):
        if ".." in part:
            bounds = part.split("..")
        elif part != "-":
            words.append(part)
    if kind in ("integer", "decimal", "size", "duration"):
        assert bounds, f"a number without a range: {spread}"
        low, high = bounds
        outside = [beside(high, +1)] + ([beside(low, -1)] if AMOUNT.match(beside(low, -1)).group(1) != "0" or "0" not in words else [])
        return [(plain(value), False) for value in [low, high, *words]] + [(plain(value), True) for value in [*outside, ""]]
    if kind == "text":
        low, high = map(int, bounds or (0, 4096))
        return [("x" * low, False), ("x" * high, False)] + ([("x" * (high + 1), True)] if bounds else [])
    if kind == "mode":
        return [("0000", False), ("0777", False), ("1000", True), ("8", True), ("", True)]
    low, high = map(int, bounds or (0, 64))
    if kind == "list of text":
        item = ITEMS.get(path, "x{}")
        return [([item.format(n) for n in range(count)], False) for count in (low, high)] + \
            ([([item.format(n) for n in range(high + 1)], True)] if bounds else []) + [([""] * max(low, 1), False)]
    if kind == "list of networks":
        return [([f"10.{n // 256}.{n % 256}.0/24" for n in range(count)], False) for count in (low, high)] + \
            [(["0.0.0.0/0", "::/0"], False), ([""], True)]
    if kind == "map of text":
        return [({}, False), ({"X-A": ""}, False), ({"": "a"}, True)]
    if kind == "list of objects":
        return [([], low > 0), ([None], True), ("", True)]
    return [({}, None), ("", True)]  # an object: its required options may be missing


def put(config, path, value):
    """Sets "upstreams[].drain.mode" in a configuration, in the first item of each list."""
    at, keys = config, path.split(".")
    for index, key in enumerate(keys):
        is_last = index == len(keys) - 1
        name = key.removesuffix("[]")
        if key.endswith("[]") and not is_last:
            items = at.setdefault(name, [{}])
            if not items or not isinstance(items[0], dict):
                at[name] = items = [{"address": items[0]} if items else {}]
            at = items[0]
        elif is_last:
            at[name] = value
        else:
            at = at.setdefault(name, {})


class Walk:
    """One daemon, its options, and the files that some of them name."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder
        authority = Authority(folder)
        cert, key = authority.issue("it", ["DNS:it.test"])
        key.chmod(0o600)
        password = folder / "password"
        password.write_text("secret\n")
        password.chmod(0o600)
        self.files = {"CERT": str(cert), "KEY": str(key), "PASSWORD": str(password)}
        text = subprocess.run([BUILD / program, "--print-options"], capture_output=True, text=True, check=True).stdout
        self.rows = [line.split("\t") for line in text.splitlines()]

    def named(self, value):
        return json.loads(re.sub(r'"(CERT|KEY|PASSWORD)"', lambda found: json.dumps(self.files[found.group(1)]),
                                 json.dumps(value)))

    def with_value(self, base, path, value):
        config = copy.deepcopy(base)
        around = [(begin, beside) for begin, beside in AROUND[self.program].items() if path.startswith(begin)]
        for other, needed in max(around, default=("", {}), key=lambda it: len(it[0]))[1].items():
            put(config, other, self.named(needed))
        put(config, path, value)
        return config

    def cases(self):
        """(path, reload class, value, must it be refused) of all options."""
        for path, kind, spread, _, _, reload, *_ in self.rows:
            if path not in APART:
                for value, is_bad in values_of(path, kind, spread):
                    yield path, reload, value, is_bad

    def check(self, number, config):
        path = self.folder / f"check-{number}.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML, and quicker to write
        done = subprocess.run([BUILD / self.program, "--config", path, "--check"], capture_output=True, text=True,
                              timeout=20 * PATIENCE, stdin=subprocess.DEVNULL)
        path.unlink()
        return done.returncode, done.stderr


def reload_with(daemon, config):
    """Writes the file and reloads it over the ctl socket: (is it in use, what was said)."""
    new = daemon.config_path.with_suffix(".new")
    new.write_text(json.dumps(config))
    os.rename(new, daemon.config_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20 * PATIENCE)
        sock.connect(str(daemon.folder / f"{daemon.name}.sock"))
        sock.sendall(b"reload\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    first, _, rest = answer.decode().partition("\n")
    return first == "ok", rest


def shown(path, value):
    text = json.dumps(value)
    return f"{path}: {text if len(text) < 60 else text[:57] + '...'}"


def one_clear_line(text, path):
    """A refusal names the option, or one beside it that no longer fits."""
    lines = text.strip().splitlines()
    last = re.sub(r"\[\]", "", path.split(".")[-1])
    return any(last in line or path.split("[")[0].split(".")[0] in line for line in lines) \
        and all(len(line) < 5000 for line in lines)  # a path of 4096 bytes is named whole


def look(walk, daemon):
    """Runs all cases through --check (two at a time) and reload; what was wrong."""
    base = daemon.config
    cases = [(path, reload, value, is_bad, walk.with_value(base, path, value)) for path, reload, value, is_bad in walk.cases()]
    wrong = []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        checks = list(pool.map(walk.check, range(len(cases)), [case[4] for case in cases]))
    for (path, _, value, is_bad, config), (status, text) in zip(cases, checks):
        if status not in (0, 1):
            wrong.append(f"--check of {shown(path, value)}: exit status {status}: {text}")
        elif is_bad and status == 0:
            wrong.append(f"--check of {shown(path, value)}: accepted")
        elif status == 1 and not one_clear_line(text, path):
            wrong.append(f"--check of {shown(path, value)}: unclear: {text[:300]}")
        try:
            is_ok, said = reload_with(daemon, config)
        except OSError as error:
            wrong.append(f"reload with {shown(path, value)}: {error!r}")
            return cases, checks, wrong
        if is_ok != (status == 0) and "needs a restart" not in said and path.rsplit(".", 1)[-1] not in AWAITED:
            wrong.append(f"{shown(path, value)}: --check says {status} {text[:200]!r}, reload says {is_ok} {said[:200]!r}")
    return cases, checks, wrong


def started(walk, servers, daemon, config):
    """Starts and ends a daemon with this configuration, at ports of its own; what was wrong."""
    config = copy.deepcopy(config)
    config["admin"] = {"address": f"127.0.0.1:{daemon.admin_port}", "socket": ""}
    config["listeners"][0]["address"] = f"127.0.0.1:{free_port()}"
    path = walk.folder / f"start-{free_port()}.yaml"
    path.write_text(yaml.safe_dump(config))
    daemon.argv = [str(BUILD / walk.program), "--config", str(path)]
    servers.start(daemon)
    daemon.stop()
    return daemon.problems()


def fresh(walk, servers):
    """A daemon that was not started yet."""
    name = servers.name("end")
    if walk.program == PROXY:
        return Proxy(name, servers.folder, [f"127.0.0.1:{free_port()}"])
    return Broker(name, servers.folder)


@pytest.mark.parametrize("program", [PROXY, BROKER])
def test_no_value_that_a_table_allows_ends_the_daemon(program, servers, tmp_path):
    walk = Walk(program, tmp_path)
    daemon = servers.start(Proxy("walked", tmp_path, {"chat": ["127.0.0.1:9"]}) if program == PROXY
                           else Broker("walked", tmp_path, shards=["redis://127.0.0.1:9"]))
    cases, checks, wrong = look(walk, daemon)
    assert not wrong, "\n".join(wrong)
    assert len(cases) > 2 * len(walk.rows)
    good = [case for case, (status, _) in zip(cases, checks) if status == 0]
    for path, reload, value, _, config in good:
        if reload == "restart" or path.endswith("weight") or figure(False, True):
            wrong += [f"start with {shown(path, value)}: {it}" for it in started(walk, servers, fresh(walk, servers), config)]
    assert not wrong, "\n".join(wrong)

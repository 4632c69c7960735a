"""Runs the suites of Engine.IO and Socket.IO against real servers, without and with sidrail-proxy between, and
compares which tests pass. `./run conformance DIR [-k NAME]` calls it; docs/conformance.md says more.

    suite ─▶ mocha, direct ──▶ passed ─┐
         └─▶ mocha, proxy ───▶ passed ─┴─▶ the same set?  or a difference on purpose (below)?  else exit status 1

Many tests race pings of 300 ms against the load of the machine, so those that fail are run again:

    fails                              again, up to RETRIES times; it passes when it passes once
    fails direct each time             not again through the proxy
    differs, never failed direct       again direct, up to RETRIES times, to see whether it ever fails there
    differs, failed direct too         again on both sides, up to SETTLES times

A test that never fails direct has its 1 + RETRIES chances through the proxy, not more.
"""
import collections
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
import daemons  # noqa: E402
import suites  # noqa: E402

RETRIES = 3
SETTLES = 12
MOCHA_SECONDS = 240
BODY_BYTES = 1_000_000  # the most that any of the servers takes
HOME = ROOT / ".run" / "conformance"

#: Tests whose result the proxy changes, and why it means to.
REFUSES_METHODS = ("on Engine.IO paths the proxy itself refuses every method but GET, POST and OPTIONS, "
                   "with the status that HTTP has for it, 405; the suite wants the server's 400")
ON_PURPOSE = {
    ("engine.io-protocol, Node",
     "Engine.IO protocol handshake HTTP long-polling fails with an invalid request method"): REFUSES_METHODS,
    ("socket.io-protocol, Node",
     "Engine.IO protocol handshake HTTP long-polling should fail with an invalid request method"): REFUSES_METHODS,
    ("engine.io-protocol, Python",
     "Engine.IO protocol message WebSocket closes the session upon invalid packet format"):
        "after the error the server writes an HTTP response into the WebSocket; the proxy passes nothing that is no "
        "frame and closes with 1011, where direct the client fails on what it reads",
}

Row = collections.namedtuple("Row", "suite version server tests direct proxy different purposes")


class CannotRun(Exception):
    """A suite, a server or mocha itself did not work."""


def end_session(process):
    """Ends it, and what the tests left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def run_mocha(suite, copy, name, titles=None):
    """Runs a suite, or the tests of those titles. Returns the error or None by test: (title, n-th of that title)."""
    report = copy.parent / f"{name}.json"
    with open(copy.parent / f"{name}.log", "w") as log:
        mocha = subprocess.Popen(suite.mocha_argv(report, titles), cwd=copy, env=suite.mocha_env(),
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            mocha.wait(MOCHA_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise CannotRun(f"mocha did not end within {MOCHA_SECONDS} s") from error
        finally:
            end_session(mocha)
    try:
        tests = json.loads(report.read_text())["tests"]
    except (OSError, ValueError, KeyError) as error:
        raise CannotRun(f"mocha left no report; see {copy.parent}/{name}.log") from error
    results, seen = {}, collections.Counter()
    for test in tests:
        title = test["fullTitle"]
        seen[title] += 1
        if test["err"]:
            results[title, seen[title]] = test["err"].get("message", "failed")
        elif "speed" in test:  # mocha gives none to a pending test
            results[title, seen[title]] = None
    return results


class Results:
    """What each test of a suite did in each of its runs, by side."""

    def __init__(self, suite, copies):
        self.suite = suite
        self.copies = copies
        self.runs = {side: {} for side in suites.SIDES}    # test -> whether it passed, run by run
        self.errors = {side: {} for side in suites.SIDES}  # test -> its last error
        self.mochas = collections.Counter()

    def run(self, side, tests=None):
        """All tests, or those given."""
        self.mochas[side] += 1
        titles = sorted({title for title, _ in tests}) if tests else None
        results = run_mocha(self.suite, self.copies[side], f"{side}-{self.mochas[side]}", titles)
        for test, error in results.items():
            if tests is None or test in tests:
                self.runs[side].setdefault(test, []).append(error is None)
                if error is not None:
                    self.errors[side][test] = error

    def passes(self, side, test):
        return any(self.runs[side].get(test, []))

    def passed(self, side):
        return {test for test in self.runs[side] if self.passes(side, test)}

    def failed(self, side):
        return self.runs[side].keys() - self.passed(side)

    def is_unsteady(self, test):
        return not all(self.runs["direct"].get(test, []))

    def different(self):
        return self.passed("direct") ^ self.passed("proxy")

    def measure(self, side, hopeless=frozenset()):
        """All tests of a side, with retries except of the hopeless ones."""
        self.run(side)
        for _ in range(RETRIES):
            if again := self.failed(side) - hopeless:
                self.run(side, again)

    def settle(self):
        """Runs again what differs, not on purpose."""
        for settle in range(SETTLES):
            again = {test for test in self.different() if (self.suite.name, test[0]) not in ON_PURPOSE}
            unsteady = {test for test in again if self.is_unsteady(test)}
            if settle >= RETRIES:
                again = unsteady
            if again:
                self.run("direct", again)
            if unsteady:
                self.run("proxy", unsteady)


def start_proxy(folder, server, port):
    """sidrail-proxy in front of the server, on every address that "localhost" has."""
    found = socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
    hosts = sorted({address[0] for _, _, _, _, address in found} | {"127.0.0.1"})
    return daemons.Proxy("proxy", folder, [server], {
        "listeners": [{"address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"} for host in hosts],
        "engine_io_paths": ["/engine.io/", "/socket.io/"],
        "upstreams": [{"name": "suite", "discovery": {"static": [server.address]}, "affinity": {"sid_tag": True}}],
        "routes": [{"host": "*", "path": "/", "upstream": "suite"}],
        "limits": {"body_bytes": BODY_BYTES},
        "log": {"level": "info", "access": "off"},
    })


def run_suite(suite, directory, work):
    """Both sides of a suite. Returns its row of the table."""
    ports = {side: daemons.free_port() for side in suites.SIDES}
    copies = suite.copy(directory, work, ports)
    server = suites.SuiteServer(suite, work, ports["direct"], copies["direct"]).start()
    proxy = start_proxy(work, server, ports["proxy"]).start()
    try:
        results = Results(suite, copies)
        results.measure("direct")
        if not results.passed("direct"):
            raise CannotRun("no test passes without the proxy: the server or the suite is not as it should be")
        before = proxy.metrics().get("sidrail_proxy_requests_total")
        results.measure("proxy", results.failed("direct"))
        if proxy.metrics().get("sidrail_proxy_requests_total") <= before:
            raise CannotRun("nothing went through the proxy")
        results.settle()
    finally:
        proxy.stop()
        server.stop()
    if proxy.problems():
        raise CannotRun("; ".join(proxy.problems()))
    return row_of(suite, directory, results)


def row_of(suite, directory, results):
    different, purposes = [], []
    for title, number in sorted(results.different()):
        name = title if number == 1 else f"{title} ({number})"
        if results.passes("direct", (title, number)):
            what, side = "fails through the proxy", "proxy"
        else:
            what, side = "passes only through the proxy; direct", "direct"
        text = f"{name}: {what}: {results.errors[side].get((title, number), 'was not run')}"
        if (suite.name, title) in ON_PURPOSE:
            purposes.append(f"{text}\n    on purpose: {ON_PURPOSE[suite.name, title]}")
        else:
            different.append(text)
    return Row(suite.name, suite.version(directory), suite.server.title(), len(results.runs["direct"]),
               len(results.passed("direct")), len(results.passed("proxy")), different, purposes)


def print_table(rows):
    """Markdown, as docs/conformance.md keeps it."""
    cells = [("suite", "version", "server", "tests", "passed direct", "passed through the proxy", "differ")]
    for row in rows:
        differ = f"{len(row.different) + len(row.purposes)}"
        if row.purposes:
            differ += f" ({len(row.purposes)} on purpose)"
        cells.append((row.suite, row.version, row.server, str(row.tests), str(row.direct), str(row.proxy), differ))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    cells.insert(1, tuple("-" * width for width in widths))
    print()
    for line in cells:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
    for row in rows:
        for text in row.different + row.purposes:
            print(f"\n{row.suite}: {text}")


def main(directory, name):
    chosen = [suite for suite in suites.all_suites() if name in suite.name]
    if not chosen:
        print(f"run: no suite has '{name}' in its name", file=sys.stderr)
        return 1
    for problem in filter(None, (suite.missing(directory) for suite in chosen)):
        print(f"run: {problem}", file=sys.stderr)
        return 1
    HOME.mkdir(parents=True, exist_ok=True)
    lock = open(HOME / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("run: the suites run already, in this tree", file=sys.stderr)
        return 1
    shutil.rmtree(HOME / "work", ignore_errors=True)
    modules = HOME / "node_modules"  # found from the copies below it
    modules.unlink(missing_ok=True)
    modules.symlink_to(suites.MODULES)
    rows, broken = [], []
    for suite in chosen:
        print(f"== {suite.name}", file=sys.stderr, flush=True)
        try:
            rows.append(run_suite(suite, directory, HOME / "work" / suite.name.replace(", ", "-").replace(" ", "-")))
        except (CannotRun, AssertionError, subprocess.CalledProcessError) as error:
            broken.append(f"{suite.name}: {error}")
            print(f"   {error}", file=sys.stderr, flush=True)
    print_table(rows)
    print(f"\nA test that failed was run again, up to {RETRIES} times; one that differed and fails direct now and then, "
          f"up to {SETTLES} times more.")
    for text in broken:
        print(f"did not run: {text}")
    same = sum(not row.different for row in rows)
    print(f"{same} passed, {len(chosen) - same} failed")
    return same != len(chosen)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))

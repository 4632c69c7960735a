"""Real servers for tests: the two daemons, redis-server, pods.

    port = free_port() ──▶ Server(argv).start() ──▶ wait until it answers ──▶ … test … ──▶ stop()
                             │ own session, log in a file                        │ SIGTERM, bounded wait,
                             │ dies with pytest                                  │ exit status, sanitizer reports
                             └─────────────────── problems() ◀───────────────────┘

Nothing here sleeps for a fixed time: `wait_until` polls a condition within a bound. What went wrong with a
server during its life (a crash, a wrong exit status, a sanitizer's report) is in `problems()`, which
conftest.py turns into a failed test.
"""
import ctypes
import fcntl
import json
import os
import pathlib
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SIDRAIL_BUILD", ROOT / "build"))
ENVIRONMENTS = pathlib.Path(os.environ.get("SIDRAIL_ENV", ROOT / ".run" / "env"))
PODS = pathlib.Path(__file__).parent / "pods"


def is_full():
    """Whether tests run at the figures that the promises name, not at the short ones."""
    return os.environ.get("SIDRAIL_FULL", "0") not in ("", "0")


def figure(short, full):
    """The figure to test at: `full` under ./run test --full, else `short`."""
    return full if is_full() else short


def sanitizer():
    """What the daemons were built with: "address", "thread", or ""."""
    try:
        cache = (BUILD / "CMakeCache.txt").read_text()
    except OSError:
        return ""
    found = re.search(r"^SANITIZER:\w+=(\w*)$", cache, re.M)
    return found.group(1) if found else ""


#: How much slower everything may be: bounds are multiplied with it. A bound only ends a wait that would never end.
PATIENCE = {"": 1, "address": 3, "thread": 6}[sanitizer()]


def wait_until(condition, what, seconds=20.0, interval=0.01):
    """Waits until `condition()` is true and returns what it gave; fails with `what` after `seconds`.

    An exception of the condition counts as "not yet" and is shown if the wait fails."""
    deadline = time.monotonic() + seconds * PATIENCE
    error = None
    while True:
        try:
            value = condition()
            if value:
                return value
            error = None
        except Exception as caught:  # shown below
            error = caught
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds * PATIENCE:.0f} s until {what}"
                                 + (f": {error!r}" if error else "")) from error
        time.sleep(interval)
        interval = min(interval * 1.3, 0.25)


# --- ports ---------------------------------------------------------------------------------------------------

_held = []


def _port_range():
    """SIDRAIL_PORTS=LOW-HIGH, else a range below the one that the kernel takes ports of outgoing connections from."""
    low, high = os.environ.get("SIDRAIL_PORTS", "20000-28000").split("-")
    return int(low), int(high)


def hold_port(port):
    """Reserves the port among all test runs of this user, until this process ends."""
    folder = pathlib.Path(tempfile.gettempdir()) / f"sidrail-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    fd = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return False
    _held.append(fd)
    return True


def free_port():
    """A TCP port that nobody listens on and no other test run takes while this one lives."""
    low, high = _port_range()
    for port in random.sample(range(low, high + 1), min(500, high + 1 - low)):
        if not hold_port(port):
            continue
        try:
            for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind((address, port))
                    probe.listen(1)
            return port
        except OSError as error:
            if error.errno in (97, 99):  # no IPv6 here
                return port
    raise AssertionError(f"no free port in {low}-{high}")


def answers(port, host="127.0.0.1"):
    """Whether something accepts connections there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


def is_readable(sock, seconds):
    """Whether bytes, or the end, come within `seconds`. (select() refuses descriptors above 1023; a long run has them.)"""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def http_get(url, timeout=5):
    """Status and body of a GET; an error status is no exception."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# --- servers -------------------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None)


def _die_with_pytest():
    """In the child: SIGKILL when the thread that started it ends, which must be the main one."""
    _libc.prctl(1, signal.SIGKILL)


SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak|Thread|Memory)Sanitizer|WARNING: ThreadSanitizer|runtime error: |SUMMARY: \w+Sanitizer")


class Server:
    """One process of a test. Subclasses say how it is started, and how one sees that it is ready."""

    expected_status = (0,)
    stop_signal = signal.SIGTERM
    stop_seconds = 20.0

    def __init__(self, name, argv, folder, env=None):
        self.name = name
        self.argv = [str(word) for word in argv]
        self.folder = pathlib.Path(folder)
        self.log_path = self.folder / f"{name}.log"
        self.env = dict(os.environ)
        self.env.update({
            "ASAN_OPTIONS": "detect_leaks=1:exitcode=99:allocator_may_return_null=0",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "TSAN_OPTIONS": "exitcode=66:halt_on_error=0:second_deadlock_stack=1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        })
        self.env.update({key: str(value) for key, value in (env or {}).items()})
        self.process = None
        self._problems = []
        self._expects_death = False

    def is_ready(self):
        """Whether it serves. Overridden."""
        return True

    def start(self, wait=True):
        """Starts it and, with `wait`, returns when it is ready."""
        self._expects_death = False
        in_main = threading.current_thread() is threading.main_thread()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.env,
                cwd=self.folder, start_new_session=True, preexec_fn=_die_with_pytest if in_main else None)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=30.0):
        def ready():
            return not self.is_running() or self.is_ready()
        wait_until(ready, f"{self.name} is ready", seconds)
        if not self.is_running():
            self._expects_death = True
            raise AssertionError(f"{self.name} ended with status {self.process.returncode} at its start:\n"
                                 + self.log_tail(3000))

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def log(self):
        """All that it wrote so far."""
        try:
            return self.log_path.read_text(errors="replace")
        except OSError:
            return ""

    def log_tail(self, size=6000):
        text = self.log()
        return text if len(text) <= size else "[…]\n" + text[-size:]

    def wait_log(self, pattern, seconds=20.0):
        """Waits until the log has a match of the regular expression; returns the match."""
        return wait_until(lambda: re.search(pattern, self.log(), re.M), f"{self.name} logs {pattern!r}", seconds)

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """SIGKILL, as the test's own deed: no problem."""
        self._expects_death = True
        if self.is_running():
            self.process.kill()
        self.process.wait()
        self._kill_session()

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def expect_death(self):
        """The test makes it end by itself; how it ends is the test's to judge."""
        self._expects_death = True

    def wait_exit(self, seconds=20.0):
        """Waits until it ended by itself; returns its exit status."""
        self._expects_death = True
        wait_until(lambda: not self.is_running(), f"{self.name} ends", seconds)
        return self.process.returncode

    def restart(self):
        """Stops it and starts it again, same address."""
        self.stop()
        return self.start()

    def stop(self):
        """Ends it the polite way; what is wrong with its end goes to problems()."""
        if self.process is None:
            return
        if not self.is_running():
            if not self._expects_death and self.process.returncode is not None:
                self._add_problem(f"ended with status {self.process.returncode} during the test")
            self._finish()
            return
        self.resume()
        self.signal(self.stop_signal)
        try:
            status = self.process.wait(self.stop_seconds * PATIENCE)
            if status not in self.expected_status:
                self._add_problem(f"ended with status {status} when told to stop")
        except subprocess.TimeoutExpired:
            self._add_problem(f"did not end within {self.stop_seconds * PATIENCE:.0f} s when told to stop")
            self.process.kill()
            self.process.wait()
        self._finish()

    def _finish(self):
        self._kill_session()
        if SANITIZER_REPORT.search(self.log()):
            self._add_problem("a sanitizer reported something")
        self.process = None

    def _kill_session(self):
        """What it left behind in its session."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _add_problem(self, text):
        if f"{self.name} {text}" not in self._problems:
            self._problems.append(f"{self.name} {text}")

    def problems(self):
        return list(self._problems)


def stop_together(servers):
    """Stops servers that end slowly, at the same time."""
    for server in servers:
        if server.is_running():
            server.expect_death()
            server.signal(server.stop_signal)
    for server in servers:
        server.stop()


class Redis(Server):
    """A redis-server without persistence. `client()` is a redis-py client of it."""

    def __init__(self, name, folder, port=None, password=None, args=()):
        self.port = port or free_port()
        self.password = password
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"redis://127.0.0.1:{self.port}"
        argv = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                "--loglevel", "notice", "--dir", folder, *args]
        if password:
            argv += ["--requirepass", password]
        super().__init__(name, argv, folder)

    def client(self, **options):
        import redis
        return redis.Redis("127.0.0.1", self.port, password=self.password, **options)

    def is_ready(self):
        with self.client() as client:
            return client.ping()

    def info(self, section="all"):
        with self.client() as client:
            return client.info(section)


class Daemon(Server):
    """sidrail-proxy or sidrail-broker, with its admin port."""

    program = None

    def __init__(self, name, folder, args, env=None):
        self.admin_port = free_port()
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        binary = BUILD / self.program
        assert binary.exists(), f"{binary} is not built"
        super().__init__(name, [binary, *args], folder, env)

    def _write_config(self, config):
        self.config_path = self.folder / f"{self.name}.yaml"
        self.config = config
        self.config_path.write_text(config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False))
        return self.config_path

    def is_ready(self):
        return http_get(f"{self.admin}/readyz")[0] == 200

    def metrics(self):
        """Scrapes /metrics."""
        status, text = http_get(f"{self.admin}/metrics")
        assert status == 200, f"{self.name}: /metrics answered {status}"
        return Metrics(text)

    def status(self):
        """/status.json as a dict."""
        return json.loads(http_get(f"{self.admin}/status.json")[1])

    def pss(self):
        """Bytes of memory that are its own (PSS), without pages of files: other processes that come and go share those."""
        text = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss_Anon:\s+(\d+) kB", text, re.M).group(1)) * 1024

    def peak_memory(self):
        """Bytes that were resident at most."""
        return int(re.search(r"^VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{self.pid}/status").read_text(), re.M)[1]) * 1024

    def cpu_seconds(self):
        """Of processor time that its main thread has used."""
        return int(pathlib.Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def open_fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def merged(base, extra):
    """`base` with `extra` over it; mappings are merged key by key, the rest is replaced."""
    out = dict(base)
    for key, value in extra.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


class Proxy(Daemon):
    """sidrail-proxy in front of `upstreams`: a list of endpoints, or a dict of lists by upstream name.

    `config` is merged over what stands below; `routes` for several upstreams are the caller's to give. A string
    as `config` is taken as it is (the admin address as ${ADMIN}, the listener's as ${LISTEN})."""

    program = "sidrail-proxy"

    def __init__(self, name, folder, upstreams, config=None, keys=None, args=(), env=None):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(name, folder, [])
        if isinstance(config, str):
            given = config
        else:
            named = upstreams if isinstance(upstreams, dict) else {"chat": upstreams}
            given = merged({
                "threads": 2,
                "listeners": [{"address": self.address}],
                "admin": {"address": f"127.0.0.1:{self.admin_port}", "socket": str(self.folder / f"{name}.sock")},
                # no health checks: endpoints of tests count their connections
                "upstreams": [{"name": key, "health_check": {"type": "none"},
                               "discovery": {"static": [endpoint_address(e) for e in endpoints]}}
                              for key, endpoints in named.items()],
                "routes": [{"host": "*", "path": "/", "upstream": next(iter(named))}],
                "shutdown": {"readiness_delay": "0s", "window": "0s", "deadline": "5s"},
                "log": {"level": "debug", "format": "text", "access": "all"},
            }, config or {})
            if keys:
                given["affinity_keys"] = str(keys)
        self.env.update({"ADMIN": f"127.0.0.1:{self.admin_port}", "LISTEN": self.address})
        self.env.update(env or {})
        self.argv += ["--config", str(self._write_config(given)), *args]


class Broker(Daemon):
    """sidrail-broker over `shards` (Redis servers or URLs; none: the embedded hub)."""

    program = "sidrail-broker"

    def __init__(self, name, folder, shards=(), config=None, args=(), env=None):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"redis://127.0.0.1:{self.port}/0"
        super().__init__(name, folder, [])
        if isinstance(config, str):
            given = config
        else:
            given = merged({
                "listeners": [{"address": self.address}],
                "admin": {"address": f"127.0.0.1:{self.admin_port}", "socket": str(self.folder / f"{name}.sock")},
                "log": {"level": "debug", "format": "text"},
                "heartbeat": "10s",  # rarer than by default: tests read what comes, one by one
            }, config or {})
            if shards and "shards" not in given:
                given["shards"] = [shard_entry(index, shard) for index, shard in enumerate(shards)]
        self.env.update({"ADMIN": f"127.0.0.1:{self.admin_port}", "LISTEN": self.address})
        self.env.update(env or {})
        self.argv += ["--config", str(self._write_config(given)), *args]

    def client(self, **options):
        import redis
        return redis.Redis("127.0.0.1", self.port, **options)


def endpoint_address(endpoint):
    return endpoint if isinstance(endpoint, (str, dict)) else endpoint.address


def shard_entry(index, shard):
    if isinstance(shard, dict):
        return shard
    name = "abcdefghijklmnop"[index]
    return {"name": name, "url": shard if isinstance(shard, str) else shard.url}


# --- pods ----------------------------------------------------------------------------------------------------

def python_of(environment):
    """The interpreter of an environment (current, sio57, redis6, …)."""
    python = ENVIRONMENTS / environment / "bin" / "python"
    assert python.exists(), f"the environment {environment} is not made: ./run test makes it"
    return python


def has_environment(environment):
    return (ENVIRONMENTS / environment / ".stamp").exists()


def node_major():
    """Node's major version; 0 without Node."""
    if shutil.which("node") is None:
        return 0
    text = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(text.lstrip("v").split(".")[0])


def node_env():
    return {"NODE_PATH": ENVIRONMENTS / "node" / "node_modules"}


class Pod(Server):
    """An application under test: see pods/flask_pod.py for what every kind of pod answers."""

    stop_seconds = 10.0
    # gunicorn and node end as they please when clients are still connected
    expected_status = (0, 1, -signal.SIGTERM, 143)

    def __init__(self, name, argv, folder, port, env):
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(name, argv, folder, {"POD_NAME": name, "POD_PORT": port, **env})

    def is_ready(self):
        return http_get(f"{self.url}/pod")[0] == 200

    def facts(self):
        """What GET /pod says: name, emits seen, and the like."""
        return json.loads(http_get(f"{self.url}/pod")[1])

    def emit(self, room, first=0, count=1, namespace="/", size=0):
        """Has the pod emit `said` to a room (none: to all) `count` times, numbered from `first`."""
        query = f"room={room or ''}&first={first}&count={count}&namespace={namespace}&size={size}"
        status, text = http_get(f"{self.url}/emit?{query}", timeout=60)
        assert status == 200, f"{self.name}: /emit answered {status}: {text}"


class FlaskPod(Pod):
    """Flask-SocketIO under gunicorn: gthread, one worker."""

    def __init__(self, name, folder, environment="current", queue=None, threads=100, env=None):
        port = free_port()
        argv = [python_of(environment), "-m", "gunicorn", "--workers", 1, "--threads", threads,
                "--bind", f"127.0.0.1:{port}", "--graceful-timeout", 1, "--chdir", PODS]
        if environment == "current":  # a new gunicorn leaves a control socket in the home folder
            argv.append("--no-control-socket")
        argv.append("flask_pod:app")
        more = dict(env or {})
        if queue:
            more["POD_QUEUE"] = queue if isinstance(queue, str) else queue.url
        super().__init__(name, argv, folder, port, more)


class NodePod(Pod):
    """socket.io 4.8 on Node; EIO=3 clients are let in."""

    def __init__(self, name, folder, queue=None, env=None):
        port = free_port()
        more = {**node_env(), **(env or {})}
        if queue:
            more["POD_QUEUE"] = queue if isinstance(queue, str) else queue.url
        super().__init__(name, ["node", PODS / "node_pod.js"], folder, port, more)


# --- metrics -------------------------------------------------------------------------------------------------

class Metrics:
    """Numbers of one scrape of /metrics, in the Prometheus text format, parsed strictly."""

    LINE = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([-+]?(?:[\d.]+(?:e[-+]?\d+)?|Inf|NaN))$')
    LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"(?:,|$)')

    def __init__(self, text):
        self.samples = []
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            found = self.LINE.match(line)
            assert found, f"not a line of metrics: {line!r}"
            labels = dict(self.LABEL.findall(found.group(2) or ""))
            self.samples.append((found.group(1), labels, float(found.group(3))))

    def get(self, name, **labels):
        """The sum of the samples of that name whose labels include these; 0 when there is none."""
        return sum(value for sample, found, value in self.samples
                   if sample == name and labels.items() <= found.items())

    def by(self, name, label):
        """Sums of the samples of that name by one label's value."""
        sums = {}
        for sample, found, value in self.samples:
            if sample == name and label in found:
                sums[found[label]] = sums.get(found[label], 0) + value
        return sums

    def has(self, name):
        return any(sample == name for sample, _, _ in self.samples)

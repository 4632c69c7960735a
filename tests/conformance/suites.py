"""The suites: what is copied from which checkout, the server that they run against, and how mocha runs them.

    DIR/checkout ──copied, built──▶ WORK/suite/direct   its port is the server's ──▶ server
                              └───▶ WORK/suite/proxy    its port is the proxy's ──▶ sidrail-proxy ──▶ server

A suite knows its server's address by a fixed port, which each copy gets replaced. The checkouts stay as they are.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess

from daemons import ENVIRONMENTS, Server, answers, node_major, python_of

HERE = pathlib.Path(__file__).parent
SERVERS = HERE / "servers"
MODULES = ENVIRONMENTS / "conformance" / "node_modules"
SIDES = ("direct", "proxy")


class Node:
    """A server program on Node."""

    def __init__(self, program, package):
        self.program = program
        self.package = package

    def title(self):
        facts = json.loads((MODULES / self.package / "package.json").read_text())
        return f"{self.package} {facts['version']}"

    def argv(self, port, _copy):
        return ["node", SERVERS / self.program, port]


class Python:
    """A server program in the Python environment `current`."""

    def __init__(self, program, package):
        self.program = program
        self.package = package

    def title(self):
        code = f"import importlib.metadata as m; print(m.version('{self.package}'))"
        version = subprocess.run([python_of("current"), "-c", code], capture_output=True, text=True, check=True).stdout
        return f"{self.package} {version.strip()}"

    def argv(self, port, _copy):
        return [python_of("current"), SERVERS / self.program, port]


class OfTheSuite(Node):
    """The server that the suite's own mocha hooks start."""

    def __init__(self, hooks, package):
        super().__init__("of_the_suite.js", package)
        self.hooks = hooks

    def argv(self, port, copy):
        return ["node", SERVERS / self.program, copy / self.hooks]


class Suite:
    """One suite against one server."""

    def __init__(self, name, checkout, folder, server, files, port, mocha=(), env=None):
        self.name = name
        self.checkout = checkout  # its name in DIR
        self.folder = folder  # in the checkout
        self.server = server
        self.files = files  # what mocha is given
        self.port = port    # the fixed port; what replaces it is each copy's own
        self.mocha = list(mocha)
        self.env = env or {}

    def is_package(self):
        return self.folder.startswith("packages/")

    def missing(self, directory):
        """What DIR lacks for this suite; None if nothing."""
        for name in ["package.json", *self.files]:
            path = pathlib.Path(self.checkout, self.folder, name)
            if not (directory / path).is_file():
                return f"{directory} holds no checkout of {self.checkout} that can be used: {path} is missing"
        return None

    def version(self, directory):
        """Commit and date of the checkout, and the version of the package that is tested."""
        checkout = directory / self.checkout
        text = "no commit"
        if (checkout / ".git").exists():
            text = subprocess.run(["git", "-c", "safe.directory=*", "-C", str(checkout), "log", "-1",
                                   "--format=%h, %cs", "--abbrev=8"], capture_output=True, text=True).stdout.strip() or text
        if self.is_package():
            text += f" ({json.loads((checkout / self.folder / 'package.json').read_text())['version']})"
        return text

    def copy(self, directory, work, ports):
        """Makes the copies in `work`; returns their folders by side. `ports` are those that the tests connect to."""
        source = directory / self.checkout / self.folder
        built = work / "built"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(source, built, ignore=shutil.ignore_patterns("node_modules", "dist", "build", "package-lock.json"))
        if self.is_package():
            compile_package(built)
        copies = {}
        for side in SIDES:
            copies[side] = work / side
            shutil.copytree(built, copies[side])
            replace_port(copies[side], self.port, ports[side])
        return copies

    def mocha_argv(self, report, titles=None):
        argv = ["node", MODULES / "mocha" / "bin" / "mocha.js", *self.mocha, "--exit", "--reporter", "json",
                "--reporter-option", f"output={report}"]
        if titles:
            argv += ["--grep", "^(?:" + "|".join(re.escape(title) for title in titles) + ")$"]
        return [str(word) for word in [*argv, *self.files]]

    def mocha_env(self):
        return {**os.environ, "NODE_PATH": str(MODULES), **self.env}


def compile_package(folder):
    """As the package's own script does: CommonJS, ES modules, and what it does after them. Types are not checked:
    that would need those of the whole monorepo."""
    compiler = str(MODULES / "typescript" / "bin" / "tsc")
    with open(folder.parent / "built.log", "w") as log:
        for project in ("tsconfig.json", "tsconfig.esm.json"):
            unchecked = folder / f"unchecked.{project}"
            unchecked.write_text(json.dumps({
                "extends": f"./{project}",
                "compilerOptions": {"types": [], "noCheck": True, "declaration": False},
            }))
            subprocess.run(["node", compiler, "-p", unchecked.name], cwd=folder, check=True, stdin=subprocess.DEVNULL,
                           stdout=log, stderr=subprocess.STDOUT)
        subprocess.run(["bash", "./postcompile.sh"], cwd=folder, check=True, stdin=subprocess.DEVNULL,
                       stdout=log, stderr=subprocess.STDOUT)


def replace_port(folder, old, new):
    """In the tests, wherever `old` is the port of an address; a fixed port of the server too."""
    address = re.compile(rf"(localhost:|\bport: |\bnew Server\(|\|\| ){old}\b")
    for path in folder.rglob("*"):
        in_tests = "test" in path.relative_to(folder).parts or path.parent == folder
        if in_tests and path.suffix in (".js", ".ts", ".mjs") and path.is_file():
            text = path.read_text()
            replaced = address.sub(rf"\g<1>{new}", text)
            if replaced != text:
                path.write_text(replaced)


class SuiteServer(Server):
    """The server behind a suite."""

    expected_status = (0, -15, 143)
    stop_seconds = 5.0

    def __init__(self, suite, folder, port, copy):
        self.port = port
        self.address = f"127.0.0.1:{port}"
        super().__init__("server", suite.server.argv(port, copy), folder, {"NODE_PATH": MODULES, **suite.env})

    def is_ready(self):
        return answers(self.port)


def builtin_websocket():
    """Node has WebSocket built in since 22; before, it must be asked for."""
    return {} if node_major() >= 22 else {"NODE_OPTIONS": "--experimental-websocket"}


PATIENT = ["--timeout", "10000"]
ENGINE_IO_CLIENT = dict(checkout="socket.io", folder="packages/engine.io-client", port=3000,
                        files=["test/index.js"], mocha=PATIENT,
                        server=OfTheSuite("test/support/hooks.js", "engine.io"))
PROTOCOL = dict(folder="test-suite", port=3000, files=["test-suite.js"],
                mocha=["--require", HERE / "one_message_a_turn.js"])


def all_suites():
    return [
        Suite("engine.io-protocol, Node", "engine.io-protocol", server=Node("engine_io_echo.js", "engine.io"), **PROTOCOL),
        Suite("socket.io-protocol, Node", "socket.io-protocol", server=Node("socket_io_echo.js", "socket.io"), **PROTOCOL),
        Suite("engine.io-client", **ENGINE_IO_CLIENT),
        Suite("engine.io-client, fetch", env={"USE_FETCH": "1"}, **ENGINE_IO_CLIENT),
        Suite("engine.io-client, built-in WebSocket", env={"USE_BUILTIN_WS": "1", **builtin_websocket()},
              **ENGINE_IO_CLIENT),
        Suite("socket.io-client", "socket.io", "packages/socket.io-client",
              OfTheSuite("test/support/hooks.ts", "socket.io"), ["test/index.ts"], 3210,
              [*PATIENT, "--require", HERE / "restore_clock.js"], {"NODE_OPTIONS": "--import=tsx"}),
        Suite("engine.io-protocol, Python", "engine.io-protocol",
              server=Python("engine_io_python.py", "python-engineio"), **PROTOCOL),
        Suite("socket.io-protocol, Python", "socket.io-protocol",
              server=Python("flask_socketio_echo.py", "Flask-SocketIO"), **PROTOCOL),
    ]

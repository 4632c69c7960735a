"""Child processes that the demo starts: readiness, logs, and an end that leaves nothing.

    start ─▶ (probe until it answers, or it ends, or time is up) ─▶ running ─▶ stop
                                                                     │
                                                                     └ ended by itself: Failed

Every child has its own process group, so that Ctrl-C on a terminal reaches only the demo, which
then ends its children in order; and it is told to end when the demo dies without doing so.
"""

import ctypes
import os
import signal
import socket
import subprocess
import time

STOP_SECONDS = 5
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """Something that the demo needs is missing, taken, or ended.  The text is one clear line."""


def end_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def require_free_port(port, what, setting):
    """Fails when somebody listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Failed(
                f"port {port} for {what} is not free ({error.strerror}); set {setting} to another"
            ) from None


class Service:
    """One child.  `probe` is called until it returns true; it may raise OSError meanwhile."""

    def __init__(self, name, command, log_folder, probe, environment=None):
        self.name = name
        self.command = [str(word) for word in command]
        self.log_path = log_folder / f"{name}.log"
        self.probe = probe
        self.environment = environment or {}
        self.child = None

    def start(self):
        with open(self.log_path, "wb") as log:
            try:
                self.child = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                    preexec_fn=end_with_parent,
                )
            except OSError as error:
                raise Failed(f"cannot start {self.command[0]}: {error.strerror}") from None

    def wait_ready(self, seconds):
        deadline = time.monotonic() + seconds
        while True:
            self.require_running()
            try:
                if self.probe():
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} is not ready after {seconds} s{self.last_words()}")
            time.sleep(0.05)

    def require_running(self):
        code = self.child.poll()
        if code is not None:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise Failed(f"{self.name} ended ({how}){self.last_words()}")

    def last_words(self):
        lines = self.log_path.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def ask_to_stop(self):
        if self.child and self.child.poll() is None:
            self.child.terminate()

    def stop(self):
        """Ends the child and whatever it started."""
        if not self.child:
            return
        self.ask_to_stop()
        try:
            self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()

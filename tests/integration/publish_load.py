"""The load of ./run bench broker as a checker of tests: numbered messages in 100 rooms, by a C program that keeps up."""
import json
import subprocess

from daemons import PATIENCE, ROOT

FAULTS = ("unanswered", "lost", "missing", "disordered", "broken")


class PublishLoad:
    """Compiles tests/bench/publish_load.c once into `folder`."""

    def __init__(self, folder):
        self.program = folder / "publish_load"
        source = ROOT / "tests" / "bench" / "publish_load.c"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", self.program, source, "-lpthread"], check=True)

    def start(self, brokers, subscribers=20, publishers=20, rate=0, depth=16, seconds=2.0, size=200):
        """One second of warming up, then `seconds` that are measured. `rate` 0: as fast as `depth` allows."""
        ports = ",".join(str(broker.port) for broker in brokers)
        words = (ports, subscribers, publishers, rate, depth, seconds, size, "0")
        return subprocess.Popen([self.program, *map(str, words)], stdout=subprocess.PIPE, text=True)

    @staticmethod
    def result(process, seconds=90):
        """What it found, as a dict: see publish_load.c."""
        try:
            out, _ = process.communicate(timeout=seconds * PATIENCE)
        finally:
            process.kill()
        assert process.returncode == 0, f"publish_load ended with {process.returncode}"
        return json.loads(out)

    def run(self, brokers, **facts):
        return self.result(self.start(brokers, **facts))


def no_faults(result):
    return all(result[fault] == 0 for fault in FAULTS)

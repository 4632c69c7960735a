"""`./run soak`: nothing is lost and memory stays flat while shards and pods are killed in turn. A quarter of a minute shows
that it works; the full form is long enough for a leak to show."""
import subprocess
import sys

import pytest
from daemons import PATIENCE, ROOT, figure, sanitizer


@pytest.mark.timeout(figure(180, 1200))
def test_memory_stays_flat_while_shards_and_pods_are_killed():
    minutes = figure(0.25, 6)
    rate = 200 if sanitizer() else 2000
    done = subprocess.run([sys.executable, ROOT / "tests" / "soak" / "soak.py", str(minutes), "--rate", str(rate)],
                          capture_output=True, text=True, timeout=(minutes * 60 + 90) * PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 lost, 0 doubled" in done.stdout

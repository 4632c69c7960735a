"""A slice of `./run torture`: one calm and one rough round, longer under a sanitizer, which sees more."""
import os
import subprocess
import sys

import pytest
from daemons import ROOT, figure, sanitizer


@pytest.mark.smoke
def test_nothing_hostile_touches_an_honest_session(tmp_path):
    seconds = figure(24 if sanitizer() else 8, 240)
    done = subprocess.run([sys.executable, ROOT / "tests" / "torture" / "torture.py", "--seconds", str(seconds), "--seed", "2",
                           "--folder", tmp_path], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-4000:]

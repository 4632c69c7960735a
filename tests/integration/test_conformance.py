"""What ./run conformance compares and refuses, without the checkouts that it needs for the rest."""
import pathlib
import subprocess
import sys

import pytest

from daemons import ROOT

sys.path.insert(0, str(ROOT / "tests" / "conformance"))
import conformance  # noqa: E402
from conformance import RETRIES, SETTLES, Results  # noqa: E402

STEADY, BROKEN, FLAKY = ("steady", 1), ("broken", 1), ("flaky", 1)


class FakeSuite:
    name = "fake"


@pytest.fixture
def measured(monkeypatch):
    """Measures a suite whose tests do as told: by side and title, the outcomes run by run, the last one for ever."""
    def measure(outcomes):
        def run_mocha(_suite, side, _name, titles=None):
            results = {}
            for title, runs in outcomes[side].items():
                if titles is None or title in titles:
                    results[title, 1] = None if runs[0] else "failed"
                    outcomes[side][title] = runs[1:] or runs
            return results

        monkeypatch.setattr(conformance, "run_mocha", run_mocha)
        results = Results(FakeSuite, {"direct": "direct", "proxy": "proxy"})
        results.measure("direct")
        results.measure("proxy", results.failed("direct"))
        results.settle()
        return results
    return measure


def test_the_same_set_is_no_difference(measured):
    results = measured({side: {"steady": [True], "broken": [False]} for side in ("direct", "proxy")})
    assert results.passed("proxy") == {STEADY}
    assert not results.different()


def test_a_test_that_fails_through_the_proxy_alone_is_a_difference(measured):
    results = measured({"direct": {"steady": [True]}, "proxy": {"steady": [False]}})
    assert results.different() == {STEADY}


def test_a_test_that_passes_through_the_proxy_alone_is_a_difference(measured):
    results = measured({"direct": {"broken": [False]}, "proxy": {"broken": [True]}})
    assert results.different() == {BROKEN}


def test_a_test_that_does_not_run_through_the_proxy_is_a_difference(measured):
    results = measured({"direct": {"steady": [True]}, "proxy": {}})
    assert results.different() == {STEADY}


def test_a_retry_that_passes_is_enough(measured):
    results = measured({"direct": {"flaky": [False, True]}, "proxy": {"flaky": [False] * RETRIES + [True]}})
    assert not results.different()


def test_a_test_that_never_fails_direct_has_no_more_chances_than_the_retries(measured):
    results = measured({"direct": {"steady": [True]}, "proxy": {"steady": [False] * (1 + RETRIES) + [True]}})
    assert results.different() == {STEADY}


def test_a_test_that_fails_direct_now_and_then_has_more_chances(measured):
    late = [False] * (RETRIES + SETTLES - 1) + [True]  # the first round tells that it is unsteady
    assert not measured({"direct": {"flaky": [True, False]}, "proxy": {"flaky": late}}).different()
    assert measured({"direct": {"flaky": [True, False]}, "proxy": {"flaky": [False]}}).different() == {FLAKY}


@pytest.mark.parametrize("made, said", [
    ([], "engine.io-protocol"),
    (["engine.io-protocol/test-suite"], "socket.io-protocol"),
    (["engine.io-protocol/test-suite", "socket.io-protocol/test-suite"], "socket.io "),
])
def test_a_checkout_that_is_missing_is_named_in_one_line(tmp_path, made, said):
    for folder in made:
        (tmp_path / folder).mkdir(parents=True)
    ended = subprocess.run([ROOT / "run", "conformance", "."], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert f"holds no checkout of {said}" in ended.stderr


def test_a_checkout_without_its_tests_is_named_in_one_line(tmp_path):
    for folder in ("engine.io-protocol/test-suite", "socket.io-protocol/test-suite", "socket.io/packages"):
        (tmp_path / folder).mkdir(parents=True)
    script = pathlib.Path(conformance.__file__)
    ended = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "test-suite/package.json is missing" in ended.stderr

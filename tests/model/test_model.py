"""The model keeps its promises: every scenario, seeds of every fault class, and that the oracle would notice.

    python3 tests/model/test_model.py                 short: under a minute
    SIDRAIL_FULL=1 python3 tests/model/test_model.py  thousands of seeds a class, every rule switched off
    python3 tests/model/test_model.py --seconds 600   seeds of all classes in turn until the time is up

Prints the classes and seeds that failed; `world.py --fault CLASS --seed N --trace` tells such a run.
"""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import faults  # noqa: E402
import mutations  # noqa: E402
import scenarios  # noqa: E402
import world  # noqa: E402

IS_FULL = os.environ.get("SIDRAIL_FULL", "0") not in ("", "0")
SEEDS = 2_000 if IS_FULL else 1
# Where a rule's absence shows at once; the full form tries them all.
QUICK_RULES = ("ask", "dedupe", "hold", "resend", "tombs")


def test_counterexamples_stay_solved():
    failed = {name: found for name, function in scenarios.SCENARIOS.items() if (found := function())}
    assert not failed, failed


def test_promises_hold_under_every_fault_class(seeds=SEEDS, seconds=None, first=0):
    failed, counts, began = {}, dict.fromkeys(faults.FAULTS, 0), time.monotonic()
    for seed in range(first, first + seeds):
        for name in faults.FAULTS:
            if seconds is not None and time.monotonic() - began > seconds:
                break
            counts[name] += 1
            found, _ = world.judge(name, seed)
            if found:
                failed[f"{name} seed {seed}"] = found[:3]
                print(f"{name} seed {seed}: {found[:3]}", flush=True)
    print("seeds per class:", ", ".join(f"{n} {c}" for n, c in counts.items()), flush=True)
    assert not failed, failed


def test_oracle_notices_a_missing_rule():
    rules = mutations.MUTATIONS if IS_FULL else QUICK_RULES
    unseen = [r for r in rules
              if mutations.is_noticed(r, mutations.MUTATIONS[r][1], 200 if IS_FULL else 5) is None]
    assert not unseen, unseen


def test_a_run_is_a_function_of_its_seed():
    logs = [world.run_one("mixed", 3).log for _ in range(2)]
    told = [{who: [each[:3] for each in log] for who, log in one.items()} for one in logs]
    assert told[0] == told[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    if options.seconds is not None:
        test_promises_hold_under_every_fault_class(1_000_000, options.seconds, options.first)
        return
    for test in (test_counterexamples_stay_solved, test_promises_hold_under_every_fault_class,
                 test_oracle_notices_a_missing_rule, test_a_run_is_a_function_of_its_seed):
        began = time.monotonic()
        test()
        print(f"{test.__name__}: {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Reads a JUnit report of ctest or pytest; prints `passed N`, `skipped N`, and `failed NAME` for each failure."""
import sys
import xml.etree.ElementTree as xml


def outcome(case):
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"} or case.get("status") == "fail":
        return "failed"
    if "skipped" in kinds or case.get("status") in ("disabled", "notrun"):
        return "skipped"
    return "passed"


def main():
    counts = {"passed": 0, "skipped": 0}
    bad = set()
    try:
        root = xml.parse(sys.argv[1]).getroot()
    except (OSError, xml.ParseError) as error:
        print(error, file=sys.stderr)
        return 1
    for case in root.iter("testcase"):
        kind = outcome(case)
        # pytest writes a second case when a passed test fails while its servers are stopped
        name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
        if kind == "failed":
            if name not in bad:
                bad.add(name)
                print("failed", name)
        else:
            counts[kind] += 1
    for kind, count in counts.items():
        print(kind, count)
    return 0


sys.exit(main())

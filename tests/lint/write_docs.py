#!/usr/bin/env python3
"""Writes what is made from the tables in the daemons: docs/options-DAEMON.md, docs/metrics-DAEMON.md, and what
the chart has to know of the options.

    sidrail-DAEMON --print-options ─▶ docs/options-DAEMON.md, helm/sidrail/values.schema.json and files/restart-options.json
    sidrail-DAEMON --print-metrics ─▶ docs/metrics-DAEMON.md

With --check nothing is written: what differs is shown, and the exit status is 1."""
import difflib
import os
import pathlib
import subprocess
import sys

import chart_schema

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SIDRAIL_BUILD", ROOT / "build"))
NOTE = "<!-- Written by tests/lint/write_docs.py from the tables in the code; change the rows there. -->"
TABLES = {
    "options": (
        ["option", "type", "range", "default", "unit", "reload", "what it does"],
        "Options of sidrail-{}",
        "What `sidrail-{0} --print-options` prints. `[]` stands for each element of a list. Reload says who sees"
        " a changed value: live (open\nconnections too), new (new ones), restart (only a restart).",
    ),
    "metrics": (
        ["metric", "type", "labels", "what it counts"],
        "Metrics of sidrail-{}",
        "What `sidrail-{0} --print-metrics` prints; served in the Prometheus text format at `/metrics` of the"
        " admin port.",
    ),
}


def cell(text, is_code):
    text = text.strip().replace("|", "\\|")
    if text in ("", "-"):
        return ""
    return f"`{text}`" if is_code else text


def read_rows(daemon, table):
    heads = TABLES[table][0]
    out = subprocess.run([BUILD / f"sidrail-{daemon}", f"--print-{table}"], capture_output=True, text=True, check=True)
    rows = [row.split("\t") for row in out.stdout.splitlines()]
    for cells in rows:
        if len(cells) != len(heads):
            sys.exit(f"--print-{table} of sidrail-{daemon}: not {len(heads)} columns: {cells!r}")
    return rows


def page(daemon, table):
    heads, title, sentence = TABLES[table]
    lines = [NOTE, "", f"# {title.format(daemon)}", "", sentence.format(daemon), "",
             "| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for cells in read_rows(daemon, table):
        code = {0, heads.index("default")} if "default" in heads else {0}
        lines.append("| " + " | ".join(cell(text, i in code) for i, text in enumerate(cells)) + " |")
    if len(lines) == 8:
        sys.exit(f"--print-{table} of sidrail-{daemon} printed nothing")
    return "\n".join(lines).replace("|  |", "| |").replace("|  |", "| |") + "\n"


def pages():
    """(path, what it should hold) of every file."""
    for daemon in ("proxy", "broker"):
        for table in TABLES:
            yield ROOT / "docs" / f"{table}-{daemon}.md", page(daemon, table)
    tables = {daemon: read_rows(daemon, "options") for daemon in ("proxy", "broker")}
    chart = ROOT / "helm" / "sidrail"
    yield chart / "values.schema.json", chart_schema.page(tables)
    yield chart / "files" / "restart-options.json", chart_schema.restart_options(tables)


def main():
    only_check = sys.argv[1:] == ["--check"]
    bad = False
    for path, new in pages():
        old = path.read_text() if path.exists() else ""
        if new == old:
            continue
        if only_check:
            bad = True
            print(f"{path.relative_to(ROOT)} is old; tests/lint/write_docs.py writes it anew:")
            print("\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), "file", "tables", "", "", 0, "")))
        else:
            path.write_text(new)
            print(f"wrote {path.relative_to(ROOT)}")
    return bad


sys.exit(main())

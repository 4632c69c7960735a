#!/usr/bin/env python3
"""What the documents state in figures and names is what the code has.

    docs/broker-protocol.md   Constants ── #define of that name in broker/, or default of the option
                              Counted losses ── loss_reason.def
                              Promised ── the fault classes of tests/model
    docs/commands.md          classes ── command_class.def
    every document            `option` (value) ── default of the option; names of metrics and options ── the tables"""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SIDRAIL_BUILD", ROOT / "build"))
DAEMONS = ("proxy", "broker")
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
AMOUNTS = re.compile(r"((?:[\d.,]+(?:, |–))*[\d.]+) ?(ms|s|m|h|KiB|MiB|GiB)\b")
IN_CODE = re.compile(r"(MILLISECONDS|SECONDS)\((\d+)\)|\(size_t\)(\d+) \* 1024( \* 1024)?|\b(\d+)$")
DEFAULT = re.compile(r"`([a-z_.\[\]]+)` \(([\d.]+ ?(?:ms|s|m|h|KiB|MiB|GiB))\b")
METRIC = re.compile(r"`(sidrail_(?:proxy|broker)_[a-z_]+)")
DOTTED = re.compile(r"`([a-z_]+(?:\[\])?(?:\.[a-z_]+(?:\[\])?)+)(?=[`:])")
NOT_OPTIONS = ("tls.crt", "tls.key", "affinity.keys", "cluster.keys", "service.ports")


def documents():
    written = {f"docs/{table}-{daemon}.md" for table in ("options", "metrics") for daemon in DAEMONS}
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]:
        name = str(path.relative_to(ROOT))
        if name not in written:
            yield name, path.read_text()


def printed(table):
    for daemon in DAEMONS:
        out = subprocess.run([BUILD / f"sidrail-{daemon}", f"--print-{table}"], capture_output=True, text=True, check=True)
        for row in out.stdout.splitlines():
            yield row.split("\t")


def amounts(text):
    """Milliseconds or bytes of all amounts in a text: "20, 100 ms" are two."""
    return [float(number) * UNITS[unit] for numbers, unit in AMOUNTS.findall(text) for number in re.split(", |–", numbers)]


def in_code(name):
    """Milliseconds or bytes of a constant of the broker, or of each item of an array; None: there is no such, or several."""
    found = []
    for path in (*(ROOT / "broker").glob("*.h"), *(ROOT / "broker").glob("*.c")):
        found += re.findall(rf"(?m)^#define {name}\s+(.*?)(?: */\*.*)?$|\b{name}\[\] = \{{(.*?)\}}", path.read_text())
    if len(found) != 1:
        return None
    values = []
    for kind, time, size, is_mib, plain in IN_CODE.findall("".join(found[0])):
        if kind:
            values.append(int(time) * (1000 if kind == "SECONDS" else 1))
        else:
            values.append(int(size) * (1024**2 if is_mib else 1024) if size else int(plain))
    return values


def rows(document, heading):
    """Cells of the table below a heading."""
    text = ("\n" + (ROOT / document).read_text()).split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in lines[2:]]


def labels(file, pattern):
    return set(re.findall(pattern, (ROOT / file).read_text()))


def check_constants(defaults):
    for name, value, code, *_ in rows("docs/broker-protocol.md", "## Constants"):
        actual = []
        for one in re.findall("`([^`]+)`", code):
            actual += (defaults.get(one) if "." in one else in_code(one)) or [None]
        if amounts(value) != actual:
            yield f"docs/broker-protocol.md: {name}: {value}, but {code} is {actual}"


def check_tables():
    sys.path.insert(0, str(ROOT / "tests/model"))
    import faults  # pylint: disable=import-outside-toplevel
    losses = {cells[0].strip("`") for cells in rows("docs/broker-protocol.md", "### Counted losses")}
    known = labels("broker/loss_reason.def", r'LOSS_REASON\(\w+, "(\w+)"')
    for name in losses ^ known:
        yield f"docs/broker-protocol.md, Counted losses, and loss_reason.def differ: {name}"
    promised = [one for cells in rows("docs/broker-protocol.md", "## Promised") for one in cells[4].split(", ")]
    for name in faults.FAULTS:
        if not any(name == one or (one.endswith("…") and name.startswith(one[:-1])) for one in promised):
            yield f"docs/broker-protocol.md, Promised: no row has the model's class {name}"
    for one in promised:
        if not any(name.startswith(one.rstrip("…")) for name in faults.FAULTS):
            yield f"docs/broker-protocol.md, Promised: the model has no class {one}"
    classes = {cells[0].strip("`") for cells in rows("docs/commands.md", "# What the broker answers")}
    for name in classes ^ labels("broker/command_class.def", r'COMMAND_CLASS\(\w+, "(\w+)"'):
        yield f"docs/commands.md and command_class.def differ: {name}"


def check_names(options, defaults, metrics):
    """Options may be named by their last parts, as `drain.window`."""
    ends = {".".join(parts[i:]) for parts in (path.replace("[]", "").split(".") for path in options) for i in range(len(parts))}
    ends |= {".".join(path.replace("[]", "").split(".")[:i]) for path in options for i in range(1, 6)}
    firsts = {end.split(".")[0] for end in ends}
    for name, text in documents():
        for metric in METRIC.findall(text):
            if metric not in metrics and not metric.endswith("_"):
                yield f"{name}: no metric is called {metric}"
        for option in DOTTED.findall(text):
            plain = option.replace("[]", "")
            known = plain in ends or any(end.startswith(plain + ".") or f".{plain}." in f".{end}." for end in ends)
            if plain not in NOT_OPTIONS and plain.split(".")[0] in firsts and not known:
                yield f"{name}: no option is called {option}"
        for option, value in DEFAULT.findall(text):
            plain = option.replace("[]", "")
            of_it = [default for path, default in defaults.items() if f".{path}".replace("[]", "").endswith(f".{plain}")]
            if of_it and amounts(value) not in of_it:
                yield f"{name}: {option} is {value}, but its default is {of_it}"


def main():
    options = {row[0].strip(): row[3] for row in printed("options")}
    defaults = {path: amounts(default) for path, default in options.items()}
    metrics = {row[0].strip() for row in printed("metrics")}
    found = [*check_constants(defaults), *check_tables(), *check_names(options, defaults, metrics)]
    print("\n".join(found))
    return bool(found)


sys.exit(main())

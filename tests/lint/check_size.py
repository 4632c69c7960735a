#!/usr/bin/env python3
"""Files and functions fit the reader: a file has at most 900 lines (above 600 it is named), a function at most 90.

A function that is one table-shaped switch may be longer: the comment above it, or a comment inside it, says
"table-shaped". Unit tests may be as long as their tables are; their functions keep to the rule."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE_NAMED, FILE_MAX, FUNCTION_MAX = 600, 900, 90


def c_files():
    for folder in ("shared", "proxy", "broker", "tests"):
        for path in sorted((ROOT / folder).rglob("*.[ch]")):
            if "node_modules" not in path.parts:
                yield path


def functions(path):
    """Name, first and last line of each function."""
    text = subprocess.run(["ctags", "-x", "--_xformat=%N\t%n\t%e", "--languages=C", "--map-C=+.h", "--kinds-C=f",
                           "--fields=+e", str(path)], capture_output=True, text=True, check=True).stdout
    for line in text.splitlines():
        name, first, last = line.split("\t")
        if last:
            yield name, int(first), int(last)


def is_table(lines, first, last):
    above = first - 1
    while above > 0 and lines[above - 1].strip() and not lines[above - 1].startswith("}"):
        above -= 1
    return any("table-shaped" in line for line in lines[above:last])


def main():
    bad = False
    for path in c_files():
        name = path.relative_to(ROOT)
        lines = path.read_text(errors="replace").splitlines()
        if "tests" not in path.relative_to(ROOT).parts:
            if len(lines) > FILE_MAX:
                print(f"{name}: {len(lines)} lines, more than {FILE_MAX}")
                bad = True
            elif len(lines) > FILE_NAMED:
                print(f"{name}: {len(lines)} lines (allowed, but is it still one concern?)")
        for function, first, last in functions(path):
            if last - first + 1 > FUNCTION_MAX and not is_table(lines, first, last):
                print(f"{name}:{first}: {function} has {last - first + 1} lines, more than {FUNCTION_MAX}")
                bad = True
    return bad


sys.exit(main())

#!/usr/bin/env python3
"""One thing, one word: names in the C code keep to the glossary (words.txt), and no file holds unfinished marks,
places of one machine, or the hosts of package registries.

Names are the ones that our files define, as ctags sees them; what libraries define is not looked at."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("shared", "proxy", "broker", "tests", "docs", "helm", ".ci")
LINTS = ("tests/lint/check_words.py", "tests/lint/words.txt")
RECORDED = ("tests/cases/", "tests/vectors/", "tests/fuzz/corpus/", "tests/env/node/package-lock.json")

MARKS = [
    (re.compile(r"\b(TODO|FIXME|XXX)\b"), "an unfinished mark"),
    (re.compile(r"(?<![\w./~-])/(work|root|home)/\w"), "a place of one machine"),
    (re.compile(r"https?://[^/\s\"']*(npm|pypi|pythonhosted|debian|crates|maven|golang)[^/\s\"']*", re.I),
     "the host of a registry"),
    (re.compile(r"^(<{7} |={7}$|>{7} )"), "a conflict of a merge"),
]
TYPEDEF = re.compile(r"^\s*typedef\s+(struct|enum|union)\b")
CALLBACK = re.compile(r"^\s*typedef\s+[^;(]*\(\s*\*\s*(\w+)\s*\)\s*\(")


def our_files():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.is_file() and not name.startswith(RECORDED) and not {"node_modules", "__pycache__"} & set(path.parts):
                yield name, path
    for path in sorted(ROOT.iterdir()):
        if path.is_file() and (path.suffix in (".md", ".txt") or path.name == "run"):
            yield path.name, path


def words():
    rows = {}
    for line in (ROOT / "tests/lint/words.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            word, instead = line.split(": ", 1)
            rows[word] = instead
    return rows


def defined_names(paths):
    """(file, line, name) of everything that the C files define."""
    text = subprocess.run(["ctags", "-x", "--_xformat=%F\t%n\t%N", "--languages=C", "--map-C=+.h", "--kinds-C=+lpxz",
                           *paths], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    for line in text.splitlines():
        yield line.split("\t")


def main():
    found = []
    c_files = []
    for name, path in our_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        is_c = path.suffix in (".c", ".h")
        if is_c:
            c_files.append(name)
        for number, line in enumerate(text.splitlines(), 1):
            if name not in LINTS:
                found += [f"{name}:{number}: {what}" for pattern, what in MARKS if pattern.search(line)]
            if is_c and TYPEDEF.match(line):
                found.append(f"{name}:{number}: typedef of a struct, enum or union")
            callback = CALLBACK.match(line) if is_c else None
            if callback and not callback.group(1).endswith("_cb"):
                found.append(f"{name}:{number}: a callback type ends in _cb: {callback.group(1)}")
    wrong = words()
    for name, number, identifier in defined_names(c_files):
        for part in identifier.lower().split("_"):
            if part in wrong:
                found.append(f"{name}:{number}: {identifier}: not '{part}' but {wrong[part]}")
    print("\n".join(found))
    return bool(found)


sys.exit(main())

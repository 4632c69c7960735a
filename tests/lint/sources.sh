# shellcheck shell=bash
# Which files are ours; sourced by the lints. No git here: a clone of another user, or a tarball, is linted too.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

# Files below the given folders (default: all of ours) with one of the suffixes, as -name patterns.
ours() { # FOLDER... -- PATTERN...
    local folders=() patterns=()
    while [ "$1" != -- ]; do
        [ ! -e "$1" ] || folders+=("$1")
        shift
    done
    shift
    for pattern in "$@"; do
        patterns+=(-o -name "$pattern")
    done
    [ ${#folders[@]} -gt 0 ] || return 0
    find "${folders[@]}" \( -name node_modules -o -name __pycache__ -o -name '*.egg-info' -o -name '.pytest_cache' \) \
        -prune -o -type f \( "${patterns[@]:1}" \) -print | sort
}

c_files() {
    ours shared proxy broker tests -- '*.c' '*.h' '*.def'
}

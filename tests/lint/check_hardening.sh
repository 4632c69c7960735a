#!/usr/bin/env bash
# The daemons are position-independent, bound and read-only from the start, fortified, without an executable stack, and
# name no folder of the machine that built them.
# shellcheck disable=SC2317 # functions are called through their names in arguments
set -euo pipefail
cd "$(dirname "$0")/../.."
status=0

expect() { # WHAT COMMAND... : the command must succeed
    local what=$1
    shift
    if ! "$@" >/dev/null; then
        printf '%s: %s\n' "$binary" "$what"
        status=1
    fi
}

has() { grep -Eq -- "$1" <<<"$2"; }
lacks() { ! grep -Eq -- "$1" <<<"$2"; }

for binary in "${SIDRAIL_BUILD:-build}"/sidrail-{proxy,broker}; do
    header=$(readelf -h "$binary")
    segments=$(readelf -lW "$binary")
    dynamic=$(readelf -dW "$binary")
    symbols=$(readelf --dyn-syms -W "$binary")
    expect "is no position-independent executable" has 'DYN|FLAGS_1.* PIE' "$header"
    expect "has no PIE flag" has 'FLAGS_1.*PIE' "$dynamic"
    expect "is not bound at once (-z now)" has 'BIND_NOW|FLAGS_1.*NOW' "$dynamic"
    expect "has no RELRO segment" has 'GNU_RELRO' "$segments"
    expect "has an executable stack" lacks 'GNU_STACK.*RWE' "$segments"
    expect "has a segment that is written to and executed" lacks 'LOAD.*RWE' "$segments"
    expect "has text relocations" lacks 'TEXTREL' "$dynamic"
    expect "looks for libraries in folders of its own" lacks 'RPATH|RUNPATH' "$dynamic"
    expect "has no stack protector" has '__stack_chk_fail' "$symbols"
    expect "is not fortified" has '__(memcpy|snprintf|vsnprintf|fprintf|read)_chk' "$symbols"
    expect "names the folder that it was built in" lacks "$PWD" "$(strings -a "$binary" | grep -F "$PWD" || true)"
done

commands=${SIDRAIL_BUILD:-build}/compile_commands.json
for flag in -fstack-clash-protection $([ "$(uname -m)" != x86_64 ] || echo -fcf-protection); do
    grep -q -- "$flag" "$commands" || { echo "not compiled with $flag" && status=1; }
done
exit $status

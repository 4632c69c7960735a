#!/usr/bin/env bash
# clang-tidy finds nothing in the daemons' code. Only under ./run test --full: it takes minutes.
set -euo pipefail
source "$(dirname "$0")/sources.sh"
if [ "${SIDRAIL_FULL:-0}" = 0 ]; then
    exit 77 # skipped
fi
# Switched off: what every C program does on purpose (memcpy, snprintf; tables of macros; text without a NUL;
# fields in the order that tells their use), and where the analyzer errs: a queue whose first element changes
# (unix.Malloc), tables that were checked at their registration (UndefinedBinaryOperatorResult), va_list after
# va_start (valist.Uninitialized).
checks='-*,bugprone-*,clang-analyzer-*'
for off in bugprone-easily-swappable-parameters bugprone-reserved-identifier bugprone-macro-parentheses \
    bugprone-implicit-widening-of-multiplication-result bugprone-not-null-terminated-result \
    bugprone-narrowing-conversions bugprone-branch-clone bugprone-sizeof-expression \
    clang-analyzer-unix.Malloc clang-analyzer-core.UndefinedBinaryOperatorResult \
    clang-analyzer-valist.Uninitialized clang-analyzer-optin.performance.Padding \
    clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling; do
    checks+=",-$off"
done
ours shared proxy broker -- '*.c' |
    xargs -P 2 -n 4 clang-tidy-14 --quiet -p "$SIDRAIL_BUILD" --checks="$checks" --warnings-as-errors='*'

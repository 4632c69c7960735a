#!/usr/bin/env bash
# C files look as clang-format wants them; no file has trailing blanks or lacks its last newline.
set -euo pipefail
source "$(dirname "$0")/sources.sh"
mapfile -t files < <(ours shared proxy broker tests -- '*.c' '*.h')
clang-format-14 --dry-run -Werror "${files[@]}"

status=0
while read -r file; do
    if grep -nHE '[[:blank:]]+$' "$file"; then status=1; fi
    if [ -n "$(tail -c 1 "$file")" ]; then
        echo "$file: no newline at its end"
        status=1
    fi
done < <(
    echo run
    ours shared proxy broker tests docs helm .ci -- '*.c' '*.h' '*.def' '*.sh' '*.py' '*.js' '*.md' '*.yaml' '*.txt' |
        grep -v -e ^tests/cases/ -e ^tests/vectors/ -e /corpus/
)
exit $status

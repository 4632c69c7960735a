#!/usr/bin/env bash
# Includes go down and never across: layers.txt says which folder may include which.
set -euo pipefail
source "$(dirname "$0")/sources.sh"
mapfile -t files < <(ours shared proxy broker tests -- '*.c' '*.h')
awk '
    FNR == 1 {
        from = FILENAME
        sub(/^tests\/(unit|bench)\//, "tests/", from)
        n = split(from, part, "/")
        from = part[1]
        if (from == "tests") # a test program stands in the layer that it tests
            from = n > 2 && (part[2] in may) ? part[2] : "tests"
    }
    FILENAME ~ /layers.txt$/ {
        if ($0 !~ /^#/ && NF) {
            name = $1
            sub(/:$/, "", name)
            for (i = 2; i <= NF; i++)
                may[name] = may[name] " " $i " "
        }
        next
    }
    /^[ \t]*#[ \t]*include[ \t]+"/ {
        split($0, quoted, "\"")
        if (quoted[2] !~ /\//) {
            printf "%s:%d: write the folder too: %s\n", FILENAME, FNR, quoted[2]
            bad = 1
            next
        }
        split(quoted[2], to, "/")
        is_test = FILENAME ~ /^tests\//
        if (index(may[from], " " to[1] " ") == 0 && !(is_test && (to[1] == "tests" || from == "tests"))) {
            printf "%s:%d: %s may not include %s\n", FILENAME, FNR, from, quoted[2]
            bad = 1
        }
    }
    END { exit bad }' tests/lint/layers.txt "${files[@]}"

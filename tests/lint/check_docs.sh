#!/usr/bin/env bash
# docs/options-*.md, docs/metrics-*.md and the chart's schema say what the tables in the code say, and docs/architecture.md names every module.
set -euo pipefail
source "$(dirname "$0")/sources.sh"
tests/lint/write_docs.py --check

missing=0
for file in shared/*.h proxy/*.h broker/*.h shared/*.c proxy/*.c broker/*.c; do
    module=$(basename "${file%.*}")
    if [ "$module" != main ] && ! grep -q "\`$module\`" docs/architecture.md; then
        echo "docs/architecture.md does not name $file"
        missing=1
    fi
done
exit "$missing"

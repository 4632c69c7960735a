#!/usr/bin/env bash
# docs/options-*.md, docs/metrics-*.md and the chart's schema say what the tables in the code say, and docs/architecture.md names every module.
set -euo pipefail
source "$(dirname "$0")/sources.sh"
tests/lint/write_docs.py --check

missing=0
for header in shared/*.h proxy/*.h broker/*.h; do
    module=$(basename "$header" .h)
    if ! grep -q "\`$module\`" docs/architecture.md; then
        echo "docs/architecture.md does not name $header"
        missing=1
    fi
done
exit "$missing"

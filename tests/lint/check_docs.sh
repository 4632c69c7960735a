#!/usr/bin/env bash
# docs/options-*.md and docs/metrics-*.md say what the tables in the code say.
set -euo pipefail
source "$(dirname "$0")/sources.sh"
tests/lint/write_docs.py --check

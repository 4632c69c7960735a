#!/usr/bin/env bash
# Shell scripts hold no mistake that shellcheck knows.
set -euo pipefail
cd "$(dirname "$0")/../.."
shellcheck --check-sourced --external-sources run
mapfile -t scripts < <(find .ci tests -name '*.sh' -not -path 'tests/lib/*' -o -path .ci/run -o -name apt_install.sh)
shellcheck --external-sources --source-path=SCRIPTDIR "${scripts[@]}"

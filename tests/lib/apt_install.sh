#!/usr/bin/env bash
# Installs Debian packages, given as arguments, with their services denied a start. Runs as root.
#
#   packages ─▶ policy-rc.d denies starts ─▶ apt-get update, install ─▶ policy-rc.d as it was before
#
# A policy-rc.d that was there is kept beside it and put back on every way out; what a killed run left
# behind is put back at the next start.
set -euo pipefail

policy=/usr/sbin/policy-rc.d
saved=$policy.before-sidrail
mark='# put here by Sidrail while it installs packages'

restore_policy() {
    if [ -e "$saved" ] || [ -L "$saved" ]; then
        mv -f "$saved" "$policy"
    elif [ -f "$policy" ] && grep -qxF "$mark" "$policy"; then
        rm -f "$policy"
    fi
}

exec 9>/run/lock/sidrail-apt.lock
flock -w 600 9 || { echo "apt_install: another installation does not end" >&2; exit 1; }

restore_policy # of a run that was killed
trap restore_policy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [ -e "$policy" ] || [ -L "$policy" ]; then
    mv "$policy" "$saved"
fi
printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
options=(-q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0)
dpkg --configure -a --force-confdef 9>&- || true # what a killed run left half installed
apt-get update -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 9>&- ||
    echo "apt_install: some package lists are old; going on with them" >&2
apt-get install "${options[@]}" --no-install-recommends --no-remove "$@" 9>&-

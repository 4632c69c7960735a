# shellcheck shell=bash
# shellcheck disable=SC2034 # need_packages names the lists by its arguments
# Which Debian packages are needed, which of them are missing, and how to get those. Sourced by ./run.

packages_build=(gcc libc6-dev cmake ninja-build pkg-config libevent-dev libhiredis-dev libxxhash-dev
    libyaml-dev libssl-dev libjansson-dev libc-ares-dev uthash-dev libcmocka-dev)
packages_serve=(ca-certificates redis-server)
packages_lint=(clang-format-14 shellcheck universal-ctags)
packages_fuzz=(clang-14 libclang-rt-14-dev)
packages_full=(clang-tidy-14 clang-14 musl-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
packages_helm=(openssl)
packages_k8s=(ca-certificates etcd-server openssl)
packages_bench_proxy=(nginx haproxy strace)

# The python3 that makes the environments: Debian's, or one on PATH; one that can make them.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 "$(command -v python3 || true)"; do
        if [ -x "$candidate" ] && "$candidate" -c '
import ensurepip, sys, venv
sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

have_node() {
    local major
    major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
    [ "${major:-0}" -ge 18 ] && npm --version >/dev/null 2>&1
}

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

install_as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        bash "$root/tests/lib/apt_install.sh" "$@"
    else
        sudo -n bash "$root/tests/lib/apt_install.sh" "$@"
    fi
}

# Asks for sudo's password where somebody can type it.
may_become_root() {
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }
}

# need_packages GROUP... : installs what is missing of packages_GROUP; groups python, node and conformance are met by any
# interpreter that is new enough.
need_packages() {
    local group package missing=() names
    for group in "$@"; do
        case $group in
        python)
            find_python >/dev/null || missing+=(python3 python3-venv)
            ;;
        node | conformance)
            have_node || missing+=(nodejs npm)
            ;;
        *)
            declare -n names=packages_$group
            for package in "${names[@]}"; do
                is_installed "$package" || missing+=("$package")
            done
            ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "this is no Debian; what these packages hold is needed: ${missing[*]}"
    may_become_root ||
        die "missing packages; as root: apt-get install --no-install-recommends ${missing[*]}"
    say "installing packages: ${missing[*]}"
    quietly packages install_as_root "${missing[@]}"
}

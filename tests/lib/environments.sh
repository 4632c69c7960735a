# shellcheck shell=bash
# The environments that tests and the demo run in, made on demand under .run/env. Sourced by ./run.
#
#   tests/env/NAME.txt               ─▶ .run/env/NAME/         a Python environment (bin/python, bin/gunicorn, …)
#   tests/env/NAME/package-lock.json ─▶ .run/env/NAME/node_modules
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

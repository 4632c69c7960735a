#!/usr/bin/env bash
# Both daemons build with other compilers, libraries and processors than ours, and twice to the same bytes. Only under
# ./run test --full: each line of `builds` is a build.
# shellcheck disable=SC2317 # functions are called through their names in arguments
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "${SIDRAIL_FULL:-0}" = 0 ]; then
    exit 77 # skipped
fi
root=$PWD
place=$root/.run/builds
mkdir -p "$place"
failed=0

note() { # NAME COMMAND...
    local name=$1
    shift
    if "$@" >"$place/$name.log" 2>&1; then
        printf 'ok      %s\n' "$name"
    else
        printf 'FAILED  %s\n' "$name"
        tail -n 30 "$place/$name.log"
        failed=1
    fi
}

# configured NAME SOURCE CMAKE-OPTION... : builds the daemons of SOURCE in a folder of its own.
configured() {
    local name=$1 source=$2
    shift 2
    rm -rf "${place:?}/$name"
    CFLAGS='' cmake -S "$source" -B "$place/$name" -G Ninja -DWERROR=ON "$@" &&
        ninja -C "$place/$name" -j "${SIDRAIL_JOBS:-2}"
}

# As a packager does it, and then only what belongs into a package is there.
installed() { # NAME CMAKE-OPTION...
    configured "$1" "$root" "${@:2}" &&
        DESTDIR="$place/$1/root" cmake --install "$place/$1" --prefix /usr &&
        "$place/$1/root/usr/bin/sidrail-proxy" --version &&
        "$place/$1/root/usr/bin/sidrail-broker" --version &&
        [ -f "$place/$1/root/usr/share/doc/sidrail/LICENSE" ] &&
        [ "$(find "$place/$1/root/usr" -maxdepth 1 -mindepth 1 | wc -l)" -eq 2 ]
}

# One source at two places, in folders of different names, is one pair of binaries.
same_bytes() {
    local at
    for at in one elsewhere/two; do
        mkdir -p "$place/$at"
        rm -rf "${place:?}/$at/source"
        mkdir "$place/$at/source"
        cp -r CMakeLists.txt LICENSE README.md CHANGELOG.md cmake docs shared proxy broker "$place/$at/source/"
    done
    configured out "$place/one/source" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_TESTING=OFF &&
        cmake -S "$place/elsewhere/two/source" -B "$place/elsewhere/two/source/in" -G Ninja -DWERROR=ON \
            -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_TESTING=OFF &&
        ninja -C "$place/elsewhere/two/source/in" -j "${SIDRAIL_JOBS:-2}" &&
        cmp "$place/out/sidrail-proxy" "$place/elsewhere/two/source/in/sidrail-proxy" &&
        cmp "$place/out/sidrail-broker" "$place/elsewhere/two/source/in/sidrail-broker"
}

# Debian has the libraries for glibc alone: every file is compiled against musl's headers and theirs. sys/queue.h is no
# part of musl; Alpine has it in bsd-compat-headers.
musl_objects() {
    local headers=$place/musl-headers file machine
    machine=$(gcc -print-multiarch)
    rm -rf "$headers" "$place/musl"
    mkdir -p "$headers/sys" "$headers/openssl" "$place/musl"
    for file in event2 evutil.h event.h hiredis xxhash.h xxh3.h yaml.h jansson.h ares.h ares_build.h ares_dns.h \
        ares_rules.h ares_version.h ares_nameser.h linux asm-generic uthash.h; do
        [ ! -e "/usr/include/$file" ] || ln -s "/usr/include/$file" "$headers/"
    done
    ln -s "/usr/include/$machine/asm" "$headers/"
    for file in jansson_config.h event2; do
        [ ! -e "/usr/include/$machine/$file" ] || ln -sf "/usr/include/$machine/$file" "$headers/"
    done
    ln -s /usr/include/openssl/*.h "/usr/include/$machine"/openssl/*.h "$headers/openssl/"
    ln -s "/usr/include/$machine/sys/queue.h" "$headers/sys/"
    printf '#pragma once\n' >"$headers/sys/cdefs.h"
    for file in shared/*.c proxy/*.c broker/*.c; do
        musl-gcc -std=gnu11 -D_GNU_SOURCE -DSIDRAIL_VERSION='"0"' -I. -isystem "$headers" -isystem "$headers/hiredis" \
            -O2 -Wall -Wextra -Werror -Wno-missing-field-initializers -fno-strict-aliasing -c "$file" \
            -o "$place/musl/$(tr / - <<<"${file%.c}").o" || return 1
    done
}

# The libraries of another processor are unpacked beside the system, which stays as it is.
sysroot_of() { # DEBIAN-ARCHITECTURE
    local apt=$place/apt-$1 names
    [ ! -f "$apt/complete" ] || return 0
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs" "$apt/root"
    names=(libevent-dev libevent-2.1-7 libevent-core-2.1-7 libevent-extra-2.1-7 libevent-pthreads-2.1-7 libevent-openssl-2.1-7
        libhiredis-dev libhiredis0.14 libxxhash-dev libxxhash0 libyaml-dev libyaml-0-2 libssl-dev libssl3 libjansson-dev
        libjansson4 libc-ares-dev libc-ares2)
    local options=(-o "APT::Architecture=$1" -o "APT::Architectures=$1" -o "Dir::State::lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root)
    apt-get "${options[@]}" -q update &&
        (cd "$apt/debs" && apt-get "${options[@]}" -q download "${names[@]}") || return 1
    for deb in "$apt"/debs/*.deb; do
        dpkg-deb -x "$deb" "$apt/root" || return 1
    done
    touch "$apt/complete"
}

arm64() {
    sysroot_of arm64 || return 1
    local libraries=$place/apt-arm64/root/usr/lib/aarch64-linux-gnu
    PKG_CONFIG_LIBDIR=$libraries/pkgconfig PKG_CONFIG_SYSROOT_DIR=$place/apt-arm64/root LDFLAGS="-L$libraries" \
        configured arm64 "$root" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DCMAKE_SYSTEM_NAME=Linux \
        -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc \
        "-DCMAKE_C_FLAGS=-isystem $place/apt-arm64/root/usr/include/aarch64-linux-gnu" &&
        readelf -h "$place/arm64/sidrail-proxy" | grep -q AArch64
}

note gcc-debug configured gcc-debug "$root" -DCMAKE_BUILD_TYPE=Debug
note gcc-release configured gcc-release "$root" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
note gcc-plain configured gcc-plain "$root" -DCMAKE_BUILD_TYPE=None -DBUILD_TESTING=OFF
note clang-debug configured clang-debug "$root" -DCMAKE_C_COMPILER=clang-14 -DCMAKE_BUILD_TYPE=Debug
note clang-release configured clang-release "$root" -DCMAKE_C_COMPILER=clang-14 -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF
note package installed package -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DWERROR=OFF
note same-bytes same_bytes
note musl-objects musl_objects
note arm64 arm64
exit $failed

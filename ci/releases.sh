#!/usr/bin/env bash
# DPDK of other releases of Debian, as trees that ci/smoke/releases.sh runs applications in, and that kopid is compiled
# against: trixie (24.11) and forky (25.11), with headers. They are made once, outside of the check-out.
#
#   ci/releases.sh               makes both trees, unless they are there; without a mirror, says so and makes none
#   ci/releases.sh check SUITE   compares the driver's declarations with the headers of that suite's DPDK
#   ci/releases.sh kopid SUITE   the same, and cargo check of kopid with it
#
# The lists, the packages and the state of apt are in the tree's folder: the machine's own are not touched.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${KOPI_CACHE:-/var/cache/kopi}
suites=(trixie forky)
# The first has the folders and links of a tree.
packages=(base-files dpdk-dev libdpdk-dev libc6-dev)

say() { printf 'releases: %s\n' "$*"; }

# make_tree SUITE: unpacks the packages and all that they depend on. A tree without install scripts is enough to run
# programs in.
make_tree() {
    local suite=$1 to=$cache/$1 new
    [[ -e $to/complete ]] && return
    new=$(mktemp -d "$cache/$suite.XXXXXX")
    mkdir -p "$new"/{lists/partial,archives/partial,root/mnt}
    : >"$new/status"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "${KOPI_MIRROR:-http://deb.debian.org/debian}" "$suite" >"$new/sources.list"
    local apt=(
        apt-get -qq -o "Dir::Etc::sourcelist=$new/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$new/lists" -o "Dir::State::status=$new/status" -o "Dir::Cache=$new"
        -o "Dir::Cache::archives=$new/archives" -o APT::Sandbox::User=root -o APT::Install-Recommends=false
        -o Acquire::Languages=none
    )
    if ! "${apt[@]}" update || ! "${apt[@]}" -y --download-only install "${packages[@]}" >/dev/null; then
        rm -rf "$new"
        say "SKIPPED $suite: its packages cannot be had"
        return
    fi
    find "$new/archives" -name '*.deb' -print0 | xargs -0 -P 2 -I{} dpkg-deb -x {} "$new/root"
    rm -rf "$new"/{lists,archives} "$new"/*.bin
    chmod 755 "$new"
    touch "$new/complete"
    rm -rf "$to"
    mv -T "$new" "$to"
    say "$suite is in $to: $(du -sh "$to" | cut -f1)"
}

case ${1:-} in
'')
    mkdir -p "$cache"
    pids=()
    for suite in "${suites[@]}"; do
        make_tree "$suite" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid"
    done
    ;;
check | kopid)
    tree=$cache/$2/root
    [[ -e $cache/$2/complete ]] || { say "SKIPPED $1 with the DPDK of $2: there is no tree"; exit; }
    export PKG_CONFIG_SYSROOT_DIR=$tree
    export PKG_CONFIG_LIBDIR=$tree/usr/lib/x86_64-linux-gnu/pkgconfig:$tree/usr/share/pkgconfig
    release=$(pkg-config --modversion libdpdk)
    say "$1 with DPDK $release"
    cd "$root"
    read -ra flags <<<"$(pkg-config --cflags libdpdk)"
    IFS=. read -r year month _ <<<"$release"
    cc -fsyntax-only "-DKOPI_RELEASE=$year$month" "${flags[@]}" shim/c/check.c
    [[ $1 == check ]] || cargo check -p kopi-dataplane
    ;;
*)
    printf 'usage: ci/releases.sh [check|kopid SUITE]\n' >&2
    exit 2
    ;;
esac

#!/usr/bin/env bash
# What other releases are needed for, made once, outside of the check-out: trees of Debian 13 (trixie, DPDK 24.11) and forky
# (25.11), with applications and headers, and the headers for drivers of these two and of Debian 12 (bookworm, 22.11), which come
# with the source alone, as far as the mirror has it. ci/smoke/releases.sh and apps.sh run applications in the trees, and kopid is built against one.
# And a whole Debian 12 by debootstrap, in which ci/smoke/package.sh installs the packages.
#
#   ci/releases.sh               makes what is not there; without a mirror, says so and makes none
#   ci/releases.sh tree SUITE    the same for one suite
#   ci/releases.sh chroot        the same for the Debian of debootstrap: chroot/root
#   ci/releases.sh check SUITE   compares the driver's declarations with the headers of that suite's DPDK
#   ci/releases.sh kopid SUITE   the same, and builds kopid with it: target/SUITE/kopid
#
# The lists, the packages and the state of apt are in the tree's folder: the machine's own are not touched.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${KOPI_CACHE:-/var/cache/kopi}
suites=(bookworm trixie forky)
# The first has the folders and links of a tree.
packages=(base-files dpdk-dev libdpdk-dev libc6-dev)
# What a suite may be without.
applications=(suricata openvswitch-switch-dpdk grout)

say() { printf 'releases: %s\n' "$*"; }

# What is in a tree, as its file `complete` has it.
recipe="${packages[*]} ${applications[*]} driver headers"
is_complete() { [[ -e $cache/$1/complete && $(<"$cache/$1/complete") == "$recipe" ]]; }

# make_tree SUITE: unpacks the packages and all that they depend on, and the headers for drivers. A tree without install scripts is
# enough to run programs in; on a machine of Debian 12, its own packages take the place of a tree of bookworm. Runs in a shell of its
# own, one at a time for each suite.
make_tree() {
    local suite=$1 to=$cache/$1 package wanted=()
    mkdir -p "$cache"
    exec 9>"$cache/$suite.lock"
    flock 9
    ! is_complete "$suite" || return 0
    new=$(mktemp -d "$cache/$suite.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    mkdir -p "$new"/{lists/partial,archives/partial,root/mnt}
    : >"$new/status"
    printf "%s [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${KOPI_MIRROR:-http://deb.debian.org/debian} $suite main\n" \
        deb deb-src >"$new/sources.list"
    local apt=(
        apt-get -qq -o "Dir::Etc::sourcelist=$new/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$new/lists" -o "Dir::State::status=$new/status" -o "Dir::Cache=$new"
        -o "Dir::Cache::archives=$new/archives" -o APT::Sandbox::User=root -o APT::Install-Recommends=false
        -o Acquire::Languages=none
    )
    if ! "${apt[@]}" update; then
        say "SKIPPED: $suite: its packages cannot be had"
        return
    fi
    # As they were released, without Debian's patches. Some mirrors have no sources.
    if (cd "$new" && "${apt[@]}" source --download-only --tar-only dpdk >/dev/null 2>&1); then
        mkdir "$new/driver"
        tar -C "$new/driver" --wildcards --transform 's|.*/||' -xf "$new"/dpdk_*.orig.tar.xz \
            '*/lib/*_driver.h' '*/lib/ethdev/ethdev_vdev.h' '*/bus/vdev/*_driver.h'
    elif [[ $suite == bookworm ]]; then
        say "SKIPPED: $suite: its source cannot be had"
        return
    fi
    if [[ $suite != bookworm ]]; then
        wanted=("${packages[@]}")
        for package in "${applications[@]}"; do
            # Not all suites have all of them.
            if "${apt[@]}" -s install "${packages[@]}" "$package" >/dev/null 2>&1; then wanted+=("$package"); fi
        done
        if ! "${apt[@]}" -y --download-only install "${wanted[@]}" >/dev/null; then
            say "SKIPPED: $suite: its packages cannot be had"
            return
        fi
        find "$new/archives" -name '*.deb' -print0 | xargs -0 -P 2 -I{} dpkg-deb -x {} "$new/root"
    fi
    rm -rf "$new"/{lists,archives} "$new"/*.bin "$new"/dpdk_*
    chmod 755 "$new"
    printf '%s\n' "$recipe" >"$new/complete"
    rm -rf "$to"
    mv -T "$new" "$to"
    say "$suite is in $to: $(du -sh "$to" | cut -f1)"
}

# What the chroot has besides the smallest Debian: a system manager, applications with DPDK, and all that kopid needs of Debian, so
# that installing it needs no network.
chroot_packages=systemd,dpdk-dev,librte-net-null23,libpcap0.8,libgcc-s1
chroot_is_complete() { [[ -e $cache/chroot/complete && $(<"$cache/chroot/complete") == "$chroot_packages" ]]; }

# make_chroot: as make_tree, with the maintainers' scripts run, as whoever installs it has it.
make_chroot() {
    mkdir -p "$cache"
    exec 9>"$cache/chroot.lock"
    flock 9
    ! chroot_is_complete || return 0
    command -v debootstrap >/dev/null || { say "SKIPPED: chroot: there is no debootstrap"; return; }
    new=$(mktemp -d "$cache/chroot.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    if ! debootstrap --variant=minbase --include="$chroot_packages" bookworm "$new/root" \
        "${KOPI_MIRROR:-http://deb.debian.org/debian}" >"$new/log" 2>&1; then
        tail -n 3 "$new/log"
        say "SKIPPED: chroot: Debian 12 cannot be had"
        return
    fi
    rm -rf "$new"/root/var/cache/apt/{archives/*.deb,*.bin} "$new/log"
    chmod 755 "$new"
    printf '%s\n' "$chroot_packages" >"$new/complete"
    rm -rf "$cache/chroot"
    mv -T "$new" "$cache/chroot"
    say "chroot is in $cache/chroot: $(du -sh "$cache/chroot" | cut -f1)"
}

# use_tree SUITE: has pkg-config find the DPDK of the tree.
use_tree() {
    tree=$cache/$1/root
    export PKG_CONFIG_PATH= PKG_CONFIG_SYSROOT_DIR=$tree
    export PKG_CONFIG_LIBDIR=$tree/usr/lib/x86_64-linux-gnu/pkgconfig:$tree/usr/share/pkgconfig
}

case ${1:-} in
'')
    pids=()
    for suite in "${suites[@]}"; do
        make_tree "$suite" &
        pids+=($!)
    done
    make_chroot &
    pids+=($!)
    for pid in "${pids[@]}"; do
        wait "$pid"
    done
    ;;
tree) make_tree "$2" ;;
chroot) make_chroot ;;
check | kopid)
    is_complete "$2" || { say "SKIPPED: $1 with the DPDK of $2: there is no tree"; exit; }
    [[ $2 == bookworm ]] || use_tree "$2"
    release=$(pkg-config --modversion libdpdk)
    [[ $2 != bookworm || $release == 22.11.* ]] || { say "SKIPPED: $1 with 22.11: this machine has $release"; exit; }
    say "$1 with DPDK $release"
    cd "$root"
    read -ra flags <<<"$(pkg-config --cflags libdpdk)"
    IFS=. read -r year month _ <<<"$release"
    if [[ -e $cache/$2/driver ]]; then
        flags+=(-DKOPI_DRIVER_HEADERS -DALLOW_INTERNAL_API "-I$cache/$2/driver")
    else
        say "SKIPPED: the headers for drivers of $2: the mirror had no source"
    fi
    cc -fsyntax-only "-DKOPI_RELEASE=$year$month" "${flags[@]}" shim/c/check.c
    if [[ $1 == kopid ]]; then
        target=${CARGO_TARGET_DIR:-target}
        # Not as release: that takes three times as long, and the optimiser is no matter of DPDK's. What it is linked with is the
        # tree's, the C library too, and there it runs.
        cargo rustc -p kopi-dataplane --bin kopid -- -C "link-arg=--sysroot=$tree"
        install -D "$target/debug/kopid" "$target/$2/kopid"
    fi
    ;;
*)
    printf 'usage: ci/releases.sh [chroot | tree|check|kopid SUITE]\n' >&2
    exit 2
    ;;
esac

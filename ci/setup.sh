#!/usr/bin/env bash
# Prepares a Debian machine to build, test and run kopi. Safe to run again, and quick when nothing is left to do.
#
#   ci/setup.sh                      what the build, the tests and the demo need
#   KOPI_SETUP_BENCH=1 ci/setup.sh   also Open vSwitch with DPDK, for the benchmarks (or: ci/setup.sh --bench)
#
# Three steps: Debian packages; DPDK's driver headers, which Debian does not package; huge pages as best effort.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
driver_headers=(dev_driver.h bus_driver.h ethdev_driver.h ethdev_vdev.h bus_vdev_driver.h)
huge_pages_wanted=512

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# Needs root only where something is missing, so an ordinary user may run this to check.
need_root() {
    [[ $EUID -eq 0 ]] || die "$1: run  sudo KOPI_SETUP_BENCH=${KOPI_SETUP_BENCH:-0} $root/ci/setup.sh"
}

install_packages() {
    local wanted=(
        libdpdk-dev dpdk dpdk-dev libpcap-dev pkg-config clang libclang-dev libc6-dev # build
        dpkg-dev xz-utils ca-certificates                                            # driver headers
        make dpdk-doc                                                                # examples, ours and DPDK's
        iproute2 iputils-ping iperf3 tcpdump tshark ethtool nftables                 # network
        python3 procps util-linux sudo                                               # scripts
        valgrind                                                                     # instruction budgets
    )
    [[ ${KOPI_SETUP_BENCH:-0} == 1 ]] && wanted+=(openvswitch-switch-dpdk)
    local package missing=()
    for package in "${wanted[@]}"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    need_root "missing packages: ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get -qq update || say "apt-get update failed; going on with the lists at hand"
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "${missing[@]}" >/dev/null
}

# libdpdk-dev has no driver headers (DPDK installs them only with -Denable_driver_sdk=true). They are taken from the
# source package of the very version that is installed, because DPDK promises nothing about them between releases.
install_driver_headers() {
    local version include
    version=$(pkg-config --modversion libdpdk) || die "pkg-config does not find libdpdk"
    include=$(pkg-config --variable=includedir libdpdk)
    [[ -e $include/ethdev_driver.h ]] && return
    local target=$root/.deps/dpdk-$version/include
    [[ -d $target ]] && return

    # Debian's source package only fits Debian's library, not another DPDK that PKG_CONFIG_PATH puts before it.
    local source
    source=$(dpkg-query -W -f='${source:Version}' libdpdk-dev 2>/dev/null) || source=none
    [[ $source == "$version"-* ]] ||
        die "DPDK $version has no driver headers and is not Debian's ($source): build it with -Denable_driver_sdk=true"

    say "fetching the driver headers of dpdk $source"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    download_source "$source"
    unpack_headers "$version" "$target"
}

# Downloads the source package `dpdk` of version $1 into $work through lists of our own; the system's stay untouched.
download_source() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg signed=
    [[ -e $keyring ]] && signed="[signed-by=$keyring] "
    mkdir -p "$work/lists/partial"
    # A line of madison is "libdpdk-dev | VERSION | URL SUITE/COMPONENT ARCH Packages"; the mirror serves sources too.
    apt-cache madison libdpdk-dev |
        awk -F' *[|] *' -v signed="$signed" '$3 ~ /^https?:/ {
            split($3, f, " "); slash = match(f[2], /\/[^\/]*$/)
            print "deb-src " signed f[1] " " substr(f[2], 1, slash - 1) " " substr(f[2], slash + 1) }' |
        sort -u >"$work/sources.list"
    [[ -s $work/sources.list ]] || die "apt knows no mirror for libdpdk-dev: run apt-get update first"
    local options=(
        -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o APT::Sandbox::User=root
    )
    apt-get "${options[@]}" update || say "some source lists did not load"
    (cd "$work" && apt-get "${options[@]}" source --download-only "dpdk=$1" >/dev/null) ||
        die "no source package dpdk $1 on the mirror: upgrade libdpdk-dev, then run this again"
}

# Puts the driver headers of version $1 into $2, all or none.
unpack_headers() {
    local header patched member members
    members=$(tar -tf "$work"/dpdk_*.orig.tar.xz)
    patched=$(tar -xOf "$work"/dpdk_*.debian.tar.xz debian/patches | grep '^+++' || true)
    mkdir "$work/include"
    for header in "${driver_headers[@]}"; do
        # The copy in the tarball is the one Debian compiled with only if no patch of Debian's changes it.
        [[ $patched != */"$header"* ]] || die "Debian patches $header, which this script does not handle"
        member=$(grep -E "^[^/]+/(lib|drivers/bus)/([^/]+/)+$header\$" <<<"$members") || die "no $header in dpdk $1"
        tar -xOf "$work"/dpdk_*.orig.tar.xz "$member" >"$work/include/$header"
    done
    local flags
    read -ra flags <<<"$(pkg-config --cflags libdpdk)"
    printf '#include <ethdev_driver.h>\n#include <ethdev_vdev.h>\n#include <bus_vdev_driver.h>\n' |
        cc -DALLOW_INTERNAL_API "${flags[@]}" -I"$work/include" -fsyntax-only -xc - ||
        die "the driver headers of dpdk $1 do not compile against the installed ones"
    mkdir -p "$(dirname "$2")"
    chmod 755 "$work/include"
    # A check-out that belongs to somebody else, set up by root, stays theirs.
    chown -R --reference="$root" "$work/include"
    mv -T "$work/include" "$2"
    chown --reference="$root" "$root/.deps" "$(dirname "$2")"
    say "driver headers are in ${2#"$root"/}"
}

# Everything works without huge pages, only slower; so nothing here is an error.
reserve_huge_pages() {
    local pages=/proc/sys/vm/nr_hugepages have page_kib free_kib
    have=$(cat $pages 2>/dev/null) || return 0
    ((have < huge_pages_wanted)) || return 0
    page_kib=$(awk '/^Hugepagesize:/ { print $2 }' /proc/meminfo)
    free_kib=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
    # Leave three quarters of the memory that is free to everybody else.
    if ((page_kib != 2048 || free_kib / 4 < (huge_pages_wanted - have) * page_kib)); then
        say "not enough memory for $huge_pages_wanted huge pages of 2 MiB; going on without"
    elif ! { echo "$huge_pages_wanted" >$pages; } 2>/dev/null; then
        say "could not reserve huge pages; going on without"
    fi
    return 0
}

case ${1:-} in
'') ;;
--bench) KOPI_SETUP_BENCH=1 ;;
*) die "usage: ci/setup.sh [--bench]" ;;
esac
install_packages
install_driver_headers
reserve_huge_pages
say "ready: DPDK $(pkg-config --modversion libdpdk), $(cat /proc/sys/vm/nr_hugepages 2>/dev/null || echo 0) huge pages"

#!/usr/bin/env bash
# Prepares a Debian machine to build, test and run kopi. Safe to run again, and quick when nothing is left to do.
#
#   ci/setup.sh                      what the build, the tests and the demo need
#   KOPI_SETUP_BENCH=1 ci/setup.sh   also Open vSwitch with DPDK, for the benchmarks (or: ci/setup.sh --bench)
#
# Two steps: Debian packages; huge pages as best effort.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
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
        make dpdk-doc                                                                # examples, ours and DPDK's
        iproute2 iputils-ping iperf3 tcpdump tshark ethtool nftables                 # network
        python3 procps util-linux sudo                                               # scripts
        valgrind                                                                     # instruction budgets
        dpkg-dev lintian debootstrap curl                                            # packages
        podman runc                                                                  # containers
        tmux                                                                         # kopictl top
        mandoc                                                                       # manual pages
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
reserve_huge_pages
say "ready: DPDK $(pkg-config --modversion libdpdk), $(cat /proc/sys/vm/nr_hugepages 2>/dev/null || echo 0) huge pages"

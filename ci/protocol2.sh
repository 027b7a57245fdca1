#!/usr/bin/env bash
# kopid, kopictl and the driver as they were at the last commit that spoke protocol 2 of the rings alone, for
# ci/smoke/protocol.sh. They are built once, from the history of this check-out, and kept outside of it. Without that commit (a
# shallow clone) or the driver headers of this machine's DPDK, which that driver needs, says so and makes nothing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
commit=20b182c95132ab3167e8186a4699f212fb2a99ee
cache=${KOPI_CACHE:-/var/cache/kopi}
to=$cache/protocol2

skip() {
    printf 'protocol2: SKIPPED: %s\n' "$*"
    exit
}

dpdk=$(pkg-config --modversion libdpdk)
[[ ! -e $to/dpdk || $(<"$to/dpdk") != "$dpdk" ]] || exit 0
git cat-file -e "$commit^{commit}" 2>/dev/null || skip "commit ${commit:0:7} is not in this clone: git fetch --unshallow"
case $(uname -m)-$dpdk in
x86_64-22.11.*) ;;
*) skip "that commit is for DPDK 22.11, and this machine has $dpdk" ;;
esac
ci/releases.sh tree bookworm
[[ -e $cache/bookworm/driver ]] || skip "no headers for drivers of DPDK $dpdk"

mkdir -p "$cache"
new=$(mktemp -d "$cache/protocol2.XXXXXX")
trap 'rm -rf "$new"' EXIT
mkdir "$new/source"
git archive "$commit" | tar -x -C "$new/source"
(cd "$new/source" && cargo fetch --locked >/dev/null 2>&1) || skip "its crates cannot be had"
# Little optimised: what is tested is what they say to each other.
(
    cd "$new/source"
    export KOPI_DPDK_DRIVER_HEADERS=$cache/bookworm/driver CARGO_INCREMENTAL=0
    export CARGO_PROFILE_RELEASE_{LTO=off,OPT_LEVEL=1,CODEGEN_UNITS=16,DEBUG=false}
    cargo build --release --locked --target-dir "$new/target" -p kopi-dataplane -p kopi-ctl -p kopi-shim
)
chmod 755 "$new"
mv "$new"/target/release/{kopid,kopictl,librte_net_kopi.so} "$new"
rm -rf "$new"/{source,target}
printf '%s\n' "$dpdk" >"$new/dpdk"
rm -rf "$to"
mv -T "$new" "$to"

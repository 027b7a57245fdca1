#!/usr/bin/env bash
# Makes the Debian packages of what is built, in target/debian: kopi, librte-net-kopi, and librte-net-kopi-ABI for each release of DPDK.
#
#   ci/package.sh [VERSION]      of target/release, which it builds first; with --no-build before the version, of what is there. VERSION takes the place of that of Cargo.toml
#   ci/package.sh tool           makes cargo-deb alone
#
# cargo-deb is made once, outside of the check-out. Where it cannot be had, the exit code is 3.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=${KOPI_CACHE:-/var/cache/kopi}
cargo_deb_version=3.8.0
tool=$cache/cargo-deb-$cargo_deb_version
crates=(kopi-dataplane kopi-driver kopi-driver-22-11 kopi-driver-23-11 kopi-driver-24-11 kopi-driver-25-11)
target=${CARGO_TARGET_DIR:-target}
bin=$target/release
stage=$bin/package

say() { printf 'package: %s\n' "$*"; }

# Optimised as little as packing a few megabytes needs: with its own settings it takes much longer.
make_tool() {
    mkdir -p "$cache"
    exec 9>"$tool.lock"
    flock 9
    [[ ! -x $tool/bin/cargo-deb ]] || return 0
    local build
    build=$(mktemp -d)
    if ! CARGO_TARGET_DIR=$build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --quiet cargo-deb --version "$cargo_deb_version" --locked --root "$tool"; then
        rm -rf "$build"
        say "SKIPPED: cargo-deb cannot be had"
        return 1
    fi
    rm -rf "$build"
}

# stage_files VERSION: what is made for the packages and is in no folder of the tree.
stage_files() {
    local share=$stage/share file
    rm -rf "$stage"
    install -d "$share/doc/kopi"
    {
        printf 'kopi (%s) unstable; urgency=medium\n\n  * See /usr/share/doc/kopi/changelog.gz.\n\n' "$1"
        printf ' -- The kopi authors <kopi@packages.invalid>  %s\n' "$(git log -1 --format=%aD 2>/dev/null || date -R)"
    } | gzip -9n >"$stage/changelog.Debian.gz"
    cargo tree --quiet -p kopi-dataplane -p kopi-ctl -p 'kopi-driver*' -e normal --prefix none --format '{p} {l}' |
        grep -v "($PWD" | sed 's/ (\*)$//; /^$/d' | sort -u >"$share/doc/kopi/crates"
    for file in packaging/{grafana,prometheus}/*; do
        [[ ! -e $file || $file == *.test.* ]] || install -D -m 644 "$file" "$share/kopi/${file#packaging/}"
    done
    # The manuals and completions, by a program that the tests have built, too.
    [[ -e ctl/examples/manuals ]] || return 0
    local manuals=$target/debug/examples/manuals
    [[ $build == no && -x $manuals ]] || cargo build --quiet -p kopi-ctl --example manuals
    "$manuals" "$stage/made"
    mv "$stage/made/man" "$share"
    find "$share/man" -type f -exec gzip -9n {} +
    install -D "$stage/made/completions/bash/kopictl" "$share/bash-completion/completions/kopictl"
    install -D "$stage/made/completions/zsh/_kopictl" "$share/zsh/vendor-completions/_kopictl"
    install -D "$stage/made/completions/fish/kopictl.fish" "$share/fish/vendor_completions.d/kopictl.fish"
}

build=yes
[[ ${1:-} != --no-build ]] || { build=no; shift; }
case ${1:-} in
tool)
    make_tool || true
    exit
    ;;
-*)
    printf 'usage: ci/package.sh [[--no-build] [VERSION] | tool]\n' >&2
    exit 2
    ;;
esac
make_tool || exit 3
rm -f "$target"/debian/*.deb
[[ $build == no ]] || cargo build --release -p kopi-dataplane -p kopi-ctl -p 'kopi-driver*'
version=${1:-$(sed -n '/^\[workspace.package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml)-1}
stage_files "$version"
printf '%s\n' "${crates[@]}" |
    xargs -P 2 -I{} "$tool/bin/cargo-deb" deb -q --strip --no-build --offline -p {} --deb-version "$version"

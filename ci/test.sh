#!/usr/bin/env bash
# Everything that must hold before a change lands, from set-up to the smoke scripts. Run it as root on Debian 12 with Rust
# and gcc; nothing else is needed. It stops at the first step that fails and names it; the last line counts the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $EUID -eq 0 ]] || { echo "test.sh: run as root: the integration tests make network namespaces" >&2; exit 1; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
smoke_passed=0

# step NAME COMMAND...: runs a step under a heading, keeps what its tests said for the count at the end.
step() {
    local name=$1 begun=$SECONDS
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    if ! "$@" 2>&1 | tee -a "$log"; then
        printf '\n== FAILED: %s\n' "$name"
        count
        exit 1
    fi
    printf '== %s: %d s\n' "$name" $((SECONDS - begun))
}

# Adds up the closing lines of cargo's test runs, and the smoke scripts.
count() {
    awk -v smoke="$smoke_passed" '
        /^test result:/ { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") passed += $i; if ($(i + 1) == "failed;") failed += $i } }
        /^== smoke FAILED/ { failed++ }
        END { printf "%d passed, %d failed\n", passed + smoke, failed }' "$log"
}

smoke() {
    if "$1"; then
        printf 'smoke ok: %s\n' "$1"
    else
        printf '== smoke FAILED: %s\n' "$1"
        return 1
    fi
}

export RUSTDOCFLAGS=-Dwarnings
step set-up ci/setup.sh
step format cargo fmt --all --check
step lints cargo clippy --workspace --all-targets -- -D warnings
step documents cargo doc --workspace --no-deps
step build cargo build --release --workspace
step unit cargo test --workspace --exclude kopi-testkit
step protocol env RUSTFLAGS="--cfg loom" cargo test --release --target-dir target/loom -p kopi-ring --test loom
step integration cargo test -p kopi-testkit -- --test-threads=1
for script in ci/smoke/[!l]*.sh; do
    step "smoke $(basename "$script" .sh)" smoke "$script"
    smoke_passed=$((smoke_passed + 1))
done

printf '\n'
count

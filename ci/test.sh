#!/usr/bin/env bash
# Everything that a change has to pass, from a fresh clone on. Run it as root: the tests make network namespaces.
#
# Each step says how long it took. The first one that fails ends the run with its name. The last line sums up: tests as
# cargo counts them, and one for each step or script that is not counted by cargo.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# step NAME COMMAND...: runs the command and adds up its results.
step() {
    local name=$1 begun=$SECONDS status=0 good bad
    shift
    printf '\n==== %s\n' "$name"
    "$@" 2>&1 | tee "$log" || status=$?
    # "test result: ok. 11 passed; 0 failed; 0 ignored; …"
    read -r good bad < <(awk '/^test result:/ { good += $4; bad += $6 } END { print good + 0, bad + 0 }' "$log")
    if ((status != 0 && bad == 0)); then
        bad=1
    elif ((status == 0 && good == 0)); then
        good=1
    fi
    passed=$((passed + good))
    failed=$((failed + bad))
    printf '==== %s: %s in %d s\n' "$name" "$( ((status == 0)) && echo passed || echo FAILED)" $((SECONDS - begun))
    if ((status != 0)); then
        printf '\nfailed at: %s\n%d passed, %d failed\n' "$name" "$passed" "$failed"
        exit 1
    fi
}

if [[ $EUID -ne 0 ]]; then
    printf 'ci/test.sh: run as root: the tests make network namespaces\n0 passed, 1 failed\n'
    exit 1
fi
export CARGO_TERM_COLOR=never

step "set-up" ci/setup.sh
step "format" cargo fmt --check
step "lints" cargo clippy --workspace --all-targets -- -D warnings
step "documentation" env RUSTDOCFLAGS=-Dwarnings bash -c "ci/docs.sh && cargo doc --workspace --no-deps"
# Only what the tests below run: the lints have compiled everything else, and the next step builds it.
step "release build" cargo build --release -p kopi-dataplane -p kopi-ctl -p kopi-shim -p kopi-bench-instructions
# The corpora of the fuzz targets are replayed by a test of kopi-fuzz.
step "unit, property, model and corpus tests" cargo test --workspace --exclude kopi-testkit
step "interleavings of the rings under loom" \
    env RUSTFLAGS="--cfg loom" cargo test --target-dir target/loom -p kopi-ring --test loom --release
# KOPI_FUZZ_SECONDS for each target, two at a time: six minutes, and three more to compile everything with coverage.
step "fuzzing" env KOPI_FUZZ_SECONDS="${KOPI_FUZZ_SECONDS:-60}" fuzz/run.sh
step "instruction budgets" target/release/kopi-bench-instructions
# One at a time: they share two cores with a daemon that polls.
step "integration tests" cargo test -p kopi-testkit -- --test-threads=1
for script in ci/smoke/*.sh; do
    [[ $script == */lib.sh ]] || step "smoke: $(basename "$script" .sh)" timeout 300 "$script"
done
step "demo" ci/demo.sh

printf '\nall in %d s\n%d passed, %d failed\n' "$SECONDS" "$passed" "$failed"

#!/usr/bin/env bash
# Everything that a change has to pass, from a fresh clone on. Run it as root: the tests make network namespaces.
#
# Each step says how long it took. The first one that fails ends the run with its name. The last line sums up: tests as
# cargo counts them, and one for each step or script that is not counted by cargo. What this machine could not do, for want of a mirror,
# a package or the whole history, is no failure; it is listed before that.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
passed=0
failed=0
skipped=()
logs=$(mktemp -d)
log=$logs/step
declare -A beside=()
cleanup() {
    local group
    # Not those that have ended, whose numbers may be others' by now.
    for group in $(jobs -pr); do
        # It may end by itself just now, which is as good.
        kill -- "-$group" 2>/dev/null || true
    done
    rm -rf "$logs"
}
trap cleanup EXIT

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
    local line
    while read -r line; do
        skipped+=("$name: ${line#*SKIPPED: }")
    done < <(grep "SKIPPED: " "$log")
    passed=$((passed + good))
    failed=$((failed + bad))
    printf '==== %s: %s in %d s\n' "$name" "$( ((status == 0)) && echo passed || echo FAILED)" $((SECONDS - begun))
    if ((status != 0)); then
        printf '\nfailed at: %s\n%d passed, %d failed\n' "$name" "$passed" "$failed"
        exit 1
    fi
}

# beside NAME COMMAND...: runs the command beside the steps that follow, up to `join NAME`, which tells how it went. For compilers
# and downloads alone, of which each has times with work for one core or none: beside tests, it would change what they see.
beside() {
    local name=$1
    shift
    # In a process group of its own, which goes as a whole if a step fails.
    set -m
    { "$@" && touch "$logs/$name passed"; } >"$logs/$name" 2>&1 </dev/null &
    set +m
    beside[$name]=$!
}

join() {
    # A step is no parent of what was begun before it.
    tail --pid="${beside[$1]}" -f /dev/null
    cat "$logs/$1"
    [[ -e "$logs/$1 passed" ]]
}

# The tests of kopi-testkit, one at a time: they share two cores with a daemon that polls. The programs are those that were built with
# all others. For this package by itself, cargo would choose fewer features of what it depends on, and compile that anew.
integration() {
    local program programs
    programs=$(cargo test --quiet --workspace --no-run --message-format=json-render-diagnostics | python3 -c '
import json, os, sys
for line in sys.stdin:
    unit = json.loads(line)
    if unit.get("executable") and unit["profile"]["test"] and unit["target"]["src_path"].startswith(os.getcwd() + "/testkit/"):
        print(unit["executable"])') || return
    [[ -n $programs ]] || { printf 'there are no integration tests\n'; return 1; }
    while read -r program; do
        printf '     Running %s\n' "$program"
        (cd testkit && "$program" --test-threads=1 </dev/null) || return
    done <<<"$programs"
}

if [[ $EUID -ne 0 ]]; then
    printf 'ci/test.sh: run as root: the tests make network namespaces\n0 passed, 1 failed\n'
    exit 1
fi
export CARGO_TERM_COLOR=never
# What is compiled once needs no notes for the next time. Where there are some, somebody works, who would have to make them again.
compgen -G "target/debug/incremental/*" >/dev/null || export CARGO_INCREMENTAL=0

step "set-up" ci/setup.sh
step "format" cargo fmt --check
# Only what the tests below run: the lints compile everything else.
beside "release build" cargo build --release -p kopi-dataplane -p kopi-ctl -p 'kopi-driver*' -p kopi-bench-instructions
beside "fuzzing: build" fuzz/run.sh --build
beside "other releases of DPDK" ci/releases.sh
beside "cargo-deb" ci/package.sh tool
step "lints" cargo clippy --workspace --all-targets -- -D warnings
step "documentation" env RUSTDOCFLAGS=-Dwarnings bash -c "ci/docs.sh && cargo doc --workspace --no-deps"
step "other releases of DPDK" join "other releases of DPDK"
# What this compiles of kopid is not what the tests need, which compile it next.
step "kopid with the DPDK of Debian 13" ci/releases.sh kopid trixie
step "the driver's declarations, with the DPDK of Debian 12" ci/releases.sh check bookworm
step "the driver's declarations, with the DPDK of forky" ci/releases.sh check forky
beside "kopid and driver of protocol 2" ci/protocol2.sh
step "build of the tests" cargo test --workspace --no-run
step "release build" join "release build"
step "fuzzing: build" join "fuzzing: build"
step "cargo-deb" join "cargo-deb"
step "kopid and driver of protocol 2" join "kopid and driver of protocol 2"
beside=()
# The corpora of the fuzz targets are replayed by a test of kopi-fuzz.
step "unit, property, model and corpus tests" cargo test --workspace --exclude kopi-testkit
step "interleavings of the rings under loom" \
    env RUSTFLAGS="--cfg loom" cargo test --target-dir target/loom -p kopi-ring --test loom --release
# KOPI_FUZZ_SECONDS for each target, two at a time: two minutes. Who changes a parser gives them more.
step "fuzzing" env KOPI_FUZZ_SECONDS="${KOPI_FUZZ_SECONDS:-20}" fuzz/run.sh
step "instruction budgets" target/release/kopi-bench-instructions
step "integration tests" integration
for script in ci/smoke/*.sh; do
    [[ $script == */lib.sh ]] || step "smoke: $(basename "$script" .sh)" timeout 300 "$script"
done
step "demo" ci/demo.sh

printf '\nall in %d s, %d skipped\n' "$SECONDS" "${#skipped[@]}"
((${#skipped[@]} == 0)) || printf '    %s\n' "${skipped[@]}"
printf '%d passed, %d failed\n' "$passed" "$failed"

#!/usr/bin/env bash
# Fuzzes targets with libFuzzer, on stable Rust.
#
#   fuzz/run.sh                      every target, two at a time
#   fuzz/run.sh TARGET...            these
#   fuzz/run.sh TARGET FILE...       tries files, as CI says after a failure
#   fuzz/run.sh --build              builds, and no more
#   KOPI_FUZZ_SECONDS=600 ...        how long each is fuzzed; 60 if not said
#
# What is found is kept in fuzz/artifacts/TARGET, new inputs in fuzz/artifacts/TARGET.corpus; the committed corpus in
# fuzz/corpus/TARGET is only read.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here"
seconds=${KOPI_FUZZ_SECONDS:-60}
target_dir=$here/libfuzzer/target
triple=$(rustc -vV | sed -n 's/^host: //p')
program=$target_dir/$triple/release/kopi-libfuzzer

# Cargo.lock is not insisted on: it lists what the crates of the workspace depend on, and would have to change with them. The
# flags ask stable rustc's LLVM for the coverage that libFuzzer steers by. They go to everything that is compiled for the
# target and, because it is named, to nothing that is compiled for the build itself.
build() {
    local flags=(
        -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
        -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing
    )
    (cd libfuzzer && CXX=clang++ RUSTFLAGS="${flags[*]}" cargo build --release --target "$triple" --target-dir "$target_dir")
}

# limit TARGET: the longest input worth trying.
limit() {
    sed -n "s/.*name: \"$1\",.*max_len: \([0-9]*\).*/\1/p" src/lib.rs
}

# fuzz TARGET: fuzzes it, and says in one line how that went; all of it, and how to try it again, if it failed.
fuzz() {
    local target=$1 out=artifacts/$1 status=0 found
    mkdir -p "$out" "$out.corpus"
    local options=(
        -seed=1 -max_total_time="$seconds" -max_len="$(limit "$target")" -timeout=10 -rss_limit_mb=1024
        -artifact_prefix="$out/" -print_final_stats=1 -reload=0
    )
    [[ ! -e dict/$target ]] || options+=(-dict="dict/$target")
    rm -f "$out"/{crash,timeout,oom,leak}-*
    KOPI_FUZZ_TARGET=$target "$program" "${options[@]}" "$out.corpus" "corpus/$target" >"$out/log" 2>&1 || status=$?
    if ((status == 0)); then
        awk -v name="$target" '
            /^stat::number_of_executed_units/ { runs = $2 } /^stat::average_exec_per_sec/ { rate = $2 }
            /^stat::peak_rss_mb/ { peak = $2 } / cov: / { cov = $4 }
            END { printf "fuzz: %-12s %9d runs, %6d/s, %5d places, %4d MB\n", name, runs, rate, cov, peak }' "$out/log"
        return
    fi
    # The last lines are in the log of CI, whoever has the files.
    tail -n 60 "$out/log"
    found=$(find "$out" -name '*-*' -newer "$program" -print -quit)
    printf 'fuzz: %s FAILED on %s:\n' "$target" "${found:-no input: see fuzz/$out/log}"
    if [[ -n $found ]]; then
        base64 -w 120 "$found"
        printf 'fuzz: to try it again: fuzz/run.sh %s fuzz/%s   (or from the text above: base64 -d > FILE)\n' "$target" "$found"
    fi
    return 1
}

if [[ ${1:-} == --build ]]; then
    build
    exit
fi
targets=$(sed -n 's/.*Target { name: "\([a-z_]*\)",.*/\1/p' src/lib.rs)
wanted=() files=()
for argument in "$@"; do
    if grep -qx -- "$argument" <<<"$targets"; then
        wanted+=("$argument")
    else
        # Relative to where this was called.
        files+=("$(cd "$OLDPWD" && realpath -e -- "$argument")")
    fi
done
build
if ((${#files[@]} > 0)); then
    [[ ${#wanted[@]} -eq 1 ]] || { printf 'fuzz: name one target for files; there are %s\n' "${targets//$'\n'/ }"; exit 1; }
    KOPI_FUZZ_TARGET=${wanted[0]} exec "$program" "${files[@]}"
fi
[[ ${#wanted[@]} -gt 0 ]] || mapfile -t wanted <<<"$targets"
export -f fuzz limit
export seconds program
# Two at a time, as many as CI has cores. xargs fails if one of them does.
printf '%s\n' "${wanted[@]}" | xargs -P 2 -I{} bash -c 'set -euo pipefail; fuzz {}'

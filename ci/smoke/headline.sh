#!/usr/bin/env bash
# kopi-bench headline: round trips in kopi and in the kernel give a page; and an interrupted run, whose arms have sent by then,
# fails and leaves neither processes nor network namespaces. No figure is judged.
source "$(dirname "$0")/lib.sh"

[[ -x $bin/kopi-bench ]] || die "build first: cargo build --release -p kopi-bench"
mkdir -p "$work/results"
# headline ARGUMENTS...: a run that is as short as can be.
headline() {
    "$bin/kopi-bench" headline --no-build --rounds 1 --warm-up 0.1 --window 0.3 --output "$work/results" "$@"
}

headline --only victim 2>"$work/victim.log" || die "$(tail -n 20 "$work/victim.log")"
page=$(echo "$work"/results/headline-*.md)
grep -q "A victim's round trip" "$page" || die "no round trips on the page: $(cat "$page")"
! grep "^Left out" "$page" || die "an arm is left out"

"$bin/kopi-bench" headline --no-build --rounds 1 --warm-up 0.1 --window 0.3 --only tx --output "$work/results" \
    2>"$work/tx.log" &
bench=$!
for arm in kopi everything kernel raw; do
    until_ok 100 "$arm sends" grep -q "^TX 64 B round 0 $arm: " "$work/tx.log"
done
! grep "left out" "$work/tx.log" | grep -v 'ovs-' || die "an arm is left out"
kill -INT "$bench"
! wait "$bench" || die "an interrupted run succeeded"
grep -q "interrupted" "$work/tx.log" || die "$(tail -n 5 "$work/tx.log")"
! ip netns list | grep "^kopi-bench-$bench-" || die "a network namespace is left behind"
! pgrep -f "kopi-bench-$bench-" || die "a process is left behind"

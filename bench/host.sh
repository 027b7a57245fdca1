#!/usr/bin/env bash
# What the kernel of a machine gets through its port of kopid's, against what it gets from the bare interface: iperf3 in both
# directions and ping, between two network namespaces.
#
#   bench/host.sh [ROUNDS [SECONDS [DEVICE...]]]
#
# Rounds go through all conditions, so that whatever the machine does to one it does to the others; ratios are taken within a
# round. "beside" is beside two unmodified testpmd that poll on the CPU which everything but the worker has to share: on kopid's
# ports, or, for the bare interface, on ports of net_null. "asleep" is beside two applications of kopid's that wait for frames.
# Needs root and a release build.
source "$(dirname "$0")/../ci/smoke/lib.sh"

rounds=${1:-5}
seconds=${2:-2}
shift $(($# < 2 ? $# : 2))
devices=("$@")
((${#devices[@]})) || devices=(net_af_packet0 net_af_xdp0)

make_wire
make_home

# measure NAME: one line for each number.
measure() {
    local to
    for to in home far; do
        printf '%s %s %s\n' "$1" "$to" "$(iperf "$to" "$seconds")" | tee -a "$work/numbers"
    done
    far ping -n -q -c 100 -i 0.01 10.77.0.2 | awk -F/ -v name="$1" '/^rtt/ { printf "%s ping %d\n", name, $5 * 1000 }' |
        tee -a "$work/numbers"
}

# poller NAME: a testpmd that polls a port of net_null. Its pid is in $app_pid.
poller() {
    install -d -m 700 "$work/$1"
    rm -f "$work/$1.in"
    mkfifo "$work/$1.in"
    RUNTIME_DIRECTORY=$work/$1 dpdk-testpmd --lcores "0@$app_cpu,1@$app_cpu" --no-huge -m 192 --no-pci --no-telemetry \
        --file-prefix "$1" --vdev net_null0,no-rx=1 -- -i --auto-start --forward-mode=icmpecho --total-num-mbufs=4096 \
        <>"$work/$1.in" >"$work/$1.log" 2>&1 &
    app_pid=$!
    app_pids+=("$app_pid")
    until_ok 20 "$1 polls" grep -q 'testpmd>' "$work/$1.log"
}

# idle: hundredths of a second in five seconds that the thread of the kernel's port runs with nothing to do.
idle() {
    local task before
    for task in "/proc/$kopid_pid/task"/*; do
        [[ $(<"$task/comm") == kopi-host ]] || continue
        before=$(awk '{ print $14 + $15 }' "$task/stat")
        sleep 5
        printf 'idle %s\n' "$(($(awk '{ print $14 + $15 }' "$task/stat") - before))" | tee -a "$work/numbers"
    done
}

for ((round = 0; round < rounds; round++)); do
    measure bare
    poller one
    first=$app_pid
    poller two
    measure bare-beside
    kill_app "$first"
    kill_app "$app_pid"
    rm -rf "$work"/{one,two}*
    for device in "${devices[@]}"; do
        write_config "$device,iface=$near"
        printf '[host]\ntap = "kopi0"\n' >>"$work/kopid.toml"
        start_kopid
        takeover
        until_ok 10 "the kernel is reached" far ping -n -c 1 -W 1 10.77.0.2
        ((round > 0)) || idle
        measure "$device"
        start_app one nobody 02:00:00:00:00:0a icmpecho
        first=$app_pid
        start_app two nobody 02:00:00:00:00:0b icmpecho
        measure "$device-beside"
        kill_app "$first"
        kill_app "$app_pid"
        rm -rf "$work"/{one,two}*
        start_sleeper three 02:00:00:00:00:0c
        first=$app_pid
        start_sleeper four 02:00:00:00:00:0d
        measure "$device-asleep"
        kill_app "$first"
        kill_app "$app_pid"
        takeover --undo
        stop_kopid TERM
        until_ok 10 "the bare interface is reached" far ping -n -c 1 -W 1 10.77.0.2
    done
done

python3 - "$work/numbers" <<'PYTHON'
import collections, statistics, sys
found = collections.defaultdict(list)
for line in open(sys.argv[1]):
    *name, number = line.split()
    found[tuple(name)].append(int(number))
middle = lambda numbers: f"{statistics.median(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"
for to, title in ("home", "to the kernel"), ("far", "from the kernel"):
    print(f"\n| {title} | Mbit/s | of bare | of bare-beside | ping, µs |\n| --- | --- | --- | --- | --- |")
    for name in dict.fromkeys(key[0] for key in found if len(key) == 2):
        here = found[name, to]
        ratios = [middle([a / b for a, b in zip(here, found[bare, to])]) for bare in ("bare", "bare-beside")]
        print(f"| {name} | {statistics.median(here):.0f} | {' | '.join(ratios)} | {statistics.median(found[name, 'ping']):.0f} |")
print("\nidle thread, hundredths of a second in five seconds:", *found[("idle",)])
PYTHON

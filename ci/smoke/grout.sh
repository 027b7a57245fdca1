#!/usr/bin/env bash
# Grout, DPDK's router, as forky has it, as an application of kopid's: it answers pings to its address through the driver, and again
# when kopid was killed and is back. Forky is a tree of ci/releases.sh; where that cannot be had, this says so.
source "$(dirname "$0")/lib.sh"

mac=02:00:00:00:00:0a
has_program forky /usr/bin/grout || exit 0
tree=$cache/forky/root

make_wire
write_config "net_af_packet0,iface=$near"
start_kopid

# Its TAP interfaces are in a namespace of their own.
root_at_home
grcli() { (in_tree "$tree" grcli -s /mnt/grout.sock "$@"); }

install -d "$work/run"
RUNTIME_DIRECTORY=/mnt/run in_tree "$tree" grout --test-mode --socket /mnt/grout.sock \
    -- -d /mnt/librte_net_kopi.so --file-prefix "grout-$$" >"$work/grout.log" 2>&1 &
app_pid=$!
app_pids+=("$app_pid")
(until_ok 30 "grout answers" grcli interface show) || die "$(<"$work/grout.log")"
grcli interface add port kopi0 devargs "net_kopi0,socket=/mnt/kopi.sock,name=grout,mac=$mac" || die "$(<"$work/grout.log")"
grcli address add 10.77.0.2/24 iface kopi0
(until_ok 10 "grout is attached" app_is grout running) || die "$(<"$work/grout.log")"
until_ok 10 "grout answers" far ping -n -c 1 -W 1 10.77.0.2
until_ok 20 "a hundred pings are answered" pinged 10.77.0.2 100

stop_kopid KILL
start_kopid
until_ok 10 "grout answers after a restart of kopid" far ping -n -c 1 -W 1 10.77.0.2
kill -0 "$app_pid" || die "grout has ended: $(<"$work/grout.log")"
grcli interface show

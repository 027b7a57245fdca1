#!/usr/bin/env bash
# Every frame is counted where it passes, and every drop has a reason.
source "$(dirname "$0")/lib.sh"

make_wire
write_config "net_af_packet0,iface=$near"
start_kopid
neighbour 10.77.0.2 02:00:00:00:00:0a

# Nobody has this address yet.
far ping -n -q -c 10 -i 0.01 -W 0.1 10.77.0.2 >/dev/null || true
kopictl drops | grep -q unknown_unicast || die "frames for nobody were not counted"
[[ $(kopictl --json drops) == *'"packets":10,"reason":"unknown_unicast"'* ]] || die "they were not ten"

start_app echo nobody 02:00:00:00:00:0a icmpecho
until_ok 10 "the application answers" far ping -n -c 1 -W 1 10.77.0.2
kopictl stats | grep -q '^echo' || die "no row for the application"
kopictl status | grep -q net_af_packet || die "status does not show the wire"

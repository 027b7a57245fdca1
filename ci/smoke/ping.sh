#!/usr/bin/env bash
# The kernel at the far end of the wire pings an application through kopid.
source "$(dirname "$0")/lib.sh"

make_wire
write_config "net_af_packet0,iface=$near"
start_kopid
start_app echo nobody 02:00:00:00:00:0a icmpecho
neighbour 10.77.0.2 02:00:00:00:00:0a

until_ok 10 "the application answers" far ping -n -c 1 -W 1 10.77.0.2
far ping -n -q -c 100 -i 0.01 10.77.0.2 | grep -q '100 received' || die "a ping was lost"

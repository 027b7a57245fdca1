#!/usr/bin/env bash
# Nobody has to tell the kernel where an application is: a broadcast reaches it, and it answers.
source "$(dirname "$0")/lib.sh"

make_wire
write_config "net_af_packet0,iface=$near"
start_kopid
start_app echo nobody 02:00:00:00:00:0a icmpecho

until_ok 10 "the application answers" far ping -n -c 1 -W 1 10.77.0.2
ip -n "$netns" neigh show 10.77.0.2 | grep -q 02:00:00:00:00:0a || die "the kernel did not learn the address"

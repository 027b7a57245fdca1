#!/usr/bin/env bash
# The death of kopid is a link flap to an application, and no more.
source "$(dirname "$0")/lib.sh"

make_wire
write_config "net_af_packet0,iface=$near"
start_kopid
start_app echo nobody 02:00:00:00:00:0a icmpecho
neighbour 10.77.0.2 02:00:00:00:00:0a
until_ok 10 "the application answers" far ping -n -c 1 -W 1 10.77.0.2

stop_kopid KILL
! far ping -n -q -c 2 -i 0.1 -W 0.2 10.77.0.2 >/dev/null || die "somebody answers without kopid"
start_kopid
until_ok 5 "the application answers again" far ping -n -c 1 -W 1 10.77.0.2
kill -0 "$app_pid" || die "the application has ended"

# A clean stop tells the applications and takes the sockets away.
stop_kopid TERM
[[ ! -e $work/kopi.sock && ! -e $work/control.sock ]] || die "a socket is left"

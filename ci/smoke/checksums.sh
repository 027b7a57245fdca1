#!/usr/bin/env bash
# Applications that have to do with checksums, unmodified: testpmd's csum engine, which computes them itself or leaves them to the port,
# and DPDK's example l3fwd, as Debian's dpdk-doc has it.
source "$(dirname "$0")/lib.sh"

mac=02:00:00:00:00:0a
examples=/usr/share/dpdk/examples

# offers rx|tx NAME: whether the port has this offload, as testpmd has shown it.
offers() { grep -A2 "^${1^} Offloading Capabilities" "$work/csum.log" | grep -qw "$2"; }

# build_example NAME: into $work/NAME.
build_example() {
    [[ -e $examples/$1 ]] || die "no $examples/$1: run ci/setup.sh"
    install -d "$work/examples"
    cp -rL "$examples/$1" "$examples/common" "$work/examples"
    make -s -C "$work/examples/$1" shared >"$work/make.log" 2>&1 || die "$1 does not build: $(tail -n 20 "$work/make.log")"
}

# start_example NAME MIB LINE ARGUMENT...: runs it until it has said LINE.
start_example() {
    local name=$1 memory=$2 line=$3
    shift 3
    install -d "$work/$name.run"
    (cd "$work/examples/$name" && RUNTIME_DIRECTORY=$work/$name.run exec stdbuf -oL -eL "build/$name" --lcores "0@$app_cpu" \
        --no-huge -m "$memory" --no-pci --no-telemetry --file-prefix "$name-$$" -d "$driver" \
        --vdev "net_kopi0,socket=$work/kopi.sock,name=$name,mac=$mac" -- "$@" >"$work/$name.log" 2>&1) &
    app_pid=$!
    app_pids+=("$app_pid")
    (until_ok 30 "$name runs" grep -q "$line" "$work/$name.log") || die "$(tail -n 20 "$work/$name.log")"
}

# listen COUNT FILTER: shows so many frames that come back to the far end, in $work/back.
listen() {
    far tcpdump -i far0 -nn -vv -Q in -c "$1" "$2" >"$work/back" 2>"$work/tcpdump.log" &
    tcpdump_pid=$!
    app_pids+=("$tcpdump_pid")
    until_ok 10 "tcpdump listens" grep -q "listening on" "$work/tcpdump.log"
}

# heard WHAT COUNT: they have come, with good checksums of IP and UDP.
heard() {
    until_ok 10 "$1" eval "! kill -0 $tcpdump_pid"
    ! grep -q 'bad cksum' "$work/back" || die "$1: a bad checksum of IP: $(<"$work/back")"
    (($(grep -c 'udp sum ok' "$work/back") == $2)) || die "$1: not all checksums of UDP are right: $(<"$work/back")"
    printf '%s: %d frames, checksums right\n' "$1" "$2"
}

# send ADDRESS COUNT BYTES: UDP datagrams.
send() {
    far python3 - "$@" <<'PY'
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(int(sys.argv[2])):
    s.sendto(bytes(i + j & 255 for j in range(int(sys.argv[3]))), (sys.argv[1], 7))
    time.sleep(0.02)
PY
}

make_wire
write_config "net_af_packet0,iface=$near"
start_kopid
far_mac=$(far cat /sys/class/net/far0/address)
far ip route add 198.18.0.0/24 dev far0
neighbour 198.18.0.5 $mac

# The csum engine sends each frame back to the far end. What has to be computed it computes itself, or leaves to the port.
start_app csum nobody $mac csum --eth-peer="0,$far_mac"
listen 20 'udp and dst 198.18.0.5'
send 198.18.0.5 20 300
heard "testpmd's csum engine" 20
# It writes what it says when it ends.
printf '%s\n' 'show port 0 rx_offload capabilities' 'show port 0 tx_offload capabilities' quit >"$work/csum.in"
wait "$app_pid" || die "testpmd failed: $(tail -n 20 "$work/csum.log")"
until_ok 5 "the port is gone" no_app csum
offers rx IPV4_CKSUM || die "the driver offers no checksums to receive: $(<"$work/csum.log")"
for name in IPV4_CKSUM UDP_CKSUM TCP_CKSUM; do
    offers tx $name || die "the driver does not offer $name to transmit: $(<"$work/csum.log")"
done
start_app csum-hw nobody $mac csum --eth-peer="0,$far_mac"
printf '%s\n' stop 'port stop 0' >"$work/csum-hw.in"
until_ok 10 "testpmd's port is stopped" eval '! app_is csum-hw running'
printf '%s\n' 'csum set ip hw 0' 'csum set udp hw 0' 'csum set tcp hw 0' 'port start 0' start >"$work/csum-hw.in"
until_ok 10 "testpmd runs again" app_is csum-hw running
listen 20 'udp and dst 198.18.0.5'
send 198.18.0.5 20 300
heard "testpmd's csum engine, by the port" 20
kill_app "$app_pid"
until_ok 5 "the port is gone" no_app csum-hw

# What is for 198.18.0.0/24 goes back through port 0.
build_example l3fwd
printf 'R198.18.0.0/24 0\n' >"$work/v4"
printf 'R2001:200::/48 0\n' >"$work/v6"
start_example l3fwd 256 'entering main loop' -p 1 -P --config='(0,0,0)' --eth-dest="0,$far_mac" \
    --rule_ipv4="$work/v4" --rule_ipv6="$work/v6"
listen 20 'udp and dst 198.18.0.5'
send 198.18.0.5 20 300
heard "l3fwd" 20
kill_app "$app_pid"
until_ok 5 "the port is gone" no_app l3fwd

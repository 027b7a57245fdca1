#!/usr/bin/env bash
# Applications that have to do with checksums, unmodified: testpmd's csum engine, which computes them itself; and, as far as the
# driver offers what they demand, the same by the port, and DPDK's examples l3fwd and ip_reassembly, as Debian's dpdk-doc has them.
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
ip link set "$near" mtu 9000
ip -n "$netns" link set far0 mtu 9000
write_config "net_af_packet0,iface=$near"
sed -i 's/^\[wire\]$/[wire]\nmtu = 9000/' "$work/kopid.toml"
start_kopid
far_mac=$(far cat /sys/class/net/far0/address)
for net in 198.18.0 100.10.0; do
    far ip route add $net.0/24 dev far0 mtu lock 1400
    neighbour $net.5 $mac
done

# The csum engine sends each frame back to the far end. What has to be computed it computes itself, or leaves to the port.
start_app csum nobody $mac csum --eth-peer="0,$far_mac"
listen 20 'udp and dst 198.18.0.5'
send 198.18.0.5 20 300
heard "testpmd's csum engine" 20
# It writes what it says when it ends.
printf '%s\n' 'show port 0 rx_offload capabilities' 'show port 0 tx_offload capabilities' quit >"$work/csum.in"
wait "$app_pid" || die "testpmd failed: $(tail -n 20 "$work/csum.log")"
until_ok 5 "the port is gone" no_app csum
rx_checksums=no tx_checksums=no
! offers rx IPV4_CKSUM || rx_checksums=yes
! { offers tx IPV4_CKSUM && offers tx UDP_CKSUM && offers tx TCP_CKSUM; } || tx_checksums=yes
if [[ $tx_checksums == yes ]]; then
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
else
    printf '\n    SKIPPED: csum set ip|udp|tcp hw: the driver offers no checksums to transmit\n\n'
fi

if [[ $rx_checksums == no ]]; then
    printf '\n    SKIPPED: l3fwd, which demands receive checksums: the driver offers none\n\n'
    exit
fi
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

if [[ $tx_checksums == no ]]; then
    printf '\n    SKIPPED: ip_reassembly, which demands checksums in both directions: the driver offers none of IP to transmit\n\n'
    exit
fi
# Datagrams of 3000 bytes leave in three fragments, and come back in one frame, whose checksum the port computes.
build_example ip_reassembly
start_example ip_reassembly 1024 'entering main loop' -p 1 --maxflows=64
listen 10 'udp and dst 100.10.0.5 and greater 3000'
send 100.10.0.5 10 3000
heard "ip_reassembly" 10

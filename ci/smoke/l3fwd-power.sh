#!/usr/bin/env bash
# DPDK's own l3fwd-power in interrupt mode, as Debian's dpdk-doc has it: it builds unmodified, sleeps, and forwards what comes
# through net_kopi0, by which it is woken.
source "$(dirname "$0")/lib.sh"

mac=02:00:00:00:00:0f
source=/usr/share/dpdk/examples/l3fwd-power
[[ -e $source/main.c ]] || die "no $source: run ci/setup.sh"

cp -rL "$source" "$work/l3fwd-power"
make -s -C "$work/l3fwd-power" shared >"$work/make.log" 2>&1 || die "it does not build: $(cat "$work/make.log")"

make_wire
write_config "net_af_packet0,iface=$near"
sed -i 's/^\[dataplane\]/&\nidle = "adaptive"/' "$work/kopid.toml"
start_kopid

# Port 0, queue 0, on lcore 1. What goes to 1.1.1.0/24 it sends back through port 0, to an address that it makes up.
install -d "$work/run"
RUNTIME_DIRECTORY=$work/run stdbuf -oL -eL "$work/l3fwd-power/build/l3fwd-power" --lcores "0@$app_cpu,1@$app_cpu" \
    --no-huge -m 256 --no-pci --no-telemetry --file-prefix "l3fwd-$$" -d "$work/librte_net_kopi.so" \
    --vdev "net_kopi0,socket=$work/kopi.sock,name=l3fwd,mac=$mac" \
    -- -p 0x1 --config="(0,0,1)" --interrupt-only >"$work/l3fwd.log" 2>&1 &
app_pids+=($!)
until_ok 20 "l3fwd-power runs" app_is l3fwd running
until_ok 20 "l3fwd-power looks for frames" grep -q "entering main interrupt loop on lcore 1" "$work/l3fwd.log"

far ip route add 1.1.1.0/24 dev far0
ip -n "$netns" neigh replace 1.1.1.5 lladdr $mac dev far0
far tcpdump -i far0 -nn -c 10 -w "$work/back.pcap" "udp and ether dst 02:00:00:00:00:00" 2>"$work/tcpdump.log" &
tcpdump_pid=$!
until_ok 10 "tcpdump listens" grep -q "listening on" "$work/tcpdump.log"

woken() { grep -c "waked up from rx interrupt on port 0 queue 0" "$work/l3fwd.log" || true; }
before=$(woken)
for n in {1..10}; do
    far bash -c "echo $n >/dev/udp/1.1.1.5/7"
    sleep 0.05
done
until_ok 10 "ten datagrams come back" eval "! kill -0 $tcpdump_pid"
(($(woken) > before)) || die "no interrupt has woken it: $(tail -n 5 "$work/l3fwd.log")"
printf 'woken %d times for 10 datagrams\n' $(($(woken) - before))

#!/usr/bin/env bash
# Debugging, the paper's scenario: something floods the wire with ARP from a wrong address. The administrator captures on the
# whole host and reads the culprit's pid, user and command off the packets, tries what a lease of addresses would do about it,
# and puts it in force. The flood ends, and nobody else notices.
source "$(dirname "$0")/lib.sh"

# Numbers that nobody has, so that the machine needs no such users.
bob=64201
charlie=64202
mallory=64203

cat >"$work/open.toml" <<'TOML'
default = { egress = "accept", ingress = "accept" }
TOML
cat >"$work/leases.toml" <<TOML
default = { egress = "accept", ingress = "accept" }

[[app]]
name      = "web"
owner     = { uid = $bob }
addresses = "10.77.0.11"

[[app]]
name      = "shop"
owner     = { uid = $charlie }
addresses = "10.77.0.12"

[[app]]
name      = "batch"
owner     = { uid = $mallory }
addresses = "10.77.0.13"
TOML

# What the culprit sends: one ARP request, in the name of the address 10.77.0.66 that is nobody's here. testpmd takes it
# from a file, again and again as fast as it can, and forwards it into its port of kopi's.
python3 - "$work/arp.pcap" <<'PYTHON'
import struct, sys
frame = bytes.fromhex("ffffffffffff" "02000000000d" "0806" "0001" "0800" "06" "04" "0001" "02000000000d")
frame += bytes([10, 77, 0, 66]) + bytes(6) + bytes([10, 77, 0, 1])
frame = frame.ljust(60, b"\0")
with open(sys.argv[1], "wb") as out:
    out.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
    out.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
PYTHON

make_wire
write_config "net_af_packet0,iface=$near"
sed -i '1i policy = "open.toml"' "$work/kopid.toml"
start_kopid
start_app web $bob 02:00:00:00:00:0b icmpecho
web_pid=$app_pid
start_app shop $charlie 02:00:00:00:00:0c icmpecho
eal_options=(--vdev "net_pcap0,rx_pcap=$work/arp.pcap,infinite_rx=1")
start_app batch $mallory 02:00:00:00:00:0d io --total-num-mbufs=16384
culprit=$app_pid

# The far end sees the flood, and cannot say who it is.
until_ok 10 "the flood is on the wire" far timeout 5 tcpdump -i far0 -n -c 100 arp src 10.77.0.66

# kopi can: who sends it, in the first line already, and who gets it.
kopictl capture -c 30 arp src 10.77.0.66 >"$work/flood" 2>"$work/flood.err"
(($(wc -l <"$work/flood") == 30)) || die "30 packets of the flood: $(cat "$work/flood" "$work/flood.err")"
head -n 3 "$work/flood"
grep -q "who-has 10.77.0.1 tell 10.77.0.66" "$work/flood" || die "no ARP request: $(head -n 1 "$work/flood")"
culprits=$(grep ' out ' "$work/flood" | grep -o '\[.*\]' | sort -u)
[[ $culprits == "[pid $culprit uid $mallory dpdk-testpmd]" ]] || die "who sends it: $culprits: $(<"$work/flood")"
head -n 1 "$work/flood" | grep -q "batch out .*pid $culprit" || die "the culprit is not the first: $(<"$work/flood")"

# What would leases do about it? They are in force on trial, and would be gone in a minute.
kopictl reload --confirm 60 "$work/leases.toml" >/dev/null
kopictl explain --app batch 'arp request 10.77.0.66 > 10.77.0.1' >"$work/explained"
grep -q spoof "$work/explained" || die "the lease would not stop it: $(<"$work/explained")"
dropped() { (($(json drops "sum(r['packets'] for r in rows if (r['app'], r['reason']) == ('batch', 'spoofed'))") > 100)); }
until_ok 10 "drops are counted" dropped
kopictl capture --dropped -c 5 >"$work/dropped" 2>/dev/null
(($(grep -c "spoofed" "$work/dropped") == 5)) || die "the drops are not captured: $(<"$work/dropped")"

# They do what they should, so they stay. The flood is over; what was under way has passed by now.
kopictl reload --keep >/dev/null
sleep 0.5
if far timeout 2 tcpdump -i far0 -n -c 1 arp src 10.77.0.66 2>/dev/null | grep -q .; then
    die "the flood is still on the wire"
fi
kill -0 "$culprit" || die "the culprit is gone, so this proves nothing"
until_ok 10 "the others work as before" far ping -n -c 1 -W 1 10.77.0.11
kill -0 "$web_pid"

#!/usr/bin/env bash
# Debian's Suricata as an application of kopid's, in the releases of Debian 13 and forky: rules see the pings and the flows that come
# to its port, with as many threads as the driver allows. The suites are trees of ci/releases.sh; where those cannot be had, this says so.
source "$(dirname "$0")/lib.sh"

# With more than one thread it has more than one queue, and sets an RSS key.
threads=1
! has_feature 'RSS key update' || threads=2
threads=${KOPI_SURICATA_THREADS:-$threads}
mac=02:00:00:00:00:0a

make_wire
write_config "net_af_packet0,iface=$near"
start_kopid
neighbour 10.77.0.2 $mac

# Its other threads have a CPU of their own, or share if there are too few.
worker_cpus=$app_cpu management="management-cpu-set: { cpu: [ $worker_cpu ] }"
((threads == 1)) || worker_cpus="$worker_cpu, $app_cpu" management="management-cpu-set: { cpu: [] }"
for suite in trixie forky; do
    has_program $suite /usr/bin/suricata || continue
    install -d -m 700 -o nobody "$work/$suite" "$work/$suite/log"
    cat >"$work/suricata.yaml" <<YAML
%YAML 1.1
---
vars: { address-groups: { HOME_NET: any, EXTERNAL_NET: any } }
outputs:
  - fast: { enabled: yes, filename: fast.log }
dpdk:
  eal-params:
    proc-type: primary
    no-pci:
    no-huge:
    m: 256
    no-telemetry:
    file-prefix: $suite
    d: /mnt/librte_net_kopi.so
    vdev: "net_kopi0,socket=/mnt/kopi.sock,name=suricata,mac=$mac"
  interfaces:
    - interface: net_kopi0
      threads: $threads
      promisc: true
      multicast: true
      checksum-checks: true
      checksum-checks-offload: true
      mtu: 1500
      rss-hash-functions: auto
      mempool-size: 4095
      mempool-cache-size: 63
      rx-descriptors: 512
      tx-descriptors: 512
      copy-mode: none
      copy-iface: none
    - interface: default
threading:
  set-cpu-affinity: yes
  cpu-affinity:
    - $management
    - worker-cpu-set: { cpu: [ $worker_cpus ], mode: exclusive }
flow: { memcap: 16mb, hash-size: 1024, prealloc: 100 }
stream: { memcap: 16mb, reassembly: { memcap: 16mb } }
YAML
    cat >"$work/two.rules" <<'RULES'
alert icmp any any -> 10.77.0.2 any (msg:"a ping through kopi"; itype:8; sid:1; rev:1;)
alert udp any any -> 10.77.0.2 7 (msg:"a datagram through kopi"; sid:2; rev:1;)
RULES
    RUNTIME_DIRECTORY=/mnt/$suite in_tree "$cache/$suite/root" \
        suricata --dpdk -c /mnt/suricata.yaml -S /mnt/two.rules -l "/mnt/$suite/log" >"$work/suricata.log" 2>&1 &
    app_pid=$!
    app_pids+=("$app_pid")
    (until_ok 30 "Suricata runs" app_is suricata running) || die "$(<"$work/suricata.log")"
    seen() { (($(grep -c "a $1 through kopi" "$work/$suite/log/fast.log") == $2)); }
    # It does not answer: it listens, so ping fails. Each datagram is a flow, by a port of its own: of forty that the kernel chooses, two
    # are the same once in forty runs.
    far ping -n -q -c 20 -i 0.01 -W 0.1 10.77.0.2 >/dev/null || true
    far python3 -c '
import socket, time
for port in range(20001, 20041):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.bind(("", port))
        end.sendto(b"\n", ("10.77.0.2", 7))
    time.sleep(0.01)'
    until_ok 20 "Suricata of $suite sees twenty pings" seen ping 20
    until_ok 20 "Suricata of $suite sees forty flows" seen datagram 40
    kill -TERM "$app_pid"
    wait "$app_pid" || die "Suricata failed: $(<"$work/suricata.log")"
    until_ok 5 "the port is gone" no_app suricata
    printf '%s, %d threads: 20 pings and 40 flows seen\n' "$(grep -om1 'Suricata version [0-9.]*' "$work/suricata.log")" "$threads"
done

#!/usr/bin/env bash
# Open vSwitch with DPDK as an application of kopid's, in the releases of Debian 13 and forky: its bridge has one port at kopid and
# one of a kernel, which answers pings and receives by TCP through both, and again when kopid was killed and is back. The suites
# are trees of ci/releases.sh; where those cannot be had, this says so.
source "$(dirname "$0")/lib.sh"

mac=02:00:00:00:00:0a

make_wire
write_config "net_af_packet0,iface=$near"
start_kopid

# The kernel behind the bridge, with its TAP, and Open vSwitch itself, are in a namespace of their own.
root_at_home
neighbour 10.77.0.2 $mac

for suite in trixie forky; do
    vswitchd=/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk
    has_program $suite $vswitchd || continue
    tree=$cache/$suite/root
    here=$work/$suite
    install -d "$here"
    export OVS_RUNDIR=/mnt/$suite OVS_DBDIR=/mnt/$suite OVS_SYSCONFDIR=/mnt/$suite
    vsctl() { (in_tree "$tree" ovs-vsctl --db="unix:/mnt/$suite/db.sock" "$@"); }

    (in_tree "$tree" ovsdb-tool create "/mnt/$suite/conf.db" /usr/share/openvswitch/vswitch.ovsschema)
    in_tree "$tree" ovsdb-server "/mnt/$suite/conf.db" "--remote=punix:/mnt/$suite/db.sock" --unixctl="/mnt/$suite/db.ctl" \
        >"$here/ovsdb.log" 2>&1 &
    database=$!
    app_pids+=("$database")
    until_ok 10 "the database answers" vsctl --no-wait init
    mask=$(printf '0x%x' $((1 << app_cpu)))
    vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:pmd-cpu-mask=$mask \
        other_config:dpdk-lcore-mask=$mask other_config:per-port-memory=true \
        other_config:dpdk-extra="--no-huge --legacy-mem -m 512 --no-pci --no-telemetry --file-prefix ovs-$$ -d /mnt/librte_net_kopi.so"
    vsctl --no-wait add-br br0 -- set bridge br0 datapath_type=netdev "other-config:hwaddr=\"$mac\"" \
        -- add-port br0 kopi0 -- set Interface kopi0 type=dpdk \
        "options:dpdk-devargs=\"net_kopi0,socket=/mnt/kopi.sock,name=ovs,mac=$mac\""
    RUNTIME_DIRECTORY=/mnt/$suite in_tree "$tree" $vswitchd "unix:/mnt/$suite/db.sock" --unixctl="/mnt/$suite/ovs.ctl" \
        >"$here/ovs.log" 2>&1 &
    app_pid=$!
    app_pids+=("$app_pid")
    (until_ok 30 "Open vSwitch runs" app_is ovs running) || die "$(head -n 40 "$here/ovs.log")"
    until_ok 10 "the bridge is there" ip -n "$home" link set br0 up
    ip -n "$home" address add 10.77.0.2/24 dev br0
    until_ok 10 "the kernel behind the bridge answers" far ping -n -c 1 -W 1 10.77.0.2
    until_ok 20 "a hundred pings are answered" pinged 10.77.0.2 100
    rate=$(iperf home 2)

    stop_kopid KILL
    start_kopid
    until_ok 10 "it answers after a restart of kopid" far ping -n -c 1 -W 1 10.77.0.2
    kill -0 "$app_pid" || die "Open vSwitch has ended: $(tail -n 40 "$here/ovs.log")"
    printf '%s: %s Mbit/s of TCP; %s\n' "$(grep -om1 'Open vSwitch) [0-9.]*' "$here/ovs.log")" "$rate" \
        "$(vsctl get Interface kopi0 statistics | grep -o 'rx_packets=[0-9]*')"
    kill -TERM "$app_pid"
    # It ends by the signal, when it has tidied up.
    wait "$app_pid" || (($? == 128 + 15)) || die "Open vSwitch failed: $(tail -n 40 "$here/ovs.log")"
    kill_app "$database"
    # It stays behind.
    ip -n "$home" link del br0
    until_ok 10 "the port is gone" no_app ovs
done

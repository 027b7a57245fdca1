# Shared by ci/demo.sh and the scripts beside this file; not run by itself. It gives a script a folder, a network
# namespace, kopid and applications, all of which go when the script ends, however it ends.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${CARGO_TARGET_DIR:-$root/target}/release

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}
[[ $EUID -eq 0 ]] || die "run as root: network namespaces need it"
[[ -x $bin/kopid && -x $bin/kopictl && -e $bin/librte_net_kopi.so ]] || die "build first: cargo build --release"

# EAL refuses a driver in a folder below one that everybody may write to, such as /tmp, and other users may not look
# into root's home: so the folder is here, and the driver is copied into it.
work=/var/cache/kopi-demo-$$
netns=kopi-demo-$$
near=kd$$
home=kopi-home-$$
kopid_pid=
app_pids=()
# Where kopid runs, if it is not here.
kopid_in=()

cleanup() {
    local status=$?
    trap - EXIT
    set +e
    local pid
    for pid in "${app_pids[@]}" $kopid_pid ${ping_pid:-}; do
        kill_app "$pid"
    done
    ip link del "$near" 2>/dev/null
    ip netns del "$netns" 2>/dev/null
    ip netns del "$home" 2>/dev/null
    if ((status != 0)) && [[ -e $work/kopid.log ]]; then
        printf -- '---- kopid ----\n' >&2
        tail -n 20 "$work/kopid.log" >&2
    fi
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
install -d -m 755 "$work"
# The loader, and the drivers of all releases, which it looks for beside itself.
install -m 755 "$bin"/librte_net_kopi.so "$bin"/librte_net_kopi-*.so "$work"
driver=$work/librte_net_kopi.so

# until_ok SECONDS WHAT COMMAND...: runs the command until it succeeds.
until_ok() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < limit)) || die "waited in vain: $what"
        sleep 0.02
    done
}

# The first CPU is for kopid's worker, the last for the applications.
cpus=$(awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status)
worker_cpu=${cpus%%[-,]*}
app_cpu=${cpus##*[-,]}

# The wire: a veth pair. Its far end is in a namespace of its own, with the kernel's network stack behind it, at
# 10.77.0.1. Offloads are off, because on this wire nobody ever finishes the frames that they leave unfinished.
make_wire() {
    ip netns add "$netns"
    ip link add "$near" type veth peer name far0 netns "$netns"
    ip netns exec "$netns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1
    sysctl -qw "net.ipv6.conf.$near.disable_ipv6=1"
    local offload
    for offload in rx tx sg tso gso gro; do
        ethtool -K "$near" "$offload" off >/dev/null 2>&1 || true
        ip netns exec "$netns" ethtool -K far0 "$offload" off >/dev/null 2>&1 || true
    done
    ip -n "$netns" address add 10.77.0.1/24 dev far0
    ip -n "$netns" link set far0 up
    ip link set "$near" up
}

# Moves the near end of the wire into a namespace of its own, as the interface of a machine with the address 10.77.0.2, and has
# kopid run there. So the kernel's port of kopid's is that of this namespace's kernel.
make_home() {
    ip netns add "$home"
    ip link set "$near" netns "$home"
    at_home sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip -n "$home" link set lo up
    ip -n "$home" address add 10.77.0.2/24 dev "$near"
    ip -n "$home" link set "$near" up
    kopid_in=(ip netns exec "$home")
}

at_home() { ip netns exec "$home" "$@"; }

# Has the kernel's port take the place of the wire's interface, or the other way round with --undo.
takeover() {
    at_home "$bin/kopictl" --socket "$work/control.sock" takeover "$near" --state "$work/takeover.json" "$@" >/dev/null
}

# write_config DEVICE: the daemon's configuration.
write_config() {
    cat >"$work/kopid.toml" <<TOML
[wire]
device = "$1"

[dataplane]
cores = [$worker_cpu]

[socket]
path = "$work/kopi.sock"
mode = "0666"          # every user may attach; a group is the better choice on a real machine

[control]
path = "$work/control.sock"
TOML
}

# A machine with all of that: the wire, a home for its near end, and a configuration with policy.toml and a port for the kernel.
make_machine() {
    make_wire
    make_home
    write_config "net_af_packet0,iface=$near"
    sed -i '1i policy = "policy.toml"' "$work/kopid.toml"
    printf '[host]\ntap = "kopi0"\n' >>"$work/kopid.toml"
}

# iperf TO SECONDS: Mbit/s of one connection between the two kernels, with the kernel at home as receiver ("home") or sender
# ("far").
iperf() {
    local reverse=()
    [[ $1 == home ]] || reverse=(-R)
    # It ends with the connection, and by itself if there is none: in a subshell nobody could take its pid down.
    at_home timeout 60 iperf3 -s -1 >/dev/null 2>&1 &
    until_ok 20 "iperf3 waits" at_home sh -c 'ss -Hltn sport = :5201 | grep -q .'
    far iperf3 -c 10.77.0.2 -t "$2" "${reverse[@]}" -J >"$work/iperf.json" || die "iperf3: $(<"$work/iperf.json")"
    python3 -c "import json; print(int(json.load(open('$work/iperf.json'))['end']['sum_received']['bits_per_second'] / 1e6))"
}

kopictl() { "$bin/kopictl" --socket "$work/control.sock" "$@"; }

# Starts kopid and waits until it answers; fails if it ends instead. Its pid is in $kopid_pid.
start_kopid() {
    RUNTIME_DIRECTORY=$work "${kopid_in[@]}" "$bin/kopid" --config "$work/kopid.toml" >>"$work/kopid.log" 2>&1 &
    kopid_pid=$!
    until kopictl status >/dev/null 2>&1; do
        kill -0 "$kopid_pid" 2>/dev/null || return 1
        sleep 0.02
    done
}

# stop_kopid SIGNAL: and waits for its end.
stop_kopid() {
    { kill "-$1" "$kopid_pid" && wait "$kopid_pid"; } 2>/dev/null || true
    kopid_pid=
}

# start_app NAME USER MAC MODE [ARGUMENT...]: an unmodified dpdk-testpmd through the driver, without huge pages and
# without rights, in forward mode MODE. USER may be a number that has no name. Options of EAL's that it is to have besides
# are in $eal_options. Waits until kopid serves it. Its pid is in $app_pid.
eal_options=()
start_app() {
    local name=$1 user=$2 mac=$3 mode=$4 group
    shift 4
    group=$(id -g "$user" 2>/dev/null) || group=$user
    # Where EAL keeps its lock, and an input that stays open.
    install -d -m 700 -o "$user" "$work/$name"
    mkfifo "$work/$name.in"
    RUNTIME_DIRECTORY=$work/$name setpriv --reuid "$user" --regid "$group" --clear-groups \
        dpdk-testpmd --lcores "0@$app_cpu,1@$app_cpu" --no-huge -m 192 --no-pci --no-telemetry \
        --file-prefix "$name" -d "$driver" \
        --vdev "net_kopi0,socket=$work/kopi.sock,name=$name,mac=$mac" "${eal_options[@]}" \
        -- -i --auto-start --forward-mode="$mode" --total-num-mbufs=4096 "$@" \
        <>"$work/$name.in" >"$work/$name.log" 2>&1 &
    app_pid=$!
    app_pids+=("$app_pid")
    until_ok 20 "$name runs" app_is "$name" running
}

# start_sleeper NAME MAC [poll]: the example that waits for frames and echoes UDP, through the driver. Its pid is in $app_pid.
start_sleeper() {
    local name=$1 mac=$2
    [[ -x $work/build/sleeper ]] || make -s -C "$root/examples/sleeper" BUILD="$work/build"
    install -d "$work/$name"
    : >"$work/$name.log"
    RUNTIME_DIRECTORY=$work/$name "$work/build/sleeper" --lcores "0@$app_cpu" --no-huge -m 128 --no-pci --no-telemetry \
        --file-prefix "$name-$$" -d "$work/librte_net_kopi.so" \
        --vdev "net_kopi0,socket=$work/kopi.sock,name=$name,mac=$mac" -- "${@:3}" >"$work/$name.log" 2>&1 &
    app_pid=$!
    app_pids+=("$app_pid")
    until_ok 20 "$name runs" grep -q ready "$work/$name.log"
}

# kill_app PID: kill -9, without bash's word about it.
kill_app() { { kill -9 "$1" && wait "$1"; } 2>/dev/null || true; }

# app_is NAME STATE: whether the app is attached and in this state.
app_is() { kopictl apps | awk -v name="$1" -v state="$2" '$2 == name && $7 == state { found = 1 } END { exit !found }'; }

# no_app NAME: whether no such app is attached.
no_app() { ! kopictl apps | awk -v name="$1" '$2 == name { found = 1 } END { exit !found }'; }

# Testpmd's icmpecho answers a ping to any address, and ARP requests for any address as well. With two of them on one
# wire both would answer every ARP request, so the kernel is told which address is behind which MAC.
neighbour() { ip -n "$netns" neigh replace "$1" lladdr "$2" dev far0; }

# json COMMAND EXPRESSION: the value of a Python expression over the rows of kopictl's answer.
json() {
    kopictl --json "$1" | python3 -c "import json, sys; rows = json.load(sys.stdin)['$1']; print($2)"
}

far() { ip netns exec "$netns" "$@"; }

# pinged ADDRESS COUNT: whether the far end gets so many answers. Ping does not wait for late ones, so on a busy machine it may take
# more than one attempt.
pinged() { far ping -n -q -c "$2" -i 0.01 "$1" | grep -q " $2 received"; }

# cpu_ms PID: the milliseconds of processor that the threads of a process have used. By the scheduler's own clock: the tick of 10 ms
# charges whoever runs at that moment with all of it.
cpu_ms() { cat "/proc/$1"/task/*/schedstat | awk '{ ns += $1 } END { print int(ns / 1000000) }'; }

# used SECONDS PID...: how many milliseconds each of them uses in that time.
used() {
    local pid before=() seconds=$1
    shift
    for pid in "$@"; do before+=("$(cpu_ms "$pid")"); done
    sleep "$seconds"
    for pid in "$@"; do
        printf '%d ' $(($(cpu_ms "$pid") - before[0]))
        before=("${before[@]:1}")
    done
    echo
}

# echoes ADDRESS N: the kernel behind the wire sends N datagrams, each after the answer to the one before, and pauses in between.
echoes() {
    far python3 - "$1" "$2" <<'PY'
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect((sys.argv[1], 7))
for i in range(int(sys.argv[2])):
    time.sleep(0.05)
    s.send(b"%d" % i)
    assert s.recv(100) == b"%d" % i
PY
}

# has_feature ROW: whether shim/kopi.ini claims it, wholly or partly.
has_feature() { grep -Eq "^$1 *= *[YP]" "$root/shim/kopi.ini"; }

# The trees of other Debians that ci/releases.sh makes.
cache=${KOPI_CACHE:-/var/cache/kopi}

# What runs before in_tree's commands, and as whom they run.
tree_in=()
tree_user=65534:65534

# in_tree TREE COMMAND...: becomes that command there, with $work at /mnt. The mounts go with it.
in_tree() {
    local tree=$1
    shift
    exec "${tree_in[@]}" unshare --mount --propagation private bash -c '
        tree=$1 work=$2 user=$3
        shift 3
        for at in proc sys dev; do mount --rbind "/$at" "$tree/$at"; done
        mount --bind "$work" "$tree/mnt"
        # A tree has no locales.
        LC_ALL=C exec chroot --userspec="$user" "$tree" "$@"' bash "$tree" "$work" "$tree_user" "$@"
}

# Has in_tree run commands as root, in a namespace of their own: for who makes interfaces.
root_at_home() {
    ip netns add "$home"
    ip -n "$home" link set lo up
    tree_in=(ip netns exec "$home")
    tree_user=0:0
}

# has_program SUITE PROGRAM: whether the tree has it; if not, that is said.
has_program() {
    [[ ! -x $cache/$1/root$2 ]] || return 0
    printf '\n    SKIPPED: %s of %s: there is no tree that has it\n\n' "$(basename "$2")" "$1"
    return 1
}

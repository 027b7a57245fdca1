#!/usr/bin/env bash
# Applications with the DPDK of Debian 12 (22.11), 13 (24.11) and forky (25.11) at one kopid, through one
# librte_net_kopi.so: four queues, jumbo frames, reload, restart, sleep; kopid with the DPDK of Debian 13; DPDK that is linked in, or
# in a plugin; and a release for which there is no driver. The other Debians are trees of ci/releases.sh; where those cannot be
# had, this says so and goes on with what is there.
source "$(dirname "$0")/lib.sh"

"$root/ci/releases.sh"

# start_release NAME TREE MAC ARGUMENT...: dpdk-testpmd of a tree, "" for this machine's own; as start_app otherwise.
start_release() {
    local name=$1 tree=$2 mac=$3 here=$work run=(setpriv --reuid nobody --regid nogroup --clear-groups)
    shift 3
    [[ -z $tree ]] || { here=/mnt run=(in_tree "$tree"); }
    install -d -m 700 -o nobody "$work/$name"
    [[ -e $work/$name.in ]] || mkfifo "$work/$name.in"
    RUNTIME_DIRECTORY=$here/$name "${run[@]}" \
        dpdk-testpmd --lcores "0@$app_cpu,1@$app_cpu" --no-huge -m 192 --no-pci --file-prefix "$name" \
        -d "$here/librte_net_kopi.so" --vdev "net_kopi0,socket=$here/kopi.sock,name=$name,mac=$mac" \
        -- -i --auto-start --forward-mode=icmpecho --total-num-mbufs=4096 "$@" \
        <>"$work/$name.in" >"$work/$name.log" 2>&1 &
    app_pid=$!
    app_pids+=("$app_pid")
    # In a shell of its own, so that there is more to be said of a failure.
    (until_ok 20 "$name runs" app_is "$name" running) || die "$(<"$work/$name.log")"
}

# answers: every application answers, and with jumbo frames.
answers() {
    local i
    for i in "${!names[@]}"; do
        until_ok 10 "${names[i]} answers ($1)" far ping -n -c 1 -W 1 "10.77.0.$((i + 2))"
        until_ok 10 "${names[i]} answers jumbo frames ($1)" \
            far ping -n -c 1 -W 1 -M do -s 8972 "10.77.0.$((i + 2))"
    done
}

# telemetry NAME MAC: what that application's DPDK tells of its port, which has answered.
telemetry() {
    python3 - "$work/$1/dpdk/$1/dpdk_telemetry.v2" "$2" <<'PY'
import json, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(5)
s.connect(sys.argv[1])
version = json.loads(s.recv(65536))["version"]
def ask(command):
    s.send(command.encode())
    return json.loads(s.recv(65536))[command.split(",")[0]]
ports, link, info, xstats = map(ask, ["/ethdev/list", "/ethdev/link_status,0", "/ethdev/info,0", "/ethdev/xstats,0"])
assert ports == [0], ports
assert (link["status"], link["duplex"]) == ("UP", "full-duplex"), link
seen = [str(info[key]).lower() for key in ("name", "mac_addr", "mtu", "nb_rx_queues", "nb_tx_queues", "dev_started")]
assert seen == ["net_kopi0", sys.argv[2], "9000", "4", "4", "1"], info
assert xstats["rx_good_packets"] > 0 and xstats["tx_good_packets"] > 0 and "rx_kopi_link_down" in xstats, xstats
print("%s: telemetry of a port with %d statistics" % (version, len(xstats)))
PY
}

# with_dpdk TREE COMMAND...: has what compiles find the DPDK of that tree, "" for this machine's own.
with_dpdk() (
    if [[ -n $1 ]]; then
        export PKG_CONFIG_PATH= PKG_CONFIG_SYSROOT_DIR=$1
        export PKG_CONFIG_LIBDIR=$1/usr/lib/x86_64-linux-gnu/pkgconfig:$1/usr/share/pkgconfig
        export CFLAGS=--sysroot=$1 LDFLAGS=--sysroot=$1
    fi
    shift
    "$@"
)

# start_sleeper_of NAME TREE MAC: the example that waits for frames, built against the DPDK of a tree and run there, as nobody.
start_sleeper_of() {
    local name=$1 tree=$2 mac=$3 here=$work run=(setpriv --reuid nobody --regid nogroup --clear-groups)
    [[ -z $tree ]] || { here=/mnt run=(in_tree "$tree"); }
    with_dpdk "$tree" make -s -C "$root/examples/sleeper" BUILD="$work/build/$name"
    install -d -m 700 -o nobody "$work/$name-sleeps"
    RUNTIME_DIRECTORY=$here/$name-sleeps "${run[@]}" "$here/build/$name/sleeper" \
        --lcores "0@$app_cpu" --no-huge -m 128 --no-pci --no-telemetry --file-prefix "$name-sleeps" \
        -d "$here/librte_net_kopi.so" --vdev "net_kopi0,socket=$here/kopi.sock,name=$name,mac=$mac" \
        >"$work/$name-sleeper.log" 2>&1 &
    app_pid=$!
    app_pids+=("$app_pid")
    (until_ok 20 "$name runs" grep -q ready "$work/$name-sleeper.log") || die "$(<"$work/$name-sleeper.log")"
}

# refused LOG LINE: whether the driver has said one line, and this.
refused() {
    local said
    mapfile -t said < <(grep 'net_kopi: ' "$1")
    [[ ${#said[@]} == 1 ]] || die "${#said[@]} lines for one refusal: $(<"$1")"
    [[ ${said[0]} =~ $2 ]] || die "not the line that was expected: $(<"$1")"
}

make_wire
ip link set "$near" mtu 9000
ip -n "$netns" link set far0 mtu 9000
write_config "net_af_packet0,iface=$near"
sed -i 's/^\[wire\]$/[wire]\nmtu = 9000/; 1i policy = "policy.toml"' "$work/kopid.toml"
: >"$work/policy.toml"
start_kopid

names=() trees=() pids=()
add() { # NAME TREE
    names+=("$1")
    trees+=("$2")
    start_release "$1" "$2" "02:00:00:00:00:0$((${#names[@]} + 1))" \
        --rxq=4 --txq=4 --nb-cores=1 --mbuf-size=9600 --max-pkt-len=9022
    pids+=("$app_pid")
    neighbour "10.77.0.$((${#names[@]} + 1))" "02:00:00:00:00:0$((${#names[@]} + 1))"
}
add debian12 ""
for suite in trixie forky; do
    if [[ -e $cache/$suite/complete ]]; then
        add "$suite" "$cache/$suite/root"
    else
        printf '\n    SKIPPED: applications of %s: there is no tree of it\n\n' "$suite"
    fi
done

answers "attached"
for i in "${!names[@]}"; do
    telemetry "${names[i]}" "02:00:00:00:00:0$((i + 2))" || die "${names[i]} tells something else of its port"
done
[[ $(kopictl apps | grep -c ' 4/4 ') == "${#names[@]}" ]] || die "not all have four queues: $(kopictl apps)"

# A policy is reloaded, and taken back.
printf '[[rule]]\nname = "no-pings"\nmatch = { proto = "icmp" }\naction = "drop"\n' >"$work/policy.toml"
kopictl reload >/dev/null
for i in "${!names[@]}"; do
    ! far ping -n -q -c 1 -W 0.3 "10.77.0.$((i + 2))" >/dev/null || die "${names[i]} answers in spite of the policy"
done
: >"$work/policy.toml"
kopictl reload >/dev/null
answers "after a reload"

# kopid is killed and comes back.
stop_kopid KILL
start_kopid
answers "after a restart of kopid"

# Kopid itself with the DPDK of Debian 13, in its tree, and the same applications. It is not optimised, and not to be measured.
other=${CARGO_TARGET_DIR:-$root/target}/trixie/kopid
if [[ -x $other && -e $cache/trixie/complete ]]; then
    install -m 755 "$other" "$work/kopid-24.11"
    sed "s|$work|/mnt|" "$work/kopid.toml" >"$work/kopid-24.11.toml"
    stop_kopid KILL
    tree_user=0:0 RUNTIME_DIRECTORY=/mnt in_tree "$cache/trixie/root" /mnt/kopid-24.11 --config /mnt/kopid-24.11.toml \
        >>"$work/kopid.log" 2>&1 &
    kopid_pid=$!
    until_ok 20 "kopid of 24.11 answers" kopictl status
    kopictl status | grep -q '24\.11' || die "not the DPDK that was expected: $(kopictl status)"
    answers "at a kopid with DPDK 24.11"
    stop_kopid TERM
    start_kopid
    answers "back at kopid with this machine's DPDK"
else
    printf '\n    SKIPPED: kopid with DPDK 24.11: run ci/releases.sh kopid trixie\n\n'
fi
for pid in "${pids[@]}"; do
    kill -0 "$pid" || die "an application has ended"
    kill_app "$pid"
done

# An application of each release sleeps, all at the same time; a frame wakes it, it answers, and it sleeps again.
pids=()
for i in "${!names[@]}"; do
    until_ok 5 "the port of ${names[i]} is gone" no_app "${names[i]}"
    start_sleeper_of "${names[i]}" "${trees[i]}" "02:00:00:00:00:0$((i + 2))"
    pids+=("$app_pid")
done
for round in 1 2; do
    for i in "${!names[@]}"; do
        echoes "10.77.0.$((i + 2))" 5
    done
    sleep 0.3
    read -ra used_ms < <(used 2 "${pids[@]}")
    for i in "${!names[@]}"; do
        # Who polls alone on a core uses 2000 ms.
        ((used_ms[i] < 30)) || die "the sleeping application of ${names[i]} has used ${used_ms[i]} ms in 2 s"
    done
done
for i in "${!names[@]}"; do
    kill -TERM "${pids[i]}"
    wait "${pids[i]}" || die "the sleeper of ${names[i]} failed: $(<"$work/${names[i]}-sleeper.log")"
    line=$(tail -n 1 "$work/${names[i]}-sleeper.log")
    printf '%s: %s ms of processor in 2 s; %s\n' "${names[i]}" "${used_ms[i]}" "$line"
    [[ $line =~ ^'echoed 10 datagrams'.*'was woken '([0-9]+) ]] && ((BASH_REMATCH[1] >= 5)) ||
        die "the sleeper of ${names[i]} was not woken by them: $line"
done

# A program that has DPDK in a plugin of its own, opened for itself alone, as VPP does; and one that has it linked in.
cat >"$work/plugin.c" <<'C'
#include <stdio.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_version.h>
int start(int argc, char **argv)
{
    if (rte_eal_init(argc, argv) < 0)
        return 1;
    printf("%s: %u ports\n", rte_version(), rte_eth_dev_count_avail());
    return rte_eal_cleanup();
}
#ifdef LINKED_IN
int main(int argc, char **argv) { return start(argc, argv); }
#endif
C
cat >"$work/main.c" <<'C'
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    void *plugin = dlopen(argv[1], RTLD_LAZY);
    if (plugin == NULL)
        return puts(dlerror()), 1;
    int (*start)(int, char **) = (int (*)(int, char **))dlsym(plugin, "start");
    argv[1] = argv[0];
    return start(argc - 1, argv + 1);
}
C
eal=(--lcores "0@$app_cpu" --no-huge -m 64 --no-pci --no-telemetry)
read -ra flags <<<"$(pkg-config --cflags libdpdk)"
read -ra libs <<<"$(pkg-config --libs libdpdk)"
cc "${flags[@]}" -shared -fPIC -o "$work/plugin.so" "$work/plugin.c" "${libs[@]}"
cc -o "$work/main" "$work/main.c" -ldl
# By name, of which the system finds a link: the drivers are beside what it leads to.
install -d "$work/linked"
ln -s ../librte_net_kopi.so "$work/linked"
LD_LIBRARY_PATH=$work/linked${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} RUNTIME_DIRECTORY=$work "$work/main" "$work/plugin.so" "${eal[@]}" --file-prefix "plugin-$$" \
    -d librte_net_kopi.so \
    --vdev "net_kopi0,socket=$work/kopi.sock,name=plugin" >"$work/plugin.log" 2>&1 || die "$(<"$work/plugin.log")"
grep -q ': 1 ports' "$work/plugin.log" || die "DPDK in a plugin: $(<"$work/plugin.log")"

tree=$cache/trixie/root
if [[ -e $cache/trixie/complete ]]; then
    read -ra flags <<<"$(with_dpdk "$tree" pkg-config --cflags libdpdk)"
    read -ra libs <<<"$(with_dpdk "$tree" pkg-config --static --libs libdpdk)"
    # Debian's archives have notes for the link-time optimisation of its own compiler.
    cc --sysroot="$tree" -fno-use-linker-plugin -DLINKED_IN "${flags[@]}" -o "$work/static" "$work/plugin.c" "${libs[@]}"
    install -d -m 700 -o nobody "$work/static.run"
    (RUNTIME_DIRECTORY=/mnt/static.run in_tree "$tree" /mnt/static "${eal[@]}" --file-prefix "static-$$" \
        -d /mnt/librte_net_kopi.so --vdev net_kopi0,socket=/mnt/kopi.sock,name=static) >"$work/static.log" 2>&1 ||
        die "$(<"$work/static.log")"
    grep -q '24.11.*: 1 ports' "$work/static.log" || die "DPDK linked in: $(<"$work/static.log")"
fi

# A release without a driver is refused in one line, and so is a driver that others may write to.
printf 'const char *rte_version(void) { return "DPDK 24.07.0"; }\n' >"$work/fake.c"
cc -shared -fPIC -o "$work/fake.so" "$work/fake.c"
refuse() {
    ! RUNTIME_DIRECTORY=$work "$@" dpdk-testpmd "${eal[@]}" --file-prefix "refused-$$" -d "$work/librte_net_kopi.so" \
        --vdev "net_kopi0,socket=$work/kopi.sock" -- --total-num-mbufs=2048 </dev/null >"$work/refused.log" 2>&1 ||
        die "an application runs with a driver that is refused: $(<"$work/refused.log")"
}
refuse env LD_PRELOAD="$work/fake.so"
refused "$work/refused.log" 'runs DPDK 24.07.0, .*22.11, 23.11, 24.11, 25.11'
chmod o+w "$work"/librte_net_kopi-*.so
refuse env
refused "$work/refused.log" 'can be written by others'
printf '%s\n' "${names[*]}: attached, four queues, jumbo frames, reload, restart, sleep"

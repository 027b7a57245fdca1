#!/usr/bin/env bash
# Shows kopi on one machine, without a network card. Run it as root; it prepares the machine, builds, and leaves nothing
# behind but that. What it shows:
#
#   kernel (10.77.0.1) --- veth pair --- kopid --+-- dpdk-testpmd of user nobody (10.77.0.2)
#   in a namespace         "the wire"            +-- dpdk-testpmd of user games  (10.77.0.3)
#
# Both applications are Debian's own dpdk-testpmd, unchanged, answering pings. The kernel pings both through kopid;
# kopictl shows whose they are; a policy refuses the pings to one of them; that one is killed and its port goes; kopid is
# killed, and when it is back the other one goes on as if its network cable had been out for a moment.
#
#   ci/demo.sh          shows that
#   ci/demo.sh --keep   the same, and leaves all of it up to play with
#   ci/demo.sh --down   takes down what --keep has left
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# What is up: the folder, the namespace, the interface and the processes of the lab that was kept.
kept=/run/kopi-demo.kept
[[ $EUID -eq 0 ]] || { echo "demo.sh: run as root: network namespaces need it" >&2; exit 1; }

# Takes down the lab that was kept.
down() {
    [[ -e $kept ]] || { echo "demo.sh: no lab is up"; exit 0; }
    local work netns near pids pid
    read -r work netns near pids <"$kept"
    for pid in $pids; do
        # A number may be somebody else's by now; the command line of each of ours names the lab's folder.
        ! grep -qsF "$work/" "/proc/$pid/cmdline" || kill -9 "$pid"
    done
    for pid in $pids; do
        while grep -qsF "$work/" "/proc/$pid/cmdline"; do sleep 0.02; done
    done
    ip link del "$near" 2>/dev/null || true
    ip netns del "$netns" 2>/dev/null || true
    rm -rf "$work" "$kept"
    echo "demo.sh: the lab is down"
    exit 0
}

case ${1:-} in
'' | --keep) ;;
--down) down ;;
*)
    echo "usage: ci/demo.sh [--keep | --down]" >&2
    exit 2
    ;;
esac
keep=${1:-}
if [[ -n $keep && -e $kept ]]; then
    echo "demo.sh: a lab is up already: ci/demo.sh --down takes it down" >&2
    exit 1
fi
"$here/setup.sh"
(cd "$here/.." && cargo build --release -p kopi-dataplane -p kopi-ctl -p 'kopi-driver*')

source "$here/smoke/lib.sh"
mac_a=02:00:00:00:00:0a
mac_b=02:00:00:00:00:0b
begun=$SECONDS

# pinged_since TIME: whether the pings in the background were answered after that time.
pinged_since() { awk -v since="$1" -F'[][]' '/bytes from/ && $2 > since { found = 1 } END { exit !found }' "$work/ping.log"; }

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() {
    printf '$ %s\n' "$*"
    "$@"
}

# pings ADDRESS: sends 20 and prints ping's two lines of statistics.
pings() { far ping -n -q -c 20 -i 0.05 "$1" | tail -n 2; }

# keep_lab: starts bob's application again, says what there is to try, and leaves all of it to `ci/demo.sh --down`.
keep_lab() {
    say "the lab stays up"
    rm -f "$work/bob.in"
    start_app bob games "$mac_b" icmpecho
    until_ok 10 "bob answers" far ping -n -c 1 -W 1 10.77.0.3
    echo "$work $netns $near $kopid_pid $pid_a $app_pid" >"$kept"
    trap - EXIT
    cat <<LAB
kopid serves alice (10.77.0.2) and bob (10.77.0.3). In a shell of root's:

    export PATH="$bin:\$PATH" KOPI_CONTROL=$work/control.sock

    ip netns exec $netns ping 10.77.0.3           # from the kernel at the other end of the wire
    kopictl top                                    # h shows the keys
    kopictl apps --wide
    kopictl flows
    kopictl capture -c 5 icmp                      # each packet with its process
    kopictl reload $work/policy.toml --confirm 60  # bob is not pinged, for a minute
    kopictl drops

    $here/demo.sh --down                           # takes all of it down
LAB
    exit 0
}

say "a wire with a kernel behind it, and kopid on the near end"
make_wire
# AF_XDP where the machine has it, else packet sockets: kopid takes any DPDK device.
for device in net_af_xdp0 net_af_packet0; do
    write_config "$device,iface=$near"
    ! start_kopid || break
done
show kopictl status

say "two unmodified dpdk-testpmd, of two users, without root's rights"
start_app alice nobody "$mac_a" icmpecho
pid_a=$app_pid
start_app bob games "$mac_b" icmpecho
pid_b=$app_pid
neighbour 10.77.0.2 "$mac_a"
neighbour 10.77.0.3 "$mac_b"
for address in 10.77.0.2 10.77.0.3; do
    until_ok 10 "$address answers" far ping -n -c 1 -W 1 "$address"
done

say "the kernel pings both"
for address in 10.77.0.2 10.77.0.3; do
    pings "$address"
done

say "kopictl knows whose they are, and counts"
show kopictl apps
show kopictl stats
show kopictl drops

say "a policy, under traffic: applications of user games are not to be pinged"
cat >"$work/policy.toml" <<'TOML'
[[rule]]
name   = "no-ping-for-games"
match  = { direction = "ingress", icmp_type = "echo-request" }
owner  = { user = "games" }
action = "reject"
log    = true
TOML
show cat "$work/policy.toml"
show kopictl check "$work/policy.toml"
show kopictl reload "$work/policy.toml"
if refused=$(far ping -n -c 2 -i 0.2 -W 1 10.77.0.3); then
    die "bob is pinged although the policy rejects it: $refused"
fi
grep Unreachable <<<"$refused" || die "bob is not refused: $refused"
pings 10.77.0.2
show kopictl rules
show kopictl drops
show kopictl explain --app bob --ingress 'icmp 10.77.0.1 > 10.77.0.3'

say "bob's application is killed: its port goes at once"
killed=$(date +%s%N)
kill_app "$pid_b"
until_ok 5 "bob's port is gone" no_app bob
port_gone=$((($(date +%s%N) - killed) / 1000000))
show kopictl apps
# Two applications that poll shared one core until now, so every other ping waited for the other one's time slice.
rtt=$(pings 10.77.0.2 | sed -n 's|^rtt.* = [^/]*/\([^/]*\)/.*|\1|p')

say "kopid is killed under traffic, and started again"
ip netns exec "$netns" ping -n -D -i 0.02 -W 1 10.77.0.2 >"$work/ping.log" &
ping_pid=$!
until_ok 10 "pings are answered" grep -q 'icmp_seq=50 ' "$work/ping.log"
stop_kopid KILL
restarted=$(date +%s%N)
start_kopid
ready=$(date +%s.%N)
until_ok 10 "pings are answered again" pinged_since "$ready"
back=$(awk -v ready="$ready" -F'[][]' '/bytes from/ && $2 > ready { printf "%.0f", ($2 - ready) * 1000; exit }' "$work/ping.log")
start_ms=$(awk -v from="$restarted" -v to="$ready" 'BEGIN { printf "%.0f", to * 1000 - from / 1000000 }')
blackout=$(awk -F'[][]' '/bytes from/ { if (last && $2 - last > most) most = $2 - last; last = $2 } END { printf "%.0f", most * 1000 }' "$work/ping.log")
kill "$ping_pid"
wait "$ping_pid" 2>/dev/null || true
ping_pid=
kill -0 "$pid_a" || die "alice's application has ended"
show kopictl apps
pings 10.77.0.2

if [[ -z $keep ]]; then
    say "kopid is asked to stop"
    stop_kopid TERM
    [[ ! -e $work/kopi.sock ]] || die "its socket is left behind"
fi

say "seen in $((SECONDS - begun)) s"
cat <<SUMMARY
wire                     $device over a veth pair
ping to an application   $rtt ms on average, through kernel, kopid and driver and back
owners                   alice is pid $pid_a of user nobody, bob was pid $pid_b of user games
bob refused              pings to him were answered as unreachable, by a rule for his user, and alice's went on
bob killed               his port was gone after $port_gone ms
kopid killed             it took $start_ms ms to start again, and alice answered $back ms after it was ready;
                         the longest gap between two answers was $blackout ms, and alice is the same process
SUMMARY
[[ -z $keep ]] || keep_lab

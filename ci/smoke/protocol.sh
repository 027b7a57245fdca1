#!/usr/bin/env bash
# A driver of protocol 2 at this kopid, and this driver at a kopid of protocol 2: attached with four queues, pinged, under a policy
# that is reloaded, over restarts of kopid, and over an upgrade and a downgrade of it. The old ones are those of ci/protocol2.sh;
# where those cannot be had, this says so.
source "$(dirname "$0")/lib.sh"

old=${KOPI_CACHE:-/var/cache/kopi}/protocol2
new=$bin
"$root/ci/protocol2.sh" >"$work/build.log" 2>&1 || die "$(tail -n 30 "$work/build.log")"
if [[ ! -x $old/kopid ]]; then
    cat "$work/build.log"
    exit
fi
install -d "$work/protocol2"
install -m 755 "$old/librte_net_kopi.so" "$work/protocol2"

make_wire
write_config "net_af_packet0,iface=$near"
sed -i '1i policy = "policy.toml"' "$work/kopid.toml"
: >"$work/policy.toml"

mac=02:00:00:00:00:0a
neighbour 10.77.0.2 $mac

# answers WHEN: a hundred pings, none lost, of both small and long frames.
answers() {
    local size
    until_ok 10 "the application answers ($1)" far ping -n -c 1 -W 1 10.77.0.2
    for size in 56 1472; do
        until_ok 10 "a hundred pings are answered ($1)" eval \
            "far ping -n -q -c 100 -i 0.005 -M do -s $size 10.77.0.2 | grep -q '100 received'"
    done
}

# protocol SOURCE: what kopid of that tree speaks.
protocol() { "$1/kopid" --version | grep -o 'protocol [0-9]*'; }
[[ $(protocol "$old") == 'protocol 2' && $(protocol "$new") != 'protocol 2' ]] ||
    die "not the versions that were expected: $(protocol "$old"), $(protocol "$new")"

# upgraded TO WHAT: kopid is killed, and the one of folder TO comes in its place.
upgraded() {
    stop_kopid KILL
    bin=$1
    start_kopid
    answers "$2"
}

for name in old new; do
    if [[ $name == old ]]; then
        driver=$work/protocol2/librte_net_kopi.so bin=$new other=$old
    else
        driver=$work/librte_net_kopi.so bin=$old other=$new
    fi
    same=$bin
    start_kopid
    start_app "$name" nobody $mac icmpecho --rxq=4 --txq=4
    answers "$name driver, attached"
    kopictl apps | grep -q " $name .* 4/4 " || die "not four queues: $(kopictl apps)"

    printf '[[rule]]\nname = "no-pings"\nmatch = { proto = "icmp" }\naction = "drop"\n' >"$work/policy.toml"
    kopictl reload >/dev/null
    ! far ping -n -q -c 2 -i 0.1 -W 0.3 10.77.0.2 >/dev/null || die "$name driver: it answers in spite of the policy"
    : >"$work/policy.toml"
    kopictl reload >/dev/null
    answers "$name driver, after a reload"

    upgraded "$same" "$name driver, after a restart"
    upgraded "$other" "$name driver, kopid of the other version"
    upgraded "$same" "$name driver, and back"
    kill -0 "$app_pid" || die "the application has ended"
    kopictl apps
    # It takes leave, and the port goes.
    printf 'quit\n' >"$work/$name.in"
    wait "$app_pid" || die "the application failed: $(tail -n 5 "$work/$name.log")"
    until_ok 5 "the port is gone" no_app "$name"
    stop_kopid TERM
done

#!/usr/bin/env bash
# Sleep and wake-up: an application sleeps and uses next to no CPU, and so does kopid's worker; one packet wakes both, the
# application answers, and they sleep again. With EAL's epoll and with poll(2), with a worker that sleeps and one that polls.
source "$(dirname "$0")/lib.sh"

mac=02:00:00:00:00:0e

# stop_sleeper: ends it, and leaves what it says of itself in its log.
stop_sleeper() {
    kill -TERM "$app_pid"
    wait "$app_pid" || die "the sleeper failed: $(cat "$work/sleeper.log")"
}

make_wire
neighbour 10.77.0.9 $mac
for idle in adaptive poll; do
    write_config "net_af_packet0,iface=$near"
    sed -i "s/^\[dataplane\]/&\nidle = \"$idle\"/" "$work/kopid.toml"
    start_kopid
    for way in epoll poll; do
        start_sleeper sleeper $mac "$way"
        echoes 10.77.0.9 1
        for _ in 1 2; do
            sleep 0.3
            read -r app_ms kopid_ms < <(used 2 "$app_pid" "$kopid_pid")
            # Who polls uses 2000 ms. A wake-up costs up to a millisecond on some virtual machines, and a new table its first touch.
            ((app_ms < 30)) || die "the sleeping application has used $app_ms ms in 2 s"
            if [[ $idle == adaptive ]]; then
                echo "kopid $kopid_ms ms, application $app_ms ms"
                # Its threads look after things a few times a second: five milliseconds in all, and several times that on slow machines.
                ((kopid_ms < 150)) || die "the idle kopid has used $kopid_ms ms in 2 s"
            fi
            echoes 10.77.0.9 5
        done
        stop_sleeper
        printf '%s, %s: %s\n' "$idle" "$way" "$(tail -n 1 "$work/sleeper.log")"
        grep -q "echoed 11 datagrams" "$work/sleeper.log" || die "not every datagram was answered once"
    done
    stop_kopid TERM
done

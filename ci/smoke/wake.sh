#!/usr/bin/env bash
# Sleep and wake-up: an application sleeps and uses next to no CPU, and so does kopid's worker; one packet wakes both, the
# application answers, and they sleep again. With EAL's epoll and with poll(2), with a worker that sleeps and one that polls.
source "$(dirname "$0")/lib.sh"

mac=02:00:00:00:00:0e

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

# echoes N: the kernel behind the wire sends N datagrams, each after the answer to the one before, and pauses in between.
echoes() {
    far python3 - "$1" <<'PY'
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(("10.77.0.9", 7))
for i in range(int(sys.argv[1])):
    time.sleep(0.05)
    s.send(b"%d" % i)
    assert s.recv(100) == b"%d" % i
PY
}

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
        echoes 1
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
            echoes 5
        done
        stop_sleeper
        printf '%s, %s: %s\n' "$idle" "$way" "$(tail -n 1 "$work/sleeper.log")"
        grep -q "echoed 11 datagrams" "$work/sleeper.log" || die "not every datagram was answered once"
    done
    stop_kopid TERM
done

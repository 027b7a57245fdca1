#!/usr/bin/env bash
# One address, two owners: a kernel's server on port 80 and a DPDK application on port 8080 of the same IP address, at the same
# time. Neither can take the other's port.
source "$(dirname "$0")/lib.sh"

cat >"$work/policy.toml" <<'TOML'
default = { egress = "accept", ingress = "accept", attach = "refuse" }

[[app]]
name    = "web"
owner   = { user = "daemon" }
address = "shared"
listen  = ["tcp/8080", "udp/8080"]

[[app]]
name    = "client"
owner   = { user = "daemon" }
address = "shared"

[[app]]
name    = "thief"
owner   = { user = "daemon" }
address = "shared"
TOML

make_machine
start_kopid
takeover
until_ok 20 "the kernel is reached" far ping -n -c 1 -W 1 10.77.0.2
mac=$(json apps "next(r['mac'] for r in rows if r['name'] == 'host')")
peer=$(far cat /sys/class/net/far0/address)
start_app web daemon "$mac" 5tswap
[[ $(json apps "{r['mac'] for r in rows}") == "{'$mac'}" ]] || die "they do not share an address: $(kopictl apps)"

mkdir "$work/www"
echo kernel >"$work/www/who"
ip netns exec "$home" python3 -m http.server -d "$work/www" 80 >/dev/null 2>&1 &
app_pids+=($!)
until_ok 20 "the kernel's server answers" far python3 -c "import urllib.request; urllib.request.urlopen('http://10.77.0.2/who')"

# testpmd's 5tswap sends every packet back with its ends exchanged, so what a socket says comes back.
far python3 - <<'PYTHON' || die "the address does not have two owners: $(kopictl drops; kopictl status)"
import socket, threading, urllib.request
wrong = []

def kernel():
    for _ in range(50):
        if urllib.request.urlopen("http://10.77.0.2/who", timeout=15).read() != b"kernel\n":
            wrong.append("not the kernel")

def application(kind):
    for turn in range(50):
        with socket.socket(socket.AF_INET, kind) as s:
            s.settimeout(15)
            s.connect(("10.77.0.2", 8080))
            s.sendall(b"kopi%d" % turn)
            if s.recv(16) != b"kopi%d" % turn:
                wrong.append("not the application")

jobs = [(kernel, ()), (application, (socket.SOCK_STREAM,)), (application, (socket.SOCK_DGRAM,))]
def guard(job, arguments):
    try:
        job(*arguments)
    except OSError as error:
        wrong.append(f"{job.__name__}: {error}")
threads = [threading.Thread(target=guard, args=job) for job in jobs]
for thread in threads: thread.start()
for thread in threads: thread.join()
raise SystemExit("\n".join(wrong) if wrong else 0)
PYTHON
until_ok 20 "the kernel answers pings" pinged 10.77.0.2 20

# The kernel alone hears, and answers, who asks for the address.
"$bin/kopictl" --socket "$work/control.sock" capture 'arp[6:2] == 1' >"$work/asked" 2>"$work/capture.log" &
capture=$!
app_pids+=("$capture")
until_ok 20 "the capture runs" grep -q listening "$work/capture.log"
ip -n "$netns" neigh flush dev far0
far ping -n -q -c 1 -W 1 10.77.0.2 >/dev/null || die "the kernel does not answer for its address"
until_ok 20 "the kernel is asked" grep -q ' host in ' "$work/asked"
kill -INT "$capture" && wait "$capture"
! grep -q ' web ' "$work/asked" || die "an application is asked as well: $(<"$work/asked")"

# dropped APP: how many of its frames were dropped since they came from a port of somebody else's.
dropped() { (($(json drops "sum(r['packets'] for r in rows if (r['app'], r['reason']) == ('$1', 'port_not_leased'))") > 0)); }

# listen_for FILTER: waits for a frame of the machine's at the far end, in the background; the frame is in $work/seen then, and
# the pid in $tcpdump_pid.
listen_for() {
    ip netns exec "$netns" tcpdump -i far0 -n -c 1 "src host 10.77.0.2 and $1" >"$work/seen" 2>"$work/tcpdump" &
    tcpdump_pid=$!
    app_pids+=("$tcpdump_pid")
    until_ok 30 "tcpdump listens" grep -q listening "$work/tcpdump"
}

# An application may send from an ephemeral port of the kernel's once it is reserved.
listen_for 'udp src port 40000'
start_app client daemon "$mac" txonly --tx-ip=10.77.0.2,10.77.0.1 --tx-udp=40000,4000 --eth-peer=0,"$peer"
until_ok 20 "frames from an ephemeral port are dropped" dropped client
[[ ! -s $work/seen ]] || die "an application has sent from an ephemeral port of the kernel's: $(<"$work/seen")"
at_home sysctl -qw net.ipv4.ip_local_reserved_ports=40000
until_ok 20 "frames from a reserved port pass" test -s "$work/seen"
kill_app "$app_pid"
until_ok 20 "the client is gone" no_app client

# A program that sends from the application's port 8080, and an application that sends from the kernel's port 80: what is taken is
# a port of UDP, so the kernel has a socket there as well.
listen_for 'udp and (src port 80 or src port 8080)'
ip netns exec "$home" python3 -c "
import socket, time
taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
taken.bind(('10.77.0.2', 80))
thief = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
thief.bind(('10.77.0.2', 8080))
while True:
    thief.sendto(b'stolen', ('10.77.0.1', 4000))
    time.sleep(0.01)
" &
app_pids+=($!)
until_ok 20 "the kernel's frames are dropped" dropped host
start_app thief daemon "$mac" txonly --tx-ip=10.77.0.2,10.77.0.1 --tx-udp=80,4000 --eth-peer=0,"$peer"
until_ok 20 "the application's frames are dropped" dropped thief
kill_app "$tcpdump_pid"
[[ ! -s $work/seen ]] || die "a frame from the other's port is on the wire: $(<"$work/seen")"

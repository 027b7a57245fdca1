#!/usr/bin/env bash
# The kernel of this machine keeps its network card: kopid takes the interface over, and the kernel is pinged, serves and measures
# through its own port, beside two applications. Policy, flows and capture know its traffic as that of `host`. When kopid is
# killed, everything is back with one command.
source "$(dirname "$0")/lib.sh"

cat >"$work/policy.toml" <<'TOML'
default = { egress = "accept", ingress = "accept" }

[[rule]]
name   = "kernel-web"
match  = { direction = "ingress", proto = "tcp", dst_port = 80 }
owner  = { app = "host" }
action = "count"
TOML

make_machine
had=$(ip -n "$home" -brief address show "$near"; ip -n "$home" route)

bare_home=$(iperf home 2)
bare_far=$(iperf far 2)

start_kopid
takeover
until_ok 20 "the kernel is reached" far ping -n -c 1 -W 1 10.77.0.2
ip -n "$home" -brief address show kopi0 | grep -q 10.77.0.2/24 || die "the address is not on the kernel's port"

# The kernel's port does not keep a CPU busy when there is nothing to do: hundredths of a second in two seconds.
for task in "/proc/$kopid_pid/task"/*; do
    [[ $(<"$task/comm") == kopi-host ]] && host_task=$task
done
ticks() { awk '{ print $14 + $15 }' "$host_task/stat"; }
before=$(ticks)
sleep 2
idle=$(($(ticks) - before))
((idle <= 20)) || die "the idle port of the kernel was busy for $idle of 200 hundredths of a second"

start_app one nobody 02:00:00:00:00:0a icmpecho
start_app two nobody 02:00:00:00:00:0b icmpecho
neighbour 10.77.0.10 02:00:00:00:00:0a
neighbour 10.77.0.11 02:00:00:00:00:0b
neighbour 10.77.0.2 "$(json apps "next(r['mac'] for r in rows if r['name'] == 'host')")"
for address in 10.77.0.2 10.77.0.10 10.77.0.11; do
    until_ok 20 "$address answers pings" pinged "$address" 50
done

# A server of the kernel's, and who it is.
mkdir "$work/www"
head -c 5000000 /dev/urandom >"$work/www/file"
ip netns exec "$home" python3 -m http.server -d "$work/www" 80 >/dev/null 2>&1 &
app_pids+=($!)
fetch() { far python3 -c "import urllib.request, sys; sys.stdout.buffer.write(urllib.request.urlopen('http://10.77.0.2/file').read())"; }
until_ok 20 "the kernel's server answers" fetch
"$bin/kopictl" --socket "$work/control.sock" capture -i host -c 10 tcp port 80 >"$work/captured" 2>"$work/capture.log" &
capture=$!
app_pids+=("$capture")
until_ok 20 "the capture runs" grep -q listening "$work/capture.log"
fetch | cmp -s - "$work/www/file" || die "the file did not arrive as it is"
wait "$capture" || die "the capture failed: $(<"$work/capture.log")"
(($(grep -c ' host .*\[kernel\]$' "$work/captured") == 10)) || die "not the kernel's: $(<"$work/captured")"
(($(json rules "sum(r['packets'] for r in rows if r['name'] == 'kernel-web')") > 10)) || die "the rule counts nothing"
[[ $(json flows "{r['app'] for r in rows if 80 in (r['src_port'], r['dst_port'])}") == "{'host'}" ]] \
    || die "a flow of the server's is not the host's: $(kopictl flows)"

# iperf3 between the two kernels, while the applications go on.
printf 'Mbit/s of iperf3 to the kernel: %d on the bare interface, ' "$bare_home"
kopi_home=$(iperf home 2)
printf '%d through kopid beside two applications that poll\n' "$kopi_home"
printf 'Mbit/s of iperf3 from the kernel: %d on the bare interface, ' "$bare_far"
kopi_far=$(iperf far 2)
printf '%d through kopid beside two applications that poll\n' "$kopi_far"
# How fast it is says the benchmark; here it has to work.
((kopi_home > 50 && kopi_far > 50)) || die "that is next to nothing"
until_ok 20 "the application answers pings" pinged 10.77.0.10 50

# A crash, and the way back.
stop_kopid KILL
! far ping -n -c 1 -W 1 10.77.0.2 >/dev/null || die "the address is somewhere"
takeover --undo || die "there is no way back"
[[ $(ip -n "$home" -brief address show "$near"; ip -n "$home" route) == "$had" ]] || die "not everything is back"
until_ok 20 "the kernel is reached as before kopid" far ping -n -c 1 -W 1 10.77.0.2

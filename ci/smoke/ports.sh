#!/usr/bin/env bash
# Port partitioning, the paper's scenario: only bob's application may use port 5432, only charlie's port 3306, whatever
# either tries. An edit of the policy and a reload turn it round, under traffic that does not notice.
source "$(dirname "$0")/lib.sh"

# Numbers that nobody has, so that the machine needs no such users.
bob=64201
charlie=64202

# write_policy OWNER-OF-5432 OWNER-OF-3306
write_policy() {
    cat >"$work/policy.toml.new" <<TOML
default = { egress = "accept", ingress = "accept", attach = "refuse" }

[[app]]
name      = "bob"
owner     = { uid = $bob }
mac       = "02:00:00:00:00:0b"
addresses = "10.77.0.11"

[[app]]
name      = "charlie"
owner     = { uid = $charlie }
mac       = "02:00:00:00:00:0c"
addresses = "10.77.0.12"

[[app]]
name      = "sender"
owner     = { uid = $charlie }
mac       = "02:00:00:00:00:0d"
addresses = "10.77.0.13"

[[rule]]
name   = "postgres"
match  = { direction = "ingress", proto = ["tcp", "udp"], dst_port = 5432 }
owner  = { not = { uid = $1 } }
action = "drop"

[[rule]]
name   = "postgres-answers"
match  = { direction = "egress", proto = ["tcp", "udp"], src_port = 5432 }
owner  = { not = { uid = $1 } }
action = "drop"

[[rule]]
name   = "mysql"
match  = { direction = "ingress", proto = ["tcp", "udp"], dst_port = 3306 }
owner  = { not = { uid = $2 } }
action = "drop"

[[rule]]
name   = "mysql-answers"
match  = { direction = "egress", proto = ["tcp", "udp"], src_port = 3306 }
owner  = { not = { uid = $2 } }
action = "drop"
TOML
    mv "$work/policy.toml.new" "$work/policy.toml"
}

# check_partition ADDRESS-OF-5432 ADDRESS-OF-3306: each is reached at its own port, at one that is nobody's, and not at the
# other's. What a socket of the kernel's says comes back, since testpmd's 5tswap sends every packet back with its ends
# exchanged; so a TCP connection is opened by both sides at once (RFC 9293, figure 7).
check_partition() {
    far python3 - "$@" <<'PYTHON' || die "the ports are not where they belong"
import socket, sys, threading
postgres, mysql = sys.argv[1:]
wrong = []

def check(proto, address, port, expected):
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as s:
        s.settimeout(5 if expected else 0.5)
        try:
            s.connect((address, port))
            s.sendall(b"kopi")
            reached = s.recv(4) == b"kopi"
        except OSError:
            reached = False
    if reached != expected:
        wrong.append(f"{address} is {'' if reached else 'not '}reached at {proto}/{port}")

cases = [(postgres, 5432, True), (mysql, 5432, False), (mysql, 3306, True), (postgres, 3306, False)]
cases += [(postgres, 8080, True), (mysql, 8080, True)]
threads = [threading.Thread(target=check, args=(proto, *case)) for proto in ("tcp", "udp") for case in cases]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
sys.exit(bool(wrong))
PYTHON
}

make_wire
write_config "net_af_packet0,iface=$near"
sed -i '1i policy = "policy.toml"' "$work/kopid.toml"
write_policy $bob $charlie
start_kopid
start_app bob $bob 02:00:00:00:00:0b 5tswap
start_app charlie $charlie 02:00:00:00:00:0c 5tswap
neighbour 10.77.0.11 02:00:00:00:00:0b
neighbour 10.77.0.12 02:00:00:00:00:0c

check_partition 10.77.0.11 10.77.0.12
(($(json rules "sum(r['packets'] for r in rows if r['name'] == 'postgres')") >= 2)) || die "nothing counts for postgres"
(($(json rules "sum(r['packets'] for r in rows if r['name'] == 'mysql')") >= 2)) || die "nothing counts for mysql"
[[ $(json drops "[r['packets'] > 1 for r in rows if (r['app'], r['rule']) == ('charlie', 'postgres')]") == '[True]' ]] ||
    die "the drops do not say that charlie tried bob's port: $(kopictl drops)"
[[ $(json flows "{(r['uid'], r['pid'] > 0) for r in rows if r['rule'] == 'postgres'}") == "{($charlie, True)}" ]] ||
    die "the flows do not say whose the dropped ones are: $(kopictl flows)"
kopictl rules | grep -q postgres-answers || die "kopictl rules does not show the rule"

# Charlie's other application sends from bob's port, without having been asked. Nothing of it is on the wire.
dropped_answers() { (($(json rules "sum(r['packets'] for r in rows if r['name'] == 'postgres-answers')") > 1000)); }
ip netns exec "$netns" tcpdump -i far0 -n -c 1 src host 10.77.0.13 >"$work/leaked" 2>"$work/tcpdump" &
tcpdump_pid=$!
app_pids+=("$tcpdump_pid")
until_ok 10 "tcpdump listens" grep -q listening "$work/tcpdump"
start_app sender $charlie 02:00:00:00:00:0d txonly --tx-ip=10.77.0.13,10.77.0.1 --tx-udp=5432,4000 \
    --eth-peer=0,"$(far cat /sys/class/net/far0/address)"
until_ok 10 "its packets are dropped" dropped_answers
kill_app "$app_pid"
kill_app "$tcpdump_pid"
[[ ! -s $work/leaked ]] || die "a packet from bob's port is on the wire: $(<"$work/leaked")"

# A flow that both policies accept loses nothing when the ports change hands.
ip netns exec "$netns" python3 - >"$work/flow" <<'PYTHON' &
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("10.77.0.11", 7000))
s.settimeout(1)
sent, had, end = 0, 0, time.time() + 6
while time.time() < end or had < sent:
    while time.time() < end and sent - had < 32:
        s.send(b"%d" % sent)
        sent += 1
    if int(s.recv(16)) != had:
        break
    had += 1
print(sent, had)
PYTHON
flow_pid=$!
app_pids+=("$flow_pid")
for _ in 1 2; do
    write_policy $charlie $bob
    kopictl reload >/dev/null || die "the edited policy is not taken"
    check_partition 10.77.0.12 10.77.0.11
    write_policy $bob $charlie
    kopictl reload >/dev/null || die "the first policy is not taken back"
    check_partition 10.77.0.11 10.77.0.12
done
wait "$flow_pid" || die "the flow that both policies accept was interrupted"
read -r sent had <"$work/flow"
((sent == had && sent > 1000)) || die "of $sent packets that both policies accept, $had came back"

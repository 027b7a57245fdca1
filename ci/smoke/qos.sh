#!/usr/bin/env bash
# QoS by owner, the paper's scenario: bob and charlie share the wire by weight, a batch job is held to its rate, and what one
# leaves unused the others take. A reload changes the shares under traffic.
source "$(dirname "$0")/lib.sh"

bob=64201
charlie=64202
batch=64203

# write_policy WEIGHT-OF-BOB WEIGHT-OF-CHARLIE
write_policy() {
    cat >"$work/policy.toml.new" <<TOML
[wire]
rate     = "100mbit"
burst    = "500kb"      # 40 ms: this machine's worker shares its core with others
overhead = 0

[[class]]
name   = "users"

[[class]]
name   = "bob"
parent = "users"
weight = $1

[[class]]
name   = "charlie"
parent = "users"
weight = $2

[[class]]
name = "batch"
ceil = "5mbit"

[[app]]
name  = "bob"
owner = { uid = $bob }
class = "bob"

[[app]]
name  = "charlie"
owner = { uid = $charlie }
class = "charlie"

[[app]]
name  = "batch"
owner = { uid = $batch }
class = "batch"
TOML
    mv "$work/policy.toml.new" "$work/policy.toml"
}

# holds EXPRESSION: a Python expression over m, what each class got over the last second in Mbit/s, as kopid measures it. It
# has to hold by and by. How much there is to share depends on how much of the CPU the worker gets; who gets how much of it
# does not.
holds() {
    local limit=$((SECONDS + 15)) expression="(lambda m: $1)({r['name']: r['bits_per_second'] / 1e6 for r in rows})"
    until [[ $(json classes "$expression") == True ]]; do
        ((SECONDS < limit)) || die "it does not hold that $1: $(kopictl classes)"
        sleep 0.2
    done
}

write_config "net_null0,size=64,no-rx=1"
sed -i '1i policy = "policy.toml"' "$work/kopid.toml"
write_policy 1 3
start_kopid
peer=02:00:00:00:00:99
start_app bob $bob 02:00:00:00:00:0b txonly --txpkts=1000 --eth-peer=0,$peer
holds "50 < m['bob'] < 101"
start_app charlie $charlie 02:00:00:00:00:0c txonly --txpkts=1400 --eth-peer=0,$peer
start_app batch $batch 02:00:00:00:00:0d txonly --txpkts=1000 --eth-peer=0,$peer

holds "2 < m['batch'] < 5.2 and m['bob'] > 10 and 2.7 < m['charlie'] / m['bob'] < 3.3"
kopictl classes

write_policy 3 1
kopictl reload >/dev/null
holds "m['charlie'] > 10 and 2.7 < m['bob'] / m['charlie'] < 3.3"

# Nobody has lost anything: what testpmd could not send, it still has.
[[ $(json drops "sum(r['packets'] for r in rows)") == 0 ]] || die "frames were dropped: $(kopictl drops)"

# Charlie leaves, and bob takes what he leaves.
kill_app "${app_pids[1]}"
holds "m['charlie'] == 0 and 50 < m['bob'] < 101"

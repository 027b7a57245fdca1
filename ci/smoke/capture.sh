#!/usr/bin/env bash
# Capture: an administrator looks at what two applications send and get, on the terminal, into files that tshark and tcpdump
# read, and through pipes into both, as with tcpdump.
source "$(dirname "$0")/lib.sh"

# Numbers that nobody has, so that the machine needs no such users.
bob=64201
charlie=64202

make_wire
write_config "net_af_packet0,iface=$near"
start_kopid
start_app web $bob 02:00:00:00:00:0b icmpecho
web_pid=$app_pid
start_app shop $charlie 02:00:00:00:00:0c icmpecho
neighbour 10.77.0.11 02:00:00:00:00:0b
neighbour 10.77.0.12 02:00:00:00:00:0c

# capturing ARGUMENT...: kopictl in the background, once it listens. Its pid is in $capture_pid, its words are in
# $work/words. The program by itself, since a shell around it would take the signal.
capturing() {
    : >"$work/words" # what the one before has said would be taken for its word
    "$bin/kopictl" --socket "$work/control.sock" capture "$@" 2>"$work/words" &
    capture_pid=$!
    until_ok 10 "kopictl listens" grep -q "listening on" "$work/words"
}

# interrupt: Ctrl-C, and kopictl ends well and sums up.
interrupt() {
    kill -INT "$capture_pid"
    wait "$capture_pid" || die "kopictl ends badly: $(<"$work/words")"
}

ping_both() {
    far ping -q -n -i 0.01 -c 10 10.77.0.11 >"$work/ping" || die "web does not answer: $(<"$work/ping")"
    far ping -q -n -i 0.01 -c 10 10.77.0.12 >"$work/ping" || die "shop does not answer: $(<"$work/ping")"
}

# Where can one look?
kopictl capture -D | tr '\n' ' ' | grep -q "1.any .* 2.wire .* 3.web 4.shop" || die "$(kopictl capture -D)"

# On the terminal: a line for each packet, tcpdump's, with the port in front and the owner behind.
capturing -c 2 -i web icmp >"$work/lines"
ping_both
wait "$capture_pid"
cat "$work/lines"
grep -q "web in IP 10.77.0.1 > 10.77.0.11: ICMP echo request.* \[pid $web_pid uid $bob dpdk-testpmd\]" "$work/lines" ||
    die "no request: $(<"$work/lines")"
grep -q "web out IP 10.77.0.11 > 10.77.0.1: ICMP echo reply" "$work/lines" || die "no reply: $(<"$work/lines")"

# Into a file, until Ctrl-C: each echo once in and once out at each application, and both tools read them all.
capturing -w "$work/all.pcapng" icmp
ping_both
interrupt
tail -n 3 "$work/words"
grep -qx "40 packets captured" "$work/words" || die "$(<"$work/words")"
grep -qx "40 packets received by filter" "$work/words" || die "$(<"$work/words")"
grep -qx "0 packets dropped by kopid" "$work/words" || die "$(<"$work/words")"
(($(tshark -n -r "$work/all.pcapng" 2>/dev/null | wc -l) == 40)) || die "tshark does not read 40 packets"
(($(tcpdump -n -r "$work/all.pcapng" 2>/dev/null | wc -l) == 40)) || die "tcpdump does not read 40 packets"

# Whose they are is in a comment on each packet, for tshark to filter by.
mine="frame.comment contains \"uid=$bob\""
(($(tshark -n -r "$work/all.pcapng" -Y "$mine" 2>/dev/null | wc -l) == 20)) || die "bob's packets are not 20"

# The same by kopictl's own means.
capturing --user $bob -Q out -w "$work/bob.pcapng"
ping_both
interrupt
grep -qx "10 packets captured" "$work/words" || die "what bob sends: $(<"$work/words")"

# Through a pipe, as with tcpdump: what comes out at its end is what was captured.
for reader in "tcpdump -n -l -r -" "tshark -n -l -r -"; do
    : >"$work/words"
    (kopictl capture -c 40 -w - icmp 2>"$work/words" | $reader >"$work/piped" 2>/dev/null) &
    piped_pid=$!
    until_ok 10 "kopictl listens" grep -q "listening on" "$work/words"
    ping_both
    wait "$piped_pid" || die "${reader%% *} does not read a pipe"
    (($(wc -l <"$work/piped") == 40)) || die "${reader%% *} has read $(wc -l <"$work/piped") of 40 packets from a pipe"
done

# A reader that has seen enough ends the capture.
: >"$work/words"
(kopictl capture -w - icmp 2>"$work/words" | tcpdump -n -c 5 -r - >"$work/piped" 2>/dev/null) &
piped_pid=$!
until_ok 10 "kopictl listens" grep -q "listening on" "$work/words"
ping_both
wait "$piped_pid" || true
(($(wc -l <"$work/piped") == 5)) || die "tcpdump has read $(wc -l <"$work/piped") of 5 packets"
until_ok 5 "its capture is gone" bash -c "! pgrep -P $$ -x kopictl"

# An expression that is none is refused in libpcap's words.
if kopictl capture 'tcp prot 80' 2>"$work/words"; then die "a wrong expression is taken"; fi
grep -q "syntax error" "$work/words" || die "$(<"$work/words")"

#!/usr/bin/env bash
# kopictl shows whose an application is, as the kernel told kopid, and not as the application would like it.
source "$(dirname "$0")/lib.sh"

write_config "net_null0,no-rx=1"
start_kopid
start_app innocent games 02:00:00:00:00:0a io

kopictl apps | grep innocent | grep games | grep -q "$app_pid" || die "the table has no owner"
row=$(kopictl --json apps)
for part in "\"pid\":$app_pid" "\"uid\":$(id -u games)" '"user":"games"' '"comm":"dpdk-testpmd"' '"exe":"/usr/bin/dpdk-testpmd"'; do
    grep -qF "$part" <<<"$row" || die "no $part in $row"
done

kill_app "$app_pid"
until_ok 5 "its port is gone" no_app innocent

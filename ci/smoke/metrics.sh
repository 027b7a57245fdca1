#!/usr/bin/env bash
# Metrics as Prometheus has them: kopid with an application is scraped in both formats, by an address; promtool likes names, values and
# what is shipped with them, and every query of the dashboard and of the alerts is about metrics that there are.
# shellcheck source=ci/smoke/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The package `prometheus` has promtool, and would start a service: so it is only looked into (19 MB to load, 48 MB to keep).
promtool=$(command -v promtool || true)
cache=${KOPI_CACHE:-/var/cache/kopi}
if [[ -z $promtool ]]; then
    promtool=$cache/promtool
    if [[ ! -x $promtool ]]; then
        install -d "$cache" "$work/deb"
        (cd "$work/deb" && apt-get -qq download prometheus >/dev/null 2>&1 &&
            dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xf - ./usr/bin/promtool) || true
        [[ ! -e $work/deb/usr/bin/promtool ]] || install -m 755 "$work/deb/usr/bin/promtool" "$promtool"
    fi
fi

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
write_config net_null0,no-rx=1
sed -i '1i policy = "policy.toml"' "$work/kopid.toml"
printf '[metrics]\nlisten = "127.0.0.1:%s"\n' "$port" >>"$work/kopid.toml"
cat >"$work/policy.toml" <<'TOML'
[[class]]
name = "web"
[[rule]]
name   = "no-arp"
match  = { direction = "egress", ethertype = "arp" }
action = "drop"
[[rule]]
name   = "web-class"
match  = { direction = "egress" }
action = "class"
class  = "web"
TOML
start_kopid || die "kopid did not start"
start_app web nobody 02:00:00:00:00:01 flowgen
until_ok 20 "web has sent" json stats "[r for r in rows if r['port'] == 'web'][0]['tx_packets'] > 1000 or sys.exit(1)"

# scrape FILE ACCEPT: as curl has it.
scrape() { curl -sf --max-time 10 -H "Accept: $2" -o "$1" "http://127.0.0.1:$port/metrics" || die "no answer"; }
scrape "$work/plain" 'text/plain'
scrape "$work/open" 'application/openmetrics-text;version=1.0.0'
[[ $(tail -n 1 "$work/open") == '# EOF' ]] || die "OpenMetrics does not end"
value() { awk -v series="$1" '$1 == series { print int($2) }' "$work/open"; }
(($(value 'kopi_port_transmit_packets_total{port="web"}') > 1000)) || die "web has sent nothing"
(($(value 'kopi_class_packets_total{class="web",direction="egress"}') > 0)) || die "its class has sent nothing"

# What dashboard and alerts ask for is there, or is something that has not happened yet.
python3 - "$root" "$work/plain" <<'PY'
import json, re, sys
root, plain = sys.argv[1:]
there = set(re.findall(r"^# TYPE (\S+)", open(plain).read(), re.M))
rare = {"kopi_drop_packets_total", "kopi_host_from_kernel_packets_total", "kopi_host_to_kernel_packets_total"}
dashboard = json.load(open(root + "/packaging/grafana/kopi.json"))
asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", []))
asked += open(root + "/packaging/prometheus/kopi.rules.yml").read()
names = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bkopi_[a-z_]+[a-z]\b", asked)}
missing = names - there - rare
assert not missing, f"nobody has heard of {sorted(missing)}"
print(f"{len(there)} metrics, {len(names)} of them asked for")
PY
if [[ -x $promtool ]]; then
    "$promtool" check metrics <"$work/plain" || die "promtool does not like the metrics"
    "$promtool" test rules "$root/packaging/prometheus/kopi.rules.test.yml"
    # The only reader of OpenMetrics in it wants a time with each value.
    sed -E "/^#/!s/\$/ $(date +%s)/" "$work/open" >"$work/timed"
    "$promtool" tsdb create-blocks-from openmetrics "$work/timed" "$work/blocks" >/dev/null || die "that is no OpenMetrics"
else
    printf '\n    SKIPPED: promtool: the package prometheus cannot be had\n\n'
fi
printf 'metrics: passed\n'

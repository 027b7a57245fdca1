#!/usr/bin/env bash
# The packages on a Debian that has nothing else of ours: installed, kopid by its unit's command line, Debian's testpmd by
# `--vdev net_kopi0` alone, an upgrade while the far end pings, removed, purged, and nothing is left.
#
# That Debian is a layer over the chroot of ci/releases.sh, in a mount namespace of this script's own: it is gone when the script ends.
[[ -n ${KOPI_OWN_MOUNTS:-} ]] || KOPI_OWN_MOUNTS=1 exec unshare --mount --propagation private "$0" "$@"
source "$(dirname "$0")/lib.sh"

skip() {
    printf '\n    SKIPPED: packages: %s\n\n' "$1"
    exit 0
}
"$root/ci/releases.sh" chroot
[[ -e $cache/chroot/complete ]] || skip "there is no chroot to install them in"

# Of what the tests and the release build have made.
status=0
"$root/ci/package.sh" --no-build || status=$?
((status != 3)) || skip "there is no cargo-deb to make them"
((status == 0)) || die "ci/package.sh: $status"
mapfile -t packages < <(compgen -G "$bin/../debian/*.deb" || true)
((${#packages[@]} > 0)) || skip "they cannot be made"
install -d "$work"/{first,second}
cp "${packages[@]}" "$work/first"
# The same once more as the next revision, in less time than it takes to make it.
for package in "$work"/first/*.deb; do
    dpkg-deb -R "$package" "$work/unpacked"
    sed -i 's/^Version: .*/&+next/' "$work/unpacked/DEBIAN/control"
    dpkg-deb -Zgzip -z1 -b "$work/unpacked" "$work/second/${package##*/}" >/dev/null
    rm -r "$work/unpacked"
done
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error "$work"/first/*.deb >"$work/lintian.log" 2>&1 &
    lintian_pid=$!
else
    printf '\n    SKIPPED: lintian: it is not installed\n\n'
fi

# cover TREE: a layer over it, for this namespace alone. Nothing is mounted in $work, which lib.sh takes away.
cover() {
    local layer at
    layer=$(mktemp -d "$work/layer.XXXXXX")
    install -d "$layer"/{upper,overlay}
    mount -t overlay kopi -o "lowerdir=$1,upperdir=$layer/upper,workdir=$layer/overlay" "$1"
    for at in proc sys dev; do mount --rbind "/$at" "$1/$at"; done
    mount --bind "$work" "$1/mnt"
}
debian=$cache/chroot/root
cover "$debian"
inside=(chroot "$debian" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive)
apt() { "${inside[@]}" apt-get -qq -o APT::Sandbox::User=root -o APT::Install-Recommends=false "$@" >>"$work/apt.log" 2>&1 || die "apt-get $*: $(<"$work/apt.log")"; }
kopictl() { "${inside[@]}" kopictl "$@"; }

# What there is, without dpkg's and apt's own notes and the copies of the file before that tools of users keep.
state() {
    (cd "$debian" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log \) -prune -o \
        ! -name '*-' -printf '%p %y %m %u %g %l\n' | sort)
    (cd "$debian/etc" && find . -type f ! -name '*-' -print0 | sort -z | xargs -0 sha256sum)
    "${inside[@]}" dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n'
}

# runs_here: the processes of that Debian.
runs_here() { for at in /proc/[0-9]*; do [[ $(readlink "$at/root") != "$debian" ]] || printf '%s ' "${at##*/}"; done; }

state >"$work/before"
names=("${packages[@]##*/}")
apt install "${names[@]/#//mnt/first/}"
[[ -z $(runs_here) ]] || die "something runs that was only installed"
state | grep -E ' l .*kopid.service' && die "kopid starts with the machine, and nobody has asked for it"
"${inside[@]}" kopid --check >"$work/check.log" 2>&1 || die "what is installed is no good configuration: $(<"$work/check.log")"

# Beside what needs no time of its own.
[[ -z ${lintian_pid:-} ]] || wait "$lintian_pid" || die "lintian finds errors: $(<"$work/lintian.log")"

make_wire
sed -i "s/^device = .*/device = \"net_af_packet0,iface=$near\"/; s/^cores = .*/cores = [$worker_cpu]/; /^idle = /d" \
    "$debian/etc/kopi/kopid.toml"
metrics=
if grep -q '"metrics"' "$root/config/schema/kopid.schema.json"; then
    metrics=/run/kopi/metrics.sock
    printf '\n[metrics]\nlisten = "%s"\n' "$metrics" >>"$debian/etc/kopi/kopid.toml"
fi
unit=$debian/usr/lib/systemd/system/kopid.service
# As systemd has it, without its marks before the command.
read -ra command <<<"$(sed -n 's/^ExecStart=[-@:+!]*//p' "$unit")"
start_kopid() {
    install -d "$debian/run/$(sed -n 's/^RuntimeDirectory=//p' "$unit")"
    "${inside[@]}" RUNTIME_DIRECTORY=/run/kopi "${command[@]}" >>"$work/kopid.log" 2>&1 &
    kopid_pid=$!
    until_ok 20 "kopid answers" kopictl status
}
start_kopid

# start_testpmd NAME TREE: the one of that tree, as a member of the group of kopid's socket, and waits until it is attached.
start_testpmd() {
    install -d -m 700 -o nobody "$work/$1"
    mkfifo "$work/$1.in"
    env -i PATH=/usr/sbin:/usr/bin RUNTIME_DIRECTORY="/mnt/$1" \
        chroot --userspec="65534:$(stat -c %g "$debian/run/kopi/kopi.sock")" --groups= "$2" \
        dpdk-testpmd --lcores "0@$app_cpu,1@$app_cpu" --no-huge -m 192 --no-pci --no-telemetry --vdev net_kopi0 \
        -- -i --auto-start --forward-mode=icmpecho --total-num-mbufs=4096 <>"$work/$1.in" >"$work/$1.log" 2>&1 &
    app_pid=$!
    app_pids+=("$app_pid")
    (until_ok 20 "testpmd of $1 is attached" attached) || die "$(tail -n 5 "$work/$1.log")"
}
stop_testpmd() {
    echo quit >"$work/$1.in"
    wait "$app_pid" || die "testpmd failed: $(tail -n 3 "$work/$1.log")"
    app_pids=()
}
attached() { [[ $(json apps '[(row["pid"], row["state"]) for row in rows]') == "[($app_pid, 'running')]" ]]; }

# The DPDKs of other Debians find their drivers as well.
for other in trixie-25 forky-26; do
    suite=${other%-*}
    has_program "$suite" /usr/bin/dpdk-testpmd || continue
    tree=$cache/$suite/root
    cover "$tree"
    for package in "$work/first"/librte-net-kopi{,"-${other#*-}"}_*.deb; do dpkg-deb -x "$package" "$tree"; done
    install -d "$tree/run/kopi"
    mount --bind "$debian/run/kopi" "$tree/run/kopi"
    start_testpmd "$suite" "$tree"
    stop_testpmd "$suite"
done

start_testpmd app "$debian"
until_ok 10 "testpmd answers" pinged 10.77.0.2 10
kopictl apps
if "${inside[@]}" kopictl top --help >/dev/null 2>&1; then
    kopictl top -b -n 1 >"$work/top"
    grep testpmd "$work/top" || die "kopictl top does not show testpmd: $(<"$work/top")"
fi
if [[ -n $metrics ]]; then
    curl -sf --unix-socket "$debian$metrics" http://kopid/metrics >"$work/metrics"
    grep -m 1 testpmd "$work/metrics" || die "the metrics do not show testpmd"
fi

# The upgrade takes nothing from what runs; the restart after it is a link flap. Twenty answers after it, and the pause is over.
ip netns exec "$netns" ping -n -q -i 0.02 10.77.0.2 >"$work/ping.log" &
ping_pid=$!
apt install "${names[@]/#//mnt/second/}"
kill -0 "$kopid_pid" || die "kopid ended with the upgrade"
stop_kopid TERM
start_kopid
until_ok 20 "testpmd is attached again" attached
until_ok 10 "testpmd answers again" pinged 10.77.0.2 20
kill -INT "$ping_pid"
wait "$ping_pid" || true
ping_pid=
[[ $(readlink "/proc/$kopid_pid/exe") != *deleted* ]] || die "the old kopid runs"
[[ $("${inside[@]}" dpkg-query -W -f '${Version}' kopi) == *+next ]] || die "kopi is not upgraded"
grep -q "iface=$near" "$debian/etc/kopi/kopid.toml" || die "the upgrade has replaced the configuration"
# 10 s of pings: it takes less than one on a machine with nothing else to do.
awk '/ received/ { print; bad = $1 - $4 > 500 } END { exit bad || !NR }' "$work/ping.log" || die "the upgrade took too long"

stop_testpmd app
stop_kopid TERM
apt remove kopi 'librte-net-kopi*'
[[ ! -e $debian/usr/sbin/kopid && -e $debian/etc/kopi/kopid.toml ]] || die "removed: kopid is there, or its configuration is not"
apt purge kopi 'librte-net-kopi*'
state >"$work/after"
diff "$work/before" "$work/after" || die "purged, and this differs"
[[ -z $(runs_here) ]] || die "purged, and it runs: $(runs_here)"

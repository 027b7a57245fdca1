#!/usr/bin/env bash
# Two containers of two pods under a real Podman, which a CDI description gives the socket and the driver: each gets its own port by
# the policy and no other one, and captures name the container.
source "$(dirname "$0")/lib.sh"

# The Debian of ci/releases.sh, with DPDK's applications.
image=$cache/chroot/root
skip() {
    printf 'podman: SKIPPED: %s\n' "$*"
    exit 0
}
command -v podman >/dev/null && command -v runc >/dev/null || skip "there is no podman with runc"
"$root/ci/releases.sh" chroot
[[ -e $image/usr/bin/dpdk-testpmd ]] || skip "there is no image"

# Without CAP_SYS_RESOURCE no limit can be raised, so these are low. Nothing of the machine's own Podman is touched.
had_cdi=$([[ ! -e /etc/cdi ]] || echo yes)
cat >"$work/containers.conf" <<TOML
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
lock_type = "file"
tmp_dir = "$work/libpod"
TOML
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/graph"\nrunroot = "%s/run"\n' "$work" "$work" >"$work/storage.conf"
export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf
end() {
    local status=$?
    set +e
    podman pod rm -f -t 0 one two >/dev/null 2>&1
    umount -R "$work/graph" 2>/dev/null
    [[ $had_cdi ]] || rmdir /etc/cdi 2>/dev/null
    rmdir /sys/fs/cgroup/{,*/}libpod_parent 2>/dev/null
    (exit "$status")
    cleanup
}
trap end EXIT

# What keeps a pod's cgroup is a container of its own: of a shell and its libraries, for which the image would be much.
mkdir -p "$work/pause/bin" "$work/pause"/{lib64,lib/x86_64-linux-gnu,proc,sys,dev,etc,tmp,run}
cp /bin/sleep "$work/pause/bin"
cp /lib/x86_64-linux-gnu/libc.so.6 "$work/pause/lib/x86_64-linux-gnu"
cp /lib64/ld-linux-x86-64.so.2 "$work/pause/lib64"
tar -C "$work/pause" -c . | podman import -q - localhost/pause >/dev/null || skip "podman cannot import an image here"
for pod in one two; do
    podman pod create --name "$pod" --network none --infra-image localhost/pause --infra-command '/bin/sleep inf' >/dev/null
    podman pod start "$pod" >/dev/null || skip "podman starts no pod here"
done
pod_id() { podman pod inspect "$1" --format '{{.ID}}'; }

write_config "net_null0,no-rx=1"
sed -i '1i policy = "policy.toml"' "$work/kopid.toml"
sed -i "s|$work/kopi.sock|$work/apps/kopi.sock|" "$work/kopid.toml"
mkdir "$work/apps"
cat >"$work/policy.toml" <<TOML
default = { egress = "accept", ingress = "accept", attach = "refuse" }

[[app]]
name  = "web"
owner = { pod = "$(pod_id one)" }

[[app]]
name  = "db"
owner = { pod = "$(pod_id two)" }
TOML
start_kopid
"$bin/kopictl" cdi --config "$work/kopid.toml" --drivers "$work" >"$work/kopi.json"

# run NAME POD PORT: testpmd in a container, without -d, by the device kopi/port=PORT.
run() {
    unshare -m sh -c 'mkdir -p /etc/cdi && mount -t tmpfs none /etc/cdi && cp "$0/kopi.json" /etc/cdi/ && shift 0 && exec "$@"' "$work" \
        podman run -d --rm --name "$1" --pod "$2" --device "kopi/port=$3" --rootfs "$image:O" sh -c "sleep inf | exec dpdk-testpmd \
        --lcores 0@$app_cpu,1@$app_cpu --no-huge -m 128 --no-pci --no-telemetry --vdev \"\$KOPI_VDEV\" -- -i --auto-start \
        --forward-mode=txonly --total-num-mbufs=2048" >"$work/$1.id"
}
run one-web one web
run two-db two db
until_ok 20 "web runs" app_is web running
until_ok 20 "db runs" app_is db running
for app in web:one-web:one db:two-db:two; do
    IFS=: read -r port container pod <<<"$app"
    [[ $(json apps "next((r['container'], r['pod'], r['runtime']) for r in rows if r['name'] == '$port')") \
        == "('$(<"$work/$container.id")', '$(pod_id "$pod")', 'podman')" ]] || die "$port is not of $container: $(kopictl apps --wide)"
done
kopictl capture -w "$work/web.pcapng" --container "$(cut -c1-12 "$work/one-web.id")" -c 20 >/dev/null
grep -aqF "container=$(<"$work/one-web.id") pod=$(pod_id one)" "$work/web.pcapng" || die "the capture names no container"
! grep -aqF "$(<"$work/two-db.id")" "$work/web.pcapng" || die "the capture has frames of another container"

# A container of the second pod asks for the first one's port.
podman rm -f -t 0 one-web >/dev/null
until_ok 20 "web is gone" no_app web
run two-thief two web
until_ok 20 "it is refused" grep -q refused "$work/kopid.log"
no_app web || die "a container has taken another pod's port: $(kopictl apps --wide)"

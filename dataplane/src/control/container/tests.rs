use proptest::prelude::*;

use super::*;

const ID: &str = "3f2a0c1b2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8";
const OTHER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";
const STATIC: &str = "5c8d8a1b2d3e4f5061728394a5b6c7d8";

/// `path` with `ID`, `OTHER`, `UID`, `U_I_D` and `STATIC` filled in.
fn filled(path: &str) -> String {
    let path = path.replace("U_I_D", &UID.replace('-', "_")).replace("STATIC", STATIC);
    path.replace("OTHER", OTHER).replace("UID", UID).replace("ID", ID)
}

fn of(path: &str) -> Containment {
    Containment::of(&format!("0::{}\n", filled(path)))
}

/// Paths that engines, the kubelet and kind make, under both drivers: the runtime, the id and the pod.
#[test]
fn paths_of_engines_are_read() {
    use Runtime::{Containerd, CriO, Docker, Kubelet, Podman};
    for (path, runtime, id, pod) in [
        ("/docker/ID", Docker, "ID", ""),
        ("/system.slice/docker-ID.scope", Docker, "ID", ""),
        ("/batch.slice/batch-night.slice/docker-ID.scope", Docker, "ID", ""),
        ("/machine.slice/libpod-ID.scope", Podman, "ID", ""),
        ("/machine.slice/libpod-ID.scope/container", Podman, "ID", ""),
        ("/libpod_parent/libpod-ID", Podman, "ID", ""),
        ("/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope", Podman, "ID", "OTHER"),
        ("/libpod_parent/OTHER/libpod-ID", Podman, "ID", "OTHER"),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-ID.scope",
            Containerd,
            "ID",
            "UID",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice/crio-ID.scope",
            CriO,
            "ID",
            "UID",
        ),
        ("/kubepods.slice/kubepods-podU_I_D.slice/crio-ID.scope/container", CriO, "ID", "UID"),
        ("/kubepods.slice/kubepods-podSTATIC.slice/docker-ID.scope", Docker, "ID", "STATIC"),
        ("/kubepods/burstable/podUID/ID", Kubelet, "ID", "UID"),
        ("/kubepods/besteffort/podUID/crio-ID", CriO, "ID", "UID"),
        ("/kubepods/podSTATIC/ID", Kubelet, "ID", "STATIC"),
        // Runtimes that have not heard which driver the kubelet has.
        ("/kubepods-burstable-podU_I_D.slice:cri-containerd:ID", Containerd, "ID", "UID"),
        (
            "/system.slice/containerd.service/kubepods-burstable-podU_I_D.slice:cri-containerd:ID",
            Containerd,
            "containerd.service/ID",
            "containerd.service/UID",
        ),
        ("/system.slice/nerdctl-ID.scope", Containerd, "ID", ""),
        ("/default/ID", Containerd, "ID", ""),
        // A node of kind, seen from the host and from within; what is in the node is the node's.
        (
            "/system.slice/docker-OTHER.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_I_D.slice/cri-containerd-ID.scope",
            Docker,
            "OTHER",
            "",
        ),
        ("/docker/OTHER/kubelet/kubepods/besteffort/podUID/ID", Docker, "OTHER", ""),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_I_D.slice/cri-containerd-ID.scope",
            Containerd,
            "ID",
            "UID",
        ),
        ("/kubelet/kubepods/besteffort/podUID/ID", Kubelet, "ID", "UID"),
        // What is a user's, or a service's.
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            Podman,
            "user-1000/ID",
            "",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_OTHER.slice/libpod-ID.scope",
            Podman,
            "user-1000/ID",
            "user-1000/OTHER",
        ),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/docker-ID.scope", Docker, "user-1000/ID", ""),
        ("/user.slice/user-0.slice/session-1.scope/libpod-payload-ID", Podman, "user-0/ID", ""),
        ("/system.slice/web.service/libpod-payload-ID", Podman, "web.service/ID", ""),
    ] {
        let pod = (!pod.is_empty()).then(|| filled(pod));
        assert_eq!(of(path), Containment::In(Container { runtime, id: filled(id), pod }), "{path}");
    }
}

/// What is no container, is not the process's own one, or nearly has the form, is none.
#[test]
fn others_are_outside() {
    for path in [
        "/",
        "",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/user.slice/user-1000.slice/session-3.scope",
        "/machine.slice/libpod-conmon-ID.scope",
        "/kubepods.slice/kubepods-podU_I_D.slice/crio-conmon-ID.scope",
        "/kubepods.slice/kubepods-podU_I_D.slice",
        "/kubepods/burstable/ID",
        "/kubepods/burstable/podUID",
        "/libpod_parent/OTHER",
        "/docker/IDa",
        "/docker/3f2a0c1b2d3e",
        "/docker/docker",
        "/system.slice/docker-ID.scope.d",
        "/ID",
        "/system.slice/ID",
        "/user.slice/docker-ID.scope.slice",
        "/user.slice/bob.slice/docker-ID.scope",
        "/user.slice/docker-ID/docker-ID.scope",
        "/docker/bob/docker/ID",
        "/a:b:ID",
        "/a:docker:ID:c",
        "docker/ID",
    ] {
        assert_eq!(of(path), Containment::Outside, "{path}");
    }
}

/// Old hierarchies say it too, and have to agree; without any, or from outside of the namespace, nothing is known.
#[test]
fn hierarchies_have_to_agree() {
    let of = |text: &str| Containment::of(&filled(text));
    let id = |text: &str| of(text).container().map(|container| container.id.clone());
    assert_eq!(id("5:pids:/docker/ID\n1:name=systemd:/docker/ID\n").as_deref(), Some(ID));
    assert_eq!(id("5:cpu,cpuacct:/docker/ID\n1:name=systemd:/x.service\n0::/\n").as_deref(), Some(ID));
    assert_eq!(of("5:pids:/docker/ID\n0::/docker/OTHER\n"), Containment::Unknown);
    assert_eq!(of(""), Containment::Unknown);
    assert_eq!(of("0::/../docker-ID.scope\n"), Containment::Unknown);
    assert_eq!(of("4:pids:/\n0::/\n"), Containment::Outside);
    // Names that only look like the way out of a namespace hide nothing.
    for below in ["a:/..b", "..", "../..", "a:/.."] {
        assert_eq!(id(&format!("0::/docker/ID/{below}\n")).as_deref(), Some(ID), "{below}");
    }
}

/// Parts of paths with which one could pass for another.
const PARTS: &[&str] = &[
    "user.slice",
    "user-7.slice",
    "system.slice",
    "a.service",
    "docker",
    "docker-OTHER.scope",
    "docker-OTHER",
    "libpod-OTHER.scope",
    "libpod_parent",
    "OTHER",
    "kubepods.slice",
    "kubepods-podU_I_D.slice",
    "kubepods",
    "podUID",
    "crio-OTHER",
    "x.slice:docker:OTHER",
    "kubelet",
];

fn parts() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(PARTS).prop_map(filled);
    prop_oneof![8 => fixed, 1 => "[a-z0-9.:_-]{1,20}"]
}

proptest! {
    /// Whatever is made below a user's slice, a service or a container never has the plain id of a container of the system's.
    #[test]
    fn nobody_passes_for_another(below in prop::collection::vec(parts(), 0..8), unit in 0_usize..4) {
        let units = ["/user.slice/user-7.slice", "/system.slice/a.service", "/machine.slice/b.scope", "/system.slice/docker-ID.scope"];
        let path = format!("{}/{}", units[unit], below.join("/"));
        if let Containment::In(Container { id, pod, .. }) = of(&path) {
            if unit == 3 {
                prop_assert_eq!((id.as_str(), pod), (ID, None));
            } else {
                let unit = ["user-7/", "a.service/", "b.scope/"][unit];
                prop_assert!(id.starts_with(unit) && pod.is_none_or(|pod| pod.starts_with(unit)), "{path}: {id}");
            }
        }
    }

    /// Anything can be read, and what is found has a form that a policy can name.
    #[test]
    fn any_path_is_read(path in prop_oneof![prop::collection::vec(parts(), 0..8).prop_map(|parts| format!("/{}", parts.join("/"))), ".*"]) {
        if let Containment::In(Container { id, .. }) = Containment::of(&format!("0::{path}")) {
            prop_assert!(is_id(id.rsplit('/').next().unwrap_or_default()));
            prop_assert!(id.matches('/').count() <= 1);
        }
    }
}

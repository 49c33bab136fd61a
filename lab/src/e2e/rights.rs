//! What the agent may do, seen from inside: the kernel's word on its process against the manifest as it was applied.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::base::NAMESPACE;
use super::kubectl::{Cluster, items};
use super::node::{self, Process};

/// What container runtimes mount into every container, whatever the manifest says.
const OF_THE_RUNTIME: [&str; 7] =
    ["/proc", "/dev", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/secrets"];

/// The agent's process.
pub(super) fn agent() -> Result<Process> {
    let mut found = node::with_word("--state-dir=/host/state");
    ensure!(found.len() == 1, "{} processes are the agent", found.len());
    found.pop().context("there is no agent")
}

/// One of the cluster's agents, if this machine is its node and shows it.
pub(super) fn agent_of(cluster: &Cluster) -> Result<Option<Process>> {
    let pods = cluster.get(&["pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=mcad-agent"])?;
    let uids: Vec<_> = items(&pods).filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
    let is_its = |process: &Process| {
        let cgroup = process.file("cgroup").unwrap_or_default().replace('_', "-");
        // Its mounts are root's to see.
        uids.iter().any(|uid| cgroup.contains(uid)) && process.file("mountinfo").is_ok()
    };
    Ok(node::with_word("--state-dir=/host/state").into_iter().find(is_its))
}

/// Pods have the rights of the templates that they were made from: nothing on the way has given them more.
pub(super) fn admitted(cluster: &Cluster) -> Result<()> {
    let (sets, pods) =
        (cluster.get(&["daemonsets,replicasets", "-n", NAMESPACE])?, cluster.get(&["pods", "-n", NAMESPACE])?);
    let mut compared = 0;
    for pod in items(&pods) {
        let name = &pod["metadata"]["name"];
        let owner = &pod["metadata"]["ownerReferences"][0]["uid"];
        let set = items(&sets).find(|set| set["metadata"]["uid"] == *owner && !owner.is_null());
        let template = &set.with_context(|| format!("pod {name} is nobody's"))?["spec"]["template"]["spec"];
        let changed = changed_rights(template, &pod["spec"]);
        ensure!(changed.is_empty(), "admission gave pod {name} other rights than its template: {}", changed.join(", "));
        compared += 1;
    }
    ensure!(compared > 0, "there are no pods in {NAMESPACE}");
    println!("e2e:   {compared} pods have the rights of their templates");
    Ok(())
}

/// What a pod may otherwise than its template says.
fn changed_rights(template: &Value, pod: &Value) -> Vec<String> {
    let mut changed = Vec::new();
    let differs = |one: &Value, other: &Value| one != other && !(one.is_null() && *other == false);
    for field in ["hostPID", "hostIPC", "hostNetwork"] {
        if differs(&template[field], &pod[field]) {
            changed.push(field.to_owned());
        }
    }
    let containers = |spec: &Value| spec["containers"].as_array().cloned().unwrap_or_default();
    let (of_template, of_pod) = (containers(template), containers(pod));
    if of_template.len() != of_pod.len() || !pod["initContainers"].is_null() {
        changed.push("other containers".to_owned());
    }
    for (of_template, of_pod) in of_template.iter().zip(&of_pod) {
        for field in ["privileged", "allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"] {
            if differs(&of_template["securityContext"][field], &of_pod["securityContext"][field]) {
                changed.push(field.to_owned());
            }
        }
        let mounts = |container: &Value| {
            let mounts = container["volumeMounts"].as_array().into_iter().flatten();
            // The account's token, where the template asks for it.
            let path = |mount: &Value| mount["mountPath"].as_str().unwrap_or_default().to_owned();
            let own = mounts.filter(|mount| !path(mount).starts_with("/var/run/secrets/"));
            own.map(|mount| (path(mount), mount["readOnly"] == true)).collect::<BTreeMap<_, _>>()
        };
        if mounts(of_template) != mounts(of_pod) {
            changed.push("volumeMounts".to_owned());
        }
    }
    changed
}

/// Compares.
pub(super) fn check(cluster: &Cluster, agent: &Process) -> Result<()> {
    let set = cluster.get(&["daemonset", "mcad-agent", "-n", NAMESPACE])?;
    let spec = &set["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let status = agent.file("status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("no {name} in its status"))
    };
    // What it could have had is what the manifest adds; what it has is nothing, as it gave all up once its programs were there.
    let added = container["securityContext"]["capabilities"]["add"].as_array().context("no capability is added")?;
    let bounding = added.iter().try_fold(0_u64, |set, name| Some(set | 1 << capability(name.as_str()?)?));
    let bounding = bounding.with_context(|| format!("one of {added:?} is not known here"))?;
    ensure!(field("CapBnd")? == format!("{bounding:016x}"), "CapBnd {}, and not {bounding:016x}", field("CapBnd")?);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        ensure!(field(set)?.trim_matches('0').is_empty(), "{set} {}", field(set)?);
    }
    ensure!(field("NoNewPrivs")? == "1", "it could get rights back");
    // 2: filters, the runtime's and its own.
    ensure!(field("Seccomp")? == "2", "Seccomp {}", field("Seccomp")?);
    ensure!(field("Uid")? == "0\t0\t0\t0", "Uid {}", field("Uid")?);

    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}"));
    let its = |name: &str| std::fs::read_link(format!("/proc/{}/ns/{name}", agent.pid));
    let sees_host = own("pid")? == its("pid")?;
    ensure!((spec["hostPID"] == true) == sees_host, "it sees the host's processes: {sees_host}");
    ensure!(own("net")? != its("net")?, "it is in the host's network");
    ensure!(own("mnt")? != its("mnt")?, "it sees the host's files");
    mounts(container, &agent.file("mountinfo")?)?;
    println!("e2e:   seen from inside, the agent has the manifest's capabilities, filter, namespaces and mounts");
    Ok(())
}

fn mounts(container: &Value, mountinfo: &str) -> Result<()> {
    let mut wanted: BTreeMap<String, bool> = [("/".to_owned(), true)].into();
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let path = mount["mountPath"].as_str().context("a mount without a path")?;
        // /var/run is /run in no image of ours.
        wanted.insert(path.to_owned(), mount["readOnly"] == true);
    }
    let mut found = BTreeMap::new();
    for line in mountinfo.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let (Some(point), Some(options)) = (fields.get(4), fields.get(5)) else { continue };
        let below =
            |folder: &str| point.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // A bound tree brings what is mounted in it: the hierarchies of cgroup v1 are mounts of their own.
        let brought = wanted.keys().any(|path| path != "/" && below(path) && path != point);
        if !brought && !OF_THE_RUNTIME.iter().any(|folder| below(folder)) {
            found.insert((*point).to_owned(), options.split(',').any(|option| option == "ro"));
        }
    }
    ensure!(found == wanted, "mounted are (path, read-only) {found:?}, and the manifest has {wanted:?}");
    Ok(())
}

/// Its number, by linux/capability.h.
fn capability(name: &str) -> Option<u32> {
    match name {
        "PERFMON" => Some(38),
        "BPF" => Some(39),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_right_that_admission_adds_is_named() {
        let container = |capability: &str, mount: &str| json!({"securityContext": {"capabilities": {"add": [capability]}}, "volumeMounts": [{"mountPath": mount}]});
        let template = json!({"hostPID": true, "containers": [container("BPF", "/a")]});
        let check = |pod: &Value| changed_rights(&template, pod).join(" ");
        assert_eq!(check(&template), "");
        // Said is the same as not said.
        assert_eq!(check(&json!({"hostPID": true, "hostIPC": false, "containers": [container("BPF", "/a")]})), "");
        assert_eq!(
            check(&json!({"hostPID": true, "containers": [container("SYS_ADMIN", "/b")]})),
            "capabilities volumeMounts"
        );
        let more = json!({"hostNetwork": true, "containers": [container("BPF", "/a"), {}]});
        assert_eq!(check(&more), "hostPID hostNetwork other containers");
    }
}

//! Compares the rights of the agent's process, as the kernel reports them, with the applied manifest.

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
    ensure!(found.len() == 1, "there are {} processes of the agent", found.len());
    found.pop().context("there is no agent")
}

/// One of the cluster's agents, if this machine is its node and its process can be inspected.
pub(super) fn agent_of(cluster: &Cluster) -> Result<Option<Process>> {
    let pods = cluster.get(&["pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=mcad-agent"])?;
    let uids: Vec<_> = items(&pods).filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
    let is_its = |process: &Process| {
        let cgroup = process.file("cgroup").unwrap_or_default().replace('_', "-");
        // Only root can read its mounts.
        uids.iter().any(|uid| cgroup.contains(uid)) && process.file("mountinfo").is_ok()
    };
    Ok(node::with_word("--state-dir=/host/state").into_iter().find(is_its))
}

/// Checks that pods have the rights of their templates: admission must not have added any.
pub(super) fn admitted(cluster: &Cluster) -> Result<()> {
    let (sets, pods) =
        (cluster.get(&["daemonsets,replicasets", "-n", NAMESPACE])?, cluster.get(&["pods", "-n", NAMESPACE])?);
    let mut compared = 0;
    for pod in items(&pods) {
        let name = &pod["metadata"]["name"];
        let owner = &pod["metadata"]["ownerReferences"][0]["uid"];
        let set = items(&sets).find(|set| set["metadata"]["uid"] == *owner && !owner.is_null());
        let template = &set.with_context(|| format!("pod {name} has no owner"))?["spec"]["template"]["spec"];
        let changed = changed_rights(template, &pod["spec"]);
        ensure!(changed.is_empty(), "admission gave pod {name} other rights than its template: {}", changed.join(", "));
        compared += 1;
    }
    ensure!(compared > 0, "there are no pods in {NAMESPACE}");
    println!("e2e:   {compared} pods have the rights of their templates");
    Ok(())
}

/// The rights in which a pod differs from its template.
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
            // The account's token, if the template requests it.
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

/// Compares the rights.
pub(super) fn check(cluster: &Cluster, agent: &Process) -> Result<()> {
    let set = cluster.get(&["daemonset", "mcad-agent", "-n", NAMESPACE])?;
    let spec = &set["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let status = agent.file("status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("/proc/PID/status of the agent has no {name}"))
    };
    // Its bounding set is what the manifest adds; its other sets are empty, because it dropped all capabilities after
    // loading its programs.
    let added =
        container["securityContext"]["capabilities"]["add"].as_array().context("the manifest adds no capability")?;
    let bounding = added.iter().try_fold(0_u64, |set, name| Some(set | 1 << capability(name.as_str()?)?));
    let bounding = bounding.with_context(|| format!("{added:?} contains an unknown capability"))?;
    ensure!(
        field("CapBnd")? == format!("{bounding:016x}"),
        "CapBnd of the agent is {} instead of {bounding:016x}",
        field("CapBnd")?
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        ensure!(field(set)?.trim_matches('0').is_empty(), "{set} {}", field(set)?);
    }
    ensure!(field("NoNewPrivs")? == "1", "NoNewPrivs is not set");
    // 2: filters, the runtime's and the agent's own.
    ensure!(field("Seccomp")? == "2", "Seccomp {}", field("Seccomp")?);
    ensure!(field("Uid")? == "0\t0\t0\t0", "Uid {}", field("Uid")?);

    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}"));
    let its = |name: &str| std::fs::read_link(format!("/proc/{}/ns/{name}", agent.pid));
    let sees_host = own("pid")? == its("pid")?;
    ensure!(
        (spec["hostPID"] == true) == sees_host,
        "the agent sees the host's processes: {sees_host}, unlike hostPID in the manifest"
    );
    ensure!(own("net")? != its("net")?, "the agent is in the host's network namespace");
    ensure!(own("mnt")? != its("mnt")?, "the agent is in the host's mount namespace");
    mounts(container, &agent.file("mountinfo")?)?;
    println!("e2e:   the agent's process has the manifest's capabilities, filter, namespaces and mounts");
    Ok(())
}

fn mounts(container: &Value, mountinfo: &str) -> Result<()> {
    let mut wanted: BTreeMap<String, bool> = [("/".to_owned(), true)].into();
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let path = mount["mountPath"].as_str().context("a mount without a path")?;
        // In our images, /var/run is not a link to /run.
        wanted.insert(path.to_owned(), mount["readOnly"] == true);
    }
    let mut found = BTreeMap::new();
    for line in mountinfo.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let (Some(point), Some(options)) = (fields.get(4), fields.get(5)) else { continue };
        let below =
            |folder: &str| point.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // A bind mount includes what is mounted in it: the hierarchies of cgroup v1 are separate mounts.
        let brought = wanted.keys().any(|path| path != "/" && below(path) && path != point);
        if !brought && !OF_THE_RUNTIME.iter().any(|folder| below(folder)) {
            found.insert((*point).to_owned(), options.split(',').any(|option| option == "ro"));
        }
    }
    ensure!(found == wanted, "the mounts (path, read-only) are {found:?}, but the manifest has {wanted:?}");
    Ok(())
}

/// The number of a capability in linux/capability.h.
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
        // An explicit default is the same as an absent value.
        assert_eq!(check(&json!({"hostPID": true, "hostIPC": false, "containers": [container("BPF", "/a")]})), "");
        assert_eq!(
            check(&json!({"hostPID": true, "containers": [container("SYS_ADMIN", "/b")]})),
            "capabilities volumeMounts"
        );
        let more = json!({"hostNetwork": true, "containers": [container("BPF", "/a"), {}]});
        assert_eq!(check(&more), "hostPID hostNetwork other containers");
    }
}

//! `deploy/` as kubectl, the API server and both programs take it, without a cluster. What only a cluster shows is
//! `cargo xtask e2e`'s.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is tests")]

mod others;
mod rendered;
mod rights;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use crate::support::apiserver::ApiServer;
use clap::Parser as _;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use rendered::{decode, kubectl, name, of_kind, overlays, read, render, root, workloads};
use serde_json::Value;

#[test]
fn every_object_of_every_overlay_is_what_its_type_says() {
    for overlay in overlays() {
        let Some(objects) = render(&overlay) else { return };
        let names: BTreeSet<_> = objects.iter().map(name).collect();
        assert_eq!(names.len(), objects.len(), "{overlay}: two objects of one name");
        for object in &objects {
            decode(object).unwrap_or_else(|error| panic!("{overlay}: {}: {error}", name(object)));
            let cluster_wide = ["Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding"];
            let cluster_wide = cluster_wide.iter().chain(&["SecurityContextConstraints"]).any(|k| object["kind"] == *k);
            let namespace = object["metadata"]["namespace"].as_str();
            assert_eq!(namespace, (!cluster_wide).then_some("mcad-metrics"), "{overlay}: {}", name(object));
        }
    }
}

/// The named ports of a workload's containers.
fn ports(spec: &PodSpec) -> BTreeMap<String, i32> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports.map(|port| (port.name.clone().unwrap(), port.container_port)).collect()
}

/// The workloads whose pods a selector matches; never none.
fn selected<'a>(objects: &'a [Value], selector: &Value) -> Vec<(&'a Value, PodSpec)> {
    let wanted = selector.as_object().unwrap();
    let matches = |object: &Value| {
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        wanted.iter().all(|(key, value)| &labels[key] == value)
    };
    let selected: Vec<_> = workloads(objects).into_iter().filter(|(object, _)| matches(object)).collect();
    assert!(!selected.is_empty(), "nothing has the labels {selector}");
    selected
}

#[test]
fn selectors_match_pods_and_ports_have_one_name_from_container_to_monitor() {
    for overlay in overlays() {
        let Some(objects) = render(&overlay) else { return };
        for (workload, _) in workloads(&objects) {
            assert_eq!(selected(&objects, &workload["spec"]["selector"]["matchLabels"]).len(), 1, "{}", name(workload));
        }
        for service in of_kind(&objects, "Service") {
            for port in service["spec"]["ports"].as_array().unwrap() {
                for (workload, spec) in selected(&objects, &service["spec"]["selector"]) {
                    let target = port["targetPort"].as_str().unwrap();
                    assert_eq!(port["name"], port["targetPort"], "{overlay}: {}", name(service));
                    assert_eq!(ports(&spec)[target], port["port"], "{overlay}: {}", name(workload));
                }
            }
        }
        for policy in of_kind(&objects, "NetworkPolicy") {
            let pods = selected(&objects, &policy["spec"]["podSelector"]["matchLabels"]);
            for rule in policy["spec"]["ingress"].as_array().unwrap() {
                for port in rule["ports"].as_array().unwrap() {
                    assert!(ports(&pods[0].1).contains_key(port["port"].as_str().unwrap()), "{}", name(policy));
                }
            }
        }
        for budget in of_kind(&objects, "PodDisruptionBudget") {
            selected(&objects, &budget["spec"]["selector"]["matchLabels"]);
        }
        for monitor in of_kind(&objects, "PodMonitor") {
            for (_, spec) in selected(&objects, &monitor["spec"]["selector"]["matchLabels"]) {
                assert!(ports(&spec).contains_key(monitor["spec"]["podMetricsEndpoints"][0]["port"].as_str().unwrap()));
            }
        }
        for monitor in of_kind(&objects, "ServiceMonitor") {
            let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
            let chosen: Vec<_> = of_kind(&objects, "Service")
                .filter(|service| wanted.iter().all(|(key, value)| &service["metadata"]["labels"][key] == value))
                .collect();
            assert_eq!(chosen.len(), 1, "{overlay}");
            assert_eq!(chosen[0]["spec"]["ports"][0]["name"], monitor["spec"]["endpoints"][0]["port"]);
        }
    }
}

/// A container's words, with the variables that refer to its environment filled in.
fn words(program: &str, container: &Container) -> Vec<String> {
    let given = container.args.iter().flatten().map(|word| word.replace("$(POD_NAMESPACE)", "mcad-metrics"));
    let words: Vec<_> = std::iter::once(program.to_owned()).chain(given).collect();
    assert!(words.iter().all(|word| !word.contains("$(")), "{words:?}");
    words
}

#[test]
fn the_programs_take_their_command_lines_and_images_are_of_this_version() {
    for overlay in overlays() {
        let Some(objects) = render(&overlay) else { return };
        for (workload, spec) in workloads(&objects) {
            let [container] = &spec.containers[..] else { panic!("{}", name(workload)) };
            let image = format!("docker.io/mcad-metrics/{}:{}", container.name, env!("CARGO_PKG_VERSION"));
            assert_eq!(container.image.as_deref(), Some(&*image), "{overlay}");
            if container.name == "agent" {
                let args = mcad_agent::args::Args::try_parse_from(words("mcad-agent", container)).unwrap();
                assert!(args.aggregator_ca.is_some() && args.token.is_some(), "{overlay}");
                assert_eq!(i32::from(args.listen.unwrap().port()), ports(&spec)["metrics"]);
            } else {
                let args = mcad_aggregator::args::Args::try_parse_from(words("mcad-aggregator", container)).unwrap();
                args.check().unwrap();
                assert_eq!(i32::from(args.serve.listen.port()), ports(&spec)["metrics"]);
                assert_eq!(i32::from(args.serve.report_listen.port()), ports(&spec)["reports"]);
                let grace = u64::try_from(spec.termination_grace_period_seconds.unwrap()).unwrap();
                assert!(grace >= args.replicas.handover + 20, "{overlay}");
            }
        }
    }
}

/// What a container writes to and reads from must be mounted: every absolute path of its command line is under a mount.
#[test]
fn what_a_command_line_names_is_mounted() {
    for overlay in overlays() {
        let Some(objects) = render(&overlay) else { return };
        for (workload, spec) in workloads(&objects) {
            let container = &spec.containers[0];
            let mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
            let paths = container.args.iter().flatten().filter_map(|word| word.split_once("=/"));
            for (flag, path) in paths {
                let path = format!("/{path}");
                assert!(mounts.iter().any(|mount| path.starts_with(&mount.mount_path)), "{}: {flag}", name(workload));
            }
            let volumes: BTreeSet<_> = spec.volumes.iter().flatten().map(|volume| &volume.name).collect();
            assert_eq!(volumes, mounts.iter().map(|mount| &mount.name).collect(), "{overlay}: {}", name(workload));
        }
    }
}

/// Pod Security Standards, "restricted", as far as one can say it of a Deployment: each control that the page lists.
fn is_restricted(spec: &PodSpec, ranged_user: bool) -> Result<(), &'static str> {
    let must = |holds: bool, control| if holds { Ok(()) } else { Err(control) };
    must(![spec.host_network, spec.host_pid, spec.host_ipc].contains(&Some(true)), "host namespaces")?;
    for volume in spec.volumes.iter().flatten() {
        must(volume.host_path.is_none(), "volume types")?;
    }
    let pod = spec.security_context.as_ref().ok_or("security context")?;
    must(pod.run_as_non_root == Some(true), "running as non-root")?;
    must(ranged_user || pod.run_as_user.is_some_and(|user| user != 0), "running as non-root user")?;
    must(pod.seccomp_profile.as_ref().is_some_and(|profile| profile.type_ == "RuntimeDefault"), "seccomp")?;
    must(pod.se_linux_options.is_none() && pod.sysctls.is_none(), "SELinux, sysctls")?;
    for container in &spec.containers {
        let own = container.security_context.as_ref().ok_or("security context")?;
        must(own.privileged != Some(true), "privileged containers")?;
        must(own.allow_privilege_escalation == Some(false), "privilege escalation")?;
        must(own.read_only_root_filesystem == Some(true), "not of the standard, but ours")?;
        let capabilities = own.capabilities.as_ref().ok_or("capabilities")?;
        must(capabilities.drop.as_deref() == Some(&["ALL".to_owned()]) && capabilities.add.is_none(), "capabilities")?;
        let ports = container.ports.iter().flatten();
        must(ports.into_iter().all(|port| port.host_port.is_none()), "host ports")?;
    }
    Ok(())
}

#[test]
fn the_aggregator_is_restricted_and_the_agent_has_two_capabilities_and_reads_the_node() {
    for overlay in overlays() {
        let Some(objects) = render(&overlay) else { return };
        for (workload, spec) in workloads(&objects) {
            if workload["kind"] == "Deployment" {
                is_restricted(&spec, overlay.ends_with("openshift"))
                    .unwrap_or_else(|control| panic!("{overlay}: {control}"));
                continue;
            }
            let agent = &spec.containers[0];
            let security = agent.security_context.as_ref().unwrap();
            let capabilities = security.capabilities.as_ref().unwrap();
            assert_eq!(capabilities.add.as_deref(), Some(&["BPF".to_owned(), "PERFMON".to_owned()][..]), "{overlay}");
            assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]), "{overlay}");
            assert_eq!(security.allow_privilege_escalation, Some(false), "{overlay}");
            assert_eq!(security.read_only_root_filesystem, Some(true), "{overlay}");
            // The host's processes are in view of those agents alone that may find some of them on a GPU.
            let host_pid = (name(workload) == "DaemonSet/mcad-agent-gpu").then_some(true);
            assert_eq!((spec.host_pid, spec.host_network, spec.host_ipc), (host_pid, None, None), "{overlay}");
            let tolerations = spec.tolerations.as_deref().unwrap_or_default();
            let all = |it: &k8s_openapi::api::core::v1::Toleration| it.key.is_none() && it.effect.is_none();
            assert!(tolerations.iter().any(all), "{overlay}: some taint keeps agents off");
            let resources = agent.resources.as_ref().unwrap();
            let asked = resources.requests.iter().chain(&resources.limits).flat_map(|amounts| amounts.keys());
            assert!(asked.into_iter().all(|name| !name.contains('/')), "{overlay}: a GPU is taken");
            let writable: Vec<_> =
                agent.volume_mounts.iter().flatten().filter(|mount| mount.read_only != Some(true)).collect();
            assert_eq!(writable.iter().map(|mount| &*mount.name).collect::<Vec<_>>(), ["state"], "{overlay}");
        }
    }
}

#[test]
fn the_component_for_processes_on_gpus_gives_agents_the_hosts_and_lets_openshift_allow_it() {
    // A kustomization names others by relative paths alone.
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("gpu-processes");
    std::fs::create_dir_all(&folder).unwrap();
    let Ok(below) = folder.strip_prefix(root()) else {
        eprintln!(
            "SKIPPED: the target directory is not below the repository, so no kustomization in it can name deploy/"
        );
        return;
    };
    let up = "../".repeat(below.components().count());
    for overlay in ["base", "overlays/openshift"] {
        let text = format!("resources: [{up}deploy/{overlay}]\ncomponents: [{up}deploy/components/gpu-processes]\n");
        std::fs::write(folder.join("kustomization.yaml"), text).unwrap();
        let Some(objects) = render(below.to_str().unwrap()) else { return };
        for (workload, spec) in workloads(&objects) {
            assert_eq!(spec.host_pid, (workload["kind"] == "DaemonSet").then_some(true), "{overlay}");
        }
        let allowed = of_kind(&objects, "SecurityContextConstraints").map(|one| one["allowHostPID"] == true);
        assert!(allowed.into_iter().all(|allowed| allowed), "{overlay}");
    }
}

#[test]
fn with_the_gpu_operator_each_node_has_one_agent_and_gpu_nodes_the_runtime() {
    let Some(objects) = render("deploy/overlays/gpu-operator") else { return };
    let sets: Vec<_> = workloads(&objects).into_iter().filter(|(object, _)| object["kind"] == "DaemonSet").collect();
    assert_eq!(sets.len(), 2);
    for (set, spec) in &sets {
        let is_gpu = name(set) == "DaemonSet/mcad-agent-gpu";
        assert_eq!(spec.runtime_class_name.as_deref(), is_gpu.then_some("nvidia"), "{}", name(set));
        let chosen = spec.node_selector.as_ref().is_some_and(|labels| labels["nvidia.com/gpu.present"] == "true");
        let affinity = &set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
        let terms = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        let others = serde_json::json!({"key": "nvidia.com/gpu.present", "operator": "NotIn", "values": ["true"]});
        assert_eq!((chosen, terms[0]["matchExpressions"][0] == others), (is_gpu, !is_gpu), "{}", name(set));
    }
}

#[test]
fn no_secret_is_readable_but_the_authority_and_no_verb_is_a_star() {
    for overlay in overlays() {
        let Some(objects) = render(&overlay) else { return };
        for role in of_kind(&objects, "Role").chain(of_kind(&objects, "ClusterRole")) {
            for rule in role["rules"].as_array().unwrap() {
                assert!(!rule.to_string().contains('*'), "{overlay}: {rule}");
                // What is to be created has no name yet that a rule could be about; and to create is not to read.
                if rule["resources"].to_string().contains("secrets") && rule["verbs"] != serde_json::json!(["create"]) {
                    assert_eq!(rule["resourceNames"], serde_json::json!(["mcad-aggregator-authority"]), "{overlay}");
                }
            }
        }
        let given = ["cert-manager", "openshift"].iter().any(|name| overlay.ends_with(name));
        assert_eq!(of_kind(&objects, "Secret").count(), usize::from(!given), "{overlay}");
    }
}

/// The label of namespaces whose pods may scrape.
const MONITORING: &str = "mcad-metrics/monitoring";

#[test]
fn ports_for_metrics_are_open_to_namespaces_of_monitoring_alone() {
    for overlay in overlays() {
        let Some(objects) = render(&overlay) else { return };
        let rules = of_kind(&objects, "NetworkPolicy").flat_map(|policy| policy["spec"]["ingress"].as_array().unwrap());
        let of_metrics: Vec<_> = rules.filter(|rule| rule["ports"].to_string().contains("\"metrics\"")).collect();
        assert_eq!(of_metrics.len(), 2, "{overlay}: the aggregator's and the agent's");
        for rule in of_metrics {
            let expected = serde_json::json!([{"namespaceSelector": {"matchLabels": {MONITORING: "true"}}}]);
            assert_eq!(rule["from"], expected, "{overlay}");
        }
    }
    for document in ["deploy/README.md", "docs/operations.md"] {
        assert!(
            read(document).contains(&format!("kubectl label namespace monitoring {MONITORING}=true")),
            "{document}"
        );
    }
}

#[test]
fn a_namespace_says_its_level_of_pod_security_in_each_mode_and_why() {
    let text = read("deploy/base/namespace.yaml");
    for (mode, level) in [("enforce", "privileged"), ("warn", "privileged"), ("audit", "baseline")] {
        let line = format!("    pod-security.kubernetes.io/{mode}: {level}");
        let at = text.lines().position(|there| there == line).unwrap_or_else(|| panic!("no {line}"));
        assert!(text.lines().nth(at - 1).unwrap().trim().starts_with("# "), "{mode}: no reason above it");
    }
    for overlay in overlays() {
        let Some(objects) = render(&overlay) else { return };
        for namespace in of_kind(&objects, "Namespace") {
            let labels = namespace["metadata"]["labels"].as_object().unwrap();
            let modes = labels.keys().filter(|label| label.starts_with("pod-security.kubernetes.io/")).count();
            assert_eq!(modes, 3, "{overlay}: {}", name(namespace));
        }
    }
}

/// A restart would begin the first list again, so no probe that restarts may wait for it.
#[test]
fn a_slow_first_list_restarts_nothing_and_fails_no_rollout() {
    for overlay in overlays() {
        let Some(objects) = render(&overlay) else { return };
        for (workload, spec) in workloads(&objects) {
            let container = &spec.containers[0];
            for probe in [&container.startup_probe, &container.liveness_probe] {
                let path = probe.as_ref().unwrap().http_get.as_ref().unwrap().path.as_deref();
                assert_eq!(path, Some("/live"), "{overlay}: {}", name(workload));
            }
            let startup = container.startup_probe.as_ref().unwrap();
            let allowed_s = startup.period_seconds.unwrap() * startup.failure_threshold.unwrap();
            assert!(allowed_s >= 600 && startup.timeout_seconds.unwrap() >= 5, "{overlay}: {}", name(workload));
            if workload["kind"] == "Deployment" {
                assert!(workload["spec"]["progressDeadlineSeconds"].as_u64().unwrap() >= 1800, "{overlay}");
            }
        }
    }
}

#[test]
fn the_component_digests_names_both_images_by_digest_and_none_by_tag() {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(root().join("deploy")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    for overlay in overlays() {
        let above = folder.path().join("above");
        std::fs::create_dir_all(&above).unwrap();
        let kustomization = format!("resources: [../{overlay}]\ncomponents: [../deploy/components/digests]\n");
        std::fs::write(above.join("kustomization.yaml"), kustomization).unwrap();
        let Some(objects) = render(&above.display().to_string()) else { return };
        let images: BTreeSet<_> =
            workloads(&objects).iter().map(|(_, spec)| spec.containers[0].image.clone().unwrap()).collect();
        let expected = |name| format!("docker.io/mcad-metrics/{name}@sha256:{}", "0".repeat(64));
        assert_eq!(images, ["agent", "aggregator"].map(expected).into(), "{overlay}");
    }
}

/// Every line that grants something has its reason: on the line itself or in the comment above its list.
#[test]
fn every_capability_mount_and_verb_has_its_reason_beside_it() {
    let files = walk("deploy");
    let mut found = BTreeMap::new();
    for file in files.iter().filter(|file| !file.contains("monitoring/") && !file.contains("README")) {
        let text = read(file);
        let mut in_capabilities = false;
        for line in text.lines() {
            let item = line.trim_start();
            in_capabilities = if item.starts_with("- ") { in_capabilities } else { is_list_of_capabilities(item) };
            let grants = [
                ("capability", in_capabilities && item.starts_with("- ")),
                ("verbs", item.starts_with("verbs:")),
                ("mount", item.contains("mountPath:")),
                ("host", item.starts_with("allowHost") && item.contains("true")),
            ];
            for (what, _) in grants.into_iter().filter(|(_, grants)| *grants) {
                assert!(line.contains(" # "), "{file}: no reason: {line}");
                *found.entry(what).or_insert(0) += 1;
            }
        }
        for word in ["hostPID: true", "hostPath:"] {
            for (index, _) in text.match_indices(&format!(" {word}")) {
                let before: Vec<_> = text[..index].lines().rev().skip(1).take(2).collect();
                let named = text[..index].lines().rev().nth(1).unwrap_or_default();
                let reasoned = before.iter().any(|line| line.trim().starts_with('#')) || named.contains("cgroup");
                assert!(reasoned, "{file}: no reason above {word}");
            }
        }
    }
    // The lint sees what there is to see.
    assert_eq!(found["capability"], 4, "{found:?}");
    assert!(found["verbs"] >= 6 && found["mount"] >= 6 && found["host"] == 1, "{found:?}");
}

fn is_list_of_capabilities(item: &str) -> bool {
    item == "add:" || item == "allowedCapabilities:"
}

/// All files under a folder of the repository.
fn walk(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Debian's Prometheus is built without Kubernetes' service discovery, so that files stand in for it here; relabelling, rules
/// and times are checked as they are.
#[test]
fn the_scrape_configuration_is_one_and_keeps_the_ports_of_the_base() {
    let text = read("deploy/monitoring/prometheus.yaml");
    let config: Value = serde_saphyr::from_str(&text).unwrap();
    let lease = mcad_aggregator::args::Args::try_parse_from(["mcad-aggregator"]).unwrap().replicas.lease_duration;
    let seconds = |time: &Value| time.as_str().unwrap().strip_suffix('s').unwrap().parse::<u64>().unwrap();
    let (interval, timeout) = (&config["global"]["scrape_interval"], &config["global"]["scrape_timeout"]);
    assert!(seconds(interval) * 2 <= lease && seconds(interval) + seconds(timeout) + lease / 10 <= lease);
    let Some(objects) = render("deploy/overlays/prometheus-operator") else { return };
    let monitor = of_kind(&objects, "ServiceMonitor").next().unwrap();
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!((&endpoint["interval"], &endpoint["scrapeTimeout"]), (interval, timeout));
    let jobs = config["scrape_configs"].as_array().unwrap();
    assert_eq!((&jobs[0]["honor_labels"], &endpoint["honorLabels"]), (&true.into(), &true.into()));
    for (job, kind) in jobs.iter().zip(["Service", "DaemonSet"]) {
        assert_eq!(job["kubernetes_sd_configs"][0]["namespaces"]["names"], serde_json::json!(["mcad-metrics"]));
        let kept = job["relabel_configs"][0]["regex"].as_str().unwrap();
        let (wanted, port) = kept.split_once(';').unwrap();
        let object = of_kind(&objects, kind).find(|object| object["metadata"]["name"] == wanted).expect(kept);
        assert!(object["spec"].to_string().contains(&format!("\"name\":\"{port}\"")), "{kept}");
    }

    let folder = tempfile::tempdir().unwrap();
    let without: Vec<_> =
        text.lines().filter(|line| !line.contains("- role:") && !line.contains("namespaces:")).collect();
    let without = without.join("\n").replace("kubernetes_sd_configs:", "file_sd_configs: [{files: [targets.json]}]");
    std::fs::write(folder.path().join("prometheus.yaml"), without).unwrap();
    std::fs::write(folder.path().join("rules.yaml"), read("deploy/monitoring/rules.yaml")).unwrap();
    std::fs::write(folder.path().join("targets.json"), "[]").unwrap();
    match Command::new("promtool").args(["check", "config", "prometheus.yaml"]).current_dir(folder.path()).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => panic!("promtool: {error}"),
        Err(error) => eprintln!("SKIPPED: promtool: {error}; Debian has it in `prometheus`"),
    }
}

/// Kinds that the API server has only with somebody's operator, and what a Kubernetes of 2020 has not yet.
const FOREIGN: [&str; 5] = ["ServiceMonitor", "PodMonitor", "Issuer", "Certificate", "SecurityContextConstraints"];

/// A folder with those operators' own definitions of their kinds, for whoever has them: they are not ours to ship.
const DEFINITIONS: &str = "MCAD_OPERATOR_CRDS";

/// Defines the kinds of [`FOREIGN`], if somebody brought what defines them.
fn define(kubeconfig: &str) -> bool {
    let Some(folder) = std::env::var_os(DEFINITIONS) else { return false };
    let folder = folder.into_string().unwrap();
    // By the server: as an annotation of kubectl's they would be too large.
    kubectl(&[kubeconfig, "apply", "--server-side", "-f", &folder]).unwrap();
    kubectl(&[kubeconfig, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).unwrap();
    let served = kubectl(&[kubeconfig, "api-resources", "--no-headers"]).unwrap();
    let kinds: BTreeSet<_> = served.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert!(FOREIGN.iter().all(|kind| kinds.contains(kind)), "{folder} does not define all of {FOREIGN:?}: {kinds:?}");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_every_overlay() {
    if kubectl(&["version", "--client"]).is_none() {
        return;
    }
    let Some(server) = ApiServer::start().await else { return };
    let config = server.kubeconfig();
    let kubeconfig = format!("--kubeconfig={}", config.display());
    let folder = tempfile::tempdir().unwrap();
    let namespace = "deploy/base/namespace.yaml";
    kubectl(&[&kubeconfig, "apply", "-f", namespace]).unwrap();
    let defined = define(&kubeconfig);
    let versions = kubectl(&[&kubeconfig, "api-versions"]).unwrap();
    for overlay in overlays() {
        let mut objects = render(&overlay).unwrap();
        let all = objects.len();
        objects.retain(|object| {
            let foreign = !defined && FOREIGN.iter().any(|kind| object["kind"] == *kind);
            let too_new = object["apiVersion"] == "policy/v1" && !versions.lines().any(|line| line == "policy/v1");
            !foreign && !too_new
        });
        assert!(all - objects.len() <= 4, "{overlay}");
        let file = folder.path().join("objects.json");
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(&file, list.to_string()).unwrap();
        let path = file.display().to_string();
        let said = kubectl(&[&kubeconfig, "apply", "--dry-run=server", "-f", &path]).unwrap();
        let taken = said.lines().filter(|line| line.ends_with("(server dry run)")).count();
        assert_eq!(taken, objects.len(), "{overlay}: {said}");
    }
    // The base needs nothing that a Kubernetes of 2020 lacks.
    kubectl(&[&kubeconfig, "apply", "--dry-run=server", "-k", "deploy/base"]).unwrap();
}

#[test]
fn every_overlay_is_in_the_readme() {
    let readme = read("deploy/README.md");
    for overlay in overlays() {
        let folder = overlay.strip_prefix("deploy/").unwrap();
        assert!(readme.contains(&format!("[`{folder}`]({folder})")), "deploy/README.md does not name {folder}");
    }
}

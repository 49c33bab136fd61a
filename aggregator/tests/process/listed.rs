//! `mcad-aggregator dump` against a real kube-apiserver: what it lists of clusters that have both groups, one or none, and of one that
//! refuses; and that the dump says what the cluster does.
#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::path::{Path, PathBuf};

use crate::support::accounts::{make_account, token};
use crate::support::aggregator::command;
use crate::support::apiserver::ApiServer;
use crate::support::devices;
use crate::support::objects::{
    MCAD, WORKLOAD, appwrapper, appwrappers, create, define, definitions, grant, make_ready_node, mcad_appwrapper,
    node, nodes, pod, pods,
};
use kube::Client;
use mcad_accounting::object::Kind;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What `mcad-aggregator dump` writes, and what it says and ends with.
struct Dumped {
    folder: TempDir,
    code: Option<i32>,
    text: String,
    said: String,
}

impl Dumped {
    fn by(kubeconfig: &Path) -> Self {
        let output =
            command(&["dump", "--kubeconfig", kubeconfig.to_str().unwrap(), "--context", "test"]).output().unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("dump.json"), &output.stdout).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { folder, code: output.status.code(), text: text(output.stdout), said: text(output.stderr) }
    }

    fn record(&self) -> Value {
        let list: Value = serde_json::from_str(&self.text).unwrap();
        list["items"].as_array().unwrap().last().unwrap().clone()
    }

    /// States of its lists, in order.
    fn states(&self) -> Vec<String> {
        let record = self.record();
        let lists = record["lists"].as_array().unwrap();
        lists.iter().map(|list| format!("{} {}", list["state"].as_str().unwrap(), list["objects"])).collect()
    }

    /// Exit status, standard output and standard error of the program on this dump.
    fn read(&self, before: &[&str], after: &[&str]) -> (Option<i32>, String, String) {
        let cluster = format!("file:{}", self.folder.path().join("dump.json").display());
        let output = command(&[before, &["--cluster", &cluster], after].concat()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

/// A node, a pod with a secret in its environment, of an AppWrapper.
async fn fill(client: &Client) {
    create(&nodes(client), node("n")).await;
    let mut object = pod("p", "n", &json!({"workload.codeflare.dev/appwrapper": "new"}));
    object["spec"]["containers"][0]["env"] = json!([{"name": "TOKEN", "value": "s3cret"}]);
    object["spec"]["containers"][0]["args"] = json!(["--password=s3cret"]);
    create(&pods(client), object).await;
}

#[tokio::test]
async fn a_cluster_with_both_groups_is_dumped_whole_and_without_secrets() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    define(&client).await;
    fill(&client).await;
    let mut new = appwrapper("new");
    new["spec"]["components"][0]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "TOKEN", "value": "s3cret"}]);
    create(&appwrappers(&client, WORKLOAD, "v1beta2"), new).await;
    create(&appwrappers(&client, MCAD, "v1beta1"), mcad_appwrapper(MCAD, "old")).await;

    let dumped = Dumped::by(&server.kubeconfig());
    assert_eq!(dumped.code, Some(0), "{}", dumped.said);
    assert!(!dumped.text.contains("s3cret") && !dumped.text.contains("managedFields"), "{}", dumped.text);
    assert!(dumped.said.contains("nodes: 1\npods: 1\n"), "{}", dumped.said);
    // The CRD of the workload group serves its one object as both versions.
    let appwrappers_and_nothing_else = [&["listed 1"; 5][..], &["notServed 0"; 10]].concat();
    assert_eq!(dumped.states(), appwrappers_and_nothing_else);
    let record = dumped.record();
    assert_eq!(record["clock"], "server");
    assert!(record["serverVersion"].as_str().unwrap().starts_with("v1."), "{record}");

    let (code, shown, errors) = dumped.read(&[], &["--print-metrics"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    for line in [
        "mcad_appwrapper_requested{appwrapper=\"new\",namespace=\"default\",resource=\"cpu\",unit=\"core\"} 5\n",
        "mcad_appwrapper_requested{appwrapper=\"old\",namespace=\"default\",resource=\"cpu\",unit=\"core\"} 3\n",
        "mcad_appwrapper_allocated{appwrapper=\"new\",namespace=\"default\",resource=\"cpu\",unit=\"core\"} 2\n",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let (_, said, _) = dumped.read(&["explain"], &[]);
    assert!(said.starts_with("A dump of 1 Node, 1 Pod and 3 AppWrappers, as of 20"), "{said}");
    assert!(said.contains("(recorded when the dump was made), of Kubernetes v1."), "{said}");
    assert!(!said.contains("Note:"), "{said}");
}

#[tokio::test]
async fn a_cluster_without_one_or_any_kind_of_appwrapper_is_dumped_whole() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    fill(&client).await;
    let dumped = Dumped::by(&server.kubeconfig());
    assert_eq!(dumped.code, Some(0), "{}", dumped.said);
    assert_eq!(dumped.states(), [&["listed 1"; 2][..], &["notServed 0"; 13]].concat());
    let (code, said, errors) = dumped.read(&["explain"], &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(said.contains("The API server serves no AppWrappers."), "{said}");

    let definition: Value = serde_saphyr::from_str(include_str!("../crds/mcad.ibm.com.yaml")).unwrap();
    create(&definitions(&client), definition).await;
    while appwrappers(&client, MCAD, "v1beta1").list(&kube::api::ListParams::default()).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let dumped = Dumped::by(&server.kubeconfig());
    assert_eq!(dumped.states()[..5], ["listed 1", "listed 1", "notServed 0", "notServed 0", "listed 0"]);
    assert_eq!((dumped.code, dumped.read(&["explain"], &[]).0), (Some(0), Some(0)));
}

#[tokio::test]
async fn devices_and_claims_are_dumped_in_their_newest_version_and_what_may_not_be_listed_of_them_is_said() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    make_ready_node(&client, "n").await;
    devices::define(&client, Kind::ResourceSlice, &["v1", "v1beta2"]).await;
    for kind in [Kind::ResourceClaim, Kind::ResourceClaimTemplate, Kind::DeviceClass] {
        devices::define(&client, kind, &["v1beta2"]).await;
    }
    let slices = devices::devices(&client, Kind::ResourceSlice, "v1");
    create(&slices, devices::slice("v1", "n-gpus", "n", 0..4, (1, 1))).await;
    let claims = devices::devices(&client, Kind::ResourceClaim, "v1beta2");
    create(&claims, devices::claim("v1beta2", "one", "n", 0)).await;

    let dumped = Dumped::by(&server.kubeconfig());
    assert_eq!(dumped.code, Some(0), "{}", dumped.said);
    assert_eq!(dumped.states()[5..10], ["listed 1", "listed 1", "listed 0", "listed 0", "notServed 0"]);
    let versions: Vec<_> =
        dumped.record()["lists"].as_array().unwrap()[5..10].iter().map(|list| list["apiVersion"].clone()).collect();
    let [v1, v1beta2] = ["resource.k8s.io/v1", "resource.k8s.io/v1beta2"];
    assert_eq!(versions, [v1, v1beta2, v1beta2, v1beta2, v1]);
    let gpus = |name: &str, amount: u32| {
        format!("mcad_node_{name}{{node=\"n\",resource=\"nvidia_com_gpu\",unit=\"integer\"}} {amount}\n")
    };
    let (code, shown, errors) = dumped.read(&[], &["--print-metrics"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(shown.contains(&gpus("installed", 4)) && shown.contains(&gpus("free", 3)), "{shown}");

    make_account(&client, "looks").await;
    let of_nodes = json!({"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list"]});
    let slices = json!({"apiGroups": ["resource.k8s.io"], "resources": ["resourceslices"], "verbs": ["list"]});
    grant(&client, "looks", json!([of_nodes, slices])).await;
    let token = token(&client, "looks", "https://kubernetes.default.svc", None).await;
    let folder = TempDir::new().unwrap();
    let dumped = Dumped::by(&kubeconfig(&folder, &server, &token));
    assert_eq!(dumped.code, Some(1), "{}", dumped.said);
    assert_eq!(dumped.states()[5..10], ["listed 1", "failed 0", "failed 0", "failed 0", "notServed 0"]);
    let (code, shown, said) = dumped.read(&[], &["--print-metrics"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no ResourceClaims in the dump") && said.contains("cannot list resource"), "{said}");
    let has = |of: &str, resource: &str| shown.contains(&format!("mcad_{of}resource=\"{resource}\""));
    assert!(has("node_installed{node=\"n\",", "cpu") && has("cluster_free{", "cpu"), "{shown}");
    assert!(!has("node_installed{node=\"n\",", "nvidia_com_gpu") && !has("cluster_free{", "nvidia_com_gpu"), "{shown}");
}

#[tokio::test]
async fn what_an_account_may_not_list_is_missing_and_said() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    fill(&client).await;
    make_account(&client, "looks").await;
    grant(&client, "looks", json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}])).await;
    let token = token(&client, "looks", "https://kubernetes.default.svc", None).await;
    let folder = TempDir::new().unwrap();
    let kubeconfig = kubeconfig(&folder, &server, &token);

    let dumped = Dumped::by(&kubeconfig);
    assert_eq!(dumped.code, Some(1), "{}", dumped.said);
    let refused = "pods is forbidden: User \"system:serviceaccount:default:looks\" cannot list resource \"pods\"";
    assert!(dumped.said.contains(refused) && dumped.said.contains("The dump is incomplete"), "{}", dumped.said);
    assert_eq!(dumped.states()[..2], ["listed 1", "failed 0"]);
    let (code, said, _) = dumped.read(&["explain"], &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("Missing: no Pods in the dump") && said.contains(refused), "{said}");
}

fn kubeconfig(folder: &TempDir, server: &ApiServer, token: &str) -> PathBuf {
    let path = folder.path().join("kubeconfig");
    let mut config = server.kubeconfig_of(token);
    config["current-context"] = "other".into();
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

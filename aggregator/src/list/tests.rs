//! Tests of listing: the API server is a function from paths to answers.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use kube::client::Body;
use mcad_accounting::cluster::devices::DeviceInput;
use mcad_accounting::object::Object;
use mcad_testkit::reports::at;

use super::*;
use crate::dump::Dump;

/// A fake API server that answers these paths, with their queries, and the requests that it received.
fn server(answers: &[(&str, Value)], date: Option<&'static str>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let answers: BTreeMap<String, Value> =
        answers.iter().map(|(path, answer)| ((*path).to_owned(), answer.clone())).collect();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().to_string();
        asked.lock().unwrap().push(path.clone());
        let refused = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no such thing", "reason": "NotFound", "code": 404});
        let answer = answers.get(&path).cloned().unwrap_or(refused);
        let code = answer["code"].as_u64().map_or(StatusCode::OK, |code| StatusCode::from_u16(code as u16).unwrap());
        let mut response = Response::builder().status(code);
        if let Some(date) = date {
            response = response.header("date", date);
        }
        let response = response.body(Body::from(answer.to_string().into_bytes())).unwrap();
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    (Client::new(service, "default"), told)
}

/// The dump of this API server as text, its record, and the progress messages.
async fn listed(client: &Client) -> (String, Record, Vec<String>) {
    let (mut out, mut told) = (Vec::new(), Vec::new());
    let clock = Clock::from_fn(|| at(7));
    let record = write(client, &clock, &mut out, &mut |sentence| told.push(sentence)).await.unwrap();
    (String::from_utf8(out).unwrap(), record, told)
}

const PODS: &str = "/api/v1/pods?&limit=500";
const NODES: &str = "/api/v1/nodes?&limit=500";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "a", "managedFields": [{"manager": "secret"}], "annotations": {"x": "secret"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "secret", "env": [{"name": "X", "value": "secret"}]}]}})
}

#[tokio::test]
async fn a_list_is_asked_for_page_by_page_and_read_back_whole() {
    let next = "/api/v1/pods?&limit=500&continue=2";
    let (client, asked) = server(
        &[
            ("/version?", json!({"gitVersion": "v1.33.1"})),
            (NODES, json!({"metadata": {}, "items": [{"metadata": {"name": "n"}}]})),
            (PODS, json!({"metadata": {"continue": "2"}, "items": [pod("p"), pod("q")]})),
            (next, json!({"metadata": {"continue": ""}, "items": [pod("r")]})),
        ],
        Some("Mon, 05 Jan 2026 10:00:00 GMT"),
    );
    let (text, record, told) = listed(&client).await;
    assert_eq!(asked.lock().unwrap()[1..4], [NODES, PODS, next]);
    assert_eq!(told, ["nodes: 1", "pods: 2 so far", "pods: 3"]);
    assert!(!text.contains("secret"), "{text}");
    assert_eq!((record.instant.as_str(), record.clock), ("2026-01-05T10:00:00Z", WhoseClock::Server));
    assert_eq!(record.server_version.as_deref(), Some("v1.33.1"));
    let mut dump = Dump::default();
    dump.add("dump.json".as_ref(), &text).unwrap();
    let pods =
        dump.objects.iter().filter_map(|object| if let Object::Pod(pod) = object { Some(&*pod.name) } else { None });
    assert_eq!(pods.collect::<Vec<_>>(), ["p", "q", "r"]);
    assert_eq!(dump.records, [record]);
    assert_eq!(dump.known, [Kind::Node, Kind::Pod].into());
    assert!(dump.is_not_served(Kind::AppWrapper));
}

#[tokio::test]
async fn what_is_refused_or_breaks_off_is_in_the_record_and_not_known() {
    let refused = |code: u16, message: &str| json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "x", "code": code});
    let resources = json!({"kind": "APIResourceList", "groupVersion": "mcad.ibm.com/v1beta1",
        "resources": [{"name": "appwrappers", "kind": "AppWrapper", "namespaced": true, "singularName": "", "verbs": []}]});
    let appwrappers = "/apis/mcad.ibm.com/v1beta1/appwrappers?&limit=64";
    let (client, _) = server(
        &[
            ("/version?", refused(403, "no")),
            (NODES, refused(403, "nodes is forbidden")),
            (PODS, json!({"metadata": {"continue": "2"}, "items": [pod("p")]})),
            ("/api/v1/pods?&limit=500&continue=2", refused(410, "expired")),
            ("/apis/mcad.ibm.com/v1beta1", resources),
            (appwrappers, json!({"metadata": {}, "items": null})),
        ],
        None,
    );
    let (text, record, _) = listed(&client).await;
    assert_eq!((record.clock, record.server_version), (WhoseClock::Local, None));
    let states: Vec<_> = record.lists.iter().map(|list| (list.kind.as_str(), list.state, list.objects)).collect();
    let expected = [
        ("Node", ListState::Failed, 0),
        ("Pod", ListState::Failed, 1),
        ("AppWrapper", ListState::NotServed, 0),
        ("AppWrapper", ListState::NotServed, 0),
        ("AppWrapper", ListState::Listed, 0),
    ];
    assert_eq!(states[..5], expected);
    let not_served = |kind: Kind| (kind.name(), ListState::NotServed, 0);
    assert_eq!(states[5..], [Kind::DEVICES, Kind::QUEUES].concat().into_iter().map(not_served).collect::<Vec<_>>());
    assert_eq!(record.lists[0].error.as_deref(), Some("nodes: nodes is forbidden"));
    assert!(record.lists[1].error.as_ref().unwrap().contains("make the dump again"));
    let mut dump = Dump::default();
    dump.add("dump.json".as_ref(), &text).unwrap();
    assert_eq!(dump.known, [Kind::AppWrapper].into());
}

/// The answer of the API server for a version of `resource.k8s.io`.
fn resources(version: &str, names: &[&str]) -> Value {
    let resource =
        |name: &&str| json!({"name": name, "kind": "x", "namespaced": false, "singularName": "", "verbs": []});
    let resources: Vec<_> = names.iter().map(resource).collect();
    json!({"kind": "APIResourceList", "groupVersion": format!("resource.k8s.io/{version}"), "resources": resources})
}

const GROUP: &str = "/apis/resource.k8s.io?";

#[tokio::test]
async fn of_devices_the_newest_version_is_listed_in_small_pages_and_what_fails_leaves_the_rest() {
    let group = json!({"kind": "APIGroup", "name": "resource.k8s.io", "versions": [{"version": "v2"}, {"version": "v1"}, {"version": "v1beta1"}]});
    let slice = |name: &str| json!({"metadata": {"name": name, "managedFields": "secret"}, "spec": {"driver": "d", "nodeName": "n", "pool": {"name": "n", "resourceSliceCount": 2}}});
    let refused = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "claims are forbidden", "reason": "Forbidden", "code": 403});
    let slices = "/apis/resource.k8s.io/v1/resourceslices?&limit=32";
    let next = "/apis/resource.k8s.io/v1/resourceslices?&limit=32&continue=2";
    let (client, asked) = server(
        &[
            ("/version?", json!({})),
            (NODES, json!({"metadata": {}, "items": []})),
            (PODS, json!({"metadata": {}, "items": []})),
            (GROUP, group),
            ("/apis/resource.k8s.io/v1", resources("v1", &["resourceslices", "resourceslices/status"])),
            (
                "/apis/resource.k8s.io/v1beta1",
                resources("v1beta1", &["resourceslices", "resourceclaims", "deviceclasses", "devicetaintrules"]),
            ),
            (slices, json!({"metadata": {"continue": "2"}, "items": [slice("a")]})),
            (next, json!({"metadata": {}, "items": [slice("b")]})),
            ("/apis/resource.k8s.io/v1beta1/resourceclaims?&limit=500", refused),
            ("/apis/resource.k8s.io/v1beta1/deviceclasses?&limit=500", json!({"metadata": {}, "items": []})),
        ],
        None,
    );
    let (text, record, told) = listed(&client).await;
    assert!(!text.contains("secret"), "{text}");
    assert!(told.contains(&"resourceclaims: claims are forbidden".to_owned()), "{told:?}");
    let lists = record.lists[5..10].iter().map(|list| (list.api_version.as_str(), list.state, list.objects));
    let [v1, v1beta1] = ["resource.k8s.io/v1", "resource.k8s.io/v1beta1"];
    let expected = [
        (v1, ListState::Listed, 2),
        (v1beta1, ListState::Failed, 0),
        (v1, ListState::NotServed, 0),
        (v1beta1, ListState::Listed, 0),
        // It has no such version.
        (v1, ListState::NotServed, 0),
    ];
    assert_eq!(lists.collect::<Vec<_>>(), expected);
    assert!(!asked.lock().unwrap().iter().any(|path| path.contains("/v2")), "{asked:?}");
    let mut dump = Dump::default();
    dump.add("dump.json".as_ref(), &text).unwrap();
    assert_eq!(dump.count(Kind::ResourceSlice), 2);
    assert!(dump.has_failed(Kind::ResourceClaim) && dump.is_not_served(Kind::ResourceClaimTemplate));
    assert_eq!(dump.into_cluster().device_input(), DeviceInput::Unknown);
}

#[tokio::test]
async fn where_it_is_not_said_which_kinds_of_devices_are_served_they_are_not_known() {
    let refused = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403});
    let (client, _) = server(&[("/version?", json!({})), (GROUP, refused)], None);
    let (text, record, told) = listed(&client).await;
    assert!(record.lists[5..10].iter().all(|list| list.state == ListState::Failed), "{record:?}");
    assert!(
        told.contains(&"cannot determine which kinds of resource.k8s.io the API server serves: no".to_owned()),
        "{told:?}"
    );
    let mut dump = Dump::default();
    dump.add("dump.json".as_ref(), &text).unwrap();
    assert_eq!(dump.into_cluster().device_input(), DeviceInput::Unknown);
}

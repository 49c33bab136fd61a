//! ServiceAccounts, their pods and the tokens that a real API server makes for them, all in `default`.

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use super::objects::{create, pods};

/// Makes a ServiceAccount.
pub(crate) async fn make_account(client: &Client, name: &str) {
    let account = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    Api::<ServiceAccount>::namespaced(client.clone(), "default")
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
}

/// Makes a pod of an account, bound to a node.
pub(crate) async fn make_pod(client: &Client, name: &str, node: &str, account: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "x"}]}});
    create(&pods(client), pod).await;
}

/// A token as kubelet gets it for a pod.
pub(crate) async fn token(client: &Client, account: &str, audience: &str, pod: Option<&str>) -> String {
    let uid = match pod {
        Some(pod) => Api::<Pod>::namespaced(client.clone(), "default").get(pod).await.unwrap().metadata.uid,
        None => None,
    };
    let bound = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.to_owned()),
        uid,
    });
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: bound,
            expiration_seconds: Some(600),
        },
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
    let made = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    made.status.unwrap().token
}

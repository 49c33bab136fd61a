//! The rights that the manifests grant, against a real API server: whether they suffice where somebody deletes what the aggregator keeps.

use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use mcad_aggregator::clock::Clock;
use mcad_aggregator::clock::api::ApiClock;
use mcad_aggregator::trust::authority::{Keeper, Places};
use mcad_aggregator::trust::certificate::read_bundle;
use mcad_aggregator::trust::tls::Certificates;
use serde_json::json;

use super::rendered::kubectl;
use crate::support::apiserver::ApiServer;

const NAMESPACE: &str = "mcad-metrics";
const ACCOUNT: &str = "mcad-aggregator";
const SECRET: &str = "mcad-aggregator-authority";
const BUNDLE: &str = "mcad-aggregator-bundle";

/// A token of the aggregator's account, as its pod gets one.
async fn token(admin: &Client) -> String {
    let spec = TokenRequestSpec { audiences: Vec::new(), bound_object_ref: None, expiration_seconds: Some(600) };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), NAMESPACE);
    let made = accounts.create_token_request(ACCOUNT, &PostParams::default(), &request).await.unwrap();
    made.status.unwrap().token
}

/// Both objects, as an administrator sees them.
struct Objects {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
}

impl Objects {
    async fn bundle(&self) -> Vec<[u8; 32]> {
        let map = self.config_maps.get(BUNDLE).await.unwrap();
        read_bundle(&map.data.unwrap_or_default()["ca.crt"]).into_iter().map(|(read, _)| read.id).collect()
    }

    async fn delete_bundle(&self) {
        self.config_maps.delete(BUNDLE, &DeleteParams::default()).await.unwrap();
    }

    async fn delete_secret(&self) {
        self.secrets.delete(SECRET, &DeleteParams::default()).await.unwrap();
    }

    async fn empty_both(&self) {
        let (parameters, nothing) = (PatchParams::default(), Patch::Merge(json!({"data": null})));
        self.secrets.patch(SECRET, &parameters, &nothing).await.unwrap();
        self.config_maps.patch(BUNDLE, &parameters, &nothing).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_comes_back_by_the_manifests_own_rights_when_it_is_deleted_or_emptied() {
    if kubectl(&["version", "--client"]).is_none() {
        return;
    }
    let Some(server) = ApiServer::start().await else { return };
    let kubeconfig = format!("--kubeconfig={}", server.kubeconfig().display());
    kubectl(&[&kubeconfig, "apply", "-k", "deploy/base"]).unwrap();
    let admin = server.client();
    let client = server.client_of(&token(&admin).await, NAMESPACE);
    let objects = Objects {
        secrets: Api::namespaced(admin.clone(), NAMESPACE),
        config_maps: Api::namespaced(admin.clone(), NAMESPACE),
    };
    let (certificates, clock) = (Certificates::default(), ApiClock::new(Clock::system()));
    let places = Places { namespace: NAMESPACE.into(), secret: SECRET.into(), config_map: BUNDLE.into() };
    let mut keeper = Keeper::new(client, places, vec!["reports.svc".into()], clock, certificates.clone());

    keeper.look().await.unwrap();
    let first = objects.bundle().await;
    let shown = certificates.config().unwrap();
    objects.delete_bundle().await;
    keeper.look().await.unwrap();
    assert_eq!(objects.bundle().await, first);

    // Agents go on to trust the old one, which is shown for a day.
    objects.delete_secret().await;
    keeper.look().await.unwrap();
    let both = objects.bundle().await;
    assert!(both.len() == 2 && both.contains(&first[0]), "{both:?}");
    assert!(Arc::ptr_eq(&shown, &certificates.config().unwrap()));

    // Nobody is told of it any more, so that another one is shown at once.
    objects.delete_secret().await;
    objects.delete_bundle().await;
    keeper.look().await.unwrap();
    let second = objects.bundle().await;
    assert!(second.len() == 1 && !both.contains(&second[0]), "{second:?}");
    let shown_then = certificates.config().unwrap();
    assert!(!Arc::ptr_eq(&shown, &shown_then));

    objects.empty_both().await;
    keeper.look().await.unwrap();
    let third = objects.bundle().await;
    assert!(third.len() == 1 && third != second, "{third:?}");
    assert!(!Arc::ptr_eq(&shown_then, &certificates.config().unwrap()));

    // It may make what was deleted, and reads no other.
    let reader = Api::<Secret>::namespaced(server.client_of(&token(&admin).await, NAMESPACE), NAMESPACE);
    let refused = reader.list(&kube::api::ListParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
}

//! The past, asked for by TLS and with a token: a replica beside a real kube-apiserver that made the token, the Secret and the
//! ConfigMap, and a second one that learns of it.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::accounts::{make_account, make_pod, token};
use crate::support::aggregator::Aggregator;
use crate::support::apiserver::ApiServer;
use crate::support::objects::{create, node, nodes};
use crate::support::wait::until;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use mcad_aggregator::peer::{self, FetchError};
use mcad_aggregator::trust::certificate::CertificateAuthority;
use mcad_aggregator::trust::peers::Credentials;
use mcad_aggregator::trust::verdict::AUDIENCE;
use mcad_wire::state_transfer::StateTransfer;
use prost::Message as _;
use tempfile::TempDir;

/// A token as kubelet gets it for a pod of this account.
async fn token_of(client: &Client, account: &str, audience: &str) -> String {
    let pod = format!("{account}-of-{audience}");
    make_pod(client, &pod, "a", account).await;
    token(client, account, audience, Some(&pod)).await
}

/// A replica as in a pod, but on loopback.
fn start(kubeconfig: &Path, bundle: &Path, token: &Path) -> Aggregator {
    let trusted = ["--report-auth", "token", "--report-tls", "own", "--tls-name", "reports.test.svc"];
    let elected = ["--leader-elect", "on", "--lease-namespace", "default"];
    let proven = ["--peer-ca", bundle.to_str().unwrap(), "--peer-token", token.to_str().unwrap()];
    Aggregator::watching(kubeconfig, &[&trusted[..], &elected, &proven].concat())
}

/// Waits until it logs these words.
async fn says(replica: &Aggregator, words: &str) {
    until(words, || replica.log().contains(words)).await;
}

/// The bundle, once it is there.
async fn bundle(client: &Client) -> String {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let there = async {
        loop {
            let map = maps.get_opt("mcad-aggregator-bundle").await.unwrap();
            if let Some(text) = map.and_then(|map| map.data?.remove("ca.crt")) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), there).await.unwrap()
}

/// A cluster with one node, and a folder with what pods mount.
struct World {
    server: ApiServer,
    client: Client,
    folder: TempDir,
}

impl World {
    async fn new() -> Option<Self> {
        let server = ApiServer::start().await?;
        let client = server.client();
        create(&nodes(&client), node("a")).await;
        for account in ["mcad-agent", "mcad-aggregator"] {
            make_account(&client, account).await;
        }
        Some(Self { server, client, folder: TempDir::new().unwrap() })
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_learns_the_past_by_tls_and_its_own_token_and_nobody_else_does() {
    let Some(world) = World::new().await else { return };
    let ours = world.file("token", &token_of(&world.client, "mcad-aggregator", AUDIENCE).await);
    let mounted = world.folder.path().join("ca.crt");
    let kubeconfig = world.server.kubeconfig();
    let first = start(&kubeconfig, &mounted, &ours);
    // The folder is mounted before the bundle is there.
    world.file("ca.crt", &bundle(&world.client).await);
    says(&first, "this replica is the leader").await;

    let asked = |name: &'static str, bundle: PathBuf, token: Option<PathBuf>| {
        let credentials = Credentials::default().verify(bundle, name).unwrap();
        let credentials = token.map_or(credentials.clone(), |token| credentials.prove(token));
        let peer = first.reports.parse().unwrap();
        async move { peer::fetch(peer, &credentials).await }
    };
    let name = "reports.test.svc";
    let seed = asked(name, mounted.clone(), Some(ours.clone())).await.unwrap();
    StateTransfer::decode(seed).unwrap();

    let status = |asked: Result<_, FetchError>| match asked {
        Err(FetchError::Refused(_, status)) => status.as_u16(),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(asked(name, mounted.clone(), None).await), 401);
    let agents = world.file("agent", &token_of(&world.client, "mcad-agent", AUDIENCE).await);
    assert_eq!(status(asked(name, mounted.clone(), Some(agents)).await), 403);
    let others = world.file("other", &token_of(&world.client, "mcad-aggregator", "elsewhere").await);
    assert_eq!(status(asked(name, mounted.clone(), Some(others)).await), 401);

    let handshake = |asked| matches!(asked, Err(FetchError::Handshake(..)));
    assert!(handshake(asked("else.test.svc", mounted.clone(), Some(ours.clone())).await));
    let strange = world.file("strange.crt", &CertificateAuthority::make(1_800_000_000).unwrap().certificate);
    assert!(handshake(asked(name, strange, Some(ours.clone())).await));

    let second = start(&kubeconfig, &mounted, &ours);
    says(&second, "state transfer from another replica is complete").await;
}

//! Trust against a real kube-apiserver: tokens that it made, and the authority's Secret and ConfigMap through replicas that
//! race and time that passes.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::accounts::{make_account, make_pod, token};
use crate::support::aggregator as process;
use crate::support::apiserver::{ApiServer, client_at};
use crate::support::objects::{create, node, nodes};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use mcad_accounting::cluster::{Cluster, Event, Source};
use mcad_accounting::merge::Ages;
use mcad_accounting::node_name::NodeName;
use mcad_accounting::nodes::Outcome;
use mcad_accounting::now::Now;
use mcad_accounting::options::Options;
use mcad_aggregator::clock::Clock;
use mcad_aggregator::clock::api::ApiClock;
use mcad_aggregator::known::Known;
use mcad_aggregator::receive::Refusal;
use mcad_aggregator::replica::Replica;
use mcad_aggregator::self_metrics::SelfMetrics;
use mcad_aggregator::trust::authority::{Keeper, Places};
use mcad_aggregator::trust::certificate::read_bundle;
use mcad_aggregator::trust::identity::{self, Tokens};
use mcad_aggregator::trust::rotation::{AUTHORITY_S, LEAF_S};
use mcad_aggregator::trust::tls::Certificates;
use mcad_aggregator::trust::verdict::{AUDIENCE, Bearer, Distrust};
use mcad_aggregator::watch::{self, Settings, Told};
use mcad_wire::report::{REPORT_VERSION, Report};
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Two nodes with an agent each, and a pod of somebody else.
async fn cluster(client: &Client) {
    for name in ["a", "b"] {
        create(&nodes(client), node(name)).await;
    }
    for account in ["mcad-agent", "other"] {
        make_account(client, account).await;
    }
    for (pod, node, account) in [("on-a", "a", "mcad-agent"), ("on-b", "b", "mcad-agent"), ("other", "a", "other")] {
        make_pod(client, pod, node, account).await;
    }
}

fn report_of(node: &str, sequence: u64) -> Report {
    let version = REPORT_VERSION;
    Report { version, node: node.to_owned(), sequence, uptime_ns: sequence, interval_ms: 10_000, ..Report::default() }
}

/// An aggregator's identity and view.
struct Aggregator {
    tokens: Tokens,
    replica: Arc<Replica>,
}

impl Aggregator {
    fn new(client: Client) -> Self {
        let clock = Clock::system();
        let account = "system:serviceaccount:default:mcad-agent".to_owned();
        let tokens = Tokens::new(client, account, clock.clone(), identity::Limits::default());
        let known = Known::new(Cluster::default(), Options::default(), Ages::Count);
        let figures = SelfMetrics::new().unwrap();
        let replica = Arc::new(Replica::new(clock, known, figures));
        Self { tokens, replica }
    }

    /// Takes in what the API server lists.
    async fn list(&self, client: Client) {
        let (tell, mut told) = mpsc::channel(64);
        let hear = async {
            let mut known = 0;
            while known < 2 {
                let told = told.recv().await.unwrap();
                let is_list = matches!(&told, Told::Event(Event::Reset(Source::Nodes | Source::Pods, _)));
                known += u32::from(is_list);
                self.replica.hear(told);
            }
        };
        tokio::select! {
            () = watch::run(client, Settings::default(), tell) => {}
            () = hear => {}
        }
    }

    /// A report of `node` with this token: whether it was taken, or why not.
    async fn report(&self, token: Option<&str>, node: &str) -> Result<Outcome, &'static str> {
        static SEQUENCE: AtomicU64 = AtomicU64::new(1);
        let sequence = SEQUENCE.fetch_add(1, Ordering::SeqCst);
        let report = report_of(node, sequence);
        let sender = async {
            let bearer = self.tokens.bearer(token, PEER, |_| ()).await?;
            self.replica.node_of(bearer)
        };
        let outcome = match sender.await {
            Ok(sender) => self.replica.take(Some(&sender), Ok(&report.encode_to_vec())),
            Err(refusal) => Err(refusal),
        };
        outcome.map_err(|refusal: Refusal| refusal.reason())
    }

    fn has_heard_of(&self, node: &str) -> bool {
        let name = NodeName::new(node).unwrap();
        self.replica.snapshot().agent(name.as_str()).is_some_and(|agent| agent.report_age.is_some())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_is_taken_with_its_own_nodes_token_and_every_other_token_has_its_reason() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    cluster(&client).await;
    let aggregator = Aggregator::new(client.clone());
    let on_a = token(&client, "mcad-agent", AUDIENCE, Some("on-a")).await;

    // This server says which pod the token is of: before the pods are listed nobody knows where that is.
    assert_eq!(aggregator.report(Some(&on_a), "a").await, Err("not_ready"));
    aggregator.list(client.clone()).await;
    assert_eq!(aggregator.report(Some(&on_a), "a").await, Ok(Outcome::Taken));
    let bearer = aggregator.tokens.bearer(Some(&on_a), PEER, |_| ()).await.unwrap();
    assert!(matches!(&bearer, Bearer::InPod(pod) if pod.name == "on-a" && pod.namespace == "default"), "{bearer:?}");

    assert_eq!(aggregator.report(None, "b").await, Err("no_token"));
    assert_eq!(aggregator.report(Some("garbage"), "b").await, Err("token_garbage"));
    assert_eq!(aggregator.report(Some(&on_a), "b").await, Err("token_other_node"), "a's agent says that it is b");
    let of_api_server = token(&client, "mcad-agent", "https://kubernetes.default.svc", Some("on-b")).await;
    assert_eq!(aggregator.report(Some(&of_api_server), "b").await, Err("token_audience"));
    let of_other = token(&client, "other", AUDIENCE, Some("other")).await;
    assert_eq!(aggregator.report(Some(&of_other), "a").await, Err("token_service_account"));
    let unbound = token(&client, "mcad-agent", AUDIENCE, None).await;
    assert_eq!(aggregator.report(Some(&unbound), "b").await, Err("token_unbound"));
    let on_b = token(&client, "mcad-agent", AUDIENCE, Some("on-b")).await;
    let forged = forge(&on_b);
    assert_eq!(aggregator.report(Some(&forged), "b").await, Err("token_rejected"));
    assert!(!aggregator.has_heard_of("b"), "nobody could speak for b");
    assert_eq!(aggregator.report(Some(&on_b), "b").await, Ok(Outcome::Taken));
    assert!(aggregator.has_heard_of("b"));
}

/// An API server with two nodes, and an aggregator that knows them.
async fn listed() -> Option<(ApiServer, Client, Aggregator)> {
    let server = ApiServer::start().await?;
    let client = server.client();
    cluster(&client).await;
    let aggregator = Aggregator::new(client.clone());
    aggregator.list(client.clone()).await;
    Some((server, client, aggregator))
}

/// Another signature.
fn forge(token: &str) -> String {
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{rest}.{first}{}", &signature[1..])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_with_its_pod() {
    let Some((_server, client, aggregator)) = listed().await else { return };
    let on_a = token(&client, "mcad-agent", AUDIENCE, Some("on-a")).await;
    let unseen = token(&client, "mcad-agent", AUDIENCE, Some("on-b")).await;
    assert_eq!(aggregator.report(Some(&on_a), "a").await, Ok(Outcome::Taken));
    for pod in ["on-a", "on-b"] {
        let now = DeleteParams::default().grace_period(0);
        Api::<Pod>::namespaced(client.clone(), "default").delete(pod, &now).await.unwrap();
    }
    // Its verdict stands, but the pod is not where it was; one that is asked about now is not accepted.
    aggregator.list(client.clone()).await;
    assert_eq!(aggregator.report(Some(&on_a), "a").await, Err("token_pod_unknown"));
    assert_eq!(aggregator.report(Some(&unseen), "b").await, Err("token_rejected"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_is_refused_by_the_api_server_though_all_else_is_right() {
    let Some((server, client, aggregator)) = listed().await else { return };
    let on_a = token(&client, "mcad-agent", AUDIENCE, Some("on-a")).await;
    let now_s = Clock::system().now().unix_ms / 1000;
    let signed = |exp_s| sign_anew(&server.token_key(), &on_a, exp_s);
    assert_eq!(aggregator.report(Some(&signed(now_s + 300)), "a").await, Ok(Outcome::Taken), "the key is right");
    assert_eq!(aggregator.report(Some(&signed(now_s - 300)), "a").await, Err("token_expired"));
}

/// The same token with another end, signed as the API server signs.
fn sign_anew(key: &str, token: &str, exp_s: u64) -> String {
    let parts: Vec<_> = token.split('.').collect();
    let mut claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    claims["exp"] = json!(exp_s);
    claims["nbf"] = json!(exp_s - 600);
    claims["iat"] = json!(exp_s - 600);
    let signed = format!("{}.{}", parts[0], BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = rcgen::KeyPair::from_pem(key).unwrap();
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, key.serialized_der(), &random).unwrap();
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_api_server_is_dead_known_agents_go_on_and_new_ones_wait() {
    let Some((mut server, client, aggregator)) = listed().await else { return };
    let on_a = token(&client, "mcad-agent", AUDIENCE, Some("on-a")).await;
    let on_b = token(&client, "mcad-agent", AUDIENCE, Some("on-b")).await;
    assert_eq!(aggregator.report(Some(&on_a), "a").await, Ok(Outcome::Taken));
    server.kill();
    assert_eq!(aggregator.report(Some(&on_a), "a").await, Ok(Outcome::Taken));
    assert_eq!(aggregator.report(Some(&on_b), "b").await, Err(Distrust::Unavailable.reason()));
    server.restart().await;
    assert_eq!(aggregator.report(Some(&on_b), "b").await, Ok(Outcome::Taken));
}

/// A process that makes its own certificate and asks for tokens, as in a pod, but on loopback.
fn start(kubeconfig: &Path) -> process::Aggregator {
    let flags = ["--report-auth", "token", "--report-tls", "own", "--tls-name", "127.0.0.1"];
    process::Aggregator::watching(kubeconfig, &flags)
}

/// Sends a report of node a as an agent does that trusts the bundle in the ConfigMap; the status line of the answer.
async fn post(to: &process::Aggregator, client: &Client, token: &str, sequence: u64) -> io::Result<String> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let map = maps.get("mcad-aggregator-bundle").await.map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        CertificateDer::pem_slice_iter(map.data.unwrap()["ca.crt"].as_bytes()).map(Result::unwrap),
    );
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let address: SocketAddr = to.reports.parse().unwrap();
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(config).connect(ServerName::from(address.ip()), stream).await?;
    stream.write_all(&process::post(&report_of("a", sequence), Some(token))).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_mounts_the_bundle_and_its_token_is_taken_by_every_replica() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    cluster(&client).await;
    let kubeconfig = server.kubeconfig();
    let replicas = [start(&kubeconfig), start(&kubeconfig)];
    let on_a = token(&client, "mcad-agent", AUDIENCE, Some("on-a")).await;
    for replica in &replicas {
        let taken = async {
            let mut sequence = 0;
            // Until the bundle is there and the pods are listed, agents come back.
            loop {
                sequence += 1;
                match post(replica, &client, &on_a, sequence).await {
                    Ok(status) if status == "HTTP/1.1 204 No Content" => break,
                    Ok(status) => assert!(status.starts_with("HTTP/1.1 503 "), "{status}"),
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), taken).await.expect("a minute without a report taken");
        let on_b = token(&client, "mcad-agent", AUDIENCE, Some("on-b")).await;
        assert_eq!(post(replica, &client, &on_b, 1000).await.unwrap(), "HTTP/1.1 403 Forbidden");
    }
}

const NOW_S: u64 = 1_800_000_000;

/// A replica that keeps the authority, whose clock stands until it is turned.
struct Replicated {
    keeper: Keeper,
    certificates: Certificates,
}

fn replicated(client: Client, seconds: &Arc<AtomicU64>) -> Replicated {
    let hand = Arc::clone(seconds);
    let clock = Clock::from_fn(move || Now { unix_ms: hand.load(Ordering::SeqCst) * 1000, ..Now::default() });
    let places = Places { namespace: "default".into(), secret: "authority".into(), config_map: "bundle".into() };
    let certificates = Certificates::default();
    let clock = ApiClock::new(clock);
    let keeper = Keeper::new(client, places, vec!["reports.svc".into()], clock, certificates.clone());
    Replicated { keeper, certificates }
}

async fn bundle(client: &Client) -> Vec<[u8; 32]> {
    let map = Api::<ConfigMap>::namespaced(client.clone(), "default").get("bundle").await.unwrap();
    read_bundle(&map.data.unwrap()["ca.crt"]).into_iter().map(|(read, _)| read.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_share_one_authority_and_go_through_years_with_it() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    let seconds = Arc::new(AtomicU64::new(NOW_S));
    let mut replicas: Vec<_> = (0..8).map(|_| replicated(client_at(server.port()), &seconds)).collect();
    let looks = futures::future::join_all(replicas.iter_mut().map(|replica| replica.keeper.look())).await;
    assert!(looks.iter().all(Result::is_ok), "{looks:?}");
    let first = bundle(&client).await;
    assert_eq!(first.len(), 1, "eight made one, and one was first");
    for replica in &replicas {
        assert_eq!(replica.certificates.not_after_s(), Some(NOW_S + LEAF_S));
    }

    // Three years in steps of ten days, all replicas at once.
    let mut seen = std::collections::BTreeSet::new();
    for days in (0..3 * 365).step_by(10) {
        seconds.store(NOW_S + days * 86_400, Ordering::SeqCst);
        let looks = futures::future::join_all(replicas.iter_mut().map(|replica| replica.keeper.look())).await;
        assert!(looks.iter().all(Result::is_ok), "day {days}: {looks:?}");
        let now = bundle(&client).await;
        assert!(now.len() <= 3, "day {days}");
        seen.extend(now);
        for replica in &replicas {
            assert!(replica.certificates.not_after_s().unwrap() > NOW_S + days * 86_400, "day {days}");
        }
    }
    // The next one is made 250 days after the one before, in steps of ten.
    assert_eq!(seen.len(), 5);
    assert!(!bundle(&client).await.contains(&first[0]), "it expired after {AUTHORITY_S} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_to_secret_and_config_map_is_made_good() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client();
    let seconds = Arc::new(AtomicU64::new(NOW_S));
    let mut replica = replicated(server.client(), &seconds);
    let (secrets, maps) =
        (Api::<Secret>::namespaced(client.clone(), "default"), Api::<ConfigMap>::namespaced(client.clone(), "default"));
    // Made empty beforehand, so that the aggregator needs no right to create.
    secrets.create(&PostParams::default(), &object(json!({"metadata": {"name": "authority"}}))).await.unwrap();
    maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "bundle"}}))).await.unwrap();
    replica.keeper.look().await.unwrap();
    let first = bundle(&client).await;

    // A stranger's certificate in the bundle, then no bundle at all.
    let (patch, stranger) =
        (PatchParams::default(), mcad_aggregator::trust::certificate::CertificateAuthority::make(NOW_S).unwrap());
    let strange = json!({"data": {"ca.crt": stranger.certificate}});
    maps.patch("bundle", &patch, &Patch::Merge(strange)).await.unwrap();
    replica.keeper.look().await.unwrap();
    assert_eq!(bundle(&client).await, first);
    maps.delete("bundle", &DeleteParams::default()).await.unwrap();
    replica.keeper.look().await.unwrap();
    assert_eq!(bundle(&client).await, first);

    // The Secret is deleted: agents go on to trust the old one, and for a day it is shown.
    secrets.delete("authority", &DeleteParams::default()).await.unwrap();
    let shown = replica.certificates.not_after_s();
    replica.keeper.look().await.unwrap();
    let both = bundle(&client).await;
    assert!(both.len() == 2 && both.contains(&first[0]), "{both:?}");
    assert_eq!(replica.certificates.not_after_s(), shown);
    seconds.store(NOW_S + 86_400, Ordering::SeqCst);
    replica.keeper.look().await.unwrap();
    assert_eq!(replica.certificates.not_after_s(), Some(NOW_S + 86_400 + LEAF_S));

    // Content that is no CA is not overwritten: somebody put it there.
    let broken = json!({"stringData": {"signing.crt": "x"}});
    secrets.patch("authority", &patch, &Patch::Merge(broken)).await.unwrap();
    let refusal = replica.keeper.look().await.unwrap_err().to_string();
    assert!(refusal.contains("Secret default/authority does not contain a valid CA: delete it"), "{refusal}");
    assert!(replica.certificates.config().is_some(), "what is shown is shown on");
}

//! A real etcd and kube-apiserver for one test, on loopback, with their data in a temporary folder. The binaries come from
//! `$KUBEBUILDER_ASSETS`, the convention of the field; `cargo xtask test` sets it where it can.

#![allow(dead_code, reason = "every test file takes what it needs")]

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use kube::{Client, Config, config::AuthInfo};
use tempfile::TempDir;

/// The administrator's token, known to this throw-away server alone.
const TOKEN: &str = "admin-of-a-test";

/// etcd and kube-apiserver; both end with it.
pub(crate) struct ApiServer {
    api: Child,
    etcd: Child,
    api_port: u16,
    etcd_port: u16,
    binaries: PathBuf,
    data: TempDir,
}

impl ApiServer {
    /// Starts both and waits until the API server is ready. None, and said aloud, where the binaries are not at hand.
    pub(crate) async fn start() -> Option<Self> {
        let Some(binaries) = binaries() else {
            eprintln!("SKIPPED: no etcd and kube-apiserver: set KUBEBUILDER_ASSETS to a folder that has them");
            return None;
        };
        let data = TempDir::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(data.path().join("sa.key"), key.serialize_pem()).unwrap();
        fs::write(data.path().join("sa.pub"), key.public_key_pem()).unwrap();
        fs::write(data.path().join("tokens.csv"), format!("{TOKEN},admin,1,system:masters\n")).unwrap();
        let (api_port, etcd_port) = (free_port(), free_port());
        let etcd = spawn_etcd(&binaries, data.path(), etcd_port);
        let api = spawn_api_server(&binaries, data.path(), api_port, etcd_port);
        let mut started = Self { api, etcd, api_port, etcd_port, binaries, data };
        started.ready().await;
        Some(started)
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.api_port
    }

    /// A kubeconfig with all rights, for a process.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.data.path().join("kubeconfig");
        let config = self.kubeconfig_of(TOKEN);
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// A kubeconfig with the rights of whoever that token is of.
    pub(crate) fn kubeconfig_of(&self, token: &str) -> serde_json::Value {
        let server = format!("https://127.0.0.1:{}", self.api_port);
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })
    }

    /// A client with all rights, straight to the server.
    pub(crate) fn client(&self) -> Client {
        client_at(self.api_port)
    }

    /// A client with the rights of whoever that token is of, whose objects are in that namespace.
    pub(crate) fn client_of(&self, token: &str, namespace: &str) -> Client {
        client(self.api_port, token, namespace)
    }

    /// The key in PEM that it signs ServiceAccounts' tokens with.
    pub(crate) fn token_key(&self) -> String {
        fs::read_to_string(self.data.path().join("sa.key")).unwrap()
    }

    /// Kills the API server without a word. Its data stay in etcd.
    pub(crate) fn kill(&mut self) {
        let _ = self.api.kill();
        let _ = self.api.wait();
    }

    /// A copy of what etcd holds, while the API server is away.
    pub(crate) fn back_up(&mut self) -> PathBuf {
        let backup = self.data.path().join("backup");
        self.replace_etcd(|etcd| copy(etcd, &backup));
        backup
    }

    /// Puts a copy back in place of what etcd holds, while the API server is away.
    pub(crate) fn restore(&mut self, backup: &Path) {
        self.replace_etcd(|etcd| {
            fs::remove_dir_all(etcd).unwrap();
            copy(backup, etcd);
        });
    }

    /// Ends etcd, does something to its data, and starts it again.
    fn replace_etcd(&mut self, with: impl FnOnce(&Path)) {
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
        with(&self.data.path().join("etcd"));
        self.etcd = spawn_etcd(&self.binaries, self.data.path(), self.etcd_port);
    }

    /// Starts the API server again, with empty caches, and waits until it is ready.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.api = spawn_api_server(&self.binaries, self.data.path(), self.api_port, self.etcd_port);
        self.ready().await;
    }

    async fn ready(&mut self) {
        let client = self.client();
        // Bounded by the servers' own lives: one that ends fails the test with its log.
        loop {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            if client.request_text(request).await.is_ok_and(|answer| answer == "ok") {
                return;
            }
            for (child, log) in [(&mut self.etcd, "etcd.log"), (&mut self.api, "api-server.log")] {
                if let Some(status) = child.try_wait().unwrap() {
                    let log = fs::read_to_string(self.data.path().join(log)).unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(20).collect();
                    panic!("{status}: {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in [&mut self.api, &mut self.etcd] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client of the API server, through whatever listens at that port.
pub(crate) fn client_at(port: u16) -> Client {
    client(port, TOKEN, "default")
}

fn client(port: u16, token: &str, namespace: &str) -> Client {
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
    namespace.clone_into(&mut config.default_namespace);
    Client::try_from(config).unwrap()
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn binaries() -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os("KUBEBUILDER_ASSETS")?);
    ["etcd", "kube-apiserver"].iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

/// A port that nothing listens at: the servers can't be asked to choose one and tell. It is below those that the kernel gives to outgoing
/// connections, else any connection of another test could have it by the time a killed server listens again.
fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let outgoing = fs::read_to_string(OUTGOING).unwrap();
    let end: u16 = outgoing.split_whitespace().next().unwrap().parse().unwrap();
    assert!(end > FIRST + 1_000, "{OUTGOING} leaves no ports to listen at: {outgoing}");
    // Where processes begin differs, so that two test runs at once seldom try the same.
    let begin = std::process::id().wrapping_mul(97);
    loop {
        let offset = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed).into()) % u32::from(end - FIRST);
        let port = FIRST + u16::try_from(offset).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn spawn_etcd(binaries: &Path, data: &Path, port: u16) -> Child {
    let peer = free_port();
    spawn(
        &binaries.join("etcd"),
        &data.join("etcd.log"),
        &[
            format!("--data-dir={}", data.join("etcd").display()),
            "--name=test".into(),
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
            format!("--listen-client-urls=http://127.0.0.1:{port}"),
            format!("--advertise-client-urls=http://127.0.0.1:{port}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster=test=http://127.0.0.1:{peer}"),
        ],
    )
}

fn spawn_api_server(binaries: &Path, data: &Path, port: u16, etcd_port: u16) -> Child {
    let in_data = |name: &str| data.join(name).display().to_string();
    spawn(
        &binaries.join("kube-apiserver"),
        &data.join("api-server.log"),
        &[
            format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
            "--endpoint-reconciler-type=none".into(),
            format!("--cert-dir={}", in_data("certificates")),
            format!("--token-auth-file={}", in_data("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", in_data("sa.pub")),
            format!("--service-account-signing-key-file={}", in_data("sa.key")),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            "--authorization-mode=RBAC".into(),
            "--disable-admission-plugins=ServiceAccount".into(),
        ],
    )
}

fn spawn(binary: &Path, log: &Path, arguments: &[String]) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    Command::new(binary)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

//! Flags about who may send reports, and certificates. Owns what they mean together: what a listener that other machines
//! can reach must have.
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use mcad_accounting::resource::quantity::Quantity;

use crate::trust::files::Files;
use crate::trust::peers::Credentials;

/// Who may send reports, and how both sides know whom they talk to.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Trust")]
pub struct Trust {
    /// Whose reports are taken: token (of agents, by the token of their ServiceAccount, each for its own node) or none (of
    /// anybody). Default: token, with --report-listen on loopback none. Other machines need token.
    #[arg(long, env = "MCAD_REPORT_AUTH", value_enum, value_name = "token|none")]
    pub report_auth: Option<ReportAuth>,
    /// Whose tokens are agents'. Default: the ServiceAccount mcad-agent in this one's namespace.
    #[arg(long, env = "MCAD_AGENT_SERVICE_ACCOUNT", value_name = "system:serviceaccount:NAMESPACE:NAME")]
    pub agent_service_account: Option<String>,
    /// How reports come: own (by TLS, with a certificate made here, of an authority that is kept in a Secret) or off (plain
    /// HTTP). Default: own, with --report-listen on loopback off; with --tls-cert neither.
    #[arg(long, env = "MCAD_REPORT_TLS", value_enum, value_name = "own|off", conflicts_with = "tls_cert")]
    pub report_tls: Option<ReportTls>,
    /// Certificate of --report-listen in PEM, with those between it and its authority; read anew when it changes.
    #[arg(long, env = "MCAD_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key in PEM.
    #[arg(long, env = "MCAD_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Name or IP address in a certificate made here: the host of the agents' --aggregator. May be given several times.
    /// Default: mcad-aggregator-reports.NAMESPACE.svc, and with .cluster.local.
    #[arg(long, value_name = "NAME")]
    pub tls_name: Vec<String>,
    /// Secret with the authority that is made here, shared by all replicas.
    #[arg(long, env = "MCAD_TLS_SECRET", value_name = "NAME", default_value = "mcad-aggregator-authority")]
    pub tls_secret: String,
    /// ConfigMap whose key ca.crt agents mount for --aggregator-ca.
    #[arg(long, env = "MCAD_TLS_BUNDLE", value_name = "NAME", default_value = "mcad-aggregator-bundle")]
    pub tls_bundle: String,
    /// Authorities in PEM that vouch for other replicas, as --aggregator-ca does for agents; read anew for each question. A
    /// replica that starts asks another for totals of the past by it, where reports come by TLS.
    #[arg(long, env = "MCAD_PEER_CA", value_name = "FILE")]
    pub peer_ca: Option<PathBuf>,
    /// This replica's own ServiceAccount token, for the audience mcad-metrics and bound to its pod. Where reports need tokens, a
    /// replica asks another by it, and tells only those with a token of the same ServiceAccount.
    #[arg(long, env = "MCAD_PEER_TOKEN", value_name = "FILE")]
    pub peer_token: Option<PathBuf>,
    /// Certificate of --listen in PEM; read anew when it changes. Default: plain HTTP.
    #[arg(long, env = "MCAD_METRICS_TLS_CERT", value_name = "FILE", requires = "metrics_tls_key")]
    pub metrics_tls_cert: Option<PathBuf>,
    /// Its private key in PEM.
    #[arg(long, env = "MCAD_METRICS_TLS_KEY", value_name = "FILE", requires = "metrics_tls_cert")]
    pub metrics_tls_key: Option<PathBuf>,
    /// Memory that all reports together may take.
    #[arg(long, env = "MCAD_REPORT_MEMORY", value_name = "QUANTITY", default_value = "1Gi")]
    pub report_memory: Quantity,
}

/// `--report-auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportAuth {
    /// Agents' alone
    Token,
    /// Anybody's
    None,
}

/// `--report-tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportTls {
    /// By TLS, with a certificate made here
    Own,
    /// Plain HTTP
    Off,
}

/// What protects the report port, all flags considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Whose reports are taken.
    pub auth: ReportAuth,
    /// With which certificate.
    pub tls: Tls,
}

/// With which certificate a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// None: it speaks plain HTTP.
    Off,
    /// One made here.
    Own,
    /// One that is given.
    Files(Files),
}

impl Trust {
    /// What protects reports that come to this address; refused where other machines can reach it and could forge them.
    /// `is_kube`: there is an API server to ask.
    pub fn protection(&self, listen: SocketAddr, is_kube: bool) -> Result<Protection> {
        let loopback = listen.ip().is_loopback();
        let port = listen.port();
        if !loopback && !is_kube {
            bail!(
                "--report-listen {listen} can be reached from other machines, but without --cluster kube there is no API \
                 server that knows their agents: over plain HTTP reports could be read and forged. Use --report-listen \
                 127.0.0.1:{port} and run the agent on this machine"
            );
        }
        let auth = self.report_auth.unwrap_or(if loopback { ReportAuth::None } else { ReportAuth::Token });
        let tls = match (files(self.tls_cert.as_ref(), self.tls_key.as_ref()), self.report_tls) {
            (Some(files), _) => Tls::Files(files),
            (None, Some(ReportTls::Own)) => Tls::Own,
            (None, Some(ReportTls::Off)) => Tls::Off,
            (None, None) => {
                if loopback {
                    Tls::Off
                } else {
                    Tls::Own
                }
            }
        };
        if !loopback && auth == ReportAuth::None {
            bail!(
                "--report-auth none takes reports from anyone, and --report-listen {listen} can be reached from other \
                 machines: they could be forged. Leave it out, or use --report-listen 127.0.0.1:{port}"
            );
        }
        if !loopback && tls == Tls::Off {
            bail!(
                "--report-tls off is plain HTTP, and --report-listen {listen} can be reached from other machines: tokens and \
                 reports could be read. Leave it out, give --tls-cert, or use --report-listen 127.0.0.1:{port}"
            );
        }
        if !is_kube && (auth == ReportAuth::Token || tls == Tls::Own) {
            bail!("--report-auth token and --report-tls own need --cluster kube: without it there is no API server");
        }
        Ok(Protection { auth, tls })
    }

    /// By what replicas in this namespace ask one another. Absent: what that needs is not given.
    pub fn peers(&self, protection: &Protection, namespace: &str) -> Result<Option<Credentials>> {
        let mut credentials = Credentials::default();
        if protection.tls != Tls::Off {
            let Some(bundle) = &self.peer_ca else { return Ok(None) };
            // All of them are in a certificate made here; of one that is given, the shortest is the likeliest.
            let names = self.names(namespace);
            let name = names.iter().min_by_key(|name| name.len()).map_or("", String::as_str);
            credentials = credentials.verify(bundle.clone(), name).context("--tls-name")?;
        }
        if protection.auth == ReportAuth::Token {
            let Some(token) = &self.peer_token else { return Ok(None) };
            credentials = credentials.prove(token.clone());
        }
        Ok(Some(credentials))
    }

    /// The certificate of the port for scrapes.
    pub fn metrics_files(&self) -> Option<Files> {
        files(self.metrics_tls_cert.as_ref(), self.metrics_tls_key.as_ref())
    }

    /// Whose tokens are agents', for an aggregator in this namespace.
    pub fn service_account(&self, namespace: &str) -> String {
        let default = || format!("system:serviceaccount:{namespace}:mcad-agent");
        self.agent_service_account.clone().unwrap_or_else(default)
    }

    /// What agents call an aggregator in this namespace.
    pub fn names(&self, namespace: &str) -> Vec<String> {
        if !self.tls_name.is_empty() {
            return self.tls_name.clone();
        }
        let service = format!("mcad-aggregator-reports.{namespace}.svc");
        vec![format!("{service}.cluster.local"), service]
    }
}

fn files(certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Option<Files> {
    Some(Files { certificate: certificate?.clone(), key: key?.clone() })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    fn protection(listen: &str, is_kube: bool, flags: &[&str]) -> Result<Protection> {
        let args = Args::try_parse_from([&["mcad-aggregator"], flags].concat()).unwrap();
        args.trust.protection(listen.parse().unwrap(), is_kube)
    }

    const LOOPBACK: &str = "127.0.0.1:10911";
    const ANY: &str = "[::]:10911";

    #[test]
    fn what_other_machines_reach_is_protected_without_a_flag_and_loopback_is_not() {
        let plain = Protection { auth: ReportAuth::None, tls: Tls::Off };
        assert_eq!(protection(LOOPBACK, true, &[]).unwrap(), plain);
        assert_eq!(protection("[::1]:1", false, &[]).unwrap(), plain);
        let whole = Protection { auth: ReportAuth::Token, tls: Tls::Own };
        assert_eq!(protection(ANY, true, &[]).unwrap(), whole);
        assert_eq!(protection(LOOPBACK, true, &["--report-auth", "token", "--report-tls", "own"]).unwrap(), whole);
        let files = Files { certificate: "c".into(), key: "k".into() };
        let given = Protection { auth: ReportAuth::Token, tls: Tls::Files(files) };
        assert_eq!(protection(ANY, true, &["--tls-cert", "c", "--tls-key", "k"]).unwrap(), given);
    }

    #[test]
    fn nothing_that_other_machines_reach_goes_without_either() {
        let refusal = |is_kube, flags: &[&str]| protection("192.0.2.1:7", is_kube, flags).unwrap_err().to_string();
        assert!(refusal(true, &["--report-auth", "none"]).contains("could be forged"));
        assert!(refusal(true, &["--report-tls", "off"]).contains("could be read"));
        let files = ["--tls-cert", "c", "--tls-key", "k"];
        assert!(
            refusal(true, &[&files[..], &["--report-auth", "none"]].concat()).contains("--report-listen 127.0.0.1:7")
        );
        assert!(refusal(false, &files).contains("--cluster kube"));
    }

    #[test]
    fn without_an_api_server_nobody_can_be_asked() {
        for flags in [["--report-auth", "token"], ["--report-tls", "own"]] {
            assert!(protection(LOOPBACK, false, &flags).unwrap_err().to_string().contains("need --cluster kube"));
        }
        let files = ["--tls-cert", "c", "--tls-key", "k"];
        assert_eq!(protection(LOOPBACK, false, &files).unwrap().auth, ReportAuth::None);
    }

    #[test]
    fn half_of_a_pair_and_two_certificates_are_refused() {
        for flags in [&["--tls-cert", "c"][..], &["--tls-key", "k"], &["--metrics-tls-cert", "c"]] {
            assert!(Args::try_parse_from([&["mcad-aggregator"], flags].concat()).is_err(), "{flags:?}");
        }
        let both = ["mcad-aggregator", "--tls-cert", "c", "--tls-key", "k", "--report-tls", "own"];
        assert!(Args::try_parse_from(both).is_err());
    }
}

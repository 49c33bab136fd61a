//! Flags about who may send reports, and about certificates: what they mean together, and what a listener needs that other machines can
//! reach.
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use mcad_accounting::resource::quantity::Quantity;

use crate::trust::files::Files;
use crate::trust::peers::Credentials;

/// Who may send reports, and how both sides prove who they are.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Trust")]
pub struct Trust {
    /// Which reports are accepted: token (with a token of the agents' ServiceAccount, each for its own node) or none (every
    /// report). Default: token; none if --report-listen is a loopback address. Must be token if --report-listen is not a
    /// loopback address.
    #[arg(long, hide_short_help = true, env = "MCAD_REPORT_AUTH", value_enum, value_name = "token|none")]
    pub report_auth: Option<ReportAuth>,
    /// The agents' ServiceAccount. Default: mcad-agent in the aggregator's namespace.
    #[arg(
        long,
        hide_short_help = true,
        env = "MCAD_AGENT_SERVICE_ACCOUNT",
        value_name = "system:serviceaccount:NAMESPACE:NAME"
    )]
    pub agent_service_account: Option<String>,
    /// TLS of --report-listen: own (a certificate that the aggregator issues, signed by a CA in a Secret) or off (plain HTTP).
    /// Default: own; off if --report-listen is a loopback address. Not allowed with --tls-cert.
    #[arg(
        long,
        hide_short_help = true,
        env = "MCAD_REPORT_TLS",
        value_enum,
        value_name = "own|off",
        conflicts_with = "tls_cert"
    )]
    pub report_tls: Option<ReportTls>,
    /// Certificate of --report-listen in PEM, with the intermediate certificates up to its CA. Read again when it changes.
    #[arg(long, hide_short_help = true, env = "MCAD_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert in PEM.
    #[arg(long, hide_short_help = true, env = "MCAD_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Name or IP address in a certificate that the aggregator issues: the host in the agents' --aggregator. May be given several
    /// times. Default: mcad-aggregator-reports.NAMESPACE.svc, and the same with .cluster.local.
    #[arg(long, hide_short_help = true, value_name = "NAME")]
    pub tls_name: Vec<String>,
    /// Secret with the aggregator's own CA, shared by all replicas.
    #[arg(
        long,
        hide_short_help = true,
        env = "MCAD_TLS_SECRET",
        value_name = "NAME",
        default_value = "mcad-aggregator-authority"
    )]
    pub tls_secret: String,
    /// ConfigMap whose key ca.crt agents mount for --aggregator-ca.
    #[arg(
        long,
        hide_short_help = true,
        env = "MCAD_TLS_BUNDLE",
        value_name = "NAME",
        default_value = "mcad-aggregator-bundle"
    )]
    pub tls_bundle: String,
    /// CA certificates in PEM. At its start, this replica verifies with them the replica from which it requests the state transfer.
    /// Required for the state transfer if reports use TLS. Read again for each request.
    #[arg(long, hide_short_help = true, env = "MCAD_PEER_CA", value_name = "FILE")]
    pub peer_ca: Option<PathBuf>,
    /// This replica's ServiceAccount token, issued for the audience mcad-metrics and bound to its pod. If reports need tokens, a replica
    /// requests the state transfer with it, and sends its state only to replicas with a token of the same ServiceAccount.
    #[arg(long, hide_short_help = true, env = "MCAD_PEER_TOKEN", value_name = "FILE")]
    pub peer_token: Option<PathBuf>,
    /// Certificate of --listen in PEM. Read again when it changes. Default: plain HTTP.
    #[arg(
        long,
        hide_short_help = true,
        env = "MCAD_METRICS_TLS_CERT",
        value_name = "FILE",
        requires = "metrics_tls_key"
    )]
    pub metrics_tls_cert: Option<PathBuf>,
    /// Private key of --metrics-tls-cert in PEM.
    #[arg(
        long,
        hide_short_help = true,
        env = "MCAD_METRICS_TLS_KEY",
        value_name = "FILE",
        requires = "metrics_tls_cert"
    )]
    pub metrics_tls_key: Option<PathBuf>,
    /// Memory that all reports together may take.
    #[arg(long, hide_short_help = true, env = "MCAD_REPORT_MEMORY", value_name = "QUANTITY", default_value = "1Gi")]
    pub report_memory: Quantity,
}

/// `--report-auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportAuth {
    /// Only with an agent's token
    Token,
    /// Every report
    None,
}

/// `--report-tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportTls {
    /// TLS, with a certificate that the aggregator issues
    Own,
    /// Plain HTTP
    Off,
}

/// How the report port is protected, given all flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Which reports are accepted.
    pub auth: ReportAuth,
    /// The certificate.
    pub tls: Tls,
}

/// The certificate with which a listener uses TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// None: plain HTTP.
    Off,
    /// One that the aggregator issues.
    Own,
    /// One in files.
    Files(Files),
}

impl Trust {
    /// How reports to this address are protected. An error if other machines can reach the address and could forge reports.
    /// `is_kube`: there is an API server.
    pub fn protection(&self, listen: SocketAddr, is_kube: bool) -> Result<Protection> {
        let loopback = listen.ip().is_loopback();
        let port = listen.port();
        if !loopback && !is_kube {
            bail!(
                "--report-listen {listen} can be reached from other machines, but without --cluster kube there is no API \
                 server that can verify agents: reports over plain HTTP could be read and forged. Use --report-listen \
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
                "--report-auth none accepts reports from anyone, and --report-listen {listen} can be reached from other \
                 machines: reports could be forged. Leave out --report-auth none, or use --report-listen 127.0.0.1:{port}"
            );
        }
        if !loopback && tls == Tls::Off {
            bail!(
                "--report-tls off is plain HTTP, and --report-listen {listen} can be reached from other machines: tokens and \
                 reports could be read. Leave out --report-tls off, give --tls-cert, or use --report-listen \
                 127.0.0.1:{port}"
            );
        }
        if !is_kube && (auth == ReportAuth::Token || tls == Tls::Own) {
            bail!("--report-auth token and --report-tls own need --cluster kube: they use the API server");
        }
        Ok(Protection { auth, tls })
    }

    /// The credentials with which replicas in this namespace request the state transfer. `None` if a flag for them is missing.
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

    /// The agents' ServiceAccount, for an aggregator in this namespace.
    pub fn service_account(&self, namespace: &str) -> String {
        let default = || format!("system:serviceaccount:{namespace}:mcad-agent");
        self.agent_service_account.clone().unwrap_or_else(default)
    }

    /// The names by which agents reach an aggregator in this namespace.
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

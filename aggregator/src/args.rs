//! The command line of mcad-aggregator. Owns flags, their defaults and what they refuse; starts nothing.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  Without Kubernetes: this machine's agent is the only node
    mcad-aggregator --cluster local
    curl http://127.0.0.1:10910/metrics

  Any free ports; the line that is printed says which
    mcad-aggregator --cluster local --listen 127.0.0.1:0 --report-listen 127.0.0.1:0

  Prometheus on another machine may scrape, reports stay on this one
    mcad-aggregator --cluster local --listen 0.0.0.0:10910

On standard output appears one line, once both addresses are open:
  listening metrics=http://ADDR reports=http://ADDR

Logs go to standard error; RUST_LOG=debug says more.";

/// The cluster accounted for by reason: agents' reports in, Prometheus metrics out.
#[derive(Debug, Clone, Parser)]
#[command(name = "mcad-aggregator", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Args {
    /// Where the cluster is read from.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Where it is served.
    #[command(flatten)]
    pub serve: Serve,
}

/// Where the cluster is read from.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Inputs")]
pub struct Inputs {
    /// Where nodes, pods and AppWrappers come from: kube (a Kubernetes API server), file:PATH (a dump of one) or local
    /// (no Kubernetes: the agents are the nodes). Only local is in this version.
    #[arg(long, env = "MCAD_CLUSTER", value_name = "kube|file:PATH|local", default_value = "kube")]
    pub cluster: ClusterSource,
}

/// Where it is served.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Addresses")]
pub struct Serve {
    // Prometheus keeps a list of 9100 to 9999 for exporters, and all of it is handed out; 9090 is Prometheus itself. These
    // two are above that list and below the ports that Linux gives to outgoing connections (32768 on).
    /// Address for /metrics, the page at /, /live and /ready; port 0 takes any free one.
    #[arg(long, env = "MCAD_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:10910")]
    pub listen: SocketAddr,
    /// Address for agents' reports (POST /v1/report). Loopback only: reports are neither encrypted nor authenticated in
    /// this version.
    #[arg(long, env = "MCAD_REPORT_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:10911")]
    pub report_listen: SocketAddr,
}

/// Where nodes, pods and AppWrappers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterSource {
    /// A Kubernetes API server.
    Kube,
    /// A dump of one.
    File(PathBuf),
    /// No Kubernetes: the agents are the nodes.
    Local,
}

impl FromStr for ClusterSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("file:")) {
            ("kube", _) => Ok(Self::Kube),
            ("local", _) => Ok(Self::Local),
            (_, Some("")) => Err("file: needs a path, as in file:dump.yaml".to_owned()),
            (_, Some(path)) => Ok(Self::File(path.into())),
            _ => Err("it is kube, file:PATH or local".to_owned()),
        }
    }
}

impl Args {
    /// Refuses what each flag alone cannot know.
    pub fn check(&self) -> Result<()> {
        match &self.inputs.cluster {
            ClusterSource::Local => {}
            ClusterSource::Kube => bail!(
                "--cluster kube, the default, is not in this version: it cannot watch a Kubernetes API server yet. \
                 Start with --cluster local to see this machine's agents as the nodes"
            ),
            ClusterSource::File(path) => bail!(
                "--cluster file:{} is not in this version: it cannot read dumps yet. \
                 Start with --cluster local to see this machine's agents as the nodes",
                path.display()
            ),
        }
        let reports = self.serve.report_listen;
        if !reports.ip().is_loopback() {
            bail!(
                "--report-listen {reports} can be reached from other machines, but this version takes reports over \
                 plain HTTP from anyone who can reach it: they could be read and forged. Use --report-listen \
                 127.0.0.1:{} and run the agent on this machine",
                reports.port()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from([&["mcad-aggregator"], args].concat()).unwrap()
    }

    fn refusal(args: &[&str]) -> String {
        parse(args).check().unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn the_cluster_is_one_of_three() {
        assert_eq!("kube".parse(), Ok(ClusterSource::Kube));
        assert_eq!("local".parse(), Ok(ClusterSource::Local));
        assert_eq!("file:a:b.yaml".parse(), Ok(ClusterSource::File("a:b.yaml".into())));
        assert!("file:".parse::<ClusterSource>().unwrap_err().contains("path"));
        assert!("k3s".parse::<ClusterSource>().unwrap_err().contains("kube, file:PATH or local"));
    }

    #[test]
    fn reports_from_other_machines_are_refused_with_the_reason_and_the_way_out() {
        for address in ["0.0.0.0:10911", "[::]:10911", "192.0.2.1:10911"] {
            let refusal = refusal(&["--cluster", "local", "--report-listen", address]);
            assert!(refusal.contains("plain HTTP") && refusal.contains("--report-listen 127.0.0.1:10911"), "{refusal}");
        }
        for address in ["127.0.0.1:0", "[::1]:0", "127.3.2.1:9"] {
            parse(&["--cluster", "local", "--report-listen", address]).check().unwrap();
        }
    }

    #[test]
    fn what_is_not_there_yet_is_said_at_start() {
        assert!(refusal(&[]).contains("--cluster local"));
        assert!(refusal(&["--cluster", "file:x.yaml"]).contains("file:x.yaml is not in this version"));
    }

    #[test]
    fn scrapes_may_come_from_other_machines() {
        parse(&["--cluster", "local", "--listen", "0.0.0.0:0"]).check().unwrap();
    }
}

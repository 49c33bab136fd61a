//! The command line of mcad-aggregator. Owns flags, their defaults and what they refuse; starts nothing.
pub mod trust;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::Parser;
use k8s_openapi::jiff::Timestamp;
use mcad_accounting::options::accelerator::Accelerator;
use mcad_accounting::options::selector::Selector;
use mcad_accounting::options::tolerated::ToleratedTaint;
use mcad_accounting::options::{GpuMetrics, OperatorMetrics, Options, PodMetrics};
use mcad_accounting::resource::quantity::Quantity;
use mcad_present::version;

const EXAMPLES: &str = "\
Examples:
  Without Kubernetes: this machine's agent is the only node
    mcad-aggregator --cluster local
    curl http://127.0.0.1:10910/metrics

  The ladder, what is withheld where, and why AppWrappers wait, in this terminal
    mcad-aggregator explain --help

  A page for people of a dump, at the address that is printed
    mcad-aggregator dump > dump.json
    mcad-aggregator --cluster file:dump.json

  What a dump of a cluster comes to
    mcad-aggregator dump | mcad-aggregator --cluster file:- --print-metrics

  Any free ports; the line that is printed says which
    mcad-aggregator --cluster local --listen 127.0.0.1:0 --report-listen 127.0.0.1:0

  Prometheus on another machine may scrape, reports stay on this one
    mcad-aggregator --cluster local --listen 0.0.0.0:10910

  In a pod: agents of other machines report by TLS, each with its ServiceAccount's token
    mcad-aggregator --listen 0.0.0.0:10910 --report-listen 0.0.0.0:10911

On standard output appears one line, once both addresses are open (https:// where TLS is spoken):
  listening metrics=http://ADDR reports=http://ADDR

Logs go to standard error; RUST_LOG=debug says more.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  The cluster that kubectl sees
    mcad-aggregator explain

  One node of it
    mcad-aggregator explain --node gpu-17

  A dump, and what agents reported when it was made
    mcad-aggregator dump > dump.json
    mcad-aggregator explain --cluster file:dump.json --reports reports.json

  Why AppWrappers wait, for a script
    mcad-aggregator explain --json | jq '.appwrappers[] | select(.waiting) | [.name, .waiting.why]'

  This machine, without Kubernetes
    mcad-agent --once > report.json
    mcad-aggregator explain --cluster local --reports report.json

Agents report to an aggregator that serves, so what they measured of a live cluster is at its /api/v1 and page.

Exit status: 0 if everything was read; 1 if something was left out or is missing. What that is stands above the figures, and on standard
error where standard output is no terminal.";

const DUMP_EXAMPLES: &str = "\
Examples:
  The cluster that kubectl sees
    mcad-aggregator dump > dump.json
    mcad-aggregator explain --cluster file:dump.json

  With kubectl alone; of the last two, those that the cluster has. JSON is read faster than YAML
    kubectl get nodes,pods -A -o json > dump.json
    kubectl get appwrappers.workload.codeflare.dev -A -o json > workload.json
    kubectl get appwrappers.mcad.ibm.com -A -o json > mcad.json
    mcad-aggregator explain --cluster file:dump.json --cluster file:workload.json --cluster file:mcad.json

It lists nodes, pods and AppWrappers of every version that is served, and needs the right to. It writes names, labels, requests, limits, states
and where pods may go; never Secrets, environments, arguments or images. It also records the time, the API server's version, and
which kinds are served and could be listed, so that what is missing is known to be.

Exit status: 0 if everything was listed; 1 if something was not, which the dump and standard error say.";

/// The cluster accounted for by reason: agents' reports in, Prometheus metrics out.
#[derive(Debug, Clone, Parser)]
#[command(name = "mcad-aggregator", version = version::text(), max_term_width = 100, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do; without it, serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the cluster is read from.
    #[command(flatten)]
    pub inputs: Inputs,
    /// By what rules the figures are made.
    #[command(flatten)]
    pub figures: Figures,
    /// Where it is served.
    #[command(flatten)]
    pub serve: Serve,
    /// Who may send reports.
    #[command(flatten)]
    pub trust: trust::Trust,
    /// How replicas take turns.
    #[command(flatten)]
    pub replicas: Replicas,
}

/// What to do other than serve.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Prints where every GPU, core and byte is, and why AppWrappers wait; then ends.
    Explain(Box<Explain>),
    /// Writes a dump of the cluster that kubectl sees to standard output, as JSON: what explain and the page need of it, and no more.
    Dump(Dump),
    /// Prints what a shell needs to complete this command line.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// The command line of `explain`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXPLAIN_EXAMPLES, mut_arg("print_metrics", |flag| flag.hide(true)))]
pub struct Explain {
    /// Where the cluster is read from.
    #[command(flatten)]
    pub inputs: Inputs,
    /// By what rules the figures are made.
    #[command(flatten)]
    pub figures: Figures,
    /// The node to explain, instead of the cluster.
    #[arg(long, value_name = "NAME", help_heading = "Explanation")]
    pub node: Option<String>,
    /// Prints JSON, of the types that /api/v1 answers (docs/api.md).
    #[arg(long, help_heading = "Explanation")]
    pub json: bool,
    /// With --cluster kube: seconds to wait until all of it is known.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Explanation")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub wait: u64,
}

/// The command line of `dump`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = DUMP_EXAMPLES)]
pub struct Dump {
    /// The kubeconfig's context. Default: its current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig. Default: $KUBECONFIG, ~/.kube/config, or in a pod its ServiceAccount.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Where the cluster is read from.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Inputs")]
pub struct Inputs {
    /// Where nodes, pods and AppWrappers come from: kube (a Kubernetes API server, by $KUBECONFIG, ~/.kube/config or as a
    /// pod), file:PATH (a dump of one, `file:-` on standard input; several may be given) or local (no Kubernetes: the
    /// agents are the nodes).
    #[arg(long, env = "MCAD_CLUSTER", value_name = "kube|file:PATH|local", default_value = "kube")]
    pub cluster: Vec<ClusterSource>,
    /// Reports of agents as `mcad-agent --once` prints them, one a line; several lines of a node are successive reports.
    /// With a dump, or to explain without Kubernetes: their age does not count.
    #[arg(long, value_name = "FILE")]
    pub reports: Vec<PathBuf>,
    /// When the dump was made, as in 2026-01-05T10:00:00Z: ages are told against it. `mcad-aggregator dump` writes it down, and then
    /// this is not looked at. Default: the newest time in the dump.
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
}

/// By what rules the figures are made.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Figures")]
pub struct Figures {
    /// Which of the operator's own metrics are shown.
    #[arg(long, value_enum, default_value = "v1")]
    pub operator_metrics: OperatorChoice,
    /// Whether GPUs are shown one by one.
    #[arg(long, value_enum, default_value = "on")]
    pub gpu_metrics: Switch,
    /// Whether pods are shown one by one.
    #[arg(long)]
    pub pod_metrics: bool,
    /// Label selector of the nodes that should have an agent, as `kubectl -l` takes it: `pool=gpu,zone in (a,b),!spot`.
    /// `mcad_node_agent_up` has a line for these.
    #[arg(long, value_name = "SELECTOR", default_value = "")]
    pub agent_nodes: Selector,
    /// A taint that keeps no pod off: KEY is NoSchedule alone, KEY:NoExecute the other effect. May be given several times;
    /// these then replace the default.
    #[arg(long, value_name = "KEY[:EFFECT]", default_value = mcad_accounting::resource::NVIDIA_GPU)]
    pub tolerate_taint: Vec<ToleratedTaint>,
    /// An extended resource that is an accelerator, besides nvidia.com/*, amd.com/gpu, habana.ai/gaudi, google.com/tpu and
    /// gpu.intel.com/*: its slots and its largest free block are shown. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub accelerator: Vec<Accelerator>,
    /// Cpu that must be left on a node beside each GPU of a slot.
    #[arg(long, value_name = "QUANTITY", default_value = "1")]
    pub slot_cpu_per_gpu: Quantity,
    /// Memory that must be left on a node beside each GPU of a slot.
    #[arg(long, value_name = "QUANTITY", default_value = "4Gi")]
    pub slot_memory_per_gpu: Quantity,
    /// Series that the AppWrappers of one namespace may have together. Where they would have more, none of them is shown one by
    /// one, and `mcad_appwrappers_without_series` counts them.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub max_series_per_namespace: usize,
    /// Prints one /metrics to standard output and ends. With a dump only.
    #[arg(long)]
    pub print_metrics: bool,
}

/// Which of the operator's own metrics are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OperatorChoice {
    /// MCAD v1.34 to v1.40
    V1,
    /// MCAD v2
    V2,
    /// Neither
    None,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

impl Figures {
    /// The same, as the snapshot takes it.
    pub fn options(&self) -> Options {
        let small = |amount: i128| u64::try_from(amount).unwrap_or(u64::MAX);
        Options {
            operator_metrics: match self.operator_metrics {
                OperatorChoice::V1 => OperatorMetrics::V1,
                OperatorChoice::V2 => OperatorMetrics::V2,
                OperatorChoice::None => OperatorMetrics::None,
            },
            gpu_metrics: match self.gpu_metrics {
                Switch::On => GpuMetrics::On,
                Switch::Off => GpuMetrics::Off,
            },
            pod_metrics: if self.pod_metrics { PodMetrics::On } else { PodMetrics::Off },
            agent_nodes: self.agent_nodes.clone(),
            tolerated: self.tolerate_taint.iter().cloned().collect(),
            accelerators: self.accelerator.iter().cloned().collect(),
            slot_millicores_per_gpu: small(self.slot_cpu_per_gpu.millis()),
            slot_bytes_per_gpu: small(self.slot_memory_per_gpu.units()),
            max_series_per_namespace: self.max_series_per_namespace,
        }
    }
}

impl Inputs {
    fn check(&self) -> Result<()> {
        if self.dump().len() != self.cluster.len() && self.cluster.len() > 1 {
            bail!("--cluster may be given several times only as file:PATH: one cluster is shown");
        }
        if self.at.is_some() && self.dump().is_empty() {
            bail!("--at needs --cluster file:PATH: it says when a dump was made");
        }
        Ok(())
    }

    /// Whether an API server is watched.
    pub fn is_kube(&self) -> bool {
        self.cluster.contains(&ClusterSource::Kube)
    }

    /// The files of a dump; none where the cluster is not read from one.
    pub fn dump(&self) -> Vec<PathBuf> {
        let files = self.cluster.iter().filter_map(|source| match source {
            ClusterSource::File(path) => Some(path.clone()),
            ClusterSource::Kube | ClusterSource::Local => None,
        });
        files.collect()
    }
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
    /// Address for agents' reports (POST /v1/report). Where other machines can reach it, they come by TLS and with a token.
    #[arg(long, env = "MCAD_REPORT_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:10911")]
    pub report_listen: SocketAddr,
}

/// How replicas take turns. With `--cluster file:PATH` and `local` there is one.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Replicas")]
pub struct Replicas {
    /// Whether the holder of a Lease alone exposes what is said of the cluster, so that nothing counts twice. Default: on in
    /// a pod, else off.
    #[arg(long, env = "MCAD_LEADER_ELECT", value_enum)]
    pub leader_elect: Option<Switch>,
    /// The Lease's name.
    #[arg(long, env = "MCAD_LEASE_NAME", value_name = "NAME", default_value = "mcad-aggregator")]
    pub lease_name: String,
    /// The Lease's namespace. Default: the pod's own, or that of the kubeconfig's context.
    #[arg(long, env = "MCAD_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Seconds after which another replica takes over from one that has vanished. Half of it is left to Prometheus, whose
    /// scrape interval may not be longer than that half; interval and scrape time-out together not longer than all of it.
    #[arg(long, env = "MCAD_LEASE_DURATION", value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub lease_duration: u64,
    /// Seconds that a leader that was asked to end waits at most for one more scrape, which has no more figures of the
    /// cluster, before another takes over. Kubernetes must grant some 20 more: terminationGracePeriodSeconds.
    #[arg(long, env = "MCAD_HANDOVER", value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub handover: u64,
    /// This pod's address, at which another replica that starts asks for totals, on the port of --report-listen. Default:
    /// the address of --report-listen.
    #[arg(long, env = "POD_IP", value_name = "IP")]
    pub pod_ip: Option<IpAddr>,
}

impl Replicas {
    /// Whether a Lease decides who exposes what is said of the cluster.
    pub fn elect(&self, inputs: &Inputs) -> bool {
        // Set in every pod, and hardly elsewhere.
        let in_pod = || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        inputs.is_kube() && self.leader_elect.map_or_else(in_pod, |elect| elect == Switch::On)
    }
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
        self.inputs.check()?;
        let files = self.inputs.dump().len();
        if files == 0 && (!self.inputs.reports.is_empty() || self.figures.print_metrics) {
            bail!("--reports and --print-metrics need --cluster file:PATH");
        }
        if self.replicas.leader_elect == Some(Switch::On) && !self.inputs.is_kube() {
            bail!("--leader-elect on needs --cluster kube: without an API server there is no Lease, and one replica");
        }
        self.trust.protection(self.serve.report_listen, self.inputs.is_kube())?;
        Ok(())
    }
}

impl Explain {
    /// Refuses what each flag alone cannot know.
    pub fn check(&self) -> Result<()> {
        self.inputs.check()?;
        if self.figures.print_metrics {
            bail!("--print-metrics prints metrics instead: leave out explain");
        }
        let is_local = self.inputs.cluster.contains(&ClusterSource::Local);
        if self.inputs.is_kube() && !self.inputs.reports.is_empty() {
            bail!("--reports needs --cluster file:PATH or local: they would be older than the cluster");
        }
        if is_local && self.inputs.reports.is_empty() {
            bail!(
                "explain --cluster local needs --reports FILE (as `mcad-agent --once` prints them): agents report to an \
                 aggregator that serves. Ask that one: its page, or /api/v1/cluster"
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
    fn one_cluster_is_shown_from_as_many_files_as_it_takes() {
        let two = parse(&["--cluster", "file:a.yaml", "--cluster", "file:b.yaml"]);
        two.check().unwrap();
        assert_eq!(two.inputs.dump(), [PathBuf::from("a.yaml"), PathBuf::from("b.yaml")]);
        assert!(refusal(&["--cluster", "file:a.yaml", "--cluster", "local"]).contains("only as file:PATH"));
    }

    #[test]
    fn reports_and_prints_need_a_dump() {
        assert!(refusal(&["--cluster", "local", "--print-metrics"]).contains("file:PATH"));
        assert!(refusal(&["--cluster", "local", "--reports", "r.json"]).contains("file:PATH"));
    }

    #[test]
    fn a_lease_needs_an_api_server_and_is_as_long_as_seconds_say() {
        for cluster in ["local", "file:a.yaml"] {
            assert!(refusal(&["--cluster", cluster, "--leader-elect", "on"]).contains("--cluster kube"));
            parse(&["--cluster", cluster, "--leader-elect", "off"]).check().unwrap();
        }
        let on = parse(&["--leader-elect", "on", "--lease-duration", "2", "--handover", "0"]);
        on.check().unwrap();
        assert!(on.replicas.elect(&on.inputs));
        let off = parse(&["--leader-elect", "off"]);
        assert!(!off.replicas.elect(&off.inputs));
        for seconds in ["1", "3601", "x"] {
            assert!(Args::try_parse_from(["mcad-aggregator", "--lease-duration", seconds]).is_err(), "{seconds}");
        }
    }

    fn explain(args: &[&str]) -> Result<()> {
        match parse(&[&["explain"], args].concat()).command {
            Some(Command::Explain(explain)) => explain.check(),
            other => panic!("{other:?} is not what was asked for"),
        }
    }

    #[test]
    fn explain_takes_the_same_inputs_and_flags() {
        explain(&[]).unwrap();
        explain(&["--cluster", "file:a.yaml", "--cluster", "file:b.yaml", "--reports", "r.json"]).unwrap();
        explain(&["--node", "n", "--json", "--tolerate-taint", "team", "--wait", "5"]).unwrap();
        explain(&["--cluster", "local", "--reports", "r.json"]).unwrap();
    }

    #[test]
    fn what_explain_cannot_explain_is_refused_with_the_way_out() {
        let refusal = |args: &[&str]| explain(args).unwrap_err().to_string();
        assert!(refusal(&["--cluster", "local"]).contains("/api/v1/cluster"));
        assert!(refusal(&["--reports", "r.json"]).contains("file:PATH"));
        assert!(refusal(&["--cluster", "file:a", "--print-metrics"]).contains("leave out explain"));
        assert!(refusal(&["--cluster", "file:a", "--cluster", "kube"]).contains("only as file:PATH"));
    }

    #[test]
    fn flags_before_explain_are_refused_and_not_passed_over() {
        assert!(Args::try_parse_from(["mcad-aggregator", "--cluster", "file:a.yaml", "explain"]).is_err());
    }

    fn taint(text: &str) -> ToleratedTaint {
        text.parse().unwrap()
    }

    #[test]
    fn the_defaults_of_the_figures_are_those_of_the_rules() {
        assert_eq!(parse(&[]).figures.options(), Options::default());
        let nodes = parse(&["--agent-nodes", "pool in (a,b)", "--pod-metrics"]).figures.options();
        assert_eq!((nodes.agent_nodes, nodes.pod_metrics), ("pool in (a, b)".parse().unwrap(), PodMetrics::On));
        let refused = Args::try_parse_from(["mcad-aggregator", "--agent-nodes", "pool in a"]).unwrap_err().to_string();
        assert!(refused.contains("found \"a\" where \"(\" should be"), "{refused}");
        let refused = Args::try_parse_from(["mcad-aggregator", "--tolerate-taint", "team=a"]).unwrap_err().to_string();
        assert!(refused.contains("leave out \"=a\""), "{refused}");
        let given = parse(&["--tolerate-taint", "team", "--slot-cpu-per-gpu", "1500m", "--slot-memory-per-gpu", "8Gi"]);
        let options = given.figures.options();
        assert_eq!(options.tolerated, [taint("team")].into_iter().collect());
        assert_eq!((options.slot_millicores_per_gpu, options.slot_bytes_per_gpu), (1500, 8 << 30));
    }

    #[test]
    fn accelerators_are_extended_resources_as_many_as_wanted() {
        let given = parse(&["--accelerator", "example.com/npu", "--accelerator", "example.com/tpu"]).figures.options();
        assert!(given.is_accelerator("example.com/npu") && given.is_accelerator("example.com/tpu"));
        let refused = Args::try_parse_from(["mcad-aggregator", "--accelerator", "npu"]).unwrap_err().to_string();
        assert!(refused.contains("\"npu\" is not the name of an extended resource"), "{refused}");
    }

    #[test]
    fn scrapes_may_come_from_other_machines() {
        parse(&["--cluster", "local", "--listen", "0.0.0.0:0"]).check().unwrap();
    }
}

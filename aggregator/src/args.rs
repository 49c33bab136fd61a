//! The command line of mcad-aggregator: flags, their defaults, and what they refuse. Nothing is started here.
mod examples;

pub mod kubeconfig;
pub mod plugin;
pub mod trial;
pub mod trust;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::Parser;
use k8s_openapi::jiff::Timestamp;
use mcad_accounting::options::accelerator::Accelerator;
use mcad_accounting::options::driver_resource::DriverResource;
use mcad_accounting::options::pool_label::PoolLabel;
use mcad_accounting::options::selector::Selector;
use mcad_accounting::options::tolerated::ToleratedTaint;
use mcad_accounting::options::{GpuMetrics, OperatorMetrics, Options, PodMetrics, QueueMetrics};
use mcad_accounting::resource::quantity::Quantity;
use mcad_present::version;

use self::kubeconfig::Kubeconfig;
use self::trial::{Fit, WhatIf};

/// Accounts for a cluster's resources by reason, from agents' reports and the API server, as metrics.
#[derive(Debug, Clone, Parser)]
#[command(name = "mcad-aggregator", version = version::text(), max_term_width = 100)]
#[command(after_help = examples::SERVE_SHORT, after_long_help = examples::SERVE)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do. `None`: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the cluster is read from.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Rules for computing the metrics.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Where it is served.
    #[command(flatten)]
    pub serve: Serve,
    /// Who may send reports.
    #[command(flatten)]
    pub trust: trust::Trust,
    /// How the leader is elected.
    #[command(flatten)]
    pub replicas: Replicas,
}

/// What to do other than serve.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Print where every GPU, core and byte is, and why AppWrappers wait; then exit.
    Explain(Box<Explain>),
    /// Print whether what a manifest submits would fit now, and what is short; then exit.
    Fit(Box<Fit>),
    /// Print which AppWrappers would lose pods if a node were drained; then exit.
    Whatif(Box<WhatIf>),
    /// Write a dump of a live cluster to standard output, as JSON; then exit.
    Dump(Dump),
    /// Print the script that completes this command line in a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// The command line of `explain`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = examples::EXPLAIN_SHORT, after_long_help = examples::EXPLAIN)]
#[command(mut_arg("print_metrics", |flag| flag.hide(true)), mut_arg("agent_nodes", |flag| flag.hide_short_help(true)))]
pub struct Explain {
    /// What is explained.
    #[command(flatten)]
    pub source: Source,
    /// The node to explain, instead of the cluster.
    #[arg(long, value_name = "NAME", help_heading = "Explanation")]
    pub node: Option<String>,
    /// Print the same values as JSON, in the fields of /api/v1 (docs/api.md).
    #[arg(long, help_heading = "Explanation")]
    pub json: bool,
}

/// Inputs and rules of a command that prints and exits.
#[derive(Debug, Clone, clap::Args)]
pub struct Source {
    /// Where the cluster is read from.
    #[command(flatten)]
    pub inputs: Inputs,
    /// How the API server is reached.
    #[command(flatten)]
    pub kubeconfig: Kubeconfig,
    /// With --cluster kube: seconds to wait until the whole cluster is known.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Inputs")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub wait: u64,
    /// Rules for computing the values.
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

/// The command line of `dump`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = examples::DUMP_SHORT, after_long_help = examples::DUMP)]
pub struct Dump {
    /// How the API server is reached.
    #[command(flatten)]
    pub kubeconfig: Kubeconfig,
}

/// Where the cluster is read from.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Inputs")]
pub struct Inputs {
    /// Where nodes, pods, AppWrappers, devices and claims are read from.
    ///
    /// kube: a Kubernetes API server, found through a kubeconfig or, in a pod, through the pod's ServiceAccount. file:PATH: a dump of a
    /// cluster, `file:-` on standard input; may be given several times. local: no Kubernetes, the agents are the nodes.
    #[arg(long, env = "MCAD_CLUSTER", value_name = "kube|file:PATH|local", default_value = "kube")]
    pub cluster: Vec<ClusterSource>,
    /// A file of agents' reports, one a line, as `mcad-agent --once` prints them.
    ///
    /// Several lines of a node are successive reports. Only with a dump, or with `local` in a command that prints and exits. The age of
    /// these reports does not count.
    #[arg(long, value_name = "FILE")]
    pub reports: Vec<PathBuf>,
    /// When the dump was made, as in 2026-01-05T10:00:00Z: ages are relative to it. Not used if the dump records its time, as
    /// `mcad-aggregator dump` does. Default: the newest time in the dump.
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub at: Option<Timestamp>,
}

/// Rules for computing the metrics.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Metrics")]
pub struct MetricsArgs {
    /// Which of the operator's own metrics are exported.
    #[arg(long, value_enum, default_value = "v1", hide_short_help = true)]
    pub operator_metrics: OperatorChoice,
    /// Whether to export series for each GPU.
    #[arg(long, value_enum, default_value = "on", hide_short_help = true)]
    pub gpu_metrics: Switch,
    /// Export series for each pod.
    #[arg(long, hide_short_help = true)]
    pub pod_metrics: bool,
    /// Whether to export metrics of Kueue's queues, if Kueue is installed: quotas, the hardware behind them, why AppWrappers wait.
    ///
    /// off: Kueue's objects are not watched either.
    #[arg(long, value_enum, default_value = "on", hide_short_help = true)]
    pub queue_metrics: Switch,
    /// The ClusterQueue whose lending limit compensates for broken hardware.
    ///
    /// `mcad_queue_slack_lending_limit` is what it should lend at most.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub slack_queue: Option<String>,
    /// Label selector of the nodes that should have an agent. Default: all nodes.
    ///
    /// The syntax is that of `kubectl -l`: `pool=gpu,zone in (a,b),!spot`. `mcad_node_agent_up` has a series for each of these nodes.
    #[arg(long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    pub agent_nodes: Selector,
    /// A taint that does not withhold a node: all pods are assumed to tolerate it.
    ///
    /// KEY means only the effect NoSchedule; KEY:NoExecute means NoExecute. May be given several times; the given taints replace the
    /// default.
    #[arg(long, value_name = "KEY[:EFFECT]", default_value = mcad_accounting::resource::NVIDIA_GPU)]
    pub tolerate_taint: Vec<ToleratedTaint>,
    /// One more extended resource that is an accelerator: its slots and its largest free block are shown.
    ///
    /// nvidia.com/*, amd.com/gpu, habana.ai/gaudi, google.com/tpu and gpu.intel.com/* are accelerators without this flag. May be given
    /// several times.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub accelerator: Vec<Accelerator>,
    /// The node label whose value names the node's pool: `mcad_pool_*` have the sums of each pool. Default: nvidia.com/gpu.product.
    ///
    /// A node without the label is in the pool of its ResourceFlavor, if Kueue is installed, else in none. Without this flag,
    /// `mcad_pool_*` are exported only if a node is in a pool. The page shows the same pools.
    #[arg(long, value_name = "KEY", hide_short_help = true)]
    pub pool_label: Option<PoolLabel>,
    /// The resource that the devices of a driver of Dynamic Resource Allocation count as.
    ///
    /// May be given several times, once for each driver; the given drivers replace the default. Devices of other drivers are in no ladder.
    #[arg(
        long,
        hide_short_help = true,
        value_name = "DRIVER=RESOURCE",
        default_value = "gpu.nvidia.com=nvidia.com/gpu"
    )]
    pub dra_resource: Vec<DriverResource>,
    /// CPU that must be free on a node for each GPU of a slot, in addition to the GPU.
    #[arg(long, hide_short_help = true, value_name = "QUANTITY", default_value = "1")]
    pub slot_cpu_per_gpu: Quantity,
    /// Memory that must be free on a node for each GPU of a slot, in addition to the GPU.
    #[arg(long, hide_short_help = true, value_name = "QUANTITY", default_value = "4Gi")]
    pub slot_memory_per_gpu: Quantity,
    /// GPU memory that is in use by no process on the GPU counts as unclaimed if it is more than this share of the GPU's memory, in
    /// percent.
    ///
    /// `mcad_gpu_unclaimed_memory_bytes` shows it: memory that a dead process left behind.
    #[arg(long, hide_short_help = true, value_name = "PERCENT", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u8).range(..=100))]
    pub unclaimed_memory: u8,
    /// Maximum number of series that the AppWrappers of one namespace may have together.
    ///
    /// If they would have more, none of them has series of its own, and `mcad_appwrappers_without_series` counts them.
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 20_000)]
    pub max_series_per_namespace: usize,
    /// Print /metrics once, then exit. Only with a dump.
    #[arg(long)]
    pub print_metrics: bool,
}

/// Which of the operator's own metrics are exported.
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

impl MetricsArgs {
    /// The same as options of a snapshot.
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
            queue_metrics: match self.queue_metrics {
                Switch::On => QueueMetrics::On,
                Switch::Off => QueueMetrics::Off,
            },
            slack_queue: self.slack_queue.as_deref().map(Into::into),
            agent_nodes: self.agent_nodes.clone(),
            tolerated: self.tolerate_taint.iter().cloned().collect(),
            pool_label: self.pool_label.clone(),
            accelerators: self.accelerator.iter().cloned().collect(),
            device_resources: self.dra_resource.iter().cloned().collect(),
            slot_millicores_per_gpu: small(self.slot_cpu_per_gpu.millis()),
            slot_bytes_per_gpu: small(self.slot_memory_per_gpu.units()),
            unclaimed_memory_percent: self.unclaimed_memory,
            max_series_per_namespace: self.max_series_per_namespace,
        }
    }
}

impl Inputs {
    fn check(&self) -> Result<()> {
        if self.dump().len() != self.cluster.len() && self.cluster.len() > 1 {
            bail!("--cluster may be given several times only as file:PATH: only one cluster is shown");
        }
        if self.at.is_some() && self.dump().is_empty() {
            bail!("--at needs --cluster file:PATH: --at is the time at which a dump was made");
        }
        Ok(())
    }

    /// Whether an API server is watched.
    pub fn is_kube(&self) -> bool {
        self.cluster.contains(&ClusterSource::Kube)
    }

    /// The files of a dump; empty if the cluster is not read from one.
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
    /// Address of /metrics, the page at /, /live and /ready. Port 0: any free port.
    #[arg(long, env = "MCAD_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:10910")]
    pub listen: SocketAddr,
    /// Address for agents' reports (POST /v1/report).
    ///
    /// If it is not a loopback address, reports need TLS and a token.
    #[arg(long, env = "MCAD_REPORT_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:10911")]
    pub report_listen: SocketAddr,
}

/// How the leader is elected. With `--cluster file:PATH` and `local` there is one replica.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Replicas")]
pub struct Replicas {
    /// Whether only the leader, which holds a Lease, exports the cluster's metrics, so that nothing counts twice. Default: on in
    /// a pod, else off.
    #[arg(long, hide_short_help = true, env = "MCAD_LEADER_ELECT", value_enum)]
    pub leader_elect: Option<Switch>,
    /// The Lease's name.
    #[arg(
        long,
        hide_short_help = true,
        env = "MCAD_LEASE_NAME",
        value_name = "NAME",
        default_value = "mcad-aggregator"
    )]
    pub lease_name: String,
    /// The Lease's namespace. Default: that of the pod, or of the kubeconfig's context.
    #[arg(long, hide_short_help = true, env = "MCAD_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Seconds after which another replica becomes the leader if the leader has vanished. Prometheus's scrape interval must not be longer
    /// than half of it; interval and scrape timeout together must not be longer than all of it.
    #[arg(long, hide_short_help = true, env = "MCAD_LEASE_DURATION", value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub lease_duration: u64,
    /// Seconds that a leader waits at most, after SIGTERM, for one more scrape without the cluster's metrics before another replica
    /// becomes the leader. terminationGracePeriodSeconds must be about 20 s longer.
    #[arg(long, hide_short_help = true, env = "MCAD_HANDOVER", value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub handover: u64,
    /// This pod's address. Another replica that starts requests the state transfer from it, on the port of --report-listen. Default: the
    /// address of --report-listen.
    #[arg(long, hide_short_help = true, env = "POD_IP", value_name = "IP")]
    pub pod_ip: Option<IpAddr>,
}

impl Replicas {
    /// Whether a Lease decides which replica exports the cluster's metrics.
    pub fn elect(&self, inputs: &Inputs) -> bool {
        // Set in every pod, and hardly elsewhere.
        let in_pod = || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        inputs.is_kube() && self.leader_elect.map_or_else(in_pod, |elect| elect == Switch::On)
    }
}

/// Where nodes, pods, AppWrappers, devices and claims come from.
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
            _ => Err("expected kube, file:PATH or local".to_owned()),
        }
    }
}

impl Args {
    /// Refuses flags that cannot be combined.
    pub fn check(&self) -> Result<()> {
        self.inputs.check()?;
        let files = self.inputs.dump().len();
        if files == 0 && (!self.inputs.reports.is_empty() || self.metrics.print_metrics) {
            bail!("--reports and --print-metrics need --cluster file:PATH");
        }
        if self.replicas.leader_elect == Some(Switch::On) && !self.inputs.is_kube() {
            bail!(
                "--leader-elect on needs --cluster kube: without an API server there is no Lease, and only one replica"
            );
        }
        self.trust.protection(self.serve.report_listen, self.inputs.is_kube())?;
        Ok(())
    }
}

impl Source {
    /// Refuses flags that cannot be combined.
    pub fn check(&self) -> Result<()> {
        self.inputs.check()?;
        if self.metrics.print_metrics {
            bail!("--print-metrics cannot be combined with this command: leave out --print-metrics");
        }
        if self.inputs.is_kube() {
            if !self.inputs.reports.is_empty() {
                bail!("--reports needs --cluster file:PATH or local: the reports would be older than the live cluster");
            }
        } else if self.kubeconfig != Kubeconfig::default() {
            bail!("--context and --kubeconfig need --cluster kube: other clusters are not read from an API server");
        }
        if self.inputs.cluster.contains(&ClusterSource::Local) && self.inputs.reports.is_empty() {
            bail!(
                "--cluster local needs --reports FILE (as `mcad-agent --once` prints them): agents report only \
                 to an aggregator that serves: for live values, see its page or /api/v1/cluster"
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
    fn queues_are_watched_unless_queue_metrics_is_off() {
        let watches = |args: &[&str]| crate::watch::Settings::of(&parse(args).metrics.options()).queues;
        assert!(watches(&[]) && watches(&["--queue-metrics", "on"]) && !watches(&["--queue-metrics", "off"]));
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
            Some(Command::Explain(explain)) => explain.source.check(),
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
        assert!(refusal(&["--cluster", "file:a", "--print-metrics"]).contains("leave out --print-metrics"));
        assert!(refusal(&["--cluster", "file:a", "--context", "c"]).contains("need --cluster kube"));
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
    fn the_defaults_of_the_flags_are_those_of_the_rules() {
        assert_eq!(parse(&[]).metrics.options(), Options::default());
        let nodes = parse(&["--agent-nodes", "pool in (a,b)", "--pod-metrics"]).metrics.options();
        assert_eq!((nodes.agent_nodes, nodes.pod_metrics), ("pool in (a, b)".parse().unwrap(), PodMetrics::On));
        let refused = Args::try_parse_from(["mcad-aggregator", "--agent-nodes", "pool in a"]).unwrap_err().to_string();
        assert!(refused.contains("expected \"(\", found \"a\""), "{refused}");
        let refused = Args::try_parse_from(["mcad-aggregator", "--tolerate-taint", "team=a"]).unwrap_err().to_string();
        assert!(refused.contains("leave out \"=a\""), "{refused}");
        let given = parse(&["--tolerate-taint", "team", "--slot-cpu-per-gpu", "1500m", "--slot-memory-per-gpu", "8Gi"]);
        let options = given.metrics.options();
        assert_eq!(options.tolerated, [taint("team")].into_iter().collect());
        assert_eq!((options.slot_millicores_per_gpu, options.slot_bytes_per_gpu), (1500, 8 << 30));
    }

    #[test]
    fn accelerators_are_extended_resources_as_many_as_wanted() {
        let given = parse(&["--accelerator", "example.com/npu", "--accelerator", "example.com/tpu"]).metrics.options();
        assert!(given.is_accelerator("example.com/npu") && given.is_accelerator("example.com/tpu"));
        let refused = Args::try_parse_from(["mcad-aggregator", "--accelerator", "npu"]).unwrap_err().to_string();
        assert!(refused.contains("\"npu\" is not the name of an extended resource"), "{refused}");
    }

    #[test]
    fn pools_are_named_by_the_label_of_a_node() {
        let given = parse(&["--pool-label", "topology.kubernetes.io/zone"]).metrics.options();
        assert_eq!(given.pool_label(), "topology.kubernetes.io/zone");
        assert_eq!(parse(&[]).metrics.options().pool_label(), "nvidia.com/gpu.product");
        let refused = Args::try_parse_from(["mcad-aggregator", "--pool-label", "a=b"]).unwrap_err().to_string();
        assert!(refused.contains("\"a=b\" is not a valid label key; write it as on the nodes"), "{refused}");
    }

    #[test]
    fn scrapes_may_come_from_other_machines() {
        parse(&["--cluster", "local", "--listen", "0.0.0.0:0"]).check().unwrap();
    }
}

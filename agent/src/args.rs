//! The command line, and nothing of what follows from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::admin::asked::AgentUrl;
use crate::kernel::CgroupSourceChoice;
use crate::probe::RunQueueChoice;
use crate::report::Listed;
use crate::sandbox::Sandbox;
use crate::sender::Target;
use crate::source::gpu::IGNORED_XIDS;
use crate::version;

/// What one node really has and does: reads its cgroups and the machine as a whole, and sends one report an interval.
#[derive(Debug, Parser)]
#[command(name = "mcad-agent", version = version::text(), after_help = EXAMPLES, after_long_help = MORE)]
#[command(subcommand_negates_reqs = true)]
pub struct Args {
    /// Something else than sampling.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where reports go: https://HOST:PORT, or on this machine http://127.0.0.1:PORT.
    ///
    /// Over http reports are not encrypted, so only a loopback address is taken. A host's name is looked up for each new
    /// connection, and must be in the aggregator's certificate. Without it --listen shows this node's metrics.
    #[arg(long, value_name = "URL", required_unless_present_any = ["once", "listen"])]
    pub aggregator: Option<Target>,

    /// Certificates in PEM of the authorities that may vouch for the aggregator: of the ConfigMap that it keeps, ca.crt. Read
    /// anew for each connection. With https it must be there, and nothing does without.
    #[arg(long, value_name = "FILE")]
    pub aggregator_ca: Option<PathBuf>,

    /// The ServiceAccount's token, made out for the audience mcad-metrics, that says which node this is. Read anew for each
    /// report, as kubelet renews it. Default: none is sent.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,

    /// The node's name, as Kubernetes knows it. Default: the host name in lower case, as kubelet has it.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = node_name)]
    pub node_name: Option<String>,

    /// Time between two reports: 10s, 500ms, 1m30s. At least 100ms, at most 1h.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = interval)]
    pub interval: Duration,

    /// Takes one sample, prints its report as one line of JSON, and exits. Fails only if nothing at all could be read.
    #[arg(long)]
    pub once: bool,

    /// Where per-cgroup figures come from. auto: eBPF where kernel and rights allow it, else files.
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t = CgroupSourceChoice::Auto)]
    pub cgroup_source: CgroupSourceChoice,

    /// Whether waits for a processor are added up by cgroup, at each switch of tasks. Needs eBPF.
    #[arg(long, value_name = "WHETHER", value_enum, default_value_t = RunQueueChoice::On)]
    pub run_queue: RunQueueChoice,

    /// Which cgroups a report lists. Default: pods; with --once all.
    #[arg(long, value_name = "WHICH", value_enum)]
    pub report_cgroups: Option<ReportCgroups>,

    /// Where cgroup v2 is mounted. Default: found in PROC_ROOT/self/mountinfo.
    #[arg(long, value_name = "PATH")]
    pub cgroup_root: Option<PathBuf>,

    /// Where the host's /proc is mounted.
    #[arg(long, value_name = "PATH", default_value = "/proc")]
    pub proc_root: PathBuf,

    /// Where the host's /sys is mounted.
    #[arg(long, value_name = "PATH", default_value = "/sys")]
    pub sys_root: PathBuf,

    /// NVML's library. Default: searched where nodes keep it; a node without one has no GPUs.
    #[arg(long, value_name = "PATH")]
    pub nvml: Option<PathBuf>,

    /// How long one question to NVML may stay without an answer before the process that calls it is ended and another started. It is
    /// more than initialising takes: up to 6 s on a node with eight GPUs.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = interval)]
    pub nvml_patience: Duration,

    /// Xids that say nothing about a GPU's health, as the device plugin ignores them; they are counted all the same.
    #[arg(long, value_name = "CODES", value_delimiter = ',', default_values_t = IGNORED_XIDS)]
    pub ignore_xids: Vec<u64>,

    /// A directory of the host, where the agent remembers how many GPUs this node has had, and for the next agent what its pods
    /// used. Default: remembered until the agent ends.
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,

    /// Whether the agent keeps itself, once its probes are attached, from reaching other processes of this machine and files that it
    /// does not need: by a seccomp filter, and by Landlock where the kernel has it. off is for finding out whether that is in the way.
    #[arg(long, value_name = "WHETHER", value_enum, default_value_t = Sandbox::On)]
    pub sandbox: Sandbox,

    /// Kubelet's PodResources socket. Default: /var/lib/kubelet/pod-resources/kubelet.sock, if it is there.
    #[arg(long, value_name = "SOCKET")]
    pub pod_resources: Option<PathBuf>,

    /// Address of the agent's own port with /metrics (its own cost and failures), /live and, for who asks on this machine,
    /// /reports (the last two, one a line). Default: no port.
    ///
    /// Without --aggregator, /metrics also has what this node measures, in the same families as the aggregator's: one program
    /// for one machine without Kubernetes.
    #[arg(long, value_name = "ADDR", conflicts_with = "once")]
    pub listen: Option<SocketAddr>,
}

/// What both `-h` and `--help` end with.
macro_rules! examples {
    () => {
        "\
Examples:
  What does this machine say, right now?
    mcad-agent status

  The same as the report that would be sent, as JSON:
    mcad-agent --once | jq .

  Complete flags in this shell:
    source <(mcad-agent completions bash)

  The same without eBPF and without root, pods only:
    mcad-agent --once --cgroup-source files --report-cgroups pods

  Report to an aggregator on this machine every second, and ask this agent what it has found:
    mcad-agent --aggregator http://127.0.0.1:10911 --interval 1s --listen 127.0.0.1:9464
    mcad-agent status --from http://127.0.0.1:9464

  Serve this machine's metrics to a Prometheus, without an aggregator and without Kubernetes:
    mcad-agent --listen 127.0.0.1:9464

  Report to an aggregator on another machine, in a pod:
    mcad-agent --aggregator https://mcad-aggregator-reports.metrics.svc:10911 \\
      --aggregator-ca /var/run/mcad/ca.crt --token /var/run/mcad/token

The log goes to standard error; MCAD_LOG=debug (or any tracing filter) says more."
    };
}

const EXAMPLES: &str = examples!();

const MORE: &str = concat!(
    examples!(),
    "

The agent starts one more process, `mcad-agent nvml-worker`, which loads NVML's library and calls it: what hangs \
     or crashes there costs the metrics of GPUs alone. It has no capability and ends with the agent. Nobody else starts it."
);

/// What else the agent's binary does.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Forgets how many GPUs this node has had: after some were taken out for good. Needs --state-dir.
    ForgetGpus,
    /// Prints this node: its cpu, memory and GPUs, and its busiest cgroups. Flags of sampling stand before it.
    ///
    /// It takes two samples a second apart, also where an agent runs: which port that has, is known to nobody. With --from it
    /// asks that one instead.
    Status {
        /// An agent that runs, by its own port (--listen): its last two reports are printed, with their age, and nothing is
        /// sampled. Of cgroups it has those of pods, unless it runs with --report-cgroups all.
        #[arg(long, value_name = "URL")]
        from: Option<AgentUrl>,
    },
    /// Calls NVML, in a process of its own that the agent starts: what hangs or crashes there costs the figures of GPUs alone.
    ///
    /// It answers on a socket, which is its standard input, has no rights, and ends with the agent. Nobody else starts it.
    #[command(hide = true)]
    NvmlWorker {
        /// How long one wait for events lasts.
        #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = short_time)]
        events: Duration,
    },
    /// Prints what a shell needs to complete this command line.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// `--report-cgroups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportCgroups {
    /// Pods, by UID and without paths: their figures hold those of their containers.
    Pods,
    /// Every cgroup of the machine, with its path and all that is known of it.
    All,
}

impl Args {
    /// Which cgroups the reports list, given all flags.
    pub fn listed(&self) -> Listed {
        match (self.report_cgroups, self.once) {
            (Some(ReportCgroups::Pods), _) | (None, false) => Listed::Pods,
            (Some(ReportCgroups::All), _) | (None, true) => Listed::All,
        }
    }
}

/// A Kubernetes name has at most 253 characters; the rest of its rules is the API server's business.
fn node_name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a node has a name; leave NODE_NAME unset for the host name".to_owned()),
        _ if text.len() > 253 => Err("longer than the 253 characters of a Kubernetes name".to_owned()),
        _ if text.chars().any(|char| char.is_whitespace() || char.is_control()) => {
            Err("a node's name has no white space".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text).ok_or("write a time such as 10s, 500ms or 1m30s")?;
    // Below, sampling would cost more than it tells; above, a rate over two reports says nothing of now.
    let allowed = Duration::from_millis(100)..=Duration::from_hours(1);
    allowed.contains(&interval).then_some(interval).ok_or_else(|| "not between 100ms and 1h".to_owned())
}

fn short_time(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "write a time such as 100ms".to_owned())
}

/// Numbers with units (`h`, `m`, `s`, `ms`), added up: `1m30s`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|char: char| char.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_ms = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
        total = total.checked_add(Duration::from_millis(ms))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_units() {
        for (text, ms) in [
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1h", Some(3_600_000)),
            ("", None),
            ("10", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn an_interval_has_bounds() {
        for (text, fits) in [("99ms", false), ("100ms", true), ("1h", true), ("61m", false), ("0s", false)] {
            assert_eq!(interval(text).is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn once_needs_no_aggregator_and_lists_all_cgroups_unless_told_otherwise() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        assert_eq!(parse("mcad-agent --once").unwrap().listed(), Listed::All);
        assert_eq!(parse("mcad-agent --once --report-cgroups pods").unwrap().listed(), Listed::Pods);
        let url = "http://127.0.0.1:1";
        assert_eq!(parse(&format!("mcad-agent --aggregator {url}")).unwrap().listed(), Listed::Pods);
        assert!(parse("mcad-agent --interval 1s").unwrap_err().to_string().contains("--aggregator <URL>"));
        assert_eq!(parse("mcad-agent --listen 127.0.0.1:9464").unwrap().listed(), Listed::Pods);
    }

    #[test]
    fn forgetting_gpus_needs_no_aggregator_and_takes_its_directory_on_either_side() {
        for line in ["mcad-agent forget-gpus --state-dir /s", "mcad-agent --state-dir /s forget-gpus"] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert_eq!((args.command, args.state_dir), (Some(Command::ForgetGpus), Some("/s".into())));
        }
    }

    #[test]
    fn xids_to_ignore_are_the_device_plugins_unless_listed() {
        let ignored = |line: &str| Args::try_parse_from(line.split(' ')).unwrap().ignore_xids;
        assert_eq!(ignored("mcad-agent --once"), IGNORED_XIDS);
        assert_eq!(ignored("mcad-agent --once --ignore-xids 13,31"), [13, 31]);
    }

    #[test]
    fn a_node_has_a_name() {
        assert!(node_name("gpu-17.example").is_ok());
        for text in ["", "a b", "a\n", &"a".repeat(254)] {
            assert!(node_name(text).is_err(), "{text:?}");
        }
    }
}

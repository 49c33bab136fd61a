//! The command line. What the flags do is elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::admin::client::AgentUrl;
use crate::kernel::CgroupSourceChoice;
use crate::probe::RunQueueChoice;
use crate::report::Listed;
use crate::sandbox::Sandbox;
use crate::sender::Target;
use crate::source::gpu::{DAEMONS, IGNORED_XIDS};
use crate::version;

/// Measures one node: reads its cgroups and the machine as a whole, and sends one report per interval.
#[derive(Debug, Parser)]
#[command(name = "mcad-agent", version = version::text(), after_help = SHORT, after_long_help = MORE)]
#[command(max_term_width = 100, mut_args(rare))]
#[command(subcommand_negates_reqs = true)]
pub struct Args {
    /// A command other than sampling.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where to send reports: https://HOST:PORT, or on this machine http://127.0.0.1:PORT.
    ///
    /// Over http, reports are not encrypted, so only a loopback address is allowed. A host name is resolved for each
    /// new connection, and must be in the aggregator's certificate. Without this flag, --listen exports this node's
    /// metrics.
    #[arg(long, value_name = "URL", required_unless_present_any = ["once", "listen"])]
    pub aggregator: Option<Target>,

    /// CA certificates in PEM that verify the aggregator: the file ca.crt of the ConfigMap that the aggregator
    /// maintains. Read again for each connection. Required with https; verification cannot be turned off.
    #[arg(long, value_name = "FILE")]
    pub aggregator_ca: Option<PathBuf>,

    /// The ServiceAccount token that identifies this node, issued for the audience mcad-metrics. Read again for each
    /// report, because kubelet renews it. Default: no token is sent.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,

    /// The node's name in Kubernetes. Default: the host name in lower case, as kubelet has it.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", value_parser = node_name)]
    pub node_name: Option<String>,

    /// Time between two reports: 10s, 500ms, 1m30s. At least 100ms, at most 1h.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = interval)]
    pub interval: Duration,

    /// Take one sample, print its report as one line of JSON, and exit. Fails only if nothing at all could be read.
    #[arg(long)]
    pub once: bool,

    /// Where values per cgroup are read from. auto: eBPF if the kernel and the agent's rights allow it, else files.
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t = CgroupSourceChoice::Auto)]
    pub cgroup_source: CgroupSourceChoice,

    /// Whether to measure run-queue wait per cgroup, at each task switch. Needs eBPF.
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

    /// Path of the NVML library. Default: searched in the usual places; a node without the library has no GPUs.
    #[arg(long, value_name = "PATH")]
    pub nvml: Option<PathBuf>,

    /// How long one request to NVML may stay without a response before the process that makes the calls is killed and
    /// restarted. Must be longer than initialisation: up to 6 s on a node with eight GPUs.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = interval)]
    pub nvml_patience: Duration,

    /// Xids that do not make a GPU unhealthy; the default is the list that the device plugin ignores. Ignored Xids
    /// are still counted.
    #[arg(long, value_name = "CODES", value_delimiter = ',', default_values_t = IGNORED_XIDS)]
    pub ignore_xids: Vec<u64>,

    /// Names of processes that serve other processes on a GPU or observe them, as `/proc/PID/comm` has them. They do
    /// not count as users of a GPU.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values_t = DAEMONS.map(str::to_owned))]
    pub not_stray: Vec<String>,

    /// A directory of the host in which the agent stores, for the next agent, how many GPUs this node has had and the
    /// usage of its pods. Default: neither is stored.
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,

    /// Whether the agent, once its probes are attached, restricts its own access to other processes and to files that
    /// it does not need: with a seccomp filter, and with Landlock if the kernel has it. Use off to find out whether the
    /// sandbox causes a problem.
    #[arg(long, value_name = "WHETHER", value_enum, default_value_t = Sandbox::On)]
    pub sandbox: Sandbox,

    /// Kubelet's PodResources socket. Default: /var/lib/kubelet/pod-resources/kubelet.sock, if it exists.
    #[arg(long, value_name = "SOCKET")]
    pub pod_resources: Option<PathBuf>,

    /// Address of the agent's own port with /metrics (its own cost and failures), /live and, for loopback clients,
    /// /reports (the last two reports, one per line). Default: no port.
    ///
    /// Without --aggregator, /metrics also exports what this node measures, in the same families as the aggregator: for
    /// a single machine without Kubernetes, no aggregator is needed.
    #[arg(long, value_name = "ADDR", conflicts_with = "once")]
    pub listen: Option<SocketAddr>,
}

/// The last part of `--help`.
macro_rules! examples {
    () => {
        "\
Examples:
  This machine's measurements, right now:
    mcad-agent status

  The same as the report that would be sent, as JSON:
    mcad-agent --once | jq .

  Complete flags in this shell:
    source <(mcad-agent completions bash)

  The same without eBPF and without root, pods only:
    mcad-agent --once --cgroup-source files --report-cgroups pods

  Report to an aggregator on this machine every second, and query this agent:
    mcad-agent --aggregator http://127.0.0.1:10911 --interval 1s --listen 127.0.0.1:9464
    mcad-agent status --from http://127.0.0.1:9464

  Serve this machine's metrics to a Prometheus, without an aggregator and without Kubernetes:
    mcad-agent --listen 127.0.0.1:9464

  Report to an aggregator on another machine, in a pod:
    mcad-agent --aggregator https://mcad-aggregator-reports.metrics.svc:10911 \\
      --aggregator-ca /var/run/mcad/ca.crt --token /var/run/mcad/token

The log goes to standard error; RUST_LOG=debug (or any tracing filter) logs more."
    };
}

/// What `-h` ends with.
const SHORT: &str = "\
Examples:
    mcad-agent status                                # this machine's resources and usage now
    mcad-agent --once | jq .                         # the same as a report, in JSON
    mcad-agent --listen 127.0.0.1:9464               # serve this machine's metrics to a Prometheus";

/// Flags that `-h` does not show: defaults and the manifests in deploy/ suit nearly everybody.
const RARE: [&str; 13] = [
    "aggregator_ca",
    "token",
    "run_queue",
    "report_cgroups",
    "cgroup_root",
    "proc_root",
    "sys_root",
    "nvml",
    "nvml_patience",
    "ignore_xids",
    "not_stray",
    "sandbox",
    "pod_resources",
];

fn rare(flag: clap::Arg) -> clap::Arg {
    let is_rare = RARE.contains(&flag.get_id().as_str());
    flag.hide_short_help(is_rare)
}

const MORE: &str = concat!(
    examples!(),
    "

The agent starts one more process, `mcad-agent nvml-worker`, which loads and calls the NVML library: a hang or a \
     crash there affects GPU metrics only. It has no capabilities and ends with the agent. Do not start it yourself."
);

/// Commands other than sampling.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Forget how many GPUs this node has had. Use it after GPUs were removed permanently. Needs --state-dir.
    ForgetGpus,
    /// Print this node's CPU, memory and GPUs, and its busiest cgroups. Flags for sampling go before the command.
    ///
    /// The command takes two samples a second apart, even if an agent is running, because its port is not known. With
    /// --from, it queries that agent instead.
    Status {
        /// URL of a running agent's own port (--listen): print its last two reports with their age, and do not
        /// sample. The reports list only the cgroups of pods, unless that agent runs with --report-cgroups all.
        #[arg(long, value_name = "URL")]
        from: Option<AgentUrl>,
    },
    /// Call NVML in a separate process that the agent starts: a hang or a crash there affects GPU metrics only.
    ///
    /// The process serves requests on a socket, which is its standard input, has no rights, and ends with the agent.
    /// Only the agent starts it.
    #[command(hide = true)]
    NvmlWorker {
        /// How long one wait for events lasts.
        #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = short_time)]
        events: Duration,
    },
    /// Print the script that completes this command line in a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// `--report-cgroups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportCgroups {
    /// Pods, by UID and without paths: their values include those of their containers.
    Pods,
    /// Every cgroup of the machine, with its path and all its values.
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

/// A Kubernetes name has at most 253 characters. The API server checks the other rules.
fn node_name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the name is empty; leave NODE_NAME unset to use the host name".to_owned()),
        _ if text.len() > 253 => Err("a Kubernetes name has at most 253 characters".to_owned()),
        _ if text.chars().any(|char| char.is_whitespace() || char.is_control()) => {
            Err("a node's name cannot contain white space".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text).ok_or("write a time such as 10s, 500ms or 1m30s")?;
    // Below this range, sampling would cost more than it is worth; above it, a rate between two reports says little
    // about the present.
    let allowed = Duration::from_millis(100)..=Duration::from_hours(1);
    allowed.contains(&interval).then_some(interval).ok_or_else(|| "must be between 100ms and 1h".to_owned())
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
    fn the_short_help_fits_a_screen_and_its_examples_are_among_those_of_the_long_one() {
        use clap::CommandFactory as _;
        let short = Args::command().term_width(100).render_help().to_string();
        assert!(short.lines().count() <= 40, "{short}");
        assert!(short.lines().all(|line| line.chars().count() <= 100), "{short}");
        assert_eq!(short.matches("\n    mcad-agent").count(), 3, "{short}");
        let long = Args::command().render_long_help().to_string();
        let examples = SHORT.lines().skip(1).map(|line| line.split('#').next().unwrap_or_default().trim());
        for example in examples {
            assert!(long.contains(example), "{example}");
        }
        for flag in RARE {
            assert!(Args::command().get_arguments().any(|known| known.get_id() == flag), "{flag} is no flag");
        }
    }

    #[test]
    fn a_node_has_a_name() {
        assert!(node_name("gpu-17.example").is_ok());
        for text in ["", "a b", "a\n", &"a".repeat(254)] {
            assert!(node_name(text).is_err(), "{text:?}");
        }
    }
}

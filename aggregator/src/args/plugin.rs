//! The command line of `kubectl mcad`: flags, and what they refuse. Nothing is started here.
use anyhow::{Result, bail};
use clap::Parser;
use mcad_present::version;

use super::trial::{Imagined, Submit};
use super::{Source, examples};

/// Shows where a cluster's GPUs, CPU and memory are, and why AppWrappers wait.
///
/// The command reads nodes, pods, AppWrappers, devices and claims of the kubeconfig's current context once, prints, and exits. It installs
/// nothing in the cluster and changes nothing there.
#[derive(Debug, Clone, Parser)]
#[command(name = "kubectl-mcad", bin_name = "kubectl mcad", version = version::text(), max_term_width = 100)]
#[command(after_help = examples::PLUGIN_SHORT, after_long_help = examples::PLUGIN)]
#[command(mut_args(for_every_verb))]
pub struct PluginArgs {
    /// What to print. `None`: the explanation of the cluster, as `mcad-aggregator explain` prints it.
    #[command(subcommand)]
    pub command: Option<Verb>,
    /// For why and fit: the namespace. Default: that of the context.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// table, or json: the same values in the fields of /api/v1 (docs/api.md). Default: table.
    #[arg(short, long, value_enum, hide_possible_values = true, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Explain or list only this node.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where the cluster is read from.
    #[command(flatten)]
    pub source: Source,
}

/// What to print other than the explanation of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum Verb {
    /// Print why an AppWrapper waits, or that it does not.
    ///
    /// AppWrappers of both groups are found, mcad.ibm.com and workload.codeflare.dev. In a dump, every namespace is searched unless
    /// --namespace is given. With -o json: the answer of /api/v1/appwrappers/NAMESPACE/NAME.
    #[command(after_help = examples::WHY)]
    Why {
        /// The AppWrapper, as NAME or NAMESPACE/NAME.
        name: String,
    },
    /// Print whether what a manifest submits would fit now, and what is short.
    ///
    /// By nodes, by Kueue's quotas and by MCAD's sum, as the aggregator would judge it once it is created. Nothing is created.
    #[command(after_help = examples::PLUGIN_FIT)]
    Fit(Submit),
    /// Print which AppWrappers would lose pods if a node were drained.
    ///
    /// And how many, what these hold, and whether they fit on the other nodes. Nothing is drained.
    #[command(after_help = examples::PLUGIN_WHATIF)]
    Whatif(Imagined),
    /// Print a table of the nodes: state, GPUs from installed to free, free CPU and memory, agent.
    ///
    /// With -o json: the answer of /api/v1/nodes, with all nodes on one page.
    #[command(after_help = examples::NODES)]
    Nodes,
    /// Print a table of each kind of GPU, by node: healthy, phantom, lost, requested, used, free, withheld.
    ///
    /// With -o json: the answer of /api/v1/nodes, with all nodes that have GPUs on one page.
    #[command(after_help = examples::GPUS)]
    Gpus,
    /// Print the script that completes this command line in a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Text for people
    Table,
    /// JSON for scripts
    Json,
}

/// Flags may stand before and behind a verb, as kubectl takes them. Of metrics and rules, `-h` shows none.
fn for_every_verb(flag: clap::Arg) -> clap::Arg {
    let flag = flag.global(true);
    match flag.get_id().as_str() {
        "print_metrics" | "operator_metrics" | "pod_metrics" | "max_series_per_namespace" => flag.hide(true),
        "agent_nodes" | "tolerate_taint" | "wait" => flag.hide_short_help(true),
        _ => flag,
    }
}

impl PluginArgs {
    /// How it is printed.
    pub fn output(&self) -> Output {
        self.output.unwrap_or(Output::Table)
    }

    /// Refuses flags that cannot be combined.
    pub fn check(&self) -> Result<()> {
        self.source.check()?;
        let is_why = matches!(self.command, Some(Verb::Why { .. }));
        let has_namespace = is_why || matches!(self.command, Some(Verb::Fit(_)));
        if self.namespace.is_some() && !has_namespace {
            bail!(
                "-n is the namespace of why and of fit. Everything else that this command prints is of the whole cluster: leave out -n"
            );
        }
        if matches!(self.command, Some(Verb::Completions { .. })) && (self.output.is_some() || self.node.is_some()) {
            bail!("completions prints a script for a shell: leave out -o and --node");
        }
        if let (Some(Verb::Why { name }), Some(namespace)) = (&self.command, &self.namespace)
            && let Some((other, _)) = name.split_once('/')
            && other != namespace
        {
            bail!("-n {namespace} and {name} name different namespaces: leave out -n");
        }
        if self.node.is_some() && is_why {
            bail!("--node cannot be combined with why: whether an AppWrapper waits depends on all nodes");
        }
        if self.node.is_some() && matches!(self.command, Some(Verb::Fit(_))) {
            bail!("--node cannot be combined with fit: use --without or --uncordon, or the node selector of the pods");
        }
        if self.node.is_some() && matches!(self.command, Some(Verb::Whatif(_))) {
            bail!("--node cannot be combined with whatif: --drain names the node");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> PluginArgs {
        PluginArgs::try_parse_from(line.split(' ')).unwrap()
    }

    fn refusal(line: &str) -> String {
        parse(line).check().unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        PluginArgs::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_and_behind_the_verb() {
        for line in [
            "kubectl-mcad --context c -n a why w -o json",
            "kubectl-mcad -o json -n=a why w --context=c",
            "kubectl-mcad why -n a --context c --output json w",
            "kubectl-mcad why w --namespace=a -ojson --context c",
        ] {
            let args = parse(line);
            args.check().unwrap();
            assert_eq!(args.command, Some(Verb::Why { name: "w".to_owned() }), "{line}");
            let given = (args.namespace.as_deref(), args.source.kubeconfig.context.as_deref(), args.output());
            assert_eq!(given, (Some("a"), Some("c"), Output::Json), "{line}");
        }
        let none = parse("kubectl-mcad");
        assert_eq!((&none.command, none.output(), &none.namespace), (&None, Output::Table, &None));
    }

    #[test]
    fn the_rules_are_those_of_explain() {
        let options =
            parse("kubectl-mcad nodes --tolerate-taint team --accelerator example.com/npu").source.metrics.options();
        assert!(options.is_accelerator("example.com/npu"));
        assert_eq!(parse("kubectl-mcad").source.metrics.options(), mcad_accounting::options::Options::default());
    }

    #[test]
    fn flags_that_make_no_sense_together_are_refused() {
        assert!(refusal("kubectl-mcad why a/w -n b").contains("different namespaces"));
        parse("kubectl-mcad why a/w -n a").check().unwrap();
        assert!(refusal("kubectl-mcad why w --node n").contains("--node"));
        for verb in ["nodes -n a", "gpus -n a", "-n a", "completions bash -n a"] {
            assert!(refusal(&format!("kubectl-mcad {verb}")).contains("leave out -n"), "{verb}");
        }
        for flag in ["-o table", "-o json", "--node n"] {
            assert!(
                refusal(&format!("kubectl-mcad completions bash {flag}")).contains("leave out -o and --node"),
                "{flag}"
            );
        }
        assert!(refusal("kubectl-mcad nodes --cluster file:d --context c").contains("--cluster kube"));
        assert!(refusal("kubectl-mcad nodes --reports r").contains("file:PATH"));
        assert!(PluginArgs::try_parse_from(["kubectl-mcad", "why"]).is_err());
        let usage = PluginArgs::try_parse_from(["kubectl-mcad", "nodes", "x"]).unwrap_err().to_string();
        assert!(usage.contains("Usage: kubectl mcad nodes"), "{usage}");
    }
}

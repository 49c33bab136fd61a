//! The end of each command's help: three examples with `-h`, all of them with `--help`.

/// `mcad-aggregator -h`.
pub(super) const SERVE_SHORT: &str = "\
Examples:
    mcad-aggregator explain                                  # the cluster that kubectl sees
    mcad-aggregator dump > dump.json                         # the same cluster as a file
    mcad-aggregator --cluster file:dump.json                 # serve a page of that file";

/// `mcad-aggregator --help`.
pub(super) const SERVE: &str = "\
Examples:
  Without Kubernetes: this machine's agent is the only node
    mcad-aggregator --cluster local
    curl http://127.0.0.1:10910/metrics

  In this terminal: installed, withheld and free resources, and why AppWrappers wait
    mcad-aggregator explain
    mcad-aggregator explain --help

  A page of a dump, at the address that is printed
    mcad-aggregator dump > dump.json
    mcad-aggregator --cluster file:dump.json

  The metrics of a dump
    mcad-aggregator dump | mcad-aggregator --cluster file:- --print-metrics

  Any free ports, which are printed
    mcad-aggregator --cluster local --listen 127.0.0.1:0 --report-listen 127.0.0.1:0

  Prometheus on another machine may scrape; reports come from this machine only
    mcad-aggregator --cluster local --listen 0.0.0.0:10910

  In a pod: agents of other machines report over TLS, each with its ServiceAccount token
    mcad-aggregator --listen 0.0.0.0:10910 --report-listen 0.0.0.0:10911

Once both addresses are open, one line is printed to standard output (https:// for an address with
TLS):
  listening metrics=http://ADDR reports=http://ADDR

Logs go to standard error; RUST_LOG=debug logs more.";

/// `mcad-aggregator explain -h`.
pub(super) const EXPLAIN_SHORT: &str = "\
Examples:
    mcad-aggregator explain                                  # the cluster that kubectl sees
    mcad-aggregator explain --node gpu-17                    # one node of it
    mcad-aggregator explain --cluster file:dump.json         # a dump

Exit status: 0 if everything was read; 1 if something was left out or is missing.";

/// `mcad-aggregator explain --help`.
pub(super) const EXPLAIN: &str = "\
Examples:
  The cluster that kubectl sees
    mcad-aggregator explain

  One node of it
    mcad-aggregator explain --node gpu-17

  A dump
    mcad-aggregator dump > dump.json
    mcad-aggregator explain --cluster file:dump.json

  A dump, and what agents reported when it was made
    mcad-aggregator explain --cluster file:dump.json --reports reports.json

  Why AppWrappers wait, for a script
    mcad-aggregator explain --json | jq '.appwrappers[] | select(.waiting) | [.name, .waiting.why]'

  This machine, without Kubernetes
    mcad-agent --once > report.json
    mcad-aggregator explain --cluster local --reports report.json

Agents report to an aggregator that serves: what they measure of a live cluster is on its page and
at its /api/v1.

Exit status: 0 if everything was read; 1 if something was left out or is missing. The
reasons are printed above the values, and on standard error if standard output is not a terminal.";

/// `mcad-aggregator fit -h`.
pub(super) const FIT_SHORT: &str = "\
Examples:
    mcad-aggregator fit -f job.yaml                          # in the cluster that kubectl sees
    mcad-aggregator fit -f job.yaml --count 5                # how many of five copies fit
    mcad-aggregator fit -f job.yaml --uncordon gpu-17        # if that node took pods

Exit status: 0 if all of it fits now; 1 if not; 2 if that cannot be told.";

/// `mcad-aggregator fit --help`.
pub(super) const FIT: &str = "\
Examples:
  Whether a job would start now in the cluster that kubectl sees; nothing is created
    mcad-aggregator fit -f job.yaml

  How many of five copies fit, in a queue of Kueue
    mcad-aggregator fit -f job.yaml --count 5
    mcad-aggregator fit -f job.yaml --count 5 --queue team-vision

  If a node were gone, or if a cordoned node took pods again
    mcad-aggregator fit -f job.yaml --without gpu-17
    mcad-aggregator fit -f job.yaml --uncordon gpu-17

  From standard input, in a dump
    mcad-aggregator dump > dump.json
    cat job.yaml | mcad-aggregator fit -f - --cluster file:dump.json

  For a script
    mcad-aggregator fit -f job.yaml --json | jq '.submissions[] | [.name, .fits, .nodes.why]'

The first object is judged as the aggregator would judge it once it is created. Later objects of the
file find what the earlier ones leave.

Exit status: 0 if all of it fits now; 1 if not; 2 if that cannot be told: the manifest or a part of
the cluster cannot be read, or the search was cut short.";

/// `kubectl mcad fit`.
pub(super) const PLUGIN_FIT: &str = "\
Examples:
    kubectl mcad fit -f job.yaml                             # in the current context
    kubectl mcad fit -f job.yaml --count 5 --queue team-a    # how many of five copies fit
    kubectl mcad fit -f job.yaml --cluster file:dump.json    # in a dump

Exit status: 0 if all of it fits now; 1 if not; 2 if that cannot be told.";

/// `mcad-aggregator whatif -h`.
pub(super) const WHATIF_SHORT: &str = "\
Examples:
    mcad-aggregator whatif --drain gpu-17                    # in the cluster that kubectl sees
    mcad-aggregator whatif --drain gpu-17 --json             # for a script
    mcad-aggregator whatif --drain gpu-17 --cluster file:dump.json

Exit status: 0 if all their pods fit elsewhere; 1 if not; 2 if that cannot be told.";

/// `mcad-aggregator whatif --help`.
pub(super) const WHATIF: &str = "\
Examples:
  Which AppWrappers would lose pods in the cluster that kubectl sees; nothing is drained
    mcad-aggregator whatif --drain gpu-17

  For a script
    mcad-aggregator whatif --drain gpu-17 --json | jq '.appwrappers[] | [.name, .pods, .fits]'

  In a dump
    mcad-aggregator dump > dump.json
    mcad-aggregator whatif --drain gpu-17 --cluster file:dump.json

Only pods of AppWrappers are placed again. Other pods are counted.

Exit status: 0 if all their pods fit elsewhere; 1 if not; 2 if that cannot be told.";

/// `kubectl mcad whatif`.
pub(super) const PLUGIN_WHATIF: &str = "\
Examples:
    kubectl mcad whatif --drain gpu-17                       # in the current context
    kubectl mcad whatif --drain gpu-17 -o json               # for a script
    kubectl mcad whatif --drain gpu-17 --cluster file:dump.json

Exit status: 0 if all their pods fit elsewhere; 1 if not; 2 if that cannot be told.";

/// `mcad-aggregator dump -h`.
pub(super) const DUMP_SHORT: &str = "\
Examples:
    mcad-aggregator dump > dump.json                         # the cluster that kubectl sees
    mcad-aggregator explain --cluster file:dump.json         # its resources; why AppWrappers wait
    mcad-aggregator --cluster file:dump.json                 # a page of it

Exit status: 0 if everything was listed; 1 if something was not.";

/// `mcad-aggregator dump --help`.
pub(super) const DUMP: &str = "\
Examples:
  A dump of the cluster that kubectl sees, its resources, and a page of it
    mcad-aggregator dump > dump.json
    mcad-aggregator explain --cluster file:dump.json
    mcad-aggregator --cluster file:dump.json

  With kubectl alone; leave out an AppWrapper list that the cluster does not serve. JSON is read
  faster than YAML
    kubectl get nodes,pods -A -o json > dump.json
    kubectl get appwrappers.workload.codeflare.dev -A -o json > workload.json
    kubectl get appwrappers.mcad.ibm.com -A -o json > mcad.json
    mcad-aggregator explain --cluster file:dump.json --cluster file:workload.json \\
      --cluster file:mcad.json

The command lists nodes, pods, AppWrappers of every served version, and devices and claims
(resource.k8s.io) in the newest served version, and needs the right to list them. The dump contains
names, labels, requests, limits, states and where pods may go; never Secrets, environments,
arguments or images. The dump also records the time, the API server's version, and which kinds are
served and could be listed, so that a reader can distinguish missing objects from objects that do
not exist.

Exit status: 0 if everything was listed; 1 if something was not: the dump and standard
error name it.";

/// `kubectl mcad -h`.
pub(super) const PLUGIN_SHORT: &str = "\
Examples:
    kubectl mcad                                             # everything, in the current context
    kubectl mcad why -n team-vision vit-huge                 # why this AppWrapper waits
    kubectl mcad nodes --cluster file:dump.json              # the nodes of a dump

Exit status: 0 if everything was read; 1 if something was left out or is missing.";

/// `kubectl mcad --help`.
pub(super) const PLUGIN: &str = "\
Examples:
  Everything in the current context: what is installed, withheld and free, and why AppWrappers wait
    kubectl mcad

  The same of another context, and of one node
    kubectl mcad --context gpu-cluster
    kubectl mcad --node gpu-17

  Why one AppWrapper waits
    kubectl mcad why -n team-vision vit-huge

  Nodes, and GPUs by node
    kubectl mcad nodes
    kubectl mcad gpus -o json | jq '.nodes[].ladder.devices'

  A dump, and what agents reported when it was made
    mcad-aggregator dump > dump.json
    kubectl mcad nodes --cluster file:dump.json
    kubectl mcad gpus --cluster file:dump.json --reports reports.json

Agents report to an aggregator that serves: what they measure of a live cluster is on its page and
at its /api/v1.

Exit status: 0 if everything was read; 1 if something was left out or is missing: standard
error names it.";

/// `kubectl mcad why`.
pub(super) const WHY: &str = "\
Examples:
    kubectl mcad why tune --context gpu-cluster              # in the namespace of that context
    kubectl mcad why -n team-vision vit-huge                 # in another namespace
    kubectl mcad why vit-huge --cluster file:dump.json       # in any namespace of a dump

Exit status: 1 if there is no such AppWrapper, or if something was left out or is missing.";

/// `kubectl mcad nodes`.
pub(super) const NODES: &str = "\
Examples:
    kubectl mcad nodes                                       # of the current context
    kubectl mcad nodes --node gpu-17                         # one of them
    kubectl mcad nodes -o json | jq '.nodes[].name'          # for a script";

/// `kubectl mcad gpus`.
pub(super) const GPUS: &str = "\
Examples:
    kubectl mcad gpus                                        # of the current context
    kubectl mcad gpus --cluster file:dump.json --reports reports.json
    kubectl mcad gpus -o json | jq '.nodes[].ladder.devices' # for a script";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::args::Args;
    use crate::args::plugin::PluginArgs;

    /// The command and its subcommands.
    fn commands(mut command: clap::Command) -> Vec<clap::Command> {
        command.build();
        let verbs: Vec<_> = command.get_subcommands().filter(|verb| verb.get_name() != "help").cloned().collect();
        [vec![command], verbs].concat()
    }

    #[test]
    fn short_help_fits_a_screen() {
        for mut command in [commands(Args::command()), commands(PluginArgs::command())].concat() {
            let help = command.clone().term_width(100).render_help().to_string();
            assert!(help.lines().count() <= 40, "{} lines:\n{help}", help.lines().count());
            let long: Vec<_> = help.lines().filter(|line| line.chars().count() > 100).collect();
            assert!(long.is_empty(), "{long:#?}");
            let all = command.render_long_help().to_string();
            assert!(command.get_name() == "completions" || help.lines().count() < all.lines().count(), "{all}");
        }
    }

    #[test]
    fn short_help_has_three_examples_and_long_help_has_them_too() {
        for mut command in [commands(Args::command()), commands(PluginArgs::command())].concat() {
            if command.get_name() == "completions" {
                continue;
            }
            let short = command.get_after_help().unwrap().to_string();
            let whole = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            // clap breaks longer lines wherever they are.
            assert!(short.lines().chain(whole.lines()).all(|line| line.chars().count() <= 100), "{whole}");
            let long = command.render_long_help().to_string();
            let examples = short.lines().filter_map(|line| line.strip_prefix("    "));
            let examples: Vec<_> = examples.map(|line| line.split(" #").next().unwrap_or_default().trim()).collect();
            assert_eq!(examples.len(), 3, "{short}");
            for example in examples {
                assert!(long.contains(example), "{example} is not in\n{long}");
            }
        }
    }

    #[test]
    fn no_flag_is_missing_from_the_long_help() {
        let mut command = Args::command();
        let help = command.render_long_help().to_string();
        for flag in command.get_arguments().filter_map(|flag| flag.get_long()) {
            assert!(help.contains(&format!("--{flag}")), "--{flag}");
        }
    }
}

//! Decides from facts about this machine what the eBPF build uses, or what has to be installed first. Pure: `facts`
//! inspects the machine, `setup` acts.

use std::fmt;
use std::path::PathBuf;

/// Debian's packages for the eBPF build: a rustc with a prebuilt `core` for BPF, and the LLVM that the linker is built on.
pub(crate) const PACKAGES: [&str; 6] =
    ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libzstd-dev", "zlib1g-dev"];
/// The version of bpf-linker that is built on Debian's LLVM 22.
pub(crate) const DEBIAN_LINKER: &str = "0.13.0";
/// Where `llvm-22-dev` puts LLVM. The linker's build reads this variable, and not llvm-sys's own LLVM_SYS_221_PREFIX.
const DEBIAN_LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// How the linker is compiled. The linker itself runs for a fraction of a second, apart from LLVM, which it loads.
/// Optimised, and with the debug information that its manifest requests, it takes more than twice as long to compile.
const UNOPTIMISED: [(&str, &str); 2] =
    [("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"), ("CARGO_PROFILE_RELEASE_DEBUG", "false")];
/// The last version of bpf-linker that loads the LLVM of rustc, so that no separate LLVM is needed.
pub(crate) const RUSTUP_LINKER: &str = "0.10.3";
/// The LLVM version that [`RUSTUP_LINKER`] is compatible with. It cannot use a rustc with another LLVM.
const RUSTUP_LINKER_LLVM: u32 = 22;
/// A nightly with LLVM 22, used if the installed `nightly` has another LLVM.
pub(crate) const PINNED_NIGHTLY: &str = "nightly-2026-05-20";

/// The two ways to compile for the kernel (docs/decisions/0002).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// Debian's packages: no nightly, needs root once.
    Debian,
    /// A nightly of rustup, which builds `core` itself.
    Rustup,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "way 1 (Debian packages)",
            Self::Rustup => "way 2 (rustup nightly)",
        })
    }
}

/// A version of LLVM. Bitcode is compatible within a minor version, so the patch level is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Llvm {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl fmt::Display for Llvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is installed on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Whether this process is root and can install packages.
    pub(crate) root: bool,
    /// `None` if there is no `apt-get`.
    pub(crate) debian: Option<DebianFacts>,
    /// `None` if there is no `rustup`.
    pub(crate) rustup: Option<RustupFacts>,
}

/// What is installed for way 1.
#[derive(Clone, Debug)]
pub(crate) struct DebianFacts {
    pub(crate) packages_missing: Vec<&'static str>,
    pub(crate) rustc: Option<Rustc>,
    pub(crate) cargo: Option<PathBuf>,
    pub(crate) linker: Option<Linker>,
    pub(crate) linker_root: PathBuf,
}

/// What is installed for way 2.
#[derive(Clone, Debug)]
pub(crate) struct RustupFacts {
    pub(crate) nightlies: Vec<Nightly>,
    pub(crate) linker: Option<Linker>,
    pub(crate) linker_root: PathBuf,
}

/// A compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rustc {
    pub(crate) path: PathBuf,
    pub(crate) llvm: Llvm,
}

/// A nightly toolchain of rustup.
#[derive(Clone, Debug)]
pub(crate) struct Nightly {
    pub(crate) name: String,
    pub(crate) rustc: Rustc,
    pub(crate) cargo: PathBuf,
    /// Whether it has the sources that `core` is built from.
    pub(crate) rust_src: bool,
}

/// bpf-linker, of the version that its way needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    /// The LLVM that the linker is linked with. `None` if it loads rustc's.
    pub(crate) llvm: Option<Llvm>,
}

/// Everything that `build-ebpf` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) way: Way,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: Rustc,
    pub(crate) linker: Linker,
}

/// One step of `setup`, as a command that a user can also type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What is missing, and how long it takes to install.
    pub(crate) missing: String,
    pub(crate) needs_root: bool,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) command: Vec<String>,
}

impl Step {
    /// The command as a user would type it.
    pub(crate) fn line(&self) -> String {
        let sudo = self.needs_root.then(|| "sudo".to_owned());
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        sudo.into_iter().chain(environment).chain(self.command.iter().cloned()).collect::<Vec<_>>().join(" ")
    }
}

/// How far one way is complete on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Complete(Toolchain),
    /// These steps complete the way.
    Incomplete(Vec<Step>),
    /// No step of `setup` helps. The text gives the reason.
    Closed(String),
}

/// What `setup` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Use(Toolchain),
    Do(Way, Vec<Step>),
    /// `setup` cannot complete any way with its rights.
    GiveUp,
}

/// The first complete way, else the first way that `setup` can complete. `ways` are in order of preference.
pub(crate) fn plan(facts: &Facts, ways: &[Way]) -> Plan {
    let findings: Vec<_> = ways.iter().map(|way| (*way, finding(facts, *way))).collect();
    for (_, finding) in &findings {
        if let Finding::Complete(toolchain) = finding {
            return Plan::Use(toolchain.clone());
        }
    }
    for (way, finding) in findings {
        if let Finding::Incomplete(steps) = finding
            && steps.iter().all(|step| facts.root || !step.needs_root)
        {
            return Plan::Do(way, steps);
        }
    }
    Plan::GiveUp
}

/// How far `way` is complete.
pub(crate) fn finding(facts: &Facts, way: Way) -> Finding {
    match way {
        Way::Debian => facts
            .debian
            .as_ref()
            .map_or_else(|| Finding::Closed("there is no apt-get on this machine".to_owned()), debian),
        Way::Rustup => facts.rustup.as_ref().map_or_else(
            || Finding::Closed("there is no rustup on this machine; see https://rustup.rs".to_owned()),
            rustup,
        ),
    }
}

fn debian(facts: &DebianFacts) -> Finding {
    let mut steps = Vec::new();
    if !facts.packages_missing.is_empty() {
        let words = ["apt-get", "install", "--yes", "--no-install-recommends"];
        steps.push(Step {
            missing: format!("packages {} (about a minute)", facts.packages_missing.join(", ")),
            needs_root: true,
            environment: vec![("DEBIAN_FRONTEND", "noninteractive".to_owned())],
            command: words.iter().chain(&facts.packages_missing).map(ToString::to_string).collect(),
        });
    }
    match (&facts.linker, &facts.rustc, &facts.cargo) {
        (Some(linker), Some(rustc), Some(cargo)) if steps.is_empty() => match linker.llvm {
            Some(llvm) if llvm < rustc.llvm => return Finding::Closed(older_linker(linker, llvm, rustc)),
            Some(_) => {
                return Finding::Complete(Toolchain {
                    way: Way::Debian,
                    cargo: cargo.clone(),
                    rustc: rustc.clone(),
                    linker: linker.clone(),
                });
            }
            None => {
                return Finding::Closed(format!(
                    "{} is not linked with Debian's LLVM, so its version can't be checked; remove it and run setup again",
                    linker.path.display()
                ));
            }
        },
        (None, _, _) => {
            // Prefer cargo of the package: then nothing else is needed. If it is not installed yet, use its usual path.
            let cargo = facts.cargo.clone().unwrap_or_else(|| PathBuf::from("/usr/bin/cargo"));
            let features = ["--no-default-features", "--features", "llvm-22"];
            // rustc of the same package: the first rustc on the path may be rustup's, which would need a default
            // toolchain.
            let rustc =
                facts.rustc.as_ref().map_or_else(|| PathBuf::from("/usr/bin/rustc"), |rustc| rustc.path.clone());
            let environment =
                vec![("LLVM_PREFIX", DEBIAN_LLVM_PREFIX.to_owned()), ("RUSTC", rustc.display().to_string())];
            steps.push(linker_step(DEBIAN_LINKER, &cargo, &features, &facts.linker_root, environment));
        }
        _ if steps.is_empty() => {
            return Finding::Closed(
                "rustc-web and cargo-web are installed, but their rustc or cargo cannot be started".to_owned(),
            );
        }
        _ => {}
    }
    Finding::Incomplete(steps)
}

fn rustup(facts: &RustupFacts) -> Finding {
    let Some(nightly) = facts.nightlies.iter().find(|nightly| nightly.rustc.llvm.major == RUSTUP_LINKER_LLVM) else {
        let found: Vec<_> = facts.nightlies.iter().map(|n| format!("{} has LLVM {}", n.name, n.rustc.llvm)).collect();
        let found = if found.is_empty() { String::new() } else { format!("; {}", found.join(", ")) };
        return Finding::Incomplete(vec![Step {
            missing: format!("a nightly with LLVM {RUSTUP_LINKER_LLVM}{found} (a minute or two)"),
            needs_root: false,
            environment: Vec::new(),
            command: [
                "rustup",
                "toolchain",
                "install",
                PINNED_NIGHTLY,
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ]
            .map(str::to_owned)
            .into(),
        }]);
    };
    let mut steps = Vec::new();
    if !nightly.rust_src {
        steps.push(Step {
            missing: format!("rust-src of {}, to build core from (seconds)", nightly.name),
            needs_root: false,
            environment: Vec::new(),
            command: ["rustup", "component", "add", "rust-src", "--toolchain", &nightly.name].map(str::to_owned).into(),
        });
    }
    match &facts.linker {
        Some(linker) if steps.is_empty() => Finding::Complete(Toolchain {
            way: Way::Rustup,
            cargo: nightly.cargo.clone(),
            rustc: nightly.rustc.clone(),
            linker: linker.clone(),
        }),
        Some(_) => Finding::Incomplete(steps),
        None => {
            // The linker's build runs `rustc` on the path to find the LLVM to load.
            let environment = vec![("RUSTUP_TOOLCHAIN", nightly.name.clone())];
            steps.push(linker_step(RUSTUP_LINKER, &PathBuf::from("cargo"), &[], &facts.linker_root, environment));
            Finding::Incomplete(steps)
        }
    }
}

fn linker_step(
    version: &str,
    cargo: &std::path::Path,
    features: &[&str],
    root: &std::path::Path,
    environment: Vec<(&'static str, String)>,
) -> Step {
    let (cargo, root) = (cargo.display().to_string(), root.display().to_string());
    let words = [cargo.as_str(), "install", "bpf-linker", "--version", version, "--locked", "--root", root.as_str()];
    let environment =
        environment.into_iter().chain(UNOPTIMISED.map(|(name, value)| (name, value.to_owned()))).collect();
    Step {
        missing: format!("bpf-linker {version} (built once, a minute or two)"),
        needs_root: false,
        environment,
        command: words.iter().chain(features).map(ToString::to_string).collect(),
    }
}

fn older_linker(linker: &Linker, llvm: Llvm, rustc: &Rustc) -> String {
    format!(
        "the linker's LLVM {llvm} ({}) is older than rustc's LLVM {} ({}) and can't read rustc's output; \
         build the linker with an LLVM at least as new",
        linker.path.display(),
        rustc.llvm,
        rustc.path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Way; 2] = [Way::Debian, Way::Rustup];

    fn llvm(major: u32, minor: u32) -> Llvm {
        Llvm { major, minor }
    }

    fn rustc(llvm: Llvm) -> Rustc {
        Rustc { path: "/usr/bin/rustc".into(), llvm }
    }

    /// A machine on which both ways are complete.
    fn complete() -> Facts {
        Facts {
            root: true,
            debian: Some(DebianFacts {
                packages_missing: Vec::new(),
                rustc: Some(rustc(llvm(22, 1))),
                cargo: Some("/usr/bin/cargo".into()),
                linker: Some(Linker { path: "/cache/1".into(), llvm: Some(llvm(22, 1)) }),
                linker_root: "/cache/1".into(),
            }),
            rustup: Some(RustupFacts {
                nightlies: vec![Nightly {
                    name: "nightly".into(),
                    rustc: rustc(llvm(22, 1)),
                    cargo: "/n/cargo".into(),
                    rust_src: true,
                }],
                linker: Some(Linker { path: "/cache/2".into(), llvm: None }),
                linker_root: "/cache/2".into(),
            }),
        }
    }

    /// Checks the plan for a machine that is complete except for `change`: the way used, or the commands.
    fn check(change: impl FnOnce(&mut Facts, &mut DebianFacts, &mut RustupFacts), expected: &str) {
        let mut facts = complete();
        let (mut debian, mut rustup) = (facts.debian.take().unwrap(), facts.rustup.take().unwrap());
        change(&mut facts, &mut debian, &mut rustup);
        facts.debian = Some(debian);
        facts.rustup = Some(rustup);
        check_facts(&facts, expected);
    }

    fn check_facts(facts: &Facts, expected: &str) {
        let planned = match plan(facts, &BOTH) {
            Plan::Use(toolchain) => format!("use {}", toolchain.way),
            Plan::Do(_, steps) => steps.iter().map(Step::line).collect::<Vec<_>>().join("\n"),
            Plan::GiveUp => "give up".to_owned(),
        };
        assert_eq!(planned, expected);
    }

    #[test]
    fn where_both_ways_are_complete_debians_is_used() {
        check(|_, _, _| {}, "use way 1 (Debian packages)");
    }

    #[test]
    fn a_complete_way_is_used_before_another_is_completed() {
        check(|_, debian, _| debian.packages_missing = vec!["zlib1g-dev"], "use way 2 (rustup nightly)");
    }

    #[test]
    fn on_a_bare_debian_root_installs_packages_then_the_linker() {
        check(
            |_, debian, rustup| {
                debian.packages_missing = vec!["rustc-web", "llvm-22-dev"];
                (debian.rustc, debian.cargo, debian.linker) = (None, None, None);
                rustup.linker = None;
            },
            "sudo DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends rustc-web llvm-22-dev\n\
             LLVM_PREFIX=/usr/lib/llvm-22 RUSTC=/usr/bin/rustc CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false \
             /usr/bin/cargo install bpf-linker --version 0.13.0 --locked --root /cache/1 \
             --no-default-features --features llvm-22",
        );
    }

    #[test]
    fn without_root_rustups_way_is_completed() {
        check(
            |facts, debian, rustup| {
                facts.root = false;
                debian.packages_missing = vec!["rustc-web"];
                rustup.nightlies[0].rust_src = false;
                rustup.linker = None;
            },
            "rustup component add rust-src --toolchain nightly\n\
             RUSTUP_TOOLCHAIN=nightly CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false \
             cargo install bpf-linker --version 0.10.3 --locked --root /cache/2",
        );
    }

    #[test]
    fn without_root_a_missing_linker_is_still_built_on_debians_llvm() {
        check(
            |facts, debian, rustup| {
                facts.root = false;
                debian.linker = None;
                rustup.linker = None;
            },
            "LLVM_PREFIX=/usr/lib/llvm-22 RUSTC=/usr/bin/rustc CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false \
             /usr/bin/cargo install bpf-linker --version 0.13.0 --locked --root /cache/1 \
             --no-default-features --features llvm-22",
        );
    }

    #[test]
    fn a_linker_whose_llvm_is_older_than_rustcs_is_not_used() {
        check(|_, debian, _| debian.rustc = Some(rustc(llvm(22, 2))), "use way 2 (rustup nightly)");
        let mut facts = complete();
        facts.debian.as_mut().unwrap().rustc = Some(rustc(llvm(23, 1)));
        let Finding::Closed(reason) = finding(&facts, Way::Debian) else { panic!("it was accepted") };
        assert!(reason.contains("LLVM 22.1") && reason.contains("LLVM 23.1"), "{reason}");
    }

    #[test]
    fn a_linker_whose_llvm_is_newer_than_rustcs_is_used() {
        check(|_, debian, _| debian.rustc = Some(rustc(llvm(21, 1))), "use way 1 (Debian packages)");
    }

    #[test]
    fn a_nightly_with_another_llvm_can_not_lend_it_so_the_pinned_one_is_installed() {
        check(
            |_, debian, rustup| {
                debian.rustc = Some(rustc(llvm(23, 1)));
                rustup.nightlies[0].rustc = rustc(llvm(23, 1));
            },
            "rustup toolchain install nightly-2026-05-20 --profile minimal --component rust-src",
        );
    }

    #[test]
    fn where_nothing_can_be_done_nothing_is_tried() {
        check_facts(&Facts { root: true, debian: None, rustup: None }, "give up");
        let mut facts = complete();
        (facts.root, facts.rustup) = (false, None);
        facts.debian.as_mut().unwrap().packages_missing = vec!["rustc-web"];
        check_facts(&facts, "give up");
    }
}

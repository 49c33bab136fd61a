//! The node as root sees it: processes, cgroups, fake GPUs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use fake_nvml::Installation;
use fake_nvml::scenario::{Level, Scenario};
use rustix::process::{Pid, Signal, kill_process};
use xtask::child::Child;
use xtask::workspace;

/// How many fake GPUs the node has.
pub(super) const GPUS: usize = 4;
/// How busy each of them is.
pub(super) const BUSY: f64 = 0.8;
/// The folder where kubelet's plugins register.
const PLUGINS: &str = "/var/lib/kubelet/device-plugins";

/// One process of the node.
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) words: Vec<String>,
}

impl Process {
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid).context("a process without an id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {:?}", self.words))
    }

    /// A file in its folder in /proc.
    pub(super) fn file(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.pid);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

/// All processes with a command line, which excludes zombies.
pub(super) fn processes() -> impl Iterator<Item = Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("cmdline")).ok().filter(|text| !text.is_empty())?;
        let words = text.split_terminator('\0').map(str::to_owned).collect();
        Some(Process { pid, words })
    })
}

/// Processes in containers with a word in their command line that has this prefix.
pub(super) fn with_word(prefix: &str) -> Vec<Process> {
    // Not those of the runtime, nor a shell that has the word in a script.
    processes().filter(|process| process.words.iter().skip(1).any(|word| word.starts_with(prefix))).collect()
}

/// The cgroup of a pod.
pub(super) fn pod_cgroup(uid: &str) -> Result<PathBuf> {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
    let root = roots.iter().find(|root| root.join("cgroup.controllers").exists()).context("there is no cgroup v2")?;
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().replace('_', "-");
            if name.contains(uid) {
                return Ok(entry.path());
            }
            folders.push(entry.path());
        }
    }
    anyhow::bail!("pod {uid} has no cgroup")
}

/// Whether the cgroup v2 tree has the memory controller.
pub(super) fn counts_memory() -> bool {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    controllers.split_whitespace().any(|controller| controller == "memory")
}

/// CPU seconds of a cgroup including its descendants, from the kernel's own counter.
pub(super) fn cpu_seconds(cgroup: &Path) -> Result<f64> {
    let path = cgroup.join("cpu.stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let usec = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage in cpu.stat")?;
    Ok(usec.parse::<f64>()? / 1e6)
}

/// Fake GPUs: one scenario file for the agent's NVML and one for the device plugin, so that either can know less than
/// the other.
pub(super) struct Gpus {
    nvml: Installation,
    plugin_scenario: PathBuf,
    plugin: Option<Child>,
}

/// Whether kubelet is notified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    Notices,
    DoesNot,
}

impl Gpus {
    /// The folder with the library, which is mounted for the agent.
    pub(super) fn folder(work: &Path) -> PathBuf {
        work.join("nvml")
    }

    /// Installs the library. Kubelet does not know the GPUs yet.
    pub(super) fn prepare(work: &Path) -> Result<Self> {
        let folder = Self::folder(work);
        std::fs::create_dir_all(&folder)?;
        let scenario = Self::healthy();
        let nvml = Installation::new(&workspace::target().join("debug/libfake_nvml.so"), &folder, &scenario)
            .with_context(|| format!("cannot put fake-nvml into {}", folder.display()))?;
        let plugin_scenario = work.join("plugin.json");
        write(&plugin_scenario, &scenario)?;
        Ok(Self { nvml, plugin_scenario, plugin: None })
    }

    /// Starts the device plugin.
    pub(super) fn advertise(&mut self, work: &Path) -> Result<()> {
        let mut command = Command::new(workspace::target().join("debug/fake-device-plugin"));
        command.arg("--scenario").arg(&self.plugin_scenario).args(["--plugins", PLUGINS]);
        self.plugin = Some(Child::start("fake-device-plugin", command, work)?);
        Ok(())
    }

    /// An error if the plugin has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        self.plugin.as_mut().map_or(Ok(()), Child::check)
    }

    fn healthy() -> Scenario {
        let mut scenario = Scenario::of(GPUS, "NVIDIA H100 80GB HBM3");
        for device in &mut scenario.devices {
            device.utilization = Level::Steady(BUSY);
            device.memory_used_bytes = 1 << 30;
        }
        scenario
    }

    /// Makes the GPU with this UUID fall off the bus.
    pub(super) fn lose(&self, uuid: &str, plugin: Plugin) -> Result<()> {
        let mut scenario = Self::healthy();
        let device = scenario.devices.iter_mut().find(|device| device.uuid == uuid);
        device.with_context(|| format!("no GPU {uuid}"))?.lost = true;
        self.set(&scenario, plugin)
    }

    /// Repairs all GPUs. A GPU that fell off the bus comes back only when the driver is reloaded.
    pub(super) fn mend(&self) -> Result<()> {
        let mut scenario = Self::healthy();
        scenario.driver.generation += 1;
        self.set(&scenario, Plugin::Notices)
    }

    fn set(&self, scenario: &Scenario, plugin: Plugin) -> Result<()> {
        self.nvml.set(scenario).context("cannot change the scenario")?;
        if plugin == Plugin::Notices { write(&self.plugin_scenario, scenario) } else { Ok(()) }
    }
}

fn write(path: &Path, scenario: &Scenario) -> Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, serde_json::to_vec(scenario)?)?;
    std::fs::rename(&next, path).with_context(|| format!("cannot write {}", path.display()))
}

//! `fake-device-plugin`: hands fake-nvml's devices to a kubelet, by the scenario that fake-nvml itself reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use fake_kubelet::DevicePlugin;
use fake_kubelet::inventory::{HealthChecks, Inventory, Listing};
use fake_nvml::Scenario;

/// How often the scenario, and whether kubelet was restarted, is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// A device plugin without devices, for trying out: the GPUs and MIG instances of a fake-nvml scenario.
///
/// It reads the scenario anew every second, tells kubelet of what broke or mended, and registers again when kubelet was
/// restarted. It gives containers no device file, only NVIDIA_VISIBLE_DEVICES.
#[derive(Parser)]
#[command(name = "fake-device-plugin", version)]
struct Args {
    /// What devices there are, as fake-nvml reads it
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// Kubelet's directory of plugins
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/kubelet/device-plugins")]
    plugins: PathBuf,
    /// How often each device is handed out; more than once as `UUID::N`
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,
    /// Never say that a device is unhealthy
    #[arg(long)]
    no_health_checks: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let checks = if args.no_health_checks { HealthChecks::Off } else { HealthChecks::On };
    let listing = Listing { replicas: args.replicas, checks };
    let found = Inventory::new(&read(&args.scenario)?);
    let mut plugins: BTreeMap<String, DevicePlugin> = BTreeMap::new();
    loop {
        for (resource, devices) in found.devices(&read(&args.scenario)?, listing) {
            if let Some(plugin) = plugins.get(&resource).filter(|plugin| plugin.is_reachable()) {
                plugin.list(devices);
            } else {
                let count = devices.len();
                let plugin = DevicePlugin::start(&args.plugins, &resource, devices)
                    .with_context(|| format!("cannot serve {resource} in {}", args.plugins.display()))?;
                match plugin.register() {
                    Ok(()) => {
                        println!("fake-device-plugin: {count} FAKE devices as {resource}");
                        plugins.insert(resource, plugin);
                    }
                    // It may be about to start.
                    Err(status) => eprintln!("fake-device-plugin: kubelet does not take {resource} now: {status}"),
                }
            }
        }
        std::thread::sleep(INTERVAL);
    }
}

fn read(scenario: &Path) -> Result<Scenario> {
    let text = std::fs::read_to_string(scenario).with_context(|| format!("cannot read {}", scenario.display()))?;
    Scenario::parse(&text).with_context(|| format!("{} is no scenario", scenario.display()))
}

//! `fake-device-plugin`: offers fake-nvml's devices to a kubelet, from the scenario file that fake-nvml itself reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use fake_kubelet::DevicePlugin;
use fake_kubelet::inventory::{HealthChecks, Inventory, Listing};
use fake_nvml::Scenario;

/// How often the scenario is read again, and a restart of kubelet is checked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// A device plugin for trials without real devices: offers the GPUs and MIG instances of a fake-nvml scenario.
///
/// It reads the scenario again every second, reports failed and recovered devices to kubelet, and registers again after
/// a restart of kubelet. It gives containers no device files, only the variable NVIDIA_VISIBLE_DEVICES.
#[derive(Parser)]
#[command(name = "fake-device-plugin", version)]
struct Args {
    /// Scenario file with the devices, in the format of fake-nvml
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// Kubelet's directory of device plugins
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/kubelet/device-plugins")]
    plugins: PathBuf,
    /// How many times each device is listed; named `UUID::N` if more than once
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,
    /// Never report a device as unhealthy
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
                    // Kubelet may be about to start.
                    Err(status) => {
                        eprintln!("fake-device-plugin: kubelet refuses to register {resource}; retrying: {status}");
                    }
                }
            }
        }
        std::thread::sleep(INTERVAL);
    }
}

fn read(scenario: &Path) -> Result<Scenario> {
    let text = std::fs::read_to_string(scenario).with_context(|| format!("cannot read {}", scenario.display()))?;
    Scenario::parse(&text).with_context(|| format!("{} is not a valid scenario", scenario.display()))
}

//! GPUs that are not there: fake-nvml in NVML's place, with a scenario in which they are busy in turns.

use std::path::Path;

use anyhow::{Context, Result};
use fake_nvml::Installation;
use fake_nvml::scenario::{Level, Scenario};

use crate::workspace;

/// Builds the library that takes NVML's place.
pub fn build_library() -> Result<()> {
    workspace::run(&mut workspace::cargo(&["build", "--quiet", "--locked", "-p", "fake-nvml"]))
}

/// So many GPUs, by the library that cargo put into `built`; what they do is in a file below `directory`.
pub fn install(count: u8, built: &Path, directory: &Path) -> Result<Installation> {
    let mut scenario = Scenario::of(count.into(), "H100 80GB HBM3");
    for (index, device) in scenario.devices.iter_mut().enumerate() {
        let phase_s = index as f64 * 5.0;
        device.utilization = Level::Wave { low: 0.0, high: 0.95, period_s: 60.0, phase_s };
        device.memory_used_bytes = (index as u64 + 1) << 30;
    }
    let directory = directory.join("fake-nvml");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let fake = Installation::new(&built.join("libfake_nvml.so"), &directory, &scenario)
        .with_context(|| format!("cannot put fake-nvml into {}", directory.display()))?;
    let scenario = fake.library().with_file_name("scenario.json");
    println!("{count} FAKE GPUs: what they do is in {}, and may be changed there", scenario.display());
    Ok(fake)
}

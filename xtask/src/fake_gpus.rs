//! Fake GPUs: installs the library fake-nvml in place of NVML, with a scenario in which the GPUs are busy in turns.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Copies the library fake-nvml from where cargo built it to a folder in `directory`, and writes its scenario beside
/// it. Returns the path of the copy.
pub fn install(count: u8, built: &Path, directory: &Path) -> Result<PathBuf> {
    let directory = directory.join("fake-nvml");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let library = directory.join("libnvidia-ml.so.1");
    std::fs::copy(built, &library)
        .with_context(|| format!("cannot copy {} to {}", built.display(), library.display()))?;
    let path = directory.join("scenario.json");
    std::fs::write(&path, scenario(count)).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{count} FAKE GPUs: edit {} to change what they report", path.display());
    Ok(library)
}

/// The scenario as fake-nvml reads it; absent fields have its defaults. It is written as text because the types of
/// fake-nvml would add serde to the dependencies of every verb. A test of the lab compares it with these types.
pub fn scenario(count: u8) -> String {
    let mut devices = String::new();
    for index in 0..u64::from(count) {
        let (bus, phase_s, memory_used_bytes) = (0x18 + index, index * 5, (index + 1) << 30);
        let comma = if index == 0 { "" } else { "," };
        let _infallible = write!(
            devices,
            r#"{comma}
    {{
      "model": "H100 80GB HBM3",
      "uuid": "GPU-fa4e0000-0000-4000-8000-{index:012x}",
      "bus_id": "00000000:{bus:02X}:00.0",
      "utilization": {{ "low": 0.0, "high": 0.95, "period_s": 60.0, "phase_s": {phase_s}.0 }},
      "memory_used_bytes": {memory_used_bytes},
      "ecc_uncorrected": 0,
      "recovery_action": 0,
      "lost": false
    }}"#
        );
    }
    format!("{{\n  \"devices\": [{devices}\n  ]\n}}\n")
}

//! The GPUs on the PCI bus that NVIDIA's driver should hold, whether or not it does: from sysfs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// NVIDIA's id.
const VENDOR: &str = "0x10de";
/// First two bytes of the class: a display controller that a screen can hang on, and one without.
const VGA: &str = "0x0300";
const THREE_D: &str = "0x0302";

/// Looks at the bus again and again, and reads only what is new on it.
#[derive(Debug)]
pub(super) struct PciBus {
    devices: PathBuf,
    /// Every address seen, with what sort of device is there.
    known: BTreeMap<String, Sort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// NVIDIA's, for computing.
    ThreeD,
    /// NVIDIA's, and a screen may hang on it: its driver decides.
    Vga,
    /// Anything else.
    Other,
}

impl PciBus {
    pub(super) fn new(sys_root: &Path) -> Self {
        Self { devices: sys_root.join("bus/pci/devices"), known: BTreeMap::new() }
    }

    /// Addresses of the GPUs that the driver should hold. A machine without a PCI bus has none.
    pub(super) fn gpus(&mut self) -> Result<BTreeSet<String>, (PathBuf, io::Error)> {
        let failed = |source| (self.devices.clone(), source);
        let entries = match fs::read_dir(&self.devices) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(failed)?,
        };
        let mut present = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Ok(address) = entry.file_name().into_string() else { continue };
            let sort = self.known.get(&address).copied().unwrap_or_else(|| sort(&entry.path()));
            present.insert(address, sort);
        }
        self.known = present;
        let expected = |(address, sort): (&String, &Sort)| is_expected(&self.devices.join(address), *sort);
        Ok(self.known.iter().filter(|entry| expected(*entry)).map(|(address, _)| address.clone()).collect())
    }
}

fn sort(device: &Path) -> Sort {
    let starts =
        |file: &str, with: &str| fs::read_to_string(device.join(file)).is_ok_and(|text| text.starts_with(with));
    match () {
        () if !starts("vendor", VENDOR) => Sort::Other,
        () if starts("class", THREE_D) => Sort::ThreeD,
        () if starts("class", VGA) => Sort::Vga,
        () => Sort::Other,
    }
}

/// A device that another driver holds (vfio-pci, nouveau) is not for NVML; one that none holds is, unless it may be there
/// for a screen. A virtual function belongs to a virtual machine.
fn is_expected(device: &Path, sort: Sort) -> bool {
    if sort == Sort::Other || fs::symlink_metadata(device.join("physfn")).is_ok() {
        return false;
    }
    let driver = fs::read_link(device.join("driver")).ok();
    match driver.as_deref().and_then(Path::file_name) {
        Some(name) => name == "nvidia",
        None => sort == Sort::ThreeD,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn device(sys: &Path, address: &str, vendor: &str, class: &str, driver: Option<&str>) {
        let device = sys.join("bus/pci/devices").join(address);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
        fs::write(device.join("class"), format!("{class}\n")).unwrap();
        if let Some(driver) = driver {
            symlink(format!("../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
        }
    }

    #[test]
    fn what_the_nvidia_driver_should_hold_is_a_gpu_and_nothing_else() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        device(sys, "0000:18:00.0", "0x10de", "0x030200", Some("nvidia"));
        device(sys, "0000:19:00.0", "0x10de", "0x030200", None);
        device(sys, "0000:1a:00.0", "0x10de", "0x030200", Some("vfio-pci"));
        device(sys, "0000:1b:00.0", "0x10de", "0x030000", Some("nvidia"));
        device(sys, "0000:1c:00.0", "0x10de", "0x030000", Some("nouveau"));
        device(sys, "0000:1d:00.0", "0x10de", "0x030000", None);
        device(sys, "0000:1e:00.0", "0x10de", "0x068000", Some("nvidia-nvswitch"));
        device(sys, "0000:1f:00.0", "0x1234", "0x030200", None);
        device(sys, "0000:20:00.1", "0x10de", "0x030200", Some("nvidia"));
        symlink("../0000:20:00.0", sys.join("bus/pci/devices/0000:20:00.1/physfn")).unwrap();
        let mut bus = PciBus::new(sys);
        let expected = BTreeSet::from(["0000:18:00.0", "0000:19:00.0", "0000:1b:00.0"].map(str::to_owned));
        assert_eq!(bus.gpus().unwrap(), expected);
        assert_eq!(bus.gpus().unwrap(), expected);
        fs::remove_dir_all(sys.join("bus/pci/devices/0000:19:00.0")).unwrap();
        assert_eq!(bus.gpus().unwrap().len(), 2);
    }

    #[test]
    fn a_machine_without_a_pci_bus_has_no_gpu_on_it() {
        assert!(PciBus::new(Path::new("/nonexistent")).gpus().unwrap().is_empty());
    }
}

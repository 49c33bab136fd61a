//! The GPUs on the PCI bus that a vendor's driver should have, whether or not it has them: from sysfs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::vendor::Vendor;

/// First two bytes of the class: a display controller with a possible screen, and one without.
const VGA: &str = "0x0300";
const THREE_D: &str = "0x0302";

/// Reads the bus repeatedly, and reads only what is new on it.
#[derive(Debug)]
pub(super) struct PciBus {
    vendor: &'static Vendor,
    devices: PathBuf,
    /// Every known address, with the kind of its device.
    known: BTreeMap<String, Sort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// A device of the vendor for computing.
    ThreeD,
    /// A device of the vendor that may have a screen: its driver decides.
    Vga,
    /// Any other device.
    Other,
}

impl PciBus {
    pub(super) fn new(vendor: &'static Vendor, sys_root: &Path) -> Self {
        Self { vendor, devices: sys_root.join("bus/pci/devices"), known: BTreeMap::new() }
    }

    /// Addresses of the GPUs that the driver should have. A machine without a PCI bus has none.
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
            let sort = self.known.get(&address).copied().unwrap_or_else(|| sort(self.vendor, &entry.path()));
            present.insert(address, sort);
        }
        self.known = present;
        let expected = |(address, sort): (&String, &Sort)| is_expected(self.vendor, &self.devices.join(address), *sort);
        Ok(self.known.iter().filter(|entry| expected(*entry)).map(|(address, _)| address.clone()).collect())
    }
}

fn sort(vendor: &Vendor, device: &Path) -> Sort {
    let starts =
        |file: &str, with: &str| fs::read_to_string(device.join(file)).is_ok_and(|text| text.starts_with(with));
    match () {
        () if !starts("vendor", vendor.pci_id) => Sort::Other,
        () if starts("class", THREE_D) => Sort::ThreeD,
        () if starts("class", VGA) => Sort::Vga,
        () => Sort::Other,
    }
}

/// Whether the vendor's driver should have the device. Not if another driver has it (vfio-pci, nouveau). If no driver
/// has it, it should, unless the device may be there for a screen. A virtual function belongs to a virtual machine.
fn is_expected(vendor: &Vendor, device: &Path, sort: Sort) -> bool {
    if sort == Sort::Other || fs::symlink_metadata(device.join("physfn")).is_ok() {
        return false;
    }
    let driver = fs::read_link(device.join("driver")).ok();
    match driver.as_deref().and_then(Path::file_name) {
        Some(name) => name == vendor.driver,
        None => sort == Sort::ThreeD,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::vendor::NVIDIA;

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
        let mut bus = PciBus::new(&NVIDIA, sys);
        let expected = BTreeSet::from(["0000:18:00.0", "0000:19:00.0", "0000:1b:00.0"].map(str::to_owned));
        assert_eq!(bus.gpus().unwrap(), expected);
        assert_eq!(bus.gpus().unwrap(), expected);
        fs::remove_dir_all(sys.join("bus/pci/devices/0000:19:00.0")).unwrap();
        assert_eq!(bus.gpus().unwrap().len(), 2);
    }

    #[test]
    fn a_machine_without_a_pci_bus_has_no_gpu_on_it() {
        assert!(PciBus::new(&NVIDIA, Path::new("/nonexistent")).gpus().unwrap().is_empty());
    }
}

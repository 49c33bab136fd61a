//! `fake-device-plugin` as it runs on a node: with a scenario file that changes, and a kubelet that is restarted.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use fake_kubelet::Kubelet;
use fake_kubelet::kubelet::Declared;
use fake_nvml::Scenario;
use tempfile::TempDir;

const GPU: &str = "nvidia.com/gpu";
/// Far longer than a busy machine takes.
const PATIENCE: Duration = Duration::from_mins(2);

struct Plugin(Child);

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write(scenario: &Scenario, path: &Path) {
    let next = path.with_extension("next");
    std::fs::write(&next, serde_json::to_vec(scenario).unwrap()).unwrap();
    std::fs::rename(next, path).unwrap();
}

#[track_caller]
fn check(kubelet: &Kubelet, capacity: usize, allocatable: usize) {
    let declared = Declared { capacity, allocatable };
    assert!(kubelet.declares(GPU, declared, PATIENCE), "{:?} is not {declared:?}", kubelet.declared(GPU));
}

#[test]
fn it_follows_the_scenario_and_registers_again_when_kubelet_was_restarted() {
    let directory = TempDir::new().unwrap();
    let (plugins, file) = (directory.path(), directory.path().join("scenario.json"));
    let mut scenario = Scenario::of(2, "L4");
    write(&scenario, &file);
    let start = || Kubelet::start(plugins, &plugins.join("pod-resources.sock")).unwrap();
    let kubelet = start();
    let mut program = Command::new(env!("CARGO_BIN_EXE_fake-device-plugin"));
    program.arg("--scenario").arg(&file).arg("--plugins").arg(plugins).args(["--replicas", "2"]);
    let _plugin = Plugin(program.spawn().unwrap());
    check(&kubelet, 4, 4);
    scenario.devices[0].lost = true;
    write(&scenario, &file);
    check(&kubelet, 4, 2);
    drop(kubelet);
    let kubelet = start();
    check(&kubelet, 4, 2);
}

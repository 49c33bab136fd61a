//! The agent when the kernel's BTF is missing, cut, garbled or of another kernel: it reads files, logs why, and reports
//! the same values.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::fs;
use std::process::Command;

use mcad_wire::report::Report;

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// One sample of the agent with these bytes as the kernel's BTF (`None`: the file does not exist), and its log.
fn once(btf: Option<&[u8]>) -> (Report, String) {
    let sys = tempfile::tempdir().unwrap();
    fs::create_dir_all(sys.path().join("kernel/btf")).unwrap();
    if let Some(btf) = btf {
        fs::write(sys.path().join("kernel/btf/vmlinux"), btf).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_mcad-agent"))
        .args(["--once", "--sys-root", sys.path().to_str().unwrap()])
        .env_remove("NODE_NAME")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    (serde_json::from_slice(&output.stdout).unwrap(), log)
}

/// This kernel's BTF, with one name replaced by another of the same length.
fn renamed(from: &str, to: &str) -> Option<Vec<u8>> {
    let mut btf = fs::read(BTF).ok()?;
    let whole = |name: &str| [&[0], name.as_bytes(), &[0]].concat();
    let (from, to) = (whole(from), whole(to));
    let at = btf.windows(from.len()).position(|bytes| bytes == from)?;
    btf[at..at + to.len()].copy_from_slice(&to);
    Some(btf)
}

#[test]
fn the_agent_reads_files_and_says_why() {
    if !fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - cgroup2 ") {
        eprintln!("SKIPPED: no cgroup v2 is mounted here");
        return;
    }
    let cut = fs::read(BTF).map(|whole| whole[..whole.len() / 2].to_vec()).ok();
    let another = renamed("kernfs_node", "kernfs_edon");
    let cases = [("no file", None), ("garbage", Some(vec![0x5a; 4096])), ("empty", Some(Vec::new()))];
    let from_kernel = [("cut", cut), ("of another layout", another)];
    for (name, btf) in cases.into_iter().chain(from_kernel.into_iter().filter(|(_, btf)| btf.is_some())) {
        let (report, log) = once(btf.as_deref());
        let cgroups = report.cgroups.unwrap();
        assert_eq!(cgroups.source, "cgroupfs", "{name}: {log}");
        assert!(cgroups.cgroups.iter().any(|cgroup| cgroup.cpu_ns.is_some()), "{name}");
        assert!(log.contains("cgroups are read from files"), "{name}: {log}");
    }
}

#[test]
fn a_group_of_figures_whose_place_is_not_found_is_read_from_files_and_the_rest_by_the_walk() {
    let Some(btf) = renamed("psi_group", "psi_puorg") else {
        eprintln!("SKIPPED: this kernel has no BTF, or no pressure");
        return;
    };
    let (report, log) = once(Some(&btf));
    let cgroups = report.cgroups.unwrap();
    if cgroups.source != "bpf" {
        eprintln!("SKIPPED: no walk here: {log}");
        return;
    }
    assert_eq!(cgroups.from_files, ["pressure"], "{log}");
    assert!(log.contains("psi_group"), "{log}");
}

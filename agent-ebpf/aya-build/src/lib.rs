//! The only function of the crate aya-build that the build scripts of aya-ebpf, aya-ebpf-bindings and aya-ebpf-cty
//! call. It compiles nothing. The rest of aya-build, for crates that compile eBPF in a build script, needs
//! cargo_metadata and serde, which took more than half of the time of the eBPF build.

/// What the build scripts return from `main`.
pub type Result<T> = std::result::Result<T, String>;

/// Sets the architecture that the eBPF program is compiled for: `AYA_BPF_TARGET_ARCH`, or the architecture of the
/// machine that compiles it. It determines where an eBPF program finds the arguments of the function that it is
/// attached to.
///
/// # Errors
///
/// Cargo did not set the host's target triple.
pub fn emit_bpf_target_arch_cfg() -> Result<()> {
    // Cargo sets the first variable if the compiler's flags set the architecture already.
    for variable in ["CARGO_CFG_BPF_TARGET_ARCH", "AYA_BPF_TARGET_ARCH", "HOST"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if std::env::var_os("CARGO_CFG_BPF_TARGET_ARCH").is_none() {
        let named =
            std::env::var("AYA_BPF_TARGET_ARCH").or_else(|_| std::env::var("HOST").map(|host| architecture(&host)));
        let architecture = named.map_err(|error| format!("HOST: {error}"))?;
        println!("cargo:rustc-cfg=bpf_target_arch=\"{architecture}\"");
    }
    let known = KNOWN.map(|architecture| format!("\"{architecture}\"")).join(",");
    println!("cargo::rustc-check-cfg=cfg(bpf_target_arch, values({known}))");
    Ok(())
}

/// The architectures that aya-ebpf knows.
const KNOWN: [&str; 9] = ["aarch64", "arm", "loongarch64", "mips", "mips64", "powerpc64", "riscv64", "s390x", "x86_64"];

/// The architecture of a target triple, in aya-ebpf's spelling.
fn architecture(triple: &str) -> String {
    let first = triple.split('-').next().unwrap_or_default();
    // The first word of such a triple includes extensions: riscv64gc.
    if first.starts_with("riscv64") { "riscv64".to_owned() } else { first.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_is_the_first_word_of_a_triple_without_extensions() {
        let check = |triple: &str, expected: &str| {
            assert_eq!(architecture(triple), expected);
            assert!(KNOWN.contains(&expected));
        };
        check("x86_64-unknown-linux-gnu", "x86_64");
        check("aarch64-unknown-linux-gnu", "aarch64");
        check("riscv64gc-unknown-linux-gnu", "riscv64");
    }
}

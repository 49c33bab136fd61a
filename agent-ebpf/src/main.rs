//! The eBPF programs of mcad-agent: one object, and one file per kernel subsystem.
//!
//! They only count and copy, and count what they had to drop. They find members of kernel structures at offsets that
//! the agent sets before loading, so one object works on all kernels. The agent interprets the values.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod cgroup;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod removed;
#[cfg(target_arch = "bpf")]
mod run_queue;
#[cfg(target_arch = "bpf")]
mod values;

/// The kernel allows `bpf_probe_read_kernel_str` and similar helpers only for programs under its own licence.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Never reached: the kernel's verifier has proven that these programs terminate. The linker requires it.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// There is nothing to run on the host. This lets `cargo check --workspace` pass without an eBPF toolchain.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

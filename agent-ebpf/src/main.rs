//! The kernel half of mcad-agent: one object, one file per kernel subsystem hooked.
//!
//! It only counts, and counts what it had to drop. What it reads of kernel structures it finds at offsets that the agent
//! injects before loading, so one object serves all kernels. What the figures mean is not known here.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod cgroup;
#[cfg(target_arch = "bpf")]
mod figures;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod removed;
#[cfg(target_arch = "bpf")]
mod run_queue;

/// The kernel lends `bpf_probe_read_kernel_str` and its like only to programs under its own licence.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Never reached: the kernel's verifier has proven that these programs end. The linker needs it to exist.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// On the host there is nothing to run: this lets `cargo check --workspace` pass without an eBPF toolchain.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

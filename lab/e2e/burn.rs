//! Keeps a CPU busy for a fraction of the time: `burn PERCENT`. A separate program, for the image of pods that use CPU.

use std::time::{Duration, Instant};

/// How long one cycle of work and rest is.
const TURN: Duration = Duration::from_millis(20);

fn main() {
    let percent = std::env::args().nth(1).and_then(|word| word.parse::<u32>().ok()).unwrap_or(50).min(100);
    loop {
        let began = Instant::now();
        let mut spins = 0_u64;
        while began.elapsed() < TURN * percent / 100 {
            spins = std::hint::black_box(spins.wrapping_add(1));
        }
        std::thread::sleep(TURN.saturating_sub(began.elapsed()));
    }
}

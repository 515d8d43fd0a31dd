//! Random interleavings of events, changes, copies and handshakes. A failure names its seed; with
//! `HOMEWIRE_SEED=n` only this one is carried out, and printed.

use std::env;
use std::thread;

use crate::judge::judge;
use crate::world::World;

/// Together 100,000.
const THREADS: u64 = 4;
const CASES: u64 = 25_000;
const STEPS: usize = 60;

fn broken_promise(seed: u64) -> Option<(String, World)> {
    let mut world = World::new(seed);
    world.run(STEPS);
    let broken = judge(&world).err()?;
    Some((broken, world))
}

#[test]
fn no_interleaving_breaks_promise_to_any_connection() {
    if let Ok(seed) = env::var("HOMEWIRE_SEED") {
        if let Some((broken, world)) = broken_promise(seed.parse().unwrap()) {
            panic!("{broken}\n{:?}\n{:#?}", world.changes, world.connected);
        }
        return;
    }
    thread::scope(|scope| {
        for part in 0..THREADS {
            scope.spawn(move || {
                for seed in part * CASES..(part + 1) * CASES {
                    if let Some((broken, world)) = broken_promise(seed) {
                        panic!("seed {seed}: {broken}\n{:?}", world.changes);
                    }
                }
            });
        }
    });
}

/// The property would be worth little if most plans had no change that matters.
#[test]
fn interleavings_reach_closes_and_deliveries() {
    let (mut codes, mut received) = (std::collections::BTreeMap::new(), 0);
    for seed in 0..500 {
        let mut world = World::new(seed);
        world.run(STEPS);
        for connected in &world.connected {
            received += connected.received.len();
            *codes.entry(connected.code).or_insert(0) += 1;
        }
    }
    assert!(received > 1_000, "{received}");
    for code in [
        None,
        Some(4004),
        Some(4500),
        Some(4501),
        Some(4502),
        Some(4503),
    ] {
        assert!(codes.contains_key(&code), "{code:?} in {codes:?}");
    }
}

//! One match among a million audiences: time, and memory per audience. Prints JSON lines.
//!
//! `cargo bench --bench match`; `-- --audiences 100000` for fewer. With 100 topics each, a million
//! audiences take 5 GB, so there are a tenth unless `--all` is given.

#![allow(clippy::disallowed_methods)] // A benchmark measures time.

use std::hint::black_box;
use std::time::Instant;

use homewire_core::routing::index::{AudienceId, Index};
use homewire_core::routing::topic::TopicRef;
use homewire_core::wire::encoding::Encoding;

const MATCHES: usize = 2_000_000;
const TOPICS_EACH: usize = 100;
/// The average number of audiences of a topic, for audiences with many topics.
const AUDIENCES_PER_TOPIC: usize = 4;

/// SplitMix64: random enough for caches and hash tables, and the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn pick(&mut self, homes: &[u64]) -> u64 {
        homes[(self.next() % homes.len() as u64) as usize]
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let audiences = arguments
        .iter()
        .position(|it| it == "--audiences")
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(1_000_000);
    let with_many = if arguments.iter().any(|it| it == "--all") {
        audiences
    } else {
        audiences / 10
    };
    measure(audiences, 1, audiences);
    measure(
        with_many,
        TOPICS_EACH,
        with_many * TOPICS_EACH / AUDIENCES_PER_TOPIC,
    );
}

fn measure(audiences: usize, topics_each: usize, universe: usize) {
    let mut random = Random(7);
    let homes: Vec<u64> = (0..universe).map(|_| random.next()).collect();
    let events: Vec<u64> = (0..MATCHES).map(|_| random.pick(&homes)).collect();

    let memory_before = resident_bytes();
    let began = Instant::now();
    let mut index = Index::default();
    let mut topics = Vec::with_capacity(topics_each);
    for slot in 0..audiences {
        topics.clear();
        match topics_each {
            1 => topics.push(home(homes[slot])),
            _ => topics.extend((0..topics_each).map(|_| home(random.pick(&homes)))),
        }
        index.join(slot as u32, &topics, Encoding::WEB_SOCKET);
    }
    let join_ns = nanoseconds(began) / audiences as f64;
    let bytes = resident_bytes().saturating_sub(memory_before);

    let mut matched: Vec<AudienceId> = Vec::new();
    let mut found = 0;
    let began = Instant::now();
    for &event in &events {
        matched.clear();
        index.find(&about(event), &mut matched);
        found += black_box(&matched).len();
    }
    let hit_ns = nanoseconds(began) / MATCHES as f64;

    let misses: Vec<u64> = (0..MATCHES).map(|_| random.next()).collect();
    let began = Instant::now();
    for &event in &misses {
        matched.clear();
        index.find(&about(event), &mut matched);
        black_box(&matched);
    }
    let miss_ns = nanoseconds(began) / MATCHES as f64;

    println!(
        "{{\"audiences\": {}, \"topics\": {}, \"topics_each\": {topics_each}, \"ns_per_match\": {hit_ns:.0}, \
         \"audiences_per_match\": {:.2}, \"ns_per_matched_audience\": {:.0}, \"ns_per_miss\": {miss_ns:.0}, \
         \"ns_per_join\": {join_ns:.0}, \"bytes_per_audience\": {:.0}}}",
        index.audience_count(),
        index.topic_count(),
        found as f64 / MATCHES as f64,
        hit_ns * MATCHES as f64 / found as f64,
        bytes as f64 / audiences as f64,
    );
}

/// The topics of a device's event: its home has subscribers, the device has none.
fn about(home_id: u64) -> [TopicRef<'static>; 2] {
    let device = TopicRef::Device {
        project: 1,
        home: home_id,
        device: home_id,
    };
    [home(home_id), device]
}

fn home(home: u64) -> TopicRef<'static> {
    TopicRef::Home { project: 1, home }
}

fn nanoseconds(since: Instant) -> f64 {
    since.elapsed().as_nanos() as f64
}

/// The resident memory of the process, including the overhead of the allocator. 0 without /proc.
fn resident_bytes() -> usize {
    const PAGE: usize = 4096;
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<usize>().ok())
        .map_or(0, |pages| pages * PAGE)
}

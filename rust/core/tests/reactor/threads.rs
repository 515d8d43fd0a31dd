//! Thread interaction: several producers, and a reactor that sleeps between their commands.

use std::collections::HashSet;
use std::hint;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use homewire_core::reactor::Limits;
use homewire_core::reactor::notifications::Notification;

use crate::client::{Client, Received};
use crate::harness::{Node, TIMEOUT, event, homes, limits};

const PRODUCERS: u64 = 4;

/// Only a producer's wake-up ends the sleep of this reactor: a lost one is never made up for.
fn sleeper() -> Limits {
    Limits {
        reservation: Duration::from_secs(1_000_000),
        ..limits()
    }
}

/// One producer alone, so that no other wake-up hides a lost one. Its next command comes at every moment of
/// the reactor's going to sleep.
#[test]
fn no_wake_up_is_lost() {
    const WORDS: u64 = 10_000;
    let node = Node::start(sleeper());
    for word in 1..=WORDS {
        node.route(event(1, ""));
        let deadline = Instant::now() + TIMEOUT;
        while node.stat("envelopes") < word {
            assert!(Instant::now() < deadline, "word {word} was not received");
            hint::spin_loop();
        }
        for _ in 0..word % 1_999 {
            hint::spin_loop();
        }
    }
}

#[test]
fn concurrent_producers_keep_their_order() {
    let node = Node::start(sleeper());
    let core = &node.core;
    let subscribers: Vec<Client> = (0..PRODUCERS)
        .map(|home| node.connect(homes(&[home])).1)
        .collect();
    thread::scope(|scope| {
        for (home, mut subscriber) in (0..PRODUCERS).zip(subscribers) {
            scope.spawn(move || {
                for number in 0..1_000 {
                    let name = number.to_string();
                    assert!(core.route(vec![event(home, &name)]));
                    assert_eq!(subscriber.receive(), Received::event(&name));
                }
            });
        }
    });
}

#[test]
fn every_command_of_every_thread_is_handled_once() {
    const ROUNDS: u64 = 2_000;
    let mut node = Node::start(sleeper());
    thread::scope(|scope| {
        for home in 0..PRODUCERS {
            let node = &node;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let id = node.reserve(homes(&[home, round % 3]));
                    assert!(node.core.route(vec![event(home, "to a reservation")]));
                    node.core.abandon(id);
                    if round % 64 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    let mut ended = HashSet::new();
    for _ in 0..PRODUCERS * ROUNDS {
        match node.notification() {
            Notification::Closed { id, code: 1006 } => assert!(ended.insert(id), "reported twice"),
            other => panic!("{other:?}"),
        }
    }
    node.core.stop(1001, String::new(), Duration::ZERO);
    assert_eq!(node.stat("envelopes"), PRODUCERS * ROUNDS);
    assert_eq!((node.stat("audiences"), node.stat("inbox_bytes")), (0, 0));
}

/// A producer that finds the inbox full waits; only the one that took the last room may exceed the limit.
#[test]
fn inbox_stays_within_limit() {
    const BOUND: usize = 64 << 10;
    const BATCHES: u64 = 400;
    let node = Node::with_inbox(sleeper(), BOUND);
    let batch = vec![event(1, &"x".repeat(1_000)); 8];
    let batch_bytes: usize = batch.iter().map(|entry| entry.envelope.len()).sum();
    let (batches, fullest) = (AtomicU64::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            scope.spawn(|| {
                // Whether producers overtake the reactor depends on the scheduler: continue until one had
                // to wait.
                while batches.load(Ordering::Relaxed) < BATCHES
                    || fullest.load(Ordering::Relaxed) < BOUND
                {
                    let before = batches.fetch_add(1, Ordering::Relaxed);
                    assert!(before < 100 * BATCHES, "no producer had to wait");
                    node.occupy();
                    assert!(node.core.route(batch.clone()));
                    fullest.fetch_max(node.stat("inbox_bytes") as usize, Ordering::Relaxed);
                }
            });
        }
    });
    node.fence();
    let fullest = fullest.into_inner();
    assert!(fullest < BOUND + batch_bytes, "{fullest}");
    assert_eq!(node.stat("malformed"), 0);
    node.core.stop(1001, String::new(), Duration::ZERO);
    assert_eq!(node.stat("inbox_bytes"), 0);
    // One more is the event of the fence.
    assert_eq!(node.stat("envelopes"), batches.into_inner() * 8 + 1);
}

//! Deliveries over socket pairs, by the whole core. Prints one JSON line.
//!
//! `cargo bench --bench delivery -- --clients 100 --events 20000 --batch 32`; also for profilers: `valgrind
//! --tool=callgrind target/release/deps/delivery-… --events 2000`. With `--permission 1` the clients
//! subscribe by permissions instead of memberships.

#![allow(clippy::disallowed_methods)] // A benchmark measures time.

use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use homewire_core::bus::envelope::{EventHeader, encode_event};
use homewire_core::clock::Clock;
use homewire_core::connection::allowance::Rates;
use homewire_core::connection::socket::SocketOptions;
use homewire_core::connection::{Principal, PrincipalKind};
use homewire_core::core::Core;
use homewire_core::reactor::Limits;
use homewire_core::reactor::inbox::ShardEntry;
use homewire_core::routing::subscription::{
    FollowedEntities, Follows, Reservation, SubscribedTopic, Subscription,
};
use homewire_core::wire::transport::Transport;

const HOME: u64 = 1;
const DEVICE: u64 = 7;
const ENTITY: &str = "stove";
/// With the other members of its envelope the message has 200 bytes.
const BODY: &str = r#"{"load":12.5,"memory":48.25,"note":"xxxxxxxxxxxxxxxxxxxxxxxxx"}"#;

fn main() -> io::Result<()> {
    let clients = argument("--clients", 100);
    let events = argument("--events", 20_000);
    let batch = argument("--batch", 32);
    let permission = argument("--permission", 0) != 0;
    let limits = Limits {
        shards: 1,
        heartbeat: Duration::from_secs(3_600),
        reservation: Duration::from_secs(60),
        close_grace: Duration::from_secs(1),
        close: Duration::from_secs(1),
        send_queue_bytes: 64 << 20,
        send_queues_bytes: usize::MAX,
        unsent_age: Duration::from_secs(3_600),
        inbound: Rates::default(),
        principal_topic_bytes: u64::MAX,
        message_bytes: 64 << 10,
        deliver_messages: false,
        messages_bytes: 4 << 20,
        socket: SocketOptions::default(),
    };
    let core = Core::start(limits, 16 << 20, Clock::machine())?;
    let mut sockets = (0..clients)
        .map(|number| connect(&core, number, permission))
        .collect::<io::Result<Vec<_>>>()?;
    let entry = ShardEntry {
        shard: 0,
        envelope: encode_event(&EventHeader {
            project: 1,
            home: HOME,
            device: DEVICE,
            entity: Some(ENTITY),
            time_ms: 1_795_258_800_123,
            event_type: "load",
            device_class: Some("computer"),
            body: BODY,
            ..EventHeader::default()
        }),
    };

    let began = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    let mut routed = 0;
    while routed < events {
        let count = batch.min(events - routed);
        core.route(vec![entry.clone(); count]);
        routed += count;
        // Frames of the other clients wait in their sockets meanwhile.
        while stat(&core, "deliveries") < (routed * clients) as u64 {
            for socket in &mut sockets {
                drain(socket, &mut buffer)?;
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let deliveries = stat(&core, "deliveries") as f64;
    let cpu = reactor_cpu_seconds();
    println!(
        "{{\"clients\": {clients}, \"events\": {events}, \"batch\": {batch}, \"deliveries\": {deliveries}, \
         \"frames_per_write\": {:.1}, \"bytes_per_frame\": {:.0}, \"seconds\": {seconds:.3}, \
         \"reactor_cpu_seconds\": {cpu:.3}, \"deliveries_per_reactor_cpu_second\": {:.0}}}",
        deliveries / stat(&core, "writes") as f64,
        stat(&core, "bytes_written") as f64 / deliveries,
        deliveries / cpu,
    );
    core.stop(1001, String::new(), Duration::ZERO);
    Ok(())
}

/// A third of the clients each subscribes to a home, a device and an entity.
fn subscription(number: usize, permission: bool) -> Subscription {
    let topic = match number % 3 {
        0 => SubscribedTopic::Home { home: HOME },
        1 => SubscribedTopic::Device {
            device: DEVICE,
            home: HOME,
        },
        _ => SubscribedTopic::Entity {
            entity: ENTITY.into(),
            home: HOME,
        },
    };
    // An entity is received in homes that its user joins later, too, except with permissions.
    let follows = (!permission && number % 3 == 2)
        .then(|| Follows::Entities(Box::new(FollowedEntities(vec![ENTITY.into()]))));
    Subscription {
        follows,
        ..Subscription::of(vec![topic])
    }
}

fn connect(core: &Core, number: usize, permission: bool) -> io::Result<UnixStream> {
    let principal = Principal {
        kind: PrincipalKind::User,
        project: 1,
        id: number as u64,
        key_tag: 0,
    };
    let id = core.next_id();
    core.reserve(Reservation {
        id,
        principal,
        subscription: subscription(number, permission),
        address: None,
    });
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    core.adopt(id, theirs.into_raw_fd(), Transport::WebSocket, Vec::new())?;
    core.wake();
    Ok(ours)
}

fn drain(socket: &mut UnixStream, buffer: &mut [u8]) -> io::Result<()> {
    match socket.read(buffer) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

fn stat(core: &Core, name: &str) -> u64 {
    core.stats()
        .into_iter()
        .find_map(|(it, value)| (it == name).then_some(value))
        .unwrap_or(0)
}

fn argument(name: &str, default: usize) -> usize {
    let arguments: Vec<String> = std::env::args().collect();
    arguments
        .iter()
        .position(|it| it == name)
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(default)
}

/// The processor time of the reactor's thread. NaN without /proc.
fn reactor_cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return f64::NAN;
    };
    tasks
        .flatten()
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|it| it == "reactor\n")
        })
        .find_map(|task| {
            let schedule = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            schedule.split(' ').next()?.parse::<f64>().ok()
        })
        .map_or(f64::NAN, |nanoseconds| nanoseconds / 1e9)
}

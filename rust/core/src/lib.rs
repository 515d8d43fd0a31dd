//! The realtime core of homewire. No Python here.
//!
//! | folder | contents |
//! | --- | --- |
//! | [`bus`] | shards (Redis Streams): envelopes, XADD commands, the stream readers, cache versions |
//! | [`routing`] | the router: subscriptions, audiences, access, control records and their table; no I/O |
//! | [`wire`] | transports and their frames, JSON of events, the table of close codes; no I/O |
//! | [`connection`] | one connection and its socket, the table of all, their ids, counts and inbound limits |
//! | [`send_queue`] | unsent frames of one connection, the memory of all |
//! | [`reactor`] | the thread that owns all connections: inbox, sockets, delivery, timers |
//! | [`input`] | events and commands as clients send them: parsed and checked; places of bulk items |
//!
//! [`core`] starts the threads and is the handle that Python holds; [`stats`] has the counters, [`clock`] the
//! time.

// Tests measure and limit real waits.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod bus;
pub mod clock;
pub mod connection;
pub mod core;
pub mod input;
pub mod reactor;
pub mod routing;
pub mod send_queue;
pub mod stats;
pub mod wire;

//! The core as a whole, over real sockets: `Core`, clients, and envelopes routed by hand.
#![allow(clippy::unwrap_used, clippy::panic)] // Failing loudly is what a test is for.

mod audiences;
mod client_messages;
mod connection_counts;
mod control_records;
mod deactivated_homes;
mod harness;
mod inbound_rates;
mod keys;
mod lifecycle;
mod memory_limits;
mod model;
mod moves_and_deletions;
mod pending_close;
mod permissions;
mod queued_commands;
mod records;
mod slow_consumers;
mod threads;

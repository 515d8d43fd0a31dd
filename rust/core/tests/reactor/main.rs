//! The core as a whole, over real sockets: `Core`, clients, and envelopes routed by the tests.
#![allow(clippy::unwrap_used, clippy::panic)] // Failing loudly is what a test is for.
#![allow(clippy::disallowed_methods)] // A test gives up after a real timeout.

mod audience_steps;
mod audiences;
mod client;
mod client_messages;
mod connection_counts;
mod control_records;
mod deactivated_homes;
mod harness;
mod inbound_rates;
mod keys;
mod lifecycle;
mod memberships_and_keys;
mod memory_limits;
mod model;
mod moves_and_deletions;
mod newest_records;
mod pending_close;
mod permissions;
mod permissions_model;
mod queued_commands;
mod records;
mod router;
mod slow_consumers;
mod threads;
mod transports;

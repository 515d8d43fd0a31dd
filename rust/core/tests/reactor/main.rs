//! The core as a whole, over real sockets: `Core`, clients, and envelopes routed by hand.
#![allow(clippy::unwrap_used, clippy::panic)] // Failing loudly is what a test is for.

mod bounds;
mod condemned;
mod control;
mod counts;
mod deactivated;
mod gone;
mod harness;
mod inbound;
mod kept_commands;
mod keys;
mod lives;
mod messages;
mod model;
mod records;
mod rights;
mod scopes;
mod slow;
mod threads;

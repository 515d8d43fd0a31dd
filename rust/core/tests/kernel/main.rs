//! The routing kernel alone: no sockets, and a time that the tests turn.
#![allow(clippy::unwrap_used, clippy::panic)] // Failing loudly is what a test is for.
#![allow(clippy::disallowed_methods)] // The time starts with the machine's; only the test turns it.

mod interleavings;
mod judge;
mod subject;
mod truth;
mod world;

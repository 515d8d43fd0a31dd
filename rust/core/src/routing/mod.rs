//! Which connections receive what. The [`router`] is the whole of it: it has no sockets, no clock and no I/O.
//! [`transitions`] is the table of what each control record does.

pub mod access;
pub mod blocks;
pub mod by_principal;
pub mod index;
pub mod record_bodies;
pub mod record_dedup;
pub mod router;
pub mod subscribers;
pub mod subscription;
pub mod topic;
pub mod transitions;

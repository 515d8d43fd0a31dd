//! Work that waits, done on threads of its own: connecting to a node, and asking for the slots.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;

use super::super::connector::{Connector, HostPort};
use super::super::link::Link;
use super::super::{REPLY_TIMEOUT, TailError};
use super::slots::SlotOwners;
use crate::core::guarded;
use crate::reactor::notifications::Notifier;

/// A server: that of the URL, or a node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAddress {
    OfUrl,
    At(HostPort),
}

/// What a thread brings.
pub enum Arrival {
    /// A connection to the node of this number.
    Link(usize, Result<Link, TailError>),
    Owners(Result<SlotOwners, TailError>),
}

/// How long a shard waits when its node cannot answer, and between two questions for the slots.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Starts the threads, and collects what they bring.
pub struct Opening {
    connector: Connector,
    notifier: Arc<Notifier>,
    waker: Arc<Waker>,
    sender: Sender<Arrival>,
    receiver: Receiver<Arrival>,
    /// Whether the slots may have changed, and whether a thread asks for them.
    is_wanted: bool,
    is_asking: bool,
    ask_at: Instant,
    /// The number of questions for the slots.
    asked: usize,
}

impl Opening {
    pub fn new(connector: Connector, notifier: Arc<Notifier>, waker: Waker, now: Instant) -> Self {
        let (sender, receiver) = unbounded();
        Self {
            connector,
            notifier,
            waker: Arc::new(waker),
            sender,
            receiver,
            is_wanted: false,
            is_asking: false,
            ask_at: now,
            asked: 0,
        }
    }

    pub fn arrival(&mut self) -> Option<Arrival> {
        let arrival = self.receiver.try_recv().ok()?;
        self.is_asking &= !matches!(arrival, Arrival::Owners(_));
        Some(arrival)
    }

    /// The slots may have changed.
    pub fn want_owners(&mut self) {
        self.is_wanted = true;
    }

    /// Asks for the slots, if they may have changed: the known nodes and those that the URL names, until one
    /// answers. Each time another one is the first, because one may be cut off from the others.
    pub fn ask_owners<'a>(&mut self, known: impl Iterator<Item = &'a NodeAddress>, now: Instant) {
        let named = self.connector.cluster().unwrap_or_default();
        if !self.is_wanted || self.is_asking || now < self.ask_at || named.is_empty() {
            return;
        }
        let known = known.filter_map(|address| match address {
            NodeAddress::At(node) => Some(node),
            NodeAddress::OfUrl => None,
        });
        let mut nodes: Vec<HostPort> = known.chain(named).cloned().collect();
        self.asked += 1;
        let first = self.asked % nodes.len();
        nodes.rotate_left(first);
        let connector = self.connector.clone();
        let started = self.start(move || {
            let link = connector.first_of(&nodes, REPLY_TIMEOUT);
            Arrival::Owners(link.and_then(|mut link| owners(&mut link)))
        });
        self.is_asking = started.is_ok();
        self.is_wanted = !self.is_asking;
        self.ask_at = now + PAUSE;
    }

    /// Connects to a node.
    ///
    /// # Errors
    /// The kernel's, if no threads are left.
    pub fn open(&self, number: usize, address: NodeAddress) -> io::Result<()> {
        let connector = self.connector.clone();
        self.start(move || {
            let link = open(&connector, &address);
            Arrival::Link(number, link)
        })
    }

    fn start(&self, work: impl FnOnce() -> Arrival + Send + 'static) -> io::Result<()> {
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let notifier = Arc::clone(&self.notifier);
        // The thread is detached: all that it does has a timeout.
        drop(guarded("tail-open", notifier, move || {
            // Without a receiver the reader has stopped.
            if sender.send(work()).is_ok() {
                waker.wake().map_err(|error| error.to_string())?;
            }
            Ok(())
        })?);
        Ok(())
    }
}

/// A connection on which the server names every key of the shards that changes: "client side caching" in
/// broadcast mode. One prefix: with one for each shard Redis would compare each changed key with all.
fn open(connector: &Connector, address: &NodeAddress) -> Result<Link, TailError> {
    let mut link = match address {
        NodeAddress::OfUrl => connector.open(REPLY_TIMEOUT)?,
        NodeAddress::At(node) => connector.open_node(node, REPLY_TIMEOUT)?,
    };
    link.ask(&["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "hw:{e"])?;
    link.set_nonblocking()?;
    Ok(link)
}

/// The masters, as this server knows them.
///
/// # Errors
/// Those of [`Link::ask`].
pub fn owners(link: &mut Link) -> Result<SlotOwners, TailError> {
    let host = link.peer_host();
    SlotOwners::parse(&mut link.ask(&["CLUSTER", "SLOTS"])?, &host)
}

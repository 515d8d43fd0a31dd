//! The slots of a cluster: which slot a key has, which node owns a slot, and how a server refuses a command
//! on keys of another node. (Source: "Redis cluster specification".)

use super::super::TailError;
use super::super::connector::HostPort;
use super::super::reply::{Element, Reply};
use crate::bus::shard::crc16;

const SLOTS: u16 = 16_384;

/// The slot of a key: of its hash tag `{…}`, if it has one.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = memchr::memchr(b'{', key).and_then(|open| {
        let behind = &key[open + 1..];
        let length = memchr::memchr(b'}', behind)?;
        (length > 0).then(|| &behind[..length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// The masters of all slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotOwners(Vec<(u16, u16, HostPort)>);

impl SlotOwners {
    /// From the reply to CLUSTER SLOTS. A node that does not know its own host has that of the server that
    /// was asked.
    ///
    /// # Errors
    /// [`TailError::Reply`] for another reply.
    pub fn parse(reply: &mut Reply<'_>, asked_host: &str) -> Result<Self, TailError> {
        Self::ranges(reply, asked_host).ok_or(TailError::Reply("CLUSTER SLOTS"))
    }

    fn ranges(reply: &mut Reply<'_>, asked_host: &str) -> Option<Self> {
        let mut owners = Vec::new();
        for _ in 0..reply.array()? {
            let parts = reply.array()?;
            let (first, last) = (reply.integer()?, reply.integer()?);
            // Host, port, and more of the master. Its replicas follow.
            let details = reply.array()?;
            let host = match reply.element()? {
                Element::Text(host) if !host.is_empty() => String::from_utf8(host.to_vec()).ok()?,
                Element::Text(_) | Element::Nil => asked_host.to_owned(),
                _ => return None,
            };
            let port = reply.integer()?.try_into().ok()?;
            for _ in 2..details {
                reply.skip();
            }
            for _ in 3..parts {
                reply.skip();
            }
            let range = (first.try_into().ok()?, last.try_into().ok()?);
            owners.push((range.0, range.1, (host, port)));
        }
        Some(Self(owners))
    }

    /// The master of this slot, if it has one.
    pub fn owner(&self, slot: u16) -> Option<&HostPort> {
        let range = |it: &&(u16, u16, HostPort)| (it.0..=it.1).contains(&slot);
        self.0.iter().find(range).map(|(_, _, owner)| owner)
    }
}

/// Why a server of a cluster did not carry out a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another node owns the slot.
    Moved(HostPort),
    /// Another node has the key for the moment, because the slot is being migrated.
    Ask(HostPort),
    /// It cannot serve now.
    Later,
    /// The command is wrong, or not permitted.
    Wrong,
}

impl Refusal {
    /// From the text of an error reply. An address without a host has that of the server that was asked.
    pub fn parse(text: &[u8], asked_host: &str) -> Self {
        const LATER: [&str; 6] = [
            "TRYAGAIN",
            "CLUSTERDOWN",
            "MASTERDOWN",
            "LOADING",
            "READONLY",
            "BUSY",
        ];
        let text = String::from_utf8_lossy(text);
        let mut words = text.split(' ');
        let (code, target) = (words.next().unwrap_or(""), words.nth(1));
        let target = target.and_then(|target| host_and_port(target, asked_host));
        match (code, target) {
            ("MOVED", Some(owner)) => Self::Moved(owner),
            ("ASK", Some(target)) => Self::Ask(target),
            // A node may not know the address of another one yet.
            ("MOVED" | "ASK", None) => Self::Later,
            _ if LATER.contains(&code) => Self::Later,
            _ => Self::Wrong,
        }
    }
}

fn host_and_port(text: &str, asked_host: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host {
        "" => asked_host,
        "?" => return None,
        host => host,
    };
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Failing loudly is what a test is for.
mod tests {
    use super::super::super::reply::Parser;
    use super::*;

    fn at(host: &str, port: u16) -> HostPort {
        (host.to_owned(), port)
    }

    fn parsed(text: &[u8]) -> Result<SlotOwners, TailError> {
        let mut parser = Parser::default();
        assert_eq!(parser.read(text).unwrap(), Some(text.len()));
        SlotOwners::parse(&mut parser.reply(text), "asked")
    }

    /// The slots are those that `CLUSTER KEYSLOT` answers.
    #[test]
    fn slot_is_that_of_the_hash_tag() {
        assert_eq!(slot_of(b"hw:{e5}:events"), slot_of(b"hw:{e5}:epoch"));
        assert_eq!(slot_of(b"hw:{e6}:events"), 8_778);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"{foo}bar"), 12_182);
        // Without a tag the whole key counts.
        assert_eq!(slot_of(b"foo{}{bar}"), 8_363);
        assert_eq!(slot_of(b"foo{bar"), crc16(b"foo{bar") % SLOTS);
    }

    #[test]
    fn owner_is_first_node_of_each_range() {
        let owners = parsed(
            b"*2\r\n*4\r\n:0\r\n:8000\r\n*4\r\n$3\r\none\r\n:7000\r\n$2\r\nid\r\n%1\r\n$8\r\nhostname\r\n$1\r\nh\r\n\
              *2\r\n$7\r\nreplica\r\n:7001\r\n*3\r\n:8001\r\n:16383\r\n*2\r\n$0\r\n\r\n:7002\r\n",
        )
        .unwrap();
        assert_eq!(owners.owner(0), Some(&at("one", 7000)));
        assert_eq!(owners.owner(8_000), Some(&at("one", 7000)));
        assert_eq!(owners.owner(8_001), Some(&at("asked", 7002)));
        assert_eq!(owners.owner(16_383), Some(&at("asked", 7002)));
        let part = parsed(b"*1\r\n*3\r\n:5\r\n:5\r\n*2\r\n_\r\n:7000\r\n").unwrap();
        assert_eq!(part.owner(4), None);
        assert_eq!(part.owner(5), Some(&at("asked", 7000)));
        assert!(parsed(b"*1\r\n*1\r\n:5\r\n").is_err());
    }

    #[test]
    fn refusals_tell_where_to_go() {
        let refusal = |text: &str| Refusal::parse(text.as_bytes(), "asked");
        assert_eq!(
            refusal("MOVED 8778 10.0.0.1:7001"),
            Refusal::Moved(at("10.0.0.1", 7001))
        );
        assert_eq!(refusal("ASK 5 ::1:7001"), Refusal::Ask(at("::1", 7001)));
        assert_eq!(refusal("MOVED 5 :7001"), Refusal::Moved(at("asked", 7001)));
        for later in [
            "MOVED 5 ?:1",
            "TRYAGAIN x",
            "CLUSTERDOWN Hash slot not served",
        ] {
            assert_eq!(refusal(later), Refusal::Later, "{later}");
        }
        assert_eq!(refusal("NOPERM no"), Refusal::Wrong);
    }
}

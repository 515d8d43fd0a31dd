//! XADD commands as bytes: what the bus writes to Redis for each envelope.
//!
//! Only the envelope differs between the commands of one shard, so each shard has a prepared prefix.

/// A command touches at most this many entries, also when it trims (decision 0007).
const TRIM_LIMIT: u32 = 1_000;

/// For each shard the bytes of an XADD up to the envelope's length.
///
/// Trimming by age costs Redis a third of an XADD. So only the first append to a shard after each
/// [`XaddPrefixes::renew`] trims; the timer of the bus trims the other shards.
#[derive(Debug)]
pub struct XaddPrefixes {
    plain: Vec<Vec<u8>>,
    cutoff_ms: u64,
    /// Shards whose next append trims.
    due: Vec<bool>,
}

impl XaddPrefixes {
    /// Prefixes that do not trim yet.
    pub fn new(shards: u32) -> Self {
        let plain = (0..shards).map(|shard| {
            let mut prefix = b"*5\r\n$4\r\nXADD\r\n".to_vec();
            put_word(&mut prefix, events_key(shard).as_bytes());
            prefix.extend_from_slice(b"$1\r\n*\r\n$1\r\ne\r\n$");
            prefix
        });
        Self {
            plain: plain.collect(),
            cutoff_ms: 0,
            due: vec![false; shards as usize],
        }
    }

    /// The next append to each shard removes entries older than `cutoff_ms`.
    pub fn renew(&mut self, cutoff_ms: u64) {
        self.cutoff_ms = cutoff_ms;
        self.due.fill(true);
    }

    /// Appends one whole XADD. For a shard that does not exist it appends nothing and returns `false`.
    pub fn put(&mut self, out: &mut Vec<u8>, shard: u32, envelope: &[u8]) -> bool {
        let (Some(prefix), Some(due)) = (
            self.plain.get(shard as usize),
            self.due.get_mut(shard as usize),
        ) else {
            return false;
        };
        if std::mem::take(due) {
            put_trimming_prefix(out, shard, self.cutoff_ms);
        } else {
            out.extend_from_slice(prefix);
        }
        put_length(out, envelope.len());
        out.extend_from_slice(envelope);
        out.extend_from_slice(b"\r\n");
        true
    }
}

/// The key of a shard's stream; must equal `homewire.bus.shards.events_key`.
pub fn events_key(shard: u32) -> String {
    format!("hw:{{e{shard}}}:events")
}

fn put_trimming_prefix(out: &mut Vec<u8>, shard: u32, cutoff_ms: u64) {
    out.extend_from_slice(b"*10\r\n$4\r\nXADD\r\n");
    put_word(out, events_key(shard).as_bytes());
    out.extend_from_slice(b"$5\r\nMINID\r\n$1\r\n~\r\n");
    put_word(out, cutoff_ms.to_string().as_bytes());
    out.extend_from_slice(b"$5\r\nLIMIT\r\n");
    put_word(out, TRIM_LIMIT.to_string().as_bytes());
    out.extend_from_slice(b"$1\r\n*\r\n$1\r\ne\r\n$");
}

fn put_word(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b'$');
    put_length(out, word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

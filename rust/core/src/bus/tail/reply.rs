//! RESP3 replies, parsed in place: no copy, no allocation for each element.
//!
//! A reply arrives in pieces. Parsed elements are stored as flat items that point into the buffer. So the
//! cost of a piece depends on its own length and not on what came before. RESP2, which Sentinels and a new
//! connection speak, is a part of RESP3. (Protocol: "Redis serialization protocol specification".)

use std::ops::Range;

/// The server's bytes are not RESP3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server does not speak RESP3")]
pub struct NotResp;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// A bulk or simple string.
    Text(Range<usize>),
    Error(Range<usize>),
    Integer(i64),
    Nil,
    Array(usize),
    /// That many pairs.
    Map(usize),
    Push(usize),
}

/// Parses one reply after the other from a growing buffer.
#[derive(Debug, Default)]
pub struct Parser {
    items: Vec<Item>,
    /// The number of missing elements of each open array.
    open: Vec<usize>,
    position: usize,
}

impl Parser {
    /// Continues in `buffer`, which starts with this reply and has only grown since the last call.
    ///
    /// Returns the length of the reply once it is complete; then [`Parser::reply`] returns it.
    ///
    /// # Errors
    /// [`NotResp`]: the connection cannot be used any more.
    pub fn read(&mut self, buffer: &[u8]) -> Result<Option<usize>, NotResp> {
        loop {
            let Some((item, end)) = next_item(buffer, self.position)? else {
                return Ok(None);
            };
            self.position = end;
            let opened = match item {
                Item::Array(count) | Item::Push(count) if count > 0 => Some(count),
                Item::Map(pairs) if pairs > 0 => Some(2 * pairs),
                _ => None,
            };
            self.items.push(item);
            match opened {
                Some(count) => self.open.push(count),
                None => {
                    self.close_arrays();
                    if self.open.is_empty() {
                        return Ok(Some(self.position));
                    }
                }
            }
        }
    }

    /// Counts a complete element, and closes every array that it completes.
    fn close_arrays(&mut self) {
        while let Some(missing) = self.open.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return;
            }
            self.open.pop();
        }
    }

    /// The complete reply, from its first element.
    pub fn reply<'a>(&'a self, buffer: &'a [u8]) -> Reply<'a> {
        Reply {
            items: &self.items,
            buffer,
        }
    }

    /// Prepares for the next reply, which starts at the beginning of its buffer.
    pub fn clear(&mut self) {
        self.items.clear();
        self.open.clear();
        self.position = 0;
    }
}

/// The item that starts at `start`, and its end; `None` while it is incomplete.
fn next_item(buffer: &[u8], start: usize) -> Result<Option<(Item, usize)>, NotResp> {
    let Some(&kind) = buffer.get(start) else {
        return Ok(None);
    };
    // A line contains no carriage return, so searching for that byte is enough.
    let Some(length) = memchr::memchr(b'\r', &buffer[start + 1..]) else {
        return Ok(None);
    };
    let line = start + 1..start + 1 + length;
    let end = line.end + 2;
    match buffer.get(line.end + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(NotResp),
        None => return Ok(None),
    }
    Ok(Some(match kind {
        b'$' | b'=' => match integer(&buffer[line])? {
            -1 => (Item::Nil, end),
            length => {
                let length = usize::try_from(length).map_err(|_| NotResp)?;
                if buffer.len() < end + length + 2 {
                    return Ok(None);
                }
                (Item::Text(end..end + length), end + length + 2)
            }
        },
        b'*' if buffer[line.clone()] == *b"-1" => (Item::Nil, end),
        b'*' | b'~' => (Item::Array(count(&buffer[line])?), end),
        b'%' => (Item::Map(count(&buffer[line])?), end),
        b'>' => (Item::Push(count(&buffer[line])?), end),
        b'_' => (Item::Nil, end),
        b'+' | b',' | b'#' | b'(' => (Item::Text(line), end),
        b'-' => (Item::Error(line), end),
        b':' => (Item::Integer(integer(&buffer[line])?), end),
        _ => return Err(NotResp),
    }))
}

fn count(digits: &[u8]) -> Result<usize, NotResp> {
    usize::try_from(integer(digits)?).map_err(|_| NotResp)
}

fn integer(digits: &[u8]) -> Result<i64, NotResp> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(NotResp)
}

/// One element of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element<'a> {
    Text(&'a [u8]),
    /// The text of an error reply.
    Error(&'a [u8]),
    Integer(i64),
    Nil,
    /// An array of that many elements, which follow.
    Array(usize),
    /// A map of that many pairs, which follow: name, value, name, value.
    Map(usize),
    /// A message that answers no command, of that many elements, which follow.
    Push(usize),
}

/// A reply, read element by element in the order of the bytes.
#[derive(Clone, Debug)]
pub struct Reply<'a> {
    items: &'a [Item],
    buffer: &'a [u8],
}

impl<'a> Reply<'a> {
    /// The next element. The elements of an array follow it.
    pub fn element(&mut self) -> Option<Element<'a>> {
        let (item, rest) = self.items.split_first()?;
        self.items = rest;
        Some(match *item {
            Item::Text(ref range) => Element::Text(&self.buffer[range.clone()]),
            Item::Error(ref range) => Element::Error(&self.buffer[range.clone()]),
            Item::Integer(number) => Element::Integer(number),
            Item::Nil => Element::Nil,
            Item::Array(count) => Element::Array(count),
            Item::Map(pairs) => Element::Map(pairs),
            Item::Push(count) => Element::Push(count),
        })
    }

    /// The number of elements of the next element, if it is an array.
    pub fn array(&mut self) -> Option<usize> {
        match self.element()? {
            Element::Array(count) => Some(count),
            _ => None,
        }
    }

    /// The number of pairs of the next element, if it is a map.
    pub fn map(&mut self) -> Option<usize> {
        match self.element()? {
            Element::Map(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The next element, if it is an integer.
    pub fn integer(&mut self) -> Option<i64> {
        match self.element()? {
            Element::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// The next element, if it is a text.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        match self.element()? {
            Element::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Skips the next element with everything in it.
    pub fn skip(&mut self) {
        let mut elements = 1;
        while elements > 0 {
            elements -= 1;
            match self.element() {
                Some(Element::Array(count) | Element::Push(count)) => elements += count,
                Some(Element::Map(pairs)) => elements += 2 * pairs,
                Some(_) => {}
                None => return,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // Failing loudly is what a test is for.
mod tests {
    use super::*;

    const REPLY: &[u8] = b"*3\r\n*0\r\n*2\r\n$3\r\na\r\n\r\n*2\r\n:-5\r\n$-1\r\n-ERR no\r\n+OK\r\n";

    #[test]
    fn reply_is_equal_at_every_split() {
        for split in 0..REPLY.len() {
            let mut parser = Parser::default();
            let first = parser.read(&REPLY[..split]).unwrap();
            let length = first.or_else(|| parser.read(REPLY).unwrap());
            assert_eq!(length, Some(REPLY.len() - 5), "split at {split}");
            let mut reply = parser.reply(REPLY);
            assert_eq!(reply.array(), Some(3));
            assert_eq!(reply.array(), Some(0));
            let mut skipped = reply.clone();
            skipped.skip();
            assert_eq!(skipped.element(), Some(Element::Error(b"ERR no")));
            assert_eq!(reply.array(), Some(2));
            assert_eq!(reply.text(), Some(&b"a\r\n"[..]));
            assert_eq!(reply.array(), Some(2));
            assert_eq!(reply.element(), Some(Element::Integer(-5)));
            assert_eq!(reply.element(), Some(Element::Nil));
            assert_eq!(reply.element(), Some(Element::Error(b"ERR no")));
            assert_eq!(reply.element(), None);
        }
    }

    #[test]
    fn maps_and_pushes_are_read_and_skipped() {
        let push = b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n";
        let map = b"%2\r\n$1\r\na\r\n*1\r\n_\r\n$1\r\nb\r\n%0\r\n";
        let mut parser = Parser::default();
        assert_eq!(parser.read(push).unwrap(), Some(push.len()));
        let mut reply = parser.reply(push);
        assert_eq!(reply.element(), Some(Element::Push(2)));
        assert_eq!(reply.text(), Some(&b"invalidate"[..]));
        parser.clear();
        assert_eq!(parser.read(map).unwrap(), Some(map.len()));
        let mut reply = parser.reply(map);
        let mut skipped = reply.clone();
        skipped.skip();
        assert_eq!(skipped.element(), None);
        assert_eq!((reply.map(), reply.text()), (Some(2), Some(&b"a"[..])));
        assert_eq!(reply.array(), Some(1));
        assert_eq!(reply.element(), Some(Element::Nil));
        reply.skip();
        assert_eq!(reply.map(), Some(0));
    }

    #[test]
    fn invalid_reply_is_rejected() {
        for wrong in [
            &b"HTTP/1.1 400\r\n"[..],
            b"$x\r\n",
            b"*-7\r\n",
            b"%-1\r\n",
            b"$-2\r\n",
            b"+a\rb\r\n",
        ] {
            assert_eq!(Parser::default().read(wrong), Err(NotResp));
        }
    }
}

//! HTTP answers as the publisher reads them.

use crate::options::Failure;

/// A JSON string.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => out.push(' '),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// How often `needle` is in `haystack`.
pub fn count(haystack: &[u8], needle: &[u8]) -> u64 {
    haystack
        .windows(needle.len())
        .filter(|window| *window == needle)
        .count() as u64
}

/// One HTTP answer with a Content-Length (or none, for 204).
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
    pub length: usize,
}

impl<'a> Answer<'a> {
    /// The first answer of `bytes`, or None while it is not complete.
    ///
    /// # Errors
    /// For what is no answer, or one that this client does not read.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Self>, Failure> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&bytes[..end])?;
        let status = head
            .get(9..12)
            .filter(|_| head.starts_with("HTTP/1.1 "))
            .and_then(|digits| digits.parse().ok())
            .ok_or("not an HTTP/1.1 answer")?;
        let mut size = 0;
        for line in head.lines().skip(1) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                size = value.trim().parse()?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err("a chunked answer, which this client does not read".into());
            }
        }
        let length = end + 4 + size;
        Ok(bytes.get(end + 4..length).map(|body| Self {
            status,
            body,
            length,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_at_every_split() -> Result<(), Failure> {
        let bytes =
            b"HTTP/1.1 200 OK\r\nContent-length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\n";
        for cut in 0..43 {
            assert!(Answer::parse(&bytes[..cut])?.is_none(), "{cut}");
        }
        let first = Answer::parse(bytes)?.ok_or("none")?;
        assert_eq!((first.status, first.body), (200, &b"hello"[..]));
        let second = Answer::parse(&bytes[first.length..])?.ok_or("none")?;
        assert_eq!((second.status, second.body.len()), (204, 0));
        Ok(())
    }

    #[test]
    fn markers_are_counted_and_text_is_quoted() {
        assert_eq!(
            count(
                b"[{\"status\":204},{\"status\":403},{\"status\":204}]",
                b"\"status\":204"
            ),
            2
        );
        assert_eq!(quoted("a\"b\\c\nd"), "\"a\\\"b\\\\c d\"");
    }
}

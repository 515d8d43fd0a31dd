//! What a subscriber says and hears in the NATS client protocol, inside binary WebSocket frames.
//!
//! Frames are no boundaries: one carries as many protocol lines as the server had ready.

/// One thing that the server said.
#[derive(Debug, PartialEq)]
pub enum Said<'a> {
    /// A message of the subject: its payload.
    Message(&'a [u8]),
    Ping,
    Pong,
    /// `-ERR`, with its text.
    Refusal(String),
    /// `INFO` and `+OK`.
    Nothing,
}

/// What stands at the beginning of a stretch of the stream.
#[derive(Debug, PartialEq)]
pub enum Parsed<'a> {
    /// One whole thing and how many bytes it takes.
    Whole(Said<'a>, usize),
    Incomplete,
    Broken(&'static str),
}

pub const PONG: &[u8] = b"PONG\r\n";

const NEWLINE: &[u8] = b"\r\n";

/// The first words on a connection. The server answers the `PING` once the subscription is in force.
pub fn greeting(subject: &str) -> Vec<u8> {
    format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {subject} 1\r\nPING\r\n")
        .into_bytes()
}

/// Reads one protocol line, and the payload that a `MSG` announces.
#[inline]
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some(end) = bytes.windows(2).position(|window| window == NEWLINE) else {
        return Parsed::Incomplete;
    };
    let (line, start) = (&bytes[..end], end + 2);
    if line.starts_with(b"MSG ") {
        return message(bytes, line, start);
    }
    let said = match line {
        b"PING" => Said::Ping,
        b"PONG" => Said::Pong,
        b"+OK" => Said::Nothing,
        _ if line.starts_with(b"INFO ") => Said::Nothing,
        _ if line.starts_with(b"-ERR") => {
            Said::Refusal(String::from_utf8_lossy(line).replace('"', "'"))
        }
        _ => return Parsed::Broken("a line that a NATS server does not send"),
    };
    Parsed::Whole(said, start)
}

/// `MSG subject sid [reply] size`: the size is the last word.
#[inline]
fn message<'a>(bytes: &'a [u8], line: &[u8], start: usize) -> Parsed<'a> {
    let digits = line.rsplit(|byte| *byte == b' ').next();
    let size = digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse::<usize>().ok());
    let Some(end) = size.and_then(|size| start.checked_add(size)) else {
        return Parsed::Broken("a message without a size");
    };
    match (bytes.get(start..end), bytes.get(end..end.saturating_add(2))) {
        (Some(payload), Some(NEWLINE)) => Parsed::Whole(Said::Message(payload), end + 2),
        (Some(_), Some(_)) => Parsed::Broken("a message longer than its size"),
        _ => Parsed::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_of_a_stream() {
        let stream = b"INFO {\"a\":1}\r\nPONG\r\nMSG home 1 6\r\n{\r\n:1}\r\nMSG home 1 back 0\r\n\r\nPING\r\n";
        let wanted = [
            Said::Nothing,
            Said::Pong,
            Said::Message(b"{\r\n:1}"),
            Said::Message(b""),
            Said::Ping,
        ];
        let mut start = 0;
        for said in wanted {
            let Parsed::Whole(found, length) = parse(&stream[start..]) else {
                panic!("nothing at {start}");
            };
            assert_eq!(found, said);
            for cut in 0..length {
                assert_eq!(
                    parse(&stream[start..start + cut]),
                    Parsed::Incomplete,
                    "{said:?} cut at {cut}"
                );
            }
            start += length;
        }
        assert_eq!(start, stream.len());
    }

    #[test]
    fn refusals_and_what_is_not_nats() {
        assert_eq!(
            parse(b"-ERR 'Slow Consumer'\r\n"),
            Parsed::Whole(Said::Refusal("-ERR 'Slow Consumer'".to_owned()), 22)
        );
        assert!(matches!(parse(b"HELLO\r\n"), Parsed::Broken(_)));
        assert!(matches!(parse(b"MSG home 1 x\r\n"), Parsed::Broken(_)));
        assert!(matches!(
            parse(b"MSG home 1 2\r\nabc\r\n"),
            Parsed::Broken(_)
        ));
    }
}

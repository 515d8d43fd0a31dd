//! One WebSocket client of the listen command: its upgrade, its frames and its messages.

use crate::account::{Order, Totals};
use crate::frame;
use crate::listen::Settings;
use crate::nats::{self, Said};
use crate::options::Failure;
use crate::sys;
use std::os::fd::{AsRawFd, OwnedFd};

#[derive(PartialEq)]
pub enum Phase {
    Connecting,
    Upgrading,
    /// Upgraded, but the server has not yet said that the subscription is in force.
    Subscribing,
    Open,
    Closed,
}

pub struct Client {
    pub socket: OwnedFd,
    pub phase: Phase,
    pub partial: Vec<u8>,
    /// An incomplete command of the NATS stream, which continues in the next frame.
    pub unread: Vec<u8>,
    pub order: Order,
    pub messages: u64,
}

/// The length of a complete answer 101 at the beginning of `bytes`, or None while it is not complete.
pub fn upgraded(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    if !head.starts_with("HTTP/1.1 101") {
        return Err(format!("not upgraded: {}", String::from_utf8_lossy(bytes)).into());
    }
    if !head.contains(frame::ACCEPT) {
        return Err("the answer's Sec-WebSocket-Accept is wrong".into());
    }
    Ok(Some(end + 4))
}

#[inline]
pub fn message(
    client: &mut Client,
    totals: &mut Totals,
    settings: &Settings,
    payload: &[u8],
    now: u64,
) {
    client.messages += 1;
    totals.messages += 1;
    totals.payload_bytes += payload.len() as u64;
    let Some(stamp) = totals.finder.find(payload) else {
        totals.fault("a message without a stamp".to_owned());
        return;
    };
    if let Err(fault) = client.order.check(stamp, settings.lanes) {
        totals.fault(fault);
    }
    totals.newest_sent = totals.newest_sent.max(stamp.time);
    if stamp.sequence < settings.skip {
        return;
    }
    if totals.measured == 0 {
        totals.first_at = now;
    }
    totals.last_at = now;
    totals.measured += 1;
    let turn = totals.measured % settings.sample;
    if turn == 0 && stamp.time > 0 {
        totals.latency.record(now.saturating_sub(stamp.time));
    }
}

/// Handles the part of the NATS stream in one frame. An incomplete command waits for the next frame.
pub fn stream(
    client: &mut Client,
    totals: &mut Totals,
    settings: &Settings,
    payload: &[u8],
    now: u64,
) -> Result<(), Failure> {
    let mut unread = std::mem::take(&mut client.unread);
    let mut rest = payload;
    if !unread.is_empty() {
        unread.extend_from_slice(payload);
        rest = &unread;
    }
    loop {
        match nats::parse(rest) {
            nats::Parsed::Whole(said, length) => {
                match said {
                    Said::Message(payload) => message(client, totals, settings, payload, now),
                    Said::Ping => {
                        say_to_server(client, &frame::from_client(frame::BINARY, nats::PONG))?;
                    }
                    Said::Pong => client.phase = Phase::Open,
                    Said::Refusal(text) => totals.fault(text),
                    Said::Nothing => {}
                }
                rest = &rest[length..];
            }
            nats::Parsed::Incomplete => break,
            nats::Parsed::Broken(what) => return Err(what.into()),
        }
    }
    client.unread = rest.to_vec();
    Ok(())
}

/// Sends one short frame, which fits because the connection has sent almost nothing.
pub fn say_to_server(client: &Client, bytes: &[u8]) -> Result<(), Failure> {
    match sys::send(client.socket.as_raw_fd(), bytes)? {
        taken if taken == bytes.len() => Ok(()),
        _ => Err("a short frame did not fit into the send buffer".into()),
    }
}

pub fn control(client: &mut Client, totals: &mut Totals, opcode: u8, payload: &[u8]) {
    match (opcode, payload) {
        (frame::PING, _) => {
            // A pong that does not fit is dropped: any byte tells the server that the client lives.
            let _ = sys::send(
                client.socket.as_raw_fd(),
                &frame::from_client(frame::PONG, payload),
            );
        }
        (frame::CLOSE, _) => {
            let code = match payload {
                [high, low, ..] => u16::from_be_bytes([*high, *low]),
                _ => 1005,
            };
            totals.first_close.get_or_insert(code);
            // The result does not matter: the server ends the connection.
            let _ = sys::send(
                client.socket.as_raw_fd(),
                &frame::from_client(frame::CLOSE, payload),
            );
        }
        (frame::PONG, _) => {}
        (other, _) => totals.fault(format!("a frame with opcode {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_upgrade_counts() {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            frame::ACCEPT
        );
        assert!(matches!(upgraded(answer.as_bytes()), Ok(Some(length)) if length == answer.len()));
        assert!(matches!(upgraded(&answer.as_bytes()[..20]), Ok(None)));
        assert!(upgraded(b"HTTP/1.1 403 Forbidden\r\n\r\n").is_err());
        assert!(upgraded(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").is_err());
    }
}

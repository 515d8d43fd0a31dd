//! A client of the core: sends and receives frames over a socket pair.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use homewire_core::wire::frame::{Opcode, append_header};

use crate::harness::TIMEOUT;

/// What a client receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// An event or command, by its type or action; or any other text.
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// The end of the stream, between two frames.
    End,
}

impl Received {
    pub fn event(name: &str) -> Self {
        Self::Text(name.to_owned())
    }
}

/// A client: sends masked frames, and receives the server's frames, whole and unmasked.
pub struct Client {
    pub socket: UnixStream,
    received: Vec<u8>,
}

impl Client {
    pub fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self {
            socket,
            received: Vec::new(),
        }
    }

    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.socket
            .write_all(&client_frame(0x80 | opcode as u8, payload))
            .unwrap();
    }

    pub fn send_close(&mut self, code: u16) {
        self.send(Opcode::Close, &code.to_be_bytes());
    }

    /// The next frame.
    pub fn receive(&mut self) -> Received {
        let Some((first, payload)) = self.frame() else {
            return Received::End;
        };
        match first {
            0x81 => Received::Text(name_of(&payload)),
            0x88 => Received::Close(
                payload
                    .get(..2)
                    .map(|code| u16::from_be_bytes(code.try_into().unwrap())),
            ),
            0x89 => Received::Ping(payload),
            0x8A => Received::Pong(payload),
            other => panic!("a frame that begins with {other:#x}"),
        }
    }

    /// Everything before `last`.
    pub fn receive_until(&mut self, last: &Received) -> Vec<Received> {
        self.receive_until_one_of(std::slice::from_ref(last))
    }

    pub fn receive_until_one_of(&mut self, last: &[Received]) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            let received = self.receive();
            if last.contains(&received) {
                return all;
            }
            assert_ne!(received, Received::End, "after {all:?}");
            all.push(received);
        }
    }

    /// First byte and payload of the next frame; `None` at the end of the stream.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        if !self.fill(2) {
            assert!(self.received.is_empty(), "a frame is cut short");
            return None;
        }
        let header = match self.received[1] {
            126 => 4,
            127 => 10,
            short => {
                assert!(short < 126, "a masked frame");
                2
            }
        };
        assert!(self.fill(header), "a frame is cut short");
        let length = match header {
            4 => u64::from(u16::from_be_bytes(self.received[2..4].try_into().unwrap())),
            10 => u64::from_be_bytes(self.received[2..10].try_into().unwrap()),
            _ => u64::from(self.received[1]),
        };
        let end = header + length as usize;
        assert!(self.fill(end), "a frame is cut short");
        let first = self.received[0];
        let payload = self.received[header..end].to_vec();
        self.received.drain(..end);
        Some((first, payload))
    }

    /// Reads until there are so many bytes; `false` if the stream ends before.
    fn fill(&mut self, bytes: usize) -> bool {
        let mut buffer = [0; 4096];
        while self.received.len() < bytes {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                // A unix socket reports so that the other end was closed with unread bytes.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return false,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error} after {} bytes", self.received.len()),
            }
        }
        true
    }
}

/// A masked frame; `first` has FIN, reserved bits and opcode.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = Vec::new();
    append_header(&mut frame, Opcode::Text, payload.len());
    frame[0] = first;
    frame[1] |= 0x80;
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

fn name_of(payload: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Value>(payload) {
        Ok(json) => {
            let name = json.get("eventType").or_else(|| json.get("action"));
            name.and_then(|it| it.as_str()).unwrap().to_owned()
        }
        Err(_) => String::from_utf8(payload.to_vec()).unwrap(),
    }
}

//! Transports: what a connection speaks.
//!
//! Each transport is one file that implements [`Protocol`]: how messages are framed, where frames end, what
//! keeps a connection alive, what is said last, and how the bytes of a client are read. The rest of the core
//! holds a [`Transport`], or a [`Receiver`] for each connection, and never asks which one it is. A new
//! transport is a file here and its rows in the two enums and the macro below.

mod byte_stream;
mod replies;
mod websocket;

use std::borrow::Cow;

use super::close::Violation;
use byte_stream::ByteStream;
use websocket::WebSocket;

pub use replies::Replies;

/// The kind of a message, for transports that distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    Text,
    Binary,
}

/// What a client sent, besides what its transport handles alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    Message {
        kind: MessageKind,
        payload: Cow<'a, [u8]>,
    },
    /// The client ends the connection, and may say why.
    Close { code: Option<u16> },
}

/// How clients' messages are received.
#[derive(Clone, Copy, Debug)]
pub struct InboundLimits {
    /// Maximum length of a message, in bytes.
    pub message_bytes: usize,
    /// Whether messages are returned; otherwise they are checked and dropped.
    pub keep: bool,
}

/// One transport. A value is the receiving half of one connection; it owns no heap memory between two
/// messages.
trait Protocol {
    /// What is sent in each heartbeat interval. The client must send something before the next one. `None`:
    /// no heartbeats, and silence is no failure.
    const PING: Option<&'static [u8]>;
    /// Whether the client answers our last frame. If not, our side is shut behind it.
    const CLOSE_IS_ANSWERED: bool;
    /// The close code of an open connection whose client shuts its side.
    const END_OF_STREAM_CODE: u16;

    /// Appends a frame whose payload is what `write` appends. `write` must only append.
    fn append_message(out: &mut Vec<u8>, kind: MessageKind, write: impl FnOnce(&mut Vec<u8>));

    /// Appends our last frame.
    fn append_close(out: &mut Vec<u8>, code: u16, reason: &str);

    /// Appends our last frame, after the client's.
    fn append_close_reply(out: &mut Vec<u8>, code: Option<u16>);

    /// The end of the frame that contains the byte before `offset`, in a block of whole frames; `offset`
    /// itself if it lies between two frames.
    fn end_of_frame(block: &[u8], offset: usize) -> usize;

    /// The receiving half of a new connection.
    fn new(limits: InboundLimits) -> Self;

    /// Consumes bytes from the front of `input` up to the end of the next message or close. Returns `None`
    /// when `input` is used up. What the transport answers by itself is added to `replies`.
    ///
    /// # Errors
    /// The [`Violation`] for which the connection must be closed.
    fn receive<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        replies: &mut Replies,
    ) -> Result<Option<Incoming<'a>>, Violation>;

    /// The number of frames that started since the last call, for the limit on what a client sends.
    fn take_frames(&mut self) -> u32;
}

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// RFC 6455.
    WebSocket = 0,
    /// Frames with a length over a plain socket. No handshake offers it yet; the tests of the reactor do.
    ByteStream = 1,
}

/// The receiving half of a connection.
#[derive(Debug)]
pub enum Receiver {
    WebSocket(WebSocket),
    ByteStream(ByteStream),
}

/// Evaluates an expression with the [`Protocol`] of a transport.
macro_rules! with_protocol {
    ($transport:expr, $protocol:ident => $body:expr) => {
        match $transport {
            Transport::WebSocket => {
                type $protocol = WebSocket;
                $body
            }
            Transport::ByteStream => {
                type $protocol = ByteStream;
                $body
            }
        }
    };
}

/// The same with the receiving half of one connection.
macro_rules! with_receiver {
    ($receiver:expr, $half:ident => $body:expr) => {
        match $receiver {
            Receiver::WebSocket($half) => $body,
            Receiver::ByteStream($half) => $body,
        }
    };
}

impl Transport {
    /// The number of transports; each is an index below it.
    pub const COUNT: usize = 2;

    /// The receiving half of a new connection.
    pub fn receiver(self, limits: InboundLimits) -> Receiver {
        match self {
            Self::WebSocket => Receiver::WebSocket(WebSocket::new(limits)),
            Self::ByteStream => Receiver::ByteStream(ByteStream::new(limits)),
        }
    }

    /// Appends a frame whose payload is what `write` appends. `write` must only append.
    pub fn append_message(
        self,
        out: &mut Vec<u8>,
        kind: MessageKind,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        with_protocol!(self, P => P::append_message(out, kind, write));
    }

    /// Our last frame.
    pub fn close_frame(self, code: u16, reason: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        with_protocol!(self, P => P::append_close(&mut frame, code, reason));
        frame
    }

    /// Our last frame, after the client's with this code.
    pub fn close_reply(self, code: Option<u16>) -> Vec<u8> {
        let mut frame = Vec::new();
        with_protocol!(self, P => P::append_close_reply(&mut frame, code));
        frame
    }

    /// Whether the client answers our last frame.
    pub fn close_is_answered(self) -> bool {
        with_protocol!(self, P => P::CLOSE_IS_ANSWERED)
    }

    /// The close code of an open connection whose client shuts its side.
    pub fn end_of_stream_code(self) -> u16 {
        with_protocol!(self, P => P::END_OF_STREAM_CODE)
    }

    /// What is sent in each heartbeat interval, if the client must answer.
    pub fn ping(self) -> Option<&'static [u8]> {
        with_protocol!(self, P => P::PING)
    }

    /// The end of the frame that contains the byte before `offset`, in a block of whole frames; `offset`
    /// itself if it lies between two frames.
    pub fn end_of_frame(self, block: &[u8], offset: usize) -> usize {
        with_protocol!(self, P => P::end_of_frame(block, offset))
    }
}

impl Receiver {
    /// The transport of the connection.
    pub fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(_) => Transport::WebSocket,
            Self::ByteStream(_) => Transport::ByteStream,
        }
    }

    /// Consumes bytes from the front of `input` up to the end of the next message or close. Returns `None`
    /// when `input` is used up. What the transport answers by itself is added to `replies`.
    ///
    /// # Errors
    /// The [`Violation`] for which the connection must be closed.
    pub fn receive<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        replies: &mut Replies,
    ) -> Result<Option<Incoming<'a>>, Violation> {
        with_receiver!(self, half => half.receive(input, replies))
    }

    /// The number of frames that started since the last call.
    pub fn take_frames(&mut self) -> u32 {
        with_receiver!(self, half => half.take_frames())
    }
}

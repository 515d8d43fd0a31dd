//! One connection to Redis: commands out, replies in.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use rustls::{ClientConnection, StreamOwned};

use super::TailError;
use super::connector::Credentials;
use super::reply::{Element, Parser, Reply};

const FIRST_BUFFER: usize = 64 << 10;
/// A buffer that a large reply has grown beyond this is shrunk again.
const KEPT_BUFFER: usize = 1 << 20;

/// The transport of a connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    /// Sends what TLS has encrypted and not sent.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.flush(),
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    /// Empty for a unix socket.
    fn peer_host(&self) -> String {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => &stream.sock,
            Self::Unix(_) => return String::new(),
        };
        stream
            .peer_addr()
            .map_or_else(|_| String::new(), |address| address.ip().to_string())
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
            Self::Tls(stream) => stream.sock.set_nonblocking(true),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.sock.as_raw_fd(),
        }
    }
}

/// An authenticated connection.
///
/// It blocks until [`Link::set_nonblocking`]: [`Link::ask`], [`Link::send`] and [`Link::reply`] wait. From
/// then on [`Link::queue`], [`Link::flush`] and [`Link::poll_reply`] are used, which do not.
pub struct Link {
    stream: Stream,
    /// Bytes that were received and not consumed: `buffer[start..filled]`.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    /// Length of the last returned reply.
    reply_length: usize,
    parser: Parser,
    /// Bytes of commands that the kernel has not taken.
    unsent: Vec<u8>,
    /// Whether the server is in cluster mode.
    is_cluster: bool,
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl Link {
    pub(super) fn open(stream: Stream, credentials: &Credentials) -> Result<Self, TailError> {
        let mut link = Self {
            stream,
            buffer: vec![0; FIRST_BUFFER],
            start: 0,
            filled: 0,
            reply_length: 0,
            parser: Parser::default(),
            unsent: Vec::new(),
            is_cluster: false,
        };
        let (username, password) = (&credentials.username, &credentials.password);
        if !password.is_empty() {
            let words: &[&str] = if username.is_empty() {
                &["AUTH", password]
            } else {
                &["AUTH", username, password]
            };
            link.ask(words)?;
        }
        Ok(link)
    }

    /// Agrees on RESP3, and names the connection.
    pub(super) fn greet(&mut self) -> Result<(), TailError> {
        const WRONG: TailError = TailError::Reply("HELLO");
        let mut reply = self.ask(&["HELLO", "3", "SETNAME", "homewire-tail"])?;
        let mut is_cluster = false;
        for _ in 0..reply.map().ok_or(WRONG)? {
            match reply.text() {
                Some(b"mode") => is_cluster = reply.text() == Some(b"cluster"),
                _ => reply.skip(),
            }
        }
        self.is_cluster = is_cluster;
        Ok(())
    }

    /// Whether the server is in cluster mode.
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// The host of the server; empty for a unix socket.
    pub fn peer_host(&self) -> String {
        self.stream.peer_host()
    }

    /// The address of the master of this name, as a Sentinel knows it.
    pub(super) fn master_named(&mut self, name: &str) -> Result<(String, u16), TailError> {
        const WRONG: TailError = TailError::Reply("SENTINEL");
        let mut reply = self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name])?;
        match reply.element() {
            Some(Element::Array(2)) => {
                let host = std::str::from_utf8(reply.text().ok_or(WRONG)?).map_err(|_| WRONG)?;
                let port = std::str::from_utf8(reply.text().ok_or(WRONG)?).map_err(|_| WRONG)?;
                Ok((host.to_owned(), port.parse().map_err(|_| WRONG)?))
            }
            Some(Element::Nil) => Err(TailError::NoMaster),
            _ => Err(WRONG),
        }
    }

    pub(super) fn is_master(&mut self) -> Result<bool, TailError> {
        let mut reply = self.ask(&["ROLE"])?;
        reply.array().ok_or(TailError::Reply("ROLE"))?;
        Ok(reply.text() == Some(b"master"))
    }

    /// Sends one command and returns its reply.
    ///
    /// # Errors
    /// As [`Link::reply`].
    pub fn ask(&mut self, words: &[&str]) -> Result<Reply<'_>, TailError> {
        let mut command = Vec::new();
        append_command(&mut command, words);
        self.send(&command)?;
        self.reply()
    }

    /// Sends commands made by [`append_command`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&mut self, commands: &[u8]) -> Result<(), TailError> {
        self.queue(commands);
        if self.flush()? {
            return Ok(());
        }
        // The timeout of the write passed.
        Err(io::Error::from(io::ErrorKind::TimedOut).into())
    }

    /// The next reply, in the order of the commands.
    ///
    /// # Errors
    /// The kernel's, [`TailError::NotResp`], and [`TailError::Refused`] if the reply is an error. After
    /// `Refused` the connection is still usable.
    pub fn reply(&mut self) -> Result<Reply<'_>, TailError> {
        self.receive()?;
        let reply = self.parser.reply(&self.buffer[self.start..]);
        match reply.clone().element() {
            Some(Element::Error(problem)) => Err(TailError::Refused(
                String::from_utf8_lossy(problem).into_owned(),
            )),
            _ => Ok(reply),
        }
    }

    /// From now on nothing waits.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.stream.set_nonblocking()
    }

    /// Adds commands made by [`append_command`], which [`Link::flush`] sends.
    pub fn queue(&mut self, commands: &[u8]) {
        self.unsent.extend_from_slice(commands);
    }

    /// Sends queued commands, as many as the kernel takes. Returns whether it took all.
    ///
    /// # Errors
    /// The kernel's.
    pub fn flush(&mut self) -> io::Result<bool> {
        match self.flush_until_full() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn flush_until_full(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.stream.flush()
    }

    /// The next reply or message, error replies included; `None` until it has arrived.
    ///
    /// # Errors
    /// The kernel's, and [`TailError::NotResp`].
    pub fn poll_reply(&mut self) -> Result<Option<Reply<'_>>, TailError> {
        match self.receive() {
            Ok(()) => Ok(Some(self.parser.reply(&self.buffer[self.start..]))),
            Err(TailError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads until the next reply is complete.
    fn receive(&mut self) -> Result<(), TailError> {
        self.drop_last_reply();
        loop {
            let received = &self.buffer[self.start..self.filled];
            if let Some(length) = self.parser.read(received)? {
                self.reply_length = length;
                return Ok(());
            }
            self.make_room();
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Consumes the last returned reply.
    fn drop_last_reply(&mut self) {
        if self.reply_length == 0 {
            return;
        }
        self.start += self.reply_length;
        self.reply_length = 0;
        self.parser.clear();
        if self.start == self.filled {
            (self.start, self.filled) = (0, 0);
            if self.buffer.len() > KEPT_BUFFER {
                self.buffer.truncate(FIRST_BUFFER);
                self.buffer.shrink_to_fit();
            }
        }
    }

    /// Makes room in a full buffer: moves the unconsumed bytes to the front, or grows.
    fn make_room(&mut self) {
        if self.filled < self.buffer.len() {
            return;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
        } else {
            self.buffer.resize(2 * self.filled, 0);
        }
    }
}

/// Appends one command as Redis reads it.
pub fn append_command(out: &mut Vec<u8>, words: &[&str]) {
    append_head(out, words.len());
    for word in words {
        append_word(out, word.as_bytes());
    }
}

/// Appends the head of a command of that many words.
pub fn append_head(out: &mut Vec<u8>, words: usize) {
    out.extend_from_slice(format!("*{words}\r\n").as_bytes());
}

/// Appends one word of a command.
pub fn append_word(out: &mut Vec<u8>, word: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

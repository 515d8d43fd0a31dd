//! One connection to Redis: commands out, replies in, every wait bounded.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use url::Url;

use super::TailError;
use super::reply::{Parser, Reply};

const DEFAULT_PORT: u16 = 6379;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_BUFFER: usize = 64 << 10;
/// A buffer that a large reply has grown beyond this is shrunk again.
const KEPT_BUFFER: usize = 1 << 20;

/// The address of Redis: `redis://`, `rediss://` or `unix://`, as in the URLs of the bus.
#[derive(Clone)]
pub struct Address {
    url: Url,
    tls: Option<Arc<ClientConfig>>,
}

impl Address {
    /// # Errors
    /// [`TailError::Address`]. It never repeats the URL, which may contain a password.
    pub fn parse(url: &str) -> Result<Self, TailError> {
        let url = Url::parse(url).map_err(|_| TailError::Address("is not a URL"))?;
        let tls = match url.scheme() {
            "redis" | "unix" => None,
            "rediss" => Some(tls_of(&url)?),
            _ => {
                return Err(TailError::Address(
                    "must start with redis://, rediss:// or unix://",
                ));
            }
        };
        Ok(Self { url, tls })
    }

    /// # Errors
    /// The kernel's, or those of TLS.
    fn open(&self, reply_timeout: Duration) -> io::Result<Stream> {
        if self.url.scheme() == "unix" {
            let stream = UnixStream::connect(decoded(self.url.path()))?;
            stream.set_read_timeout(Some(reply_timeout))?;
            stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
            return Ok(Stream::Unix(stream));
        }
        let host = self.url.host_str().unwrap_or("localhost");
        let stream = connect(host, self.url.port().unwrap_or(DEFAULT_PORT))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(reply_timeout))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let Some(configuration) = &self.tls else {
            return Ok(Stream::Tcp(stream));
        };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(configuration), name);
        let session = session.map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    /// The words of AUTH, if the URL has a password.
    fn credentials(&self) -> Vec<String> {
        let Some(password) = self.url.password() else {
            return Vec::new();
        };
        let mut words = vec!["AUTH".to_owned()];
        if !self.url.username().is_empty() {
            words.push(decoded(self.url.username()));
        }
        words.push(decoded(password));
        words
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (bare, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// TLS by the query parameters of the Python clients: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`.
fn tls_of(url: &Url) -> Result<Arc<ClientConfig>, TailError> {
    const UNREADABLE: TailError =
        TailError::Address("names a certificate file that cannot be read");
    let query = |wanted: &str| {
        url.query_pairs()
            .filter(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
            .last()
    };
    if query("ssl_cert_reqs").as_deref() == Some("none") {
        return Err(TailError::Address(
            "disables the check of the certificate: set ssl_ca_certs instead of ssl_cert_reqs=none",
        ));
    }
    let mut roots = RootCertStore::empty();
    match query("ssl_ca_certs") {
        Some(path) => {
            for certificate in certificates(&path).ok_or(UNREADABLE)? {
                roots.add(certificate).map_err(|_| UNREADABLE)?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let configuration = match query("ssl_certfile") {
        Some(path) => {
            let key = query("ssl_keyfile").unwrap_or_else(|| path.clone());
            let key = PrivateKeyDer::from_pem_file(key).map_err(|_| UNREADABLE)?;
            builder
                .with_client_auth_cert(certificates(&path).ok_or(UNREADABLE)?, key)
                .map_err(|_| UNREADABLE)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(configuration))
}

fn certificates(path: &str) -> Option<Vec<CertificateDer<'static>>> {
    let reader = BufReader::new(File::open(path).ok()?);
    CertificateDer::pem_reader_iter(reader)
        .collect::<Result<_, _>>()
        .ok()
}

enum Stream {
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

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }
}

/// An authenticated connection.
pub struct Link {
    stream: Stream,
    /// Bytes that were received and not consumed: `buffer[start..filled]`.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    /// Length of the last returned reply.
    reply_length: usize,
    parser: Parser,
}

impl Link {
    /// Connects and authenticates. The connection counts as dead if a reply takes longer than
    /// `reply_timeout`.
    ///
    /// # Errors
    /// The kernel's; [`TailError::Refused`] if Redis refuses the credentials.
    pub fn open(address: &Address, reply_timeout: Duration) -> Result<Self, TailError> {
        let mut link = Self {
            stream: address.open(reply_timeout)?,
            buffer: vec![0; FIRST_BUFFER],
            start: 0,
            filled: 0,
            reply_length: 0,
            parser: Parser::default(),
        };
        let credentials = address.credentials();
        if !credentials.is_empty() {
            let words: Vec<&str> = credentials.iter().map(String::as_str).collect();
            link.ask(&words)?;
        }
        link.ask(&["CLIENT", "SETNAME", "homewire-tail"])?;
        Ok(link)
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
        Ok(self.stream.write_all(commands)?)
    }

    /// The next reply, in the order of the commands.
    ///
    /// # Errors
    /// The kernel's, [`TailError::NotResp`], and [`TailError::Refused`] if the reply is an error. After
    /// `Refused` the connection is still usable.
    pub fn reply(&mut self) -> Result<Reply<'_>, TailError> {
        self.drop_last_reply();
        loop {
            let received = &self.buffer[self.start..self.filled];
            if let Some(length) = self.parser.read(received)? {
                self.reply_length = length;
                break;
            }
            self.make_room();
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let reply = self.parser.reply(&self.buffer[self.start..]);
        match reply.clone().element() {
            Some(super::reply::Element::Error(problem)) => Err(TailError::Refused(
                String::from_utf8_lossy(problem).into_owned(),
            )),
            _ => Ok(reply),
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

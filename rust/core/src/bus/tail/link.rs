//! One connection to Redis: commands out, replies in, every wait bounded.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::TailError;
use super::reply::{Element, Parser, Reply};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a Sentinel may take to answer.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);
const FIRST_BUFFER: usize = 64 << 10;
/// A buffer that a large reply has grown beyond this is shrunk again.
const KEPT_BUFFER: usize = 1 << 20;

/// Where Redis is. Python reads the URL (`homewire/redis/address.py`).
#[derive(Clone, Debug)]
pub struct Address {
    pub server: Server,
    pub credentials: Credentials,
    pub tls: Option<TlsFiles>,
}

/// A server, or how to find it.
#[derive(Clone, Debug)]
pub enum Server {
    Tcp {
        host: String,
        port: u16,
    },
    /// A unix socket.
    Unix {
        path: String,
    },
    /// The master that these Sentinels name.
    Sentinels(Sentinels),
}

/// Sentinels (host and port) and the name of the master.
#[derive(Clone, Debug)]
pub struct Sentinels {
    pub nodes: Vec<(String, u16)>,
    pub name: String,
    pub credentials: Credentials,
}

/// User and password of a server; empty without.
#[derive(Clone, Default)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credentials")
    }
}

/// Files for TLS (PEM). Without `ca` the usual authorities are trusted.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub ca: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
    pub is_verified: bool,
}

/// Opens connections to one address.
#[derive(Clone)]
pub struct Connector {
    address: Address,
    tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    /// # Errors
    /// [`TailError::Address`] if a certificate file cannot be used.
    pub fn new(address: Address) -> Result<Self, TailError> {
        let tls = address.tls.as_ref().map(tls_of).transpose()?;
        Ok(Self { address, tls })
    }

    /// An authenticated connection. It counts as dead if a reply takes longer than `reply_timeout`.
    ///
    /// # Errors
    /// The kernel's, those of TLS; [`TailError::Refused`] if Redis refuses the credentials;
    /// [`TailError::NoMaster`] if no Sentinel names a server that is a master.
    pub fn open(&self, reply_timeout: Duration) -> Result<Link, TailError> {
        let credentials = &self.address.credentials;
        let mut link = match &self.address.server {
            Server::Tcp { host, port } => {
                Link::open(self.tcp(host, *port, reply_timeout)?, credentials)?
            }
            Server::Unix { path } => Link::open(unix(path, reply_timeout)?, credentials)?,
            Server::Sentinels(sentinels) => self.master(sentinels, reply_timeout)?,
        };
        link.ask(&["CLIENT", "SETNAME", "homewire-tail"])?;
        Ok(link)
    }

    /// A connection to the master. A Sentinel may be unreachable, or name a server that is no master any
    /// more; then the next one is asked.
    fn master(&self, sentinels: &Sentinels, reply_timeout: Duration) -> Result<Link, TailError> {
        let mut problem = TailError::NoMaster;
        for node in &sentinels.nodes {
            match self.master_by(node, sentinels, reply_timeout) {
                Ok(link) => return Ok(link),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    fn master_by(
        &self,
        (host, port): &(String, u16),
        sentinels: &Sentinels,
        reply_timeout: Duration,
    ) -> Result<Link, TailError> {
        let stream = self.tcp(host, *port, SENTINEL_TIMEOUT)?;
        let mut sentinel = Link::open(stream, &sentinels.credentials)?;
        let (host, port) = sentinel.master_named(&sentinels.name)?;
        let stream = self.tcp(&host, port, reply_timeout)?;
        let mut link = Link::open(stream, &self.address.credentials)?;
        if link.is_master()? {
            Ok(link)
        } else {
            Err(TailError::NoMaster)
        }
    }

    fn tcp(&self, host: &str, port: u16, reply_timeout: Duration) -> io::Result<Stream> {
        let stream = connect(host, port)?;
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
}

fn unix(path: &str, reply_timeout: Duration) -> io::Result<Stream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(reply_timeout))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(Stream::Unix(stream))
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn tls_of(files: &TlsFiles) -> Result<Arc<ClientConfig>, TailError> {
    const UNREADABLE: TailError =
        TailError::Address("names a certificate file that cannot be read");
    if !files.is_verified {
        return Err(TailError::Address(
            "disables the check of the certificate: set ssl_ca_certs instead of ssl_cert_reqs=none",
        ));
    }
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(path) => {
            for certificate in certificates(path).ok_or(UNREADABLE)? {
                roots.add(certificate).map_err(|_| UNREADABLE)?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let configuration = match &files.certificate {
        Some(path) => {
            let key = files.key.as_ref().unwrap_or(path);
            let key = PrivateKeyDer::from_pem_file(key).map_err(|_| UNREADABLE)?;
            builder
                .with_client_auth_cert(certificates(path).ok_or(UNREADABLE)?, key)
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
    fn open(stream: Stream, credentials: &Credentials) -> Result<Self, TailError> {
        let mut link = Self {
            stream,
            buffer: vec![0; FIRST_BUFFER],
            start: 0,
            filled: 0,
            reply_length: 0,
            parser: Parser::default(),
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

    /// The address of the master of this name, as a Sentinel knows it.
    fn master_named(&mut self, name: &str) -> Result<(String, u16), TailError> {
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

    fn is_master(&mut self) -> Result<bool, TailError> {
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
            Some(Element::Error(problem)) => Err(TailError::Refused(
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

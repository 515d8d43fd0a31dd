//! Where Redis is, and how connections to it are opened.

use std::fs::File;
use std::io::{self, BufReader};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::TailError;
use super::link::{Link, Stream};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a Sentinel may take to answer.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);

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
    /// The Redis Cluster of these nodes.
    Cluster(Vec<HostPort>),
}

/// Host and port.
pub type HostPort = (String, u16);

/// Sentinels (host and port) and the name of the master.
#[derive(Clone, Debug)]
pub struct Sentinels {
    pub nodes: Vec<HostPort>,
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

    /// The nodes of the cluster that the address names.
    pub fn cluster(&self) -> Option<&[HostPort]> {
        match &self.address.server {
            Server::Cluster(nodes) => Some(nodes),
            _ => None,
        }
    }

    /// A connection that is ready for commands. It counts as dead if a reply takes longer than
    /// `reply_timeout`. Of a cluster it reaches the first node that answers.
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
            Server::Cluster(nodes) => return self.first_of(nodes, reply_timeout),
        };
        link.greet()?;
        Ok(link)
    }

    /// The same to this node of a cluster.
    ///
    /// # Errors
    /// As [`Connector::open`].
    pub fn open_node(
        &self,
        (host, port): &HostPort,
        reply_timeout: Duration,
    ) -> Result<Link, TailError> {
        let stream = self.tcp(host, *port, reply_timeout)?;
        let mut link = Link::open(stream, &self.address.credentials)?;
        link.greet()?;
        Ok(link)
    }

    /// A connection to the first of these nodes that answers.
    ///
    /// # Errors
    /// As [`Connector::open`], of the last node.
    pub fn first_of(&self, nodes: &[HostPort], reply_timeout: Duration) -> Result<Link, TailError> {
        let mut problem = TailError::Address("names no node");
        for node in nodes {
            match self.open_node(node, reply_timeout) {
                Ok(link) => return Ok(link),
                Err(error) => problem = error,
            }
        }
        Err(problem)
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
        (host, port): &HostPort,
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

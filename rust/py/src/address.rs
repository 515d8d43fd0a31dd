//! `homewire.redis.address.RedisAddress` as the core reads it.

use homewire_core::bus::tail::link;
use pyo3::FromPyObject;

/// The attributes of the Python class with this name; see there.
#[derive(FromPyObject)]
pub struct RedisAddress {
    host: String,
    port: u16,
    path: String,
    credentials: Credentials,
    tls: Option<Tls>,
    sentinels: Option<Sentinels>,
    cluster: Vec<(String, u16)>,
}

#[derive(FromPyObject)]
struct Credentials {
    username: String,
    password: String,
}

#[derive(FromPyObject)]
struct Tls {
    ca_file: Option<String>,
    certificate_file: Option<String>,
    key_file: Option<String>,
    is_verified: bool,
}

#[derive(FromPyObject)]
struct Sentinels {
    nodes: Vec<(String, u16)>,
    name: String,
    credentials: Credentials,
}

impl From<RedisAddress> for link::Address {
    fn from(address: RedisAddress) -> Self {
        // Of a cluster one node, until the reader follows its slots.
        let (host, port) = address
            .cluster
            .into_iter()
            .next()
            .unwrap_or((address.host, address.port));
        let server = match address.sentinels {
            Some(sentinels) => link::Server::Sentinels(link::Sentinels {
                nodes: sentinels.nodes,
                name: sentinels.name,
                credentials: sentinels.credentials.into(),
            }),
            None if !address.path.is_empty() => link::Server::Unix { path: address.path },
            None => link::Server::Tcp { host, port },
        };
        Self {
            server,
            credentials: address.credentials.into(),
            tls: address.tls.map(Into::into),
        }
    }
}

impl From<Credentials> for link::Credentials {
    fn from(credentials: Credentials) -> Self {
        Self {
            username: credentials.username,
            password: credentials.password,
        }
    }
}

impl From<Tls> for link::TlsFiles {
    fn from(tls: Tls) -> Self {
        Self {
            ca: tls.ca_file,
            certificate: tls.certificate_file,
            key: tls.key_file,
            is_verified: tls.is_verified,
        }
    }
}

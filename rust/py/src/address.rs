//! `homewire.redis.address.RedisAddress` as the core reads it.

use homewire_core::bus::tail::connector;
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

impl From<RedisAddress> for connector::Address {
    fn from(address: RedisAddress) -> Self {
        let server = match address.sentinels {
            Some(sentinels) => connector::Server::Sentinels(connector::Sentinels {
                nodes: sentinels.nodes,
                name: sentinels.name,
                credentials: sentinels.credentials.into(),
            }),
            None if !address.path.is_empty() => connector::Server::Unix { path: address.path },
            None if !address.cluster.is_empty() => connector::Server::Cluster(address.cluster),
            None => connector::Server::Tcp {
                host: address.host,
                port: address.port,
            },
        };
        Self {
            server,
            credentials: address.credentials.into(),
            tls: address.tls.map(Into::into),
        }
    }
}

impl From<Credentials> for connector::Credentials {
    fn from(credentials: Credentials) -> Self {
        Self {
            username: credentials.username,
            password: credentials.password,
        }
    }
}

impl From<Tls> for connector::TlsFiles {
    fn from(tls: Tls) -> Self {
        Self {
            ca: tls.ca_file,
            certificate: tls.certificate_file,
            key: tls.key_file,
            is_verified: tls.is_verified,
        }
    }
}

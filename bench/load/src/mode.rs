//! What a publisher asks for: the method, and the body for one event or many.

use crate::stamp::{self, Stamp};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An event by `PUT`, answered by 204.
    Put,
    /// An event by `POST`, answered by any good status: servers other than homewire have their own.
    Post,
    /// Many events by `POST`; the targets are ids of homes.
    Bulk,
    /// Many publications to Centrifugo's `/api/batch` by `POST`; the targets are channels.
    Publications,
    /// A value by `PUT`, answered by 204.
    Value,
    /// Nothing but the path.
    Get,
}

impl Mode {
    pub fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "put" => Self::Put,
            "post" => Self::Post,
            "bulk" => Self::Bulk,
            "publications" => Self::Publications,
            "value" => Self::Value,
            "get" => Self::Get,
            other => {
                let names = "put, post, bulk, publications, value or get";
                return Err(format!("--mode is {names}, not {other}"));
            }
        })
    }

    /// Whether a request has many events, and its targets are no paths.
    pub fn has_many(self) -> bool {
        matches!(self, Self::Bulk | Self::Publications)
    }

    /// The method, and the media type of the body.
    pub fn method(self) -> (&'static str, &'static str) {
        match self {
            Self::Bulk => ("POST", "application/x-ndjson"),
            Self::Post | Self::Publications => ("POST", "application/json"),
            Self::Put | Self::Value => ("PUT", "application/json"),
            Self::Get => ("GET", "application/json"),
        }
    }

    /// Appends what stands before the first event.
    pub fn begin(self, body: &mut Vec<u8>) {
        if self == Self::Publications {
            body.extend_from_slice(b"{\"commands\":[");
        }
    }

    /// Appends an event, with its place among those of the request.
    pub fn append(self, body: &mut Vec<u8>, place: u64, target: &str, stamp: Stamp, pad: usize) {
        let (before, after): (&[&[u8]], &[u8]) = match self {
            Self::Get => return,
            Self::Value => (&[b"{\"value\":"], b"}"),
            Self::Put | Self::Post => (&[b"{\"eventType\":\"bench\",\"eventData\":"], b"}"),
            Self::Bulk => (
                &[
                    b"{\"homeId\":",
                    target.as_bytes(),
                    b",\"eventType\":\"bench\",\"eventData\":",
                ],
                b"}\n",
            ),
            Self::Publications => (
                &[
                    if place > 0 { b"," } else { b"" },
                    b"{\"publish\":{\"channel\":\"",
                    target.as_bytes(),
                    b"\",\"data\":",
                ],
                b"}}",
            ),
        };
        for part in before {
            body.extend_from_slice(part);
        }
        stamp::append(body, stamp, pad);
        body.extend_from_slice(after);
    }

    /// Appends what stands behind the last event.
    pub fn end(self, body: &mut Vec<u8>) {
        if self == Self::Publications {
            body.extend_from_slice(b"]}");
        }
    }
}

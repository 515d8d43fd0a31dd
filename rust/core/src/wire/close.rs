//! Close codes: the one table of the codes that this server sends, and of what a client should do then.
//! `docs/close-codes.md` is generated from it.

/// A WebSocket close code with its reason. Below 4500 a client should reconnect; from 4500 on it should
/// not, with this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode {
    /// The number on the wire (RFC 6455 section 7.4).
    pub code: u16,
    /// A short text for logs; at most 123 bytes. After a violation of RFC 6455 the frame has a more precise
    /// reason.
    pub reason: &'static str,
    /// What a client should do, and after which delay.
    pub advice: &'static str,
}

/// The client closed; this is the reply.
pub const NORMAL: CloseCode = CloseCode {
    code: 1000,
    reason: "normal closure",
    advice: "Your client closed the connection. Reconnect to subscribe again.",
};
/// The node stops.
pub const GOING_AWAY: CloseCode = CloseCode {
    code: 1001,
    reason: "going away",
    advice: "The node stops. Reconnect after a random delay of up to 1 s; another node answers.",
};
/// The client broke RFC 6455.
pub const PROTOCOL_ERROR: CloseCode = CloseCode {
    code: 1002,
    reason: "protocol error",
    advice: "Your client violated RFC 6455: correct it. Reconnect after 10 s.",
};
/// A text message that is not UTF-8.
pub const INVALID_PAYLOAD: CloseCode = CloseCode {
    code: 1007,
    reason: "invalid payload",
    advice: "Your client sent a text message that is not UTF-8: correct it. Reconnect after 10 s.",
};
/// The client exceeds its rate of frames or bytes.
pub const RATE_EXCEEDED: CloseCode = CloseCode {
    code: 1008,
    reason: "too many frames or bytes",
    advice: "Your client sent more frames or bytes per second than one connection may: send less. Reconnect after 10 s.",
};
/// A message that is too long.
pub const TOO_BIG: CloseCode = CloseCode {
    code: 1009,
    reason: "message too big",
    advice: "Your client sent a message that is longer than the limit: send shorter ones. Reconnect after 10 s.",
};
/// The handshake took too long on the server.
pub const TRY_AGAIN: CloseCode = CloseCode {
    code: 1013,
    reason: "try again",
    advice: "The server is too busy. Reconnect after 1 s, then twice as long each time, up to 1 min.",
};
/// The client did not read fast enough, and events were dropped.
pub const SLOW_CONSUMER: CloseCode = CloseCode {
    code: 4001,
    reason: "too slow: reconnect",
    advice: "Your client did not read fast enough, and events were dropped. Reconnect after 1 s and read the \
             present state; if it happens again, subscribe to less.",
};
/// Entries of a shard may be missing.
pub const RESYNC: CloseCode = CloseCode {
    code: 4002,
    reason: "resync: events may be missing",
    advice: "Events may be missing. Reconnect after a random delay of up to 1 s and read the present state again.",
};
/// Nothing was received from the client for two heartbeats.
pub const HEARTBEAT_MISSED: CloseCode = CloseCode {
    code: 4003,
    reason: "no heartbeat",
    advice: "No pong or other byte of your client arrived. Reconnect at once.",
};
/// A topic of the subscription has moved.
pub const RESUBSCRIBE: CloseCode = CloseCode {
    code: 4004,
    reason: "resubscribe: what you listen to has moved",
    advice: "A device or entity of the subscription moved to another home, or permissions changed just before the \
             handshake. Reconnect at once: the connection is authorised again.",
};
/// Nothing is left of the subscription.
pub const ACCESS_ENDED: CloseCode = CloseCode {
    code: 4500,
    reason: "access ended",
    advice: "Nothing is left of the subscription: the membership or permission ended, the home or device was deleted, \
             or the home is deactivated. Don't reconnect until that has changed.",
};
/// The principal of the key was deleted.
pub const PRINCIPAL_DELETED: CloseCode = CloseCode {
    code: 4501,
    reason: "user or device deleted",
    advice: "The user or device of this key was deleted. Don't reconnect; delete the key.",
};
/// The key was revoked or rotated, or its session ended.
pub const KEY_ENDED: CloseCode = CloseCode {
    code: 4502,
    reason: "key ended: log in again",
    advice: "The key was revoked or rotated, or its session ended or expired. Don't reconnect with it: log in again.",
};
/// The project was disabled or deleted.
pub const PROJECT_ENDED: CloseCode = CloseCode {
    code: 4503,
    reason: "project disabled or deleted",
    advice: "The project is disabled or deleted. Don't reconnect until its administrator enables it.",
};

/// Reported for a connection that ended without a close frame (RFC 6455 section 7.1.5); never sent.
pub const ABNORMAL: u16 = 1006;
/// Reported for a connection whose client closed without a code; never sent.
pub const NO_CODE: u16 = 1005;

/// A protocol violation of the client. The connection is closed with this code and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (close code {code})")]
pub struct Violation {
    /// 1002, 1007 or 1009 (RFC 6455, 7.4.1).
    pub code: u16,
    /// For the close frame and the log. It never contains what the client sent.
    pub reason: &'static str,
}

impl Violation {
    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self {
            code: PROTOCOL_ERROR.code,
            reason,
        }
    }

    pub(super) const fn not_utf8(reason: &'static str) -> Self {
        Self {
            code: INVALID_PAYLOAD.code,
            reason,
        }
    }

    pub(super) const fn too_big() -> Self {
        Self {
            code: TOO_BIG.code,
            reason: TOO_BIG.reason,
        }
    }
}

/// Every code that this server sends, in ascending order.
pub const TABLE: [&CloseCode; 15] = [
    &NORMAL,
    &GOING_AWAY,
    &PROTOCOL_ERROR,
    &INVALID_PAYLOAD,
    &RATE_EXCEEDED,
    &TOO_BIG,
    &TRY_AGAIN,
    &SLOW_CONSUMER,
    &RESYNC,
    &HEARTBEAT_MISSED,
    &RESUBSCRIBE,
    &ACCESS_ENDED,
    &PRINCIPAL_DELETED,
    &KEY_ENDED,
    &PROJECT_ENDED,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_and_reasons_fit_close_frames() {
        assert!(TABLE.is_sorted_by(|one, next| one.code < next.code));
        for row in TABLE {
            assert!(row.reason.len() <= 123, "{}", row.code);
        }
    }

    #[test]
    fn advice_matches_range_of_code() {
        for row in TABLE {
            assert_ne!(
                row.advice.contains("Don't reconnect"),
                row.code < 4500,
                "{}",
                row.code
            );
        }
    }
}

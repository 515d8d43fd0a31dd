//! The access of one connection: a state machine.
//!
//! ```text
//! Active ── revoke(code, grace) ──▶ Revoking ── end ──▶ Closed
//!    └───────────────────────── end ──────────────────────▲
//! ```
//!
//! The first code counts: a connection that is being revoked keeps its code, whatever follows.

use crate::routing::record_dedup::OutboxPosition;
use crate::wire::close::CloseCode;

/// What a connection may still receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything that its subscription matches.
    Active,
    /// Its remaining topics, until the grace is over. Then it is closed with the code.
    Revoking {
        code: &'static CloseCode,
        grace: Grace,
    },
    /// Nothing: it left its audience. With a code, it is closed with it; without, the connection was
    /// already ending for a reason of its own.
    Closed { code: Option<&'static CloseCode> },
}

/// How long a connection that is being revoked still receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// To the end of the batch. Entries of other shards in the batch may be older than the record.
    Batch,
    /// Until the copies of the record in other shards were applied, at most the close grace. `since` is the
    /// outbox position of the record.
    Copies { since: OutboxPosition },
}

impl Access {
    /// Starts the revocation. Returns whether it had not started before.
    pub fn revoke(&mut self, code: &'static CloseCode, grace: Grace) -> bool {
        let is_active = *self == Self::Active;
        if is_active {
            *self = Self::Revoking { code, grace };
        }
        is_active
    }

    /// The connection left its audience.
    pub fn end(&mut self) {
        *self = Self::Closed { code: self.code() };
    }

    /// The code that the connection must be closed with, whatever a later caller asks for.
    pub fn code(&self) -> Option<&'static CloseCode> {
        match *self {
            Self::Active => None,
            Self::Revoking { code, .. } => Some(code),
            Self::Closed { code } => code,
        }
    }

    /// Whether the connection is in an audience.
    pub fn is_subscribed(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }

    /// The outbox position of the record that revokes the connection shard by shard.
    pub fn revoked_at(&self) -> Option<OutboxPosition> {
        match *self {
            Self::Revoking {
                grace: Grace::Copies { since },
                ..
            } => Some(since),
            _ => None,
        }
    }

    /// Whether a record at this position may still add topics. A connection that a *later* record revokes
    /// keeps receiving until that record's copy in the same shard is applied.
    pub fn may_gain(&self, position: OutboxPosition) -> bool {
        *self == Self::Active || self.revoked_at().is_some_and(|since| position < since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::close::{KEY_ENDED, PRINCIPAL_DELETED, RESYNC};

    const COPIES: Grace = Grace::Copies { since: (5, 1) };

    #[test]
    fn first_code_and_grace_count() {
        let mut access = Access::Active;
        assert_eq!((access.code(), access.is_subscribed()), (None, true));
        assert!(access.revoke(&KEY_ENDED, COPIES));
        assert!(!access.revoke(&PRINCIPAL_DELETED, Grace::Batch));
        assert_eq!(access.code(), Some(&KEY_ENDED));
        assert_eq!(access.revoked_at(), Some((5, 1)));
        assert!(access.is_subscribed());
        access.end();
        assert!(!access.revoke(&RESYNC, Grace::Batch));
        access.end();
        assert_eq!(
            (access.code(), access.is_subscribed()),
            (Some(&KEY_ENDED), false)
        );
    }

    #[test]
    fn connection_that_ended_by_itself_is_not_revoked() {
        let mut access = Access::Active;
        access.end();
        assert!(!access.revoke(&KEY_ENDED, COPIES));
        assert_eq!(access, Access::Closed { code: None });
    }

    #[test]
    fn only_records_before_revocation_add_topics() {
        let revoking = |grace| Access::Revoking {
            code: &KEY_ENDED,
            grace,
        };
        assert!(Access::Active.may_gain((9, 9)));
        assert!(revoking(COPIES).may_gain((5, 0)));
        assert!(!revoking(COPIES).may_gain((5, 1)));
        assert!(!revoking(Grace::Batch).may_gain((0, 0)));
        assert!(!Access::Closed { code: None }.may_gain((0, 0)));
    }
}

//! The promise: what each connection must have received, and what it must not.

use crate::subject::Sent;
use crate::world::{Accepted, Connected, World};

/// The client was told that it may have missed something, and connects again.
const RESUBSCRIBE: u16 = 4004;

/// Checks the promise for each connection.
///
/// # Errors
/// What was broken, in words.
pub fn judge(world: &World) -> Result<(), String> {
    for connected in &world.connected {
        for (place, accepted) in world.accepted.iter().enumerate() {
            let times = connected.received.iter().filter(|&&it| it == place).count();
            if times > 1 {
                return Err(format!("{accepted:?} twice by {connected:?}"));
            }
            // Of what was accepted before, a connection may get what its node had not read.
            if accepted.at < connected.at {
                continue;
            }
            if times == 0 && must_receive(world, connected, accepted) {
                return Err(format!("{accepted:?} not received by {connected:?}"));
            }
            if times == 1 && !may_receive(world, connected, accepted) {
                return Err(format!("{accepted:?} received by {connected:?}"));
            }
        }
        if !is_in_order(world, connected) {
            return Err(format!("not in order: {connected:?}"));
        }
        judge_close(world, connected)?;
    }
    Ok(())
}

/// The event was accepted while the access was certain, and the connection was not told of a loss.
fn must_receive(world: &World, connected: &Connected, accepted: &Accepted) -> bool {
    let subject = &connected.subject;
    let until = accepted.made;
    let since_reserved = &world.history[connected.answered..=until];
    // What a connection lost comes back by itself only if it follows homes. A revocation in one shard may
    // be read before the membership in another, and close a connection without other topics.
    let certain = match (
        subject.is_following(),
        connected.code.is_some_and(is_revocation),
    ) {
        (true, false) => &world.history[accepted.answered..=until],
        (true, true) => &world.history[connected.read..=until],
        (false, _) => since_reserved,
    };
    connected.code != Some(RESUBSCRIBE)
        && since_reserved.iter().all(|truth| subject.is_alive(truth))
        && certain
            .iter()
            .all(|truth| subject.may_receive(truth, accepted.sent))
}

/// The codes of records that revoke everything.
fn is_revocation(code: u16) -> bool {
    (4501..=4503).contains(&code)
}

/// At some moment around the event the key was valid, and at some moment there was access.
fn may_receive(world: &World, connected: &Connected, accepted: &Accepted) -> bool {
    let around = &world.history[accepted.answered..=accepted.made];
    let subject = &connected.subject;
    around.iter().any(|truth| subject.is_alive(truth))
        && around
            .iter()
            .any(|truth| subject.matches(truth, accepted.sent))
}

/// Events of one home, or commands to one device, arrive in their order.
fn is_in_order(world: &World, connected: &Connected) -> bool {
    let shard_key = |place: usize| match world.accepted[place].sent {
        Sent::Event { home, .. } => home,
        Sent::Command { device } => device,
    };
    let received = &connected.received;
    (0..crate::truth::COUNT).all(|wanted| {
        let of_shard = received.iter().filter(|&&it| shard_key(it) == wanted);
        of_shard.is_sorted()
    })
}

fn judge_close(world: &World, connected: &Connected) -> Result<(), String> {
    let subject = &connected.subject;
    let after = &world.history[connected.made..];
    let must_close = after.iter().any(|truth| !subject.is_alive(truth))
        || !subject.is_following() && !subject.has_access(world.truth());
    if must_close && connected.code.is_none() {
        return Err(format!("not closed: {connected:?}"));
    }
    // Changes that the node had not read yet may close a connection, too.
    let is_undisturbed = connected.read == world.changes.len();
    if is_undisturbed && connected.code.is_some() {
        return Err(format!("closed for nothing: {connected:?}"));
    }
    Ok(())
}

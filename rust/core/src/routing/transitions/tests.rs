use super::*;

#[test]
fn rows_are_found_by_number() {
    for (place, row) in TABLE.iter().enumerate() {
        let number = row.record_type as u64;
        assert_eq!(number, place as u64 + 1, "{}", row.name);
        let found = Transition::of(number).map(|it| it.name);
        assert_eq!(found, Some(row.name));
    }
    for unknown in [0, TABLE.len() as u64 + 1, u64::MAX] {
        assert!(Transition::of(unknown).is_none());
    }
}

/// A copy changes topics of its own shard only. So each action needs a copy in the shard of its topics.
#[test]
fn each_action_has_copy_in_shard_of_its_topics() {
    for row in &TABLE {
        let has = |wanted: &[CopiedTo]| {
            row.copies
                .iter()
                .any(|it| wanted.contains(it) || *it == CopiedTo::EveryShard)
        };
        for action in row.actions {
            let topics = match action {
                Action::Join(_) | Action::Resume => LostTopics::Home,
                Action::Lose { topics, .. } | Action::Resubscribe(topics) => *topics,
                Action::Revoke { whose, .. } => {
                    let everything = match whose {
                        Revoked::User => has(&[CopiedTo::UserHomes]),
                        Revoked::Device => has(&[CopiedTo::Device]),
                        Revoked::Key => has(&[CopiedTo::UserHomes]) && has(&[CopiedTo::Device]),
                        Revoked::Project => has(&[]),
                    };
                    assert!(everything, "{}", row.name);
                    continue;
                }
            };
            let needed = match topics {
                LostTopics::Home
                | LostTopics::Device
                | LostTopics::Entity
                | LostTopics::Permission => CopiedTo::Home,
                LostTopics::DeviceInOldHome => CopiedTo::OldHome,
                LostTopics::Commands => CopiedTo::Device,
            };
            assert!(has(&[needed]), "{}", row.name);
        }
    }
}

#[test]
fn only_reversible_records_ask_to_resubscribe() {
    let codes = |record_type: RecordType| TABLE[record_type as usize - 1].codes();
    assert_eq!(codes(RecordType::MemberAdded), [0u16; 0]);
    assert_eq!(codes(RecordType::MemberRemoved), [4004, 4500]);
    assert_eq!(codes(RecordType::HomeDeleted), [4500]);
    assert_eq!(codes(RecordType::DeviceDeleted), [4500, 4501]);
    assert_eq!(codes(RecordType::KeyEnded), [4502]);
    assert_eq!(codes(RecordType::ProjectDisabled), [4004, 4503]);
    assert_eq!(codes(RecordType::ProjectDeleted), [4503]);
    assert_eq!(codes(RecordType::EntityMoved), [4004]);
}

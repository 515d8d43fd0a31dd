//! Precedence over all combinations, and what each filter may contain.

use homewire_core::input::filter::{MAX_VALUES, Selection, select};

const MALFORMED: [&str; 12] = [
    "",
    ",",
    "1,",
    ",1",
    "x",
    "-1",
    "+1",
    "1 ",
    " 1",
    "1.0",
    "0",
    "9223372036854775808",
];

fn field_of(homes: &[&str], devices: &[&str], entities: &[&str]) -> Option<&'static str> {
    select(homes, devices, entities)
        .err()
        .map(|invalid| invalid.field)
}

#[test]
fn precedence_holds_in_all_eight_combinations() {
    let (h, d, e) = (&["1", "2"][..], &["3", "4"][..], &["5", "a,b"][..]);
    let homes = Ok(Selection::Homes(vec![1, 2]));
    let devices = Ok(Selection::Devices(vec![3, 4]));
    let entities = Ok(Selection::Entities(vec!["5", "a,b"]));
    assert_eq!(select(&[], &[], &[]), Ok(Selection::All));
    assert_eq!(select(h, &[], &[]), homes);
    assert_eq!(select(&[], d, &[]), devices);
    assert_eq!(select(h, d, &[]), devices);
    assert_eq!(select(&[], &[], e), entities);
    assert_eq!(select(h, &[], e), entities);
    assert_eq!(select(&[], d, e), entities);
    assert_eq!(select(h, d, e), entities);
}

#[test]
fn filter_without_effect_is_not_checked() {
    let many = vec!["1"; MAX_VALUES + 1];
    for bad in MALFORMED.map(|value| vec![value]).into_iter().chain([many]) {
        assert_eq!(select(&bad, &["3"], &[]), Ok(Selection::Devices(vec![3])));
        assert_eq!(
            select(&bad, &bad, &["e"]),
            Ok(Selection::Entities(vec!["e"]))
        );
    }
}

#[test]
fn invalid_filter_in_effect_is_named() {
    for bad in MALFORMED {
        assert_eq!(field_of(&["1", bad], &[], &[]), Some("homeId"), "{bad:?}");
        assert_eq!(
            field_of(&["1"], &["1", bad], &[]),
            Some("deviceId"),
            "{bad:?}"
        );
    }
    // Precedence comes before validity: an invalid entity does not fall back to a valid device.
    assert_eq!(field_of(&["1"], &["1"], &["e", ""]), Some("entityId"));
}

#[test]
fn comma_lists_and_repeats_keep_order_without_duplicates() {
    let selected = select(&["3,1", "2", "1,3,4"], &[], &[]);
    assert_eq!(selected, Ok(Selection::Homes(vec![3, 1, 2, 4])));
    let selected = select(&[], &[], &["b", "a", "b"]);
    assert_eq!(selected, Ok(Selection::Entities(vec!["b", "a"])));
    let largest = select(&["9223372036854775807"], &[], &[]);
    assert_eq!(largest, Ok(Selection::Homes(vec![i64::MAX as u64])));
}

#[test]
fn thousand_values_are_accepted_and_one_more_is_not() {
    let ids: Vec<String> = (1..=MAX_VALUES).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let joined = ids.join(",");
    let homes = Selection::Homes((1..=MAX_VALUES as u64).collect());
    assert_eq!(select(&[&joined], &[], &[]), Ok(homes));
    assert!(select(&[], &[], &ids).is_ok());
    // Counted before duplicates are removed.
    assert_eq!(field_of(&[&joined, "1"], &[], &[]), Some("homeId"));
    assert_eq!(field_of(&[], &[&joined, "1"], &[]), Some("deviceId"));
    assert_eq!(
        field_of(&[], &[], &[&ids[..], &["1"]].concat()),
        Some("entityId")
    );
}

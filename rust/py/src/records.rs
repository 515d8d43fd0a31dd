//! The table of transitions of control records.

use homewire_core::bus::envelope::ControlHeader;
use homewire_core::routing::transitions::{TABLE, concerned_shards};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Number, name, ids whose shards get a copy, close codes, and what a reader does.
type Row = (u8, &'static str, Vec<&'static str>, Vec<u16>, &'static str);

/// The table, by number.
#[pyfunction]
pub fn control_records() -> Vec<Row> {
    TABLE
        .iter()
        .map(|row| {
            let copies = row.copies.iter().map(|it| it.name()).collect();
            (
                row.record_type as u8,
                row.name,
                copies,
                row.codes(),
                row.summary,
            )
        })
        .collect()
}

/// The shards that get a copy of a record, ascending. Raises ValueError for a malformed body.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // The ids of a record.
pub fn record_shards(
    record_type: u64,
    user: u64,
    home: u64,
    device: u64,
    project_key: u64,
    body: &[u8],
    user_homes: Option<Vec<u64>>,
    shards: u32,
) -> PyResult<Vec<u32>> {
    let record = ControlHeader {
        record_type,
        user,
        home,
        device,
        body,
        ..ControlHeader::default()
    };
    concerned_shards(&record, user_homes.as_deref(), project_key, shards)
        .ok_or_else(|| PyValueError::new_err("not the body of a record of this type"))
}

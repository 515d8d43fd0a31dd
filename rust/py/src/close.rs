//! The table of close codes.

use homewire_core::wire::close;
use pyo3::prelude::*;

/// Code, reason and what a client should do, in ascending order of codes.
#[pyfunction]
pub fn close_codes() -> Vec<(u16, &'static str, &'static str)> {
    close::TABLE
        .iter()
        .map(|row| (row.code, row.reason, row.advice))
        .collect()
}

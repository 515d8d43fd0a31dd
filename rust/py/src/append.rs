//! `AppendHeads`: the commands that the bus writes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use homewire_core::bus::append::XaddPrefixes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// XADDs as bytes, with prepared prefixes.
#[pyclass(frozen, module = "homewire._core")]
pub struct AppendHeads(Mutex<XaddPrefixes>);

#[pymethods]
impl AppendHeads {
    #[new]
    fn new(shards: u32) -> Self {
        Self(Mutex::new(XaddPrefixes::new(shards)))
    }

    fn renew(&self, cutoff_ms: u64) {
        self.lock().renew(cutoff_ms);
    }

    fn xadd<'py>(
        &self,
        py: Python<'py>,
        shard: u32,
        envelope: &[u8],
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut out = Vec::with_capacity(envelope.len() + 80);
        if !self.lock().put(&mut out, shard, envelope) {
            return Err(PyValueError::new_err("there is no such shard"));
        }
        Ok(PyBytes::new(py, &out))
    }
}

impl AppendHeads {
    pub fn lock(&self) -> MutexGuard<'_, XaddPrefixes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

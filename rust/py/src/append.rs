//! `XaddPrefixes`: the XADD commands of the bus.

use std::sync::{Mutex, MutexGuard, PoisonError};

use homewire_core::bus::append::XaddPrefixes as Prefixes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// XADDs as bytes, with prepared prefixes.
#[pyclass(frozen, module = "homewire._core")]
pub struct XaddPrefixes(Mutex<Prefixes>);

#[pymethods]
impl XaddPrefixes {
    #[new]
    fn new(shards: u32) -> Self {
        Self(Mutex::new(Prefixes::new(shards)))
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
            return Err(PyValueError::new_err("unknown shard"));
        }
        Ok(PyBytes::new(py, &out))
    }
}

impl XaddPrefixes {
    pub fn lock(&self) -> MutexGuard<'_, Prefixes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

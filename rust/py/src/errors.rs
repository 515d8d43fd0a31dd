//! Errors of the core as Python exceptions; one arm per error, no catch-all.

use homewire_core::bus::tail::TailError;
use homewire_core::input::Invalid;
use pyo3::create_exception;
use pyo3::exceptions::{PyConnectionError, PyException, PyValueError};
use pyo3::prelude::*;

create_exception!(
    homewire._core,
    InvalidField,
    PyException,
    "Input that is refused: `field` names the member, `problem` says what is wrong with it."
);

/// `InvalidField` with its two attributes set.
pub fn invalid(py: Python<'_>, invalid: Invalid) -> PyErr {
    let error = InvalidField::new_err((invalid.field, invalid.problem.clone()));
    let value = error.value(py);
    match value
        .setattr("field", invalid.field)
        .and_then(|()| value.setattr("problem", invalid.problem))
    {
        Ok(()) => error,
        Err(failure) => failure,
    }
}

/// Every stored item needs an outcome.
pub fn too_few_outcomes() -> PyErr {
    PyValueError::new_err("fewer outcomes than placed items")
}

/// An invalid URL is a `ValueError`; a failure of Redis is a `ConnectionError`.
pub fn tail(error: TailError) -> PyErr {
    match error {
        TailError::Address(_) => PyValueError::new_err(error.to_string()),
        TailError::Io(_)
        | TailError::Refused(_)
        | TailError::NoMaster
        | TailError::SlotsMissing
        | TailError::NotResp(_)
        | TailError::Reply(_) => PyConnectionError::new_err(error.to_string()),
    }
}

//! The one place for `unsafe`: taking ownership of a descriptor that Python duplicated for us.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes ownership of `fd`, which the caller made with `dup` for this purpose alone.
///
/// # Errors
/// `EBADF` when the number is not an open descriptor; then nothing was taken.
pub fn own_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    // To duplicate it would be a probe, too, but one that fails when the process has no descriptors left.
    // SAFETY: F_GETFD takes no pointer and changes nothing; a number that is not open is EBADF.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just seen to be open, and by this function's contract nobody else owns it:
    // the gateway calls `os.dup` and passes the result here, once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

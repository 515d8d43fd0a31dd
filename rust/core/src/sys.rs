//! The one place for `unsafe`: taking ownership of a descriptor that Python duplicated for us.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes ownership of `fd`, which the caller made with `dup` for this purpose alone.
///
/// # Errors
/// `EBADF` when the number is not an open descriptor; then nothing was taken.
pub fn own_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the borrow lives for this one call, which only asks the kernel whether `fd` is open
    // (F_DUPFD_CLOEXEC fails with EBADF if it is not); the probe is closed at once.
    let probe = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    drop(probe);
    // SAFETY: `fd` was just seen to be open, and by this function's contract nobody else owns it:
    // the gateway calls `os.dup` and passes the result here, once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

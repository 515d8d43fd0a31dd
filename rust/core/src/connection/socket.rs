//! The socket of a connection.
//!
//! This file has the only `unsafe` code: taking ownership of a descriptor that Python duplicated.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::SockRef;

/// What the kernel may buffer for a socket, and for how long. 0 keeps the kernel's default.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// `SO_SNDBUF`, in bytes.
    pub send_buffer_bytes: usize,
    /// `TCP_NOTSENT_LOWAT`, in bytes.
    pub unsent_bytes: u32,
    /// `TCP_USER_TIMEOUT`.
    pub timeout: Duration,
}

/// An adopted socket. Reads and writes are the kernel's `recv` and `send`. It may be a TCP socket or one
/// end of a socket pair.
pub struct Socket(TcpStream);

impl Socket {
    /// Makes the socket non-blocking, turns Nagle's algorithm off and bounds the kernel's buffers.
    ///
    /// # Errors
    /// The kernel's, if the descriptor is not a socket.
    pub fn new(descriptor: std::os::fd::OwnedFd, options: &SocketOptions) -> io::Result<Self> {
        let stream = TcpStream::from(descriptor);
        stream.set_nonblocking(true)?;
        let socket = SockRef::from(&stream);
        if options.send_buffer_bytes > 0 {
            socket.set_send_buffer_size(options.send_buffer_bytes)?;
        }
        match stream.set_nodelay(true) {
            Ok(()) => {
                if options.unsent_bytes > 0 {
                    socket.set_tcp_notsent_lowat(options.unsent_bytes)?;
                }
                if !options.timeout.is_zero() {
                    socket.set_tcp_user_timeout(Some(options.timeout))?;
                }
            }
            // One end of a socket pair has no such options, and needs none.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
        Ok(Self(stream))
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Shuts our side of the socket.
    ///
    /// # Errors
    /// The kernel's, if the peer has closed already.
    pub fn shut_writing(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes ownership of `fd`, which the caller made with `dup` for this purpose alone.
///
/// # Errors
/// `EBADF` if the number is not an open descriptor; then nothing was taken.
#[allow(unsafe_code)]
pub fn own_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    // Duplicating it would be a check, too, but fails when the process has no descriptors left.
    // SAFETY: F_GETFD takes no pointer and changes nothing; a number that is not open is EBADF.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is open, as just checked, and by this function's contract it has no other owner: Python
    // calls `os.dup` and passes the result here once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

//! The only unsafe code: safe wrappers over the few system calls that std does not offer.
#![allow(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub const READABLE: u32 = libc::EPOLLIN as u32;
pub const WRITABLE: u32 = libc::EPOLLOUT as u32;
pub const EDGE: u32 = libc::EPOLLET as u32;
const NANOSECONDS: u64 = 1_000_000_000;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec for the kernel to fill; both clocks used exist on every Linux.
    unsafe { libc::clock_gettime(id, &mut time) };
    time.tv_sec as u64 * NANOSECONDS + time.tv_nsec as u64
}

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// User and system time of this process so far, in nanoseconds.
pub fn cpu_time() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn timespec(nanoseconds: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (nanoseconds / NANOSECONDS) as libc::time_t,
        tv_nsec: (nanoseconds % NANOSECONDS) as libc::c_long,
    }
}

/// Sleeps until the monotonic clock shows `deadline` nanoseconds.
pub fn sleep_until(deadline: u64) {
    let time = timespec(deadline);
    loop {
        // SAFETY: `time` outlives the call; an absolute sleep needs no place for the remainder.
        let result = unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &time,
                std::ptr::null_mut(),
            )
        };
        if result != libc::EINTR {
            return;
        }
    }
}

/// Raises the soft open-file limit to the hard one; returns the limit in force.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit for the kernel to fill.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is initialised and outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

fn address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

const ADDRESS_LENGTH: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

fn set_option<T>(
    socket: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: `value` is a live T and the length given is exactly its size.
    check(unsafe {
        libc::setsockopt(
            socket,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

fn tcp_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain socket(2); a result that is not an error is a new descriptor nobody else owns.
    let socket = check(unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            0,
        )
    })?;
    // SAFETY: `socket` was just made and is owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Starts a connection from `source` (an ephemeral port of it); it is made when the socket becomes writable.
pub fn connect(target: SocketAddrV4, source: Ipv4Addr) -> io::Result<OwnedFd> {
    let socket = tcp_socket()?;
    let one: libc::c_int = 1;
    // The port is chosen at connect, per 4-tuple: one source address serves several targets.
    set_option(
        socket.as_raw_fd(),
        libc::IPPROTO_IP,
        libc::IP_BIND_ADDRESS_NO_PORT,
        &one,
    )?;
    set_option(
        socket.as_raw_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_NODELAY,
        &one,
    )?;
    let from = address(SocketAddrV4::new(source, 0));
    // SAFETY: `from` is a valid sockaddr_in and the length is its size.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&from).cast(),
            ADDRESS_LENGTH,
        )
    })?;
    let to = address(target);
    // SAFETY: as above.
    match check(unsafe {
        libc::connect(
            socket.as_raw_fd(),
            std::ptr::from_ref(&to).cast(),
            ADDRESS_LENGTH,
        )
    }) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// What became of a connection attempt.
pub fn connected(socket: RawFd) -> io::Result<()> {
    let mut error: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `error` and `length` are valid for the kernel to fill, and `length` is the size of `error`.
    check(unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            std::ptr::from_mut(&mut error).cast(),
            &mut length,
        )
    })?;
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// Makes closing send a reset: no TIME_WAIT is left, so that runs can follow each other.
pub fn reset_on_close(socket: RawFd) -> io::Result<()> {
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        &libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )
}

pub fn send_buffer(socket: RawFd, bytes: usize) -> io::Result<()> {
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_SNDBUF,
        &(bytes as libc::c_int),
    )
}

pub fn recv(socket: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of one live mutable slice.
    check_size(unsafe {
        libc::recv(
            socket,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
        )
    })
}

pub fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of one live slice.
    check_size(unsafe {
        libc::send(
            socket,
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    })
}

/// Blocks until the socket can be written to.
pub fn wait_writable(socket: RawFd) -> io::Result<()> {
    let mut entry = libc::pollfd {
        fd: socket,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid pollfd, and the count says one.
    check(unsafe { libc::poll(&mut entry, 1, -1) })?;
    Ok(())
}

/// A non-blocking accepted socket without Nagle's delay, or None when nobody waits.
pub fn accept(listener: RawFd) -> io::Result<Option<OwnedFd>> {
    // SAFETY: null address and length are allowed and mean that the peer's address is not wanted.
    let result = check(unsafe {
        libc::accept4(
            listener,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    });
    match result {
        Ok(socket) => {
            // SAFETY: accept4 gave a new descriptor that nothing else owns.
            let socket = unsafe { OwnedFd::from_raw_fd(socket) };
            let one: libc::c_int = 1;
            set_option(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_NODELAY,
                &one,
            )?;
            Ok(Some(socket))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// A listening socket on the loopback address with the given backlog; port 0 lets the kernel choose.
pub fn listen(port: u16, backlog: i32) -> io::Result<(OwnedFd, u16)> {
    let socket = tcp_socket()?;
    let one: libc::c_int = 1;
    set_option(
        socket.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_REUSEADDR,
        &one,
    )?;
    let mut here = address(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    // SAFETY: `here` is a valid sockaddr_in and the length is its size.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&here).cast(),
            ADDRESS_LENGTH,
        )
    })?;
    // SAFETY: plain listen(2) on a descriptor we own.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
    let mut length = ADDRESS_LENGTH;
    // SAFETY: `here` and `length` are valid for the kernel to fill, and `length` is the size of `here`.
    check(unsafe {
        libc::getsockname(
            socket.as_raw_fd(),
            std::ptr::from_mut(&mut here).cast(),
            &mut length,
        )
    })?;
    Ok((socket, u16::from_be(here.sin_port)))
}

/// An epoll instance together with the place where its events are reported.
pub struct Epoll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain epoll_create1(2); the result is a new descriptor that nothing else owns.
        let epoll =
            unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self {
            epoll,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 1024],
        })
    }

    fn control(
        &self,
        operation: libc::c_int,
        file: RawFd,
        token: u64,
        interest: u32,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: token,
        };
        // SAFETY: `event` is valid for the call; the kernel keeps a copy, not the pointer.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, file, &mut event) })?;
        Ok(())
    }

    pub fn add(&self, file: RawFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, file, token, interest)
    }

    pub fn modify(&self, file: RawFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, file, token, interest)
    }

    pub fn remove(&self, file: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, file, 0, 0)
    }

    /// Waits at most `milliseconds` (-1: for ever); returns how many events `event` can be asked for.
    pub fn wait(&mut self, milliseconds: i32) -> io::Result<usize> {
        // SAFETY: the pointer and capacity are those of the live event list.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                milliseconds,
            )
        };
        match check(count) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Token and readiness of one event of the last wait.
    pub fn event(&self, position: usize) -> (u64, u32) {
        let event = self.events[position];
        (event.u64, event.events)
    }
}

/// A one-shot timer with nanosecond deadlines that can be waited for beside sockets.
pub struct Timer {
    timer: OwnedFd,
}

impl Timer {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain timerfd_create(2); the result is a new descriptor that nothing else owns.
        let timer = unsafe {
            OwnedFd::from_raw_fd(check(libc::timerfd_create(
                libc::CLOCK_MONOTONIC,
                libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
            ))?)
        };
        Ok(Self { timer })
    }

    pub fn file(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Becomes readable once the monotonic clock shows `deadline`; setting it also clears an older expiry.
    pub fn set(&self, deadline: u64) -> io::Result<()> {
        let value = libc::itimerspec {
            it_interval: timespec(0),
            it_value: timespec(deadline.max(1)),
        };
        // SAFETY: `value` is initialised and outlives the call; the old value is not wanted.
        check(unsafe {
            libc::timerfd_settime(
                self.file(),
                libc::TFD_TIMER_ABSTIME,
                &value,
                std::ptr::null_mut(),
            )
        })?;
        Ok(())
    }
}

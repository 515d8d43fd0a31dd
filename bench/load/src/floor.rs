//! What the kernel allows: the same bytes to every connection by a bare loop of `send()`.
//!
//! It answers upgrades, then takes commands on standard input, one a line:
//! `events=2000 frames=32 size=200 rate=0`. Each is answered by one JSON line when everything was handed to
//! the kernel. Connections are grouped by the `homeId` of their request, as homewire's are: one event goes
//! to one group. Sequence numbers go on from command to command.

use crate::frame;
use crate::options::{Failure, Options};
use crate::stamp::{self, Stamp};
use crate::sys::{self, EDGE, Epoll, READABLE, WRITABLE};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::{self, BufRead, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const LISTENER: u64 = u64::MAX;
const SECOND: f64 = 1e9;

struct Floor {
    epoll: Epoll,
    sockets: Vec<OwnedFd>,
    /// Which connections listen to which home.
    groups: Vec<(String, Vec<usize>)>,
    next_sequence: u64,
}

struct Command {
    events: u64,
    frames: u64,
    size: usize,
    rate: f64,
    burst: u64,
}

#[derive(Default)]
struct Work {
    deliveries: u64,
    sends: u64,
    blocked: u64,
}

pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = Options::from_arguments(arguments, &[])?;
    let wanted: usize = options.number("connections", 1)?;
    let buffer: usize = options.number("send-buffer", 0)?;
    let (listener, port) = sys::listen(options.number("port", 0)?, 4096)?;
    say(&format!("listening {port}"))?;
    let mut floor = Floor {
        epoll: Epoll::new()?,
        sockets: Vec::new(),
        groups: Vec::new(),
        next_sequence: 0,
    };
    floor.accept_all(&listener, wanted, buffer)?;
    floor.stir();
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let answer = floor.obey(&line?)?;
        say(&answer)?;
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

impl Command {
    fn read(line: &str) -> Result<Self, Failure> {
        let options = Options::from_words(line)?;
        let frames = options.number::<u64>("frames", 1)?.max(1);
        Ok(Self {
            events: options.number("events", 1)?,
            frames,
            size: options.number("size", 200)?,
            rate: options.number("rate", 0.0)?,
            burst: options.number("burst", frames)?.max(frames),
        })
    }
}

impl Floor {
    fn accept_all(
        &mut self,
        listener: &OwnedFd,
        wanted: usize,
        buffer: usize,
    ) -> Result<(), Failure> {
        self.epoll.add(listener.as_raw_fd(), LISTENER, READABLE)?;
        let mut heads: Vec<Vec<u8>> = Vec::new();
        let mut open = 0;
        while open < wanted {
            let ready = self.epoll.wait(-1)?;
            for position in 0..ready {
                let (token, _) = self.epoll.event(position);
                if token != LISTENER {
                    let index = token as usize;
                    open += usize::from(self.upgrade(index, &mut heads[index])?);
                    continue;
                }
                while let Some(socket) = sys::accept(listener.as_raw_fd())? {
                    if buffer > 0 {
                        sys::send_buffer(socket.as_raw_fd(), buffer)?;
                    }
                    self.epoll
                        .add(socket.as_raw_fd(), self.sockets.len() as u64, READABLE)?;
                    self.sockets.push(socket);
                    heads.push(Vec::new());
                }
            }
        }
        self.epoll.remove(listener.as_raw_fd())?;
        Ok(())
    }

    /// Reads on in one request; true when it was complete and answered.
    fn upgrade(&mut self, index: usize, head: &mut Vec<u8>) -> Result<bool, Failure> {
        let file = self.sockets[index].as_raw_fd();
        let mut bytes = [0; 2048];
        let received = match sys::recv(file, &mut bytes) {
            Ok(0) => return Err("a client closed before it was upgraded".into()),
            Ok(received) => received,
            // Already upgraded, and reported as writable.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        head.extend_from_slice(&bytes[..received]);
        if !head.ends_with(b"\r\n\r\n") {
            return Ok(false);
        }
        let request = String::from_utf8_lossy(head).into_owned();
        if !request.contains(frame::KEY) {
            return Err("the floor answers only the load client's own key".into());
        }
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            frame::ACCEPT
        );
        sys::send(file, answer.as_bytes())?;
        // Edge-triggered for writing: nothing is reported until a send() has found the buffer full.
        self.epoll.modify(file, index as u64, WRITABLE | EDGE)?;
        self.join(home_of(&request), index);
        Ok(true)
    }

    fn join(&mut self, home: &str, index: usize) {
        match self.groups.iter_mut().find(|(known, _)| known == home) {
            Some((_, members)) => members.push(index),
            None => self.groups.push((home.to_owned(), vec![index])),
        }
    }

    /// Events come in no order of homes. In the order in which the clients came, the sockets lie in memory
    /// as they are needed, and a `send()` costs a tenth less than it does for anybody else.
    fn stir(&mut self) {
        self.groups.sort_by_cached_key(|(home, _)| {
            BuildHasherDefault::<DefaultHasher>::new().hash_one(home)
        });
    }

    fn obey(&mut self, line: &str) -> Result<String, Failure> {
        let command = Command::read(line)?;
        let uneven = command.events % self.groups.len() as u64;
        if uneven != 0 {
            return Err(format!(
                "{} events do not go evenly into {} homes",
                command.events,
                self.groups.len()
            )
            .into());
        }
        let (start, cpu) = (sys::now(), sys::cpu_time());
        let work = if command.rate > 0.0 {
            self.paced(&command)?
        } else {
            self.full_speed(&command)?
        };
        self.next_sequence += command.events / self.groups.len() as u64;
        Ok(format!(
            "{{\"events\":{},\"deliveries\":{},\"sends\":{},\"blocked\":{},\"wall_s\":{:.6},\"cpu_s\":{:.6}}}",
            command.events,
            work.deliveries,
            work.sends,
            work.blocked,
            (sys::now() - start) as f64 / SECOND,
            (sys::cpu_time() - cpu) as f64 / SECOND,
        ))
    }

    /// `burst` events at a time, at the given rate: `frames` of them to each home in its turn.
    fn paced(&mut self, command: &Command) -> Result<Work, Failure> {
        let mut work = Work::default();
        let mut sent = 0;
        let mut group = 0;
        let mut turn = 0;
        let mut block = Vec::new();
        let per_home = command.events / self.groups.len() as u64;
        let start = sys::now();
        while sent < command.events {
            sys::sleep_until(start + (sent as f64 / command.rate * SECOND) as u64);
            let due = (sent + command.burst).min(command.events);
            while sent < due {
                let frames = command.frames.min(per_home - turn);
                self.build(&mut block, group, turn, frames, command.size, sys::now());
                for &member in &self.groups[group].1 {
                    send_all(self.sockets[member].as_raw_fd(), &block, &mut work)?;
                }
                work.deliveries += frames * self.groups[group].1.len() as u64;
                sent += frames;
                group += 1;
                if group == self.groups.len() {
                    group = 0;
                    turn += frames;
                }
            }
        }
        Ok(work)
    }

    fn build(
        &self,
        block: &mut Vec<u8>,
        group: usize,
        turn: u64,
        frames: u64,
        size: usize,
        time: u64,
    ) {
        block.clear();
        let mut payload = Vec::with_capacity(size);
        for frame in 0..frames {
            payload.clear();
            let sequence = self.next_sequence + turn + frame;
            stamp::append_sized(
                &mut payload,
                Stamp {
                    sequence,
                    time,
                    lane: group as u64,
                },
                size,
            );
            frame::append_text(block, &payload);
        }
    }

    /// Everything as fast as the sockets take it. One stretch of bytes per home, cut into blocks.
    fn full_speed(&mut self, command: &Command) -> Result<Work, Failure> {
        let per_home = command.events / self.groups.len() as u64;
        let mut streams = Vec::with_capacity(self.groups.len());
        for group in 0..self.groups.len() {
            let mut cuts = vec![0usize];
            let mut bytes = Vec::new();
            let mut block = Vec::new();
            for turn in (0..per_home).step_by(command.frames as usize) {
                let frames = command.frames.min(per_home - turn);
                self.build(&mut block, group, turn, frames, command.size, sys::now());
                bytes.extend_from_slice(&block);
                cuts.push(bytes.len());
            }
            streams.push((bytes, cuts));
        }
        let mut progress = vec![Progress::default(); self.sockets.len()];
        let mut active = Vec::with_capacity(self.sockets.len());
        for (group, (_, members)) in self.groups.iter().enumerate() {
            for &member in members {
                progress[member].group = group;
                active.push(member);
            }
        }
        let mut work = Work::default();
        let mut unfinished = active.len();
        while unfinished > 0 {
            let mut position = 0;
            while position < active.len() {
                let member = active[position];
                let state = &mut progress[member];
                let (bytes, cuts) = &streams[state.group];
                match sys::send(
                    self.sockets[member].as_raw_fd(),
                    &bytes[state.sent..cuts[state.block + 1]],
                ) {
                    Ok(sent) => {
                        work.sends += 1;
                        state.sent += sent;
                        if state.sent == cuts[state.block + 1] {
                            state.block += 1;
                        }
                        if state.sent == bytes.len() {
                            unfinished -= 1;
                            active.swap_remove(position);
                        } else {
                            position += 1;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        work.blocked += 1;
                        state.waiting = true;
                        active.swap_remove(position);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if active.len() < unfinished {
                let ready = self.epoll.wait(if active.is_empty() { -1 } else { 0 })?;
                for event in 0..ready {
                    let member = self.epoll.event(event).0 as usize;
                    if std::mem::take(&mut progress[member].waiting) {
                        active.push(member);
                    }
                }
            }
        }
        work.deliveries = self
            .groups
            .iter()
            .map(|(_, members)| members.len() as u64)
            .sum::<u64>()
            * per_home;
        Ok(work)
    }
}

#[derive(Clone, Default)]
struct Progress {
    group: usize,
    block: usize,
    sent: usize,
    waiting: bool,
}

fn send_all(socket: RawFd, mut bytes: &[u8], work: &mut Work) -> io::Result<()> {
    while !bytes.is_empty() {
        match sys::send(socket, bytes) {
            Ok(sent) => {
                work.sends += 1;
                bytes = &bytes[sent..];
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                work.blocked += 1;
                sys::wait_writable(socket)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn home_of(request: &str) -> &str {
    let line = request.lines().next().unwrap_or_default();
    let Some((_, rest)) = line.split_once("homeId=") else {
        return "";
    };
    rest.split(['&', ' ']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_of_requests() {
        assert_eq!(
            home_of("GET /userSession/websocket?homeId=12 HTTP/1.1\r\nA: b"),
            "12"
        );
        assert_eq!(home_of("GET /x?a=b&homeId=7&c=d HTTP/1.1"), "7");
        assert_eq!(home_of("GET / HTTP/1.1"), "");
    }
}

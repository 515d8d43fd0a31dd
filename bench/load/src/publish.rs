//! Requests over HTTP, at a rate or as fast as they are answered: events by `PUT`, `POST` or bulk `POST /events`,
//! values by `PUT`, and `GET`s.
//!
//! Target t of T belongs to connection t mod C, so that the order of a home's events is one connection's.

use crate::answer::{Answer, count, quoted};
use crate::histogram::Histogram;
use crate::mode::Mode;
use crate::options::{Failure, Options};
use crate::stamp::Stamp;
use crate::sys::{self, Epoll, READABLE, Timer, WRITABLE};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

const TIMER: u64 = u64::MAX;
const SECOND: f64 = 1e9;

struct Settings {
    target: SocketAddrV4,
    mode: Mode,
    /// Path and Authorization value. `bulk`: home id, and nothing.
    targets: Vec<(String, String)>,
    path: String,
    authorization: String,
    events: u64,
    rate: f64,
    batch: u64,
    connections: usize,
    depth: usize,
    pad: usize,
    first_sequence: u64,
    accepted: Vec<u8>,
    stall_ms: i32,
}

impl Settings {
    fn read(arguments: &[String]) -> Result<Self, Failure> {
        let options = Options::from_arguments(arguments, &[])?;
        let text = std::fs::read_to_string(options.text("targets")?)?;
        let targets: Vec<_> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
            .map(|(path, authorization)| (path.to_owned(), authorization.trim().to_owned()))
            .collect();
        let mode = Mode::named(options.text("mode")?)?;
        let events: u64 = options.number("events", 1)?;
        let uneven = events.checked_rem(targets.len() as u64);
        if uneven != Some(0) {
            return Err(format!(
                "{events} events do not go evenly over {} targets",
                targets.len()
            )
            .into());
        }
        let connections = options
            .number::<usize>("connections", 1)?
            .clamp(1, targets.len());
        Ok(Self {
            target: options.text("target")?.parse()?,
            mode,
            targets,
            path: options.text("path").unwrap_or("/events").to_owned(),
            authorization: options.text("authorization").unwrap_or_default().to_owned(),
            events,
            rate: options.number("rate", 0.0)?,
            batch: if mode.has_many() {
                options.number::<u64>("batch", 500)?.max(1)
            } else {
                1
            },
            connections,
            depth: options.number::<usize>("depth", 1)?.max(1),
            pad: options.number("pad", 0)?,
            first_sequence: options.number("first-sequence", 0)?,
            accepted: options
                .text("accepted")
                .unwrap_or("\"status\":204")
                .as_bytes()
                .to_vec(),
            stall_ms: (options.number("stall", 20.0)? * 1000.0) as i32,
        })
    }
}

/// One keep-alive connection and the events that are its own to send.
struct Channel {
    socket: OwnedFd,
    index: usize,
    /// Requests built but not yet taken by the kernel.
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// When each unanswered request was sent, and with how many events.
    unanswered: VecDeque<(u64, u64)>,
    own_targets: u64,
    sent: u64,
    quota: u64,
    requests: u64,
    waits_to_write: bool,
}

#[derive(Default)]
struct Totals {
    requests: u64,
    accepted: u64,
    failed: u64,
    first_failure: Option<String>,
    latest_late: u64,
}

struct Publisher {
    settings: Settings,
    epoll: Epoll,
    timer: Timer,
    channels: Vec<Channel>,
    totals: Totals,
    latency: Histogram,
    start: u64,
    buffer: Vec<u8>,
    body: Vec<u8>,
}

pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let settings = Settings::read(arguments)?;
    let epoll = Epoll::new()?;
    let timer = Timer::new()?;
    epoll.add(timer.file(), TIMER, READABLE)?;
    let mut channels = Vec::new();
    for index in 0..settings.connections {
        channels.push(open(&settings, &epoll, index)?);
    }
    let mut publisher = Publisher {
        settings,
        epoll,
        timer,
        channels,
        totals: Totals::default(),
        latency: Histogram::new(),
        start: 0,
        buffer: vec![0; 1 << 18],
        body: Vec::new(),
    };
    let cpu = sys::cpu_time();
    publisher.start = sys::now();
    publisher.publish_all()?;
    let wall = (sys::now() - publisher.start) as f64 / SECOND;
    let report = publisher.report(wall, (sys::cpu_time() - cpu) as f64 / SECOND);
    let mut out = io::stdout().lock();
    writeln!(out, "{report}")?;
    if publisher.totals.failed > 0 {
        return Err("not everything was accepted".into());
    }
    Ok(())
}

fn open(settings: &Settings, epoll: &Epoll, index: usize) -> Result<Channel, Failure> {
    let socket = sys::connect(settings.target, Ipv4Addr::LOCALHOST)?;
    sys::wait_writable(socket.as_raw_fd())?;
    sys::connected(socket.as_raw_fd())?;
    sys::reset_on_close(socket.as_raw_fd())?;
    epoll.add(socket.as_raw_fd(), index as u64, READABLE)?;
    let (connections, targets) = (settings.connections, settings.targets.len());
    let own_targets = ((targets - index).div_ceil(connections)) as u64;
    Ok(Channel {
        socket,
        index,
        outgoing: Vec::new(),
        incoming: Vec::new(),
        unanswered: VecDeque::new(),
        own_targets,
        sent: 0,
        quota: settings.events / targets as u64 * own_targets,
        requests: 0,
        waits_to_write: false,
    })
}

impl Publisher {
    fn publish_all(&mut self) -> Result<(), Failure> {
        for index in 0..self.channels.len() {
            self.offer(index)?;
        }
        self.set_timer()?;
        while self.totals.accepted + self.totals.failed < self.settings.events {
            let ready = self.epoll.wait(self.settings.stall_ms)?;
            if ready == 0 {
                return Err(format!("no answer for {} ms", self.settings.stall_ms).into());
            }
            for position in 0..ready {
                let (token, readiness) = self.epoll.event(position);
                if token == TIMER {
                    continue;
                }
                let index = token as usize;
                if readiness & WRITABLE != 0 {
                    self.flush(index)?;
                }
                if readiness & !WRITABLE != 0 {
                    self.read_answers(index)?;
                }
            }
            // After every wake-up, so that an answer frees a place at once and a due request is never late.
            for index in 0..self.channels.len() {
                self.offer(index)?;
            }
            self.set_timer()?;
        }
        Ok(())
    }

    /// When the next request of a connection is due, by the run's own schedule.
    fn due(&self, channel: &Channel) -> u64 {
        if self.settings.rate <= 0.0 {
            return 0;
        }
        let turn = channel.requests * self.channels.len() as u64 + channel.index as u64;
        self.start + ((turn * self.settings.batch) as f64 / self.settings.rate * SECOND) as u64
    }

    fn has_room(&self, channel: &Channel) -> bool {
        channel.sent < channel.quota && channel.unanswered.len() < self.settings.depth
    }

    fn set_timer(&self) -> Result<(), Failure> {
        if self.settings.rate <= 0.0 {
            return Ok(());
        }
        let waiting = self
            .channels
            .iter()
            .filter(|channel| self.has_room(channel));
        match waiting.map(|channel| self.due(channel)).min() {
            Some(deadline) => self.timer.set(deadline)?,
            // Nothing may be sent now: the far end of time keeps an old expiry from waking us again and again.
            None => self.timer.set(u64::MAX / 4)?,
        }
        Ok(())
    }

    fn offer(&mut self, index: usize) -> Result<(), Failure> {
        let mut built = false;
        loop {
            let channel = &self.channels[index];
            let due = self.due(channel);
            let now = sys::now();
            if !self.has_room(channel) || due > now {
                break;
            }
            if due > 0 {
                self.totals.latest_late = self.totals.latest_late.max(now - due);
            }
            self.build(index, now);
            built = true;
        }
        if built { self.flush(index) } else { Ok(()) }
    }

    fn build(&mut self, index: usize, now: u64) {
        let settings = &self.settings;
        let channel = &mut self.channels[index];
        let count = settings.batch.min(channel.quota - channel.sent);
        let mut path = settings.path.as_str();
        let mut authorization = settings.authorization.as_str();
        self.body.clear();
        settings.mode.begin(&mut self.body);
        for place in 0..count {
            let lane =
                (channel.sent % channel.own_targets) * settings.connections as u64 + index as u64;
            let sequence = settings.first_sequence + channel.sent / channel.own_targets;
            let (target, key) = &settings.targets[lane as usize];
            channel.sent += 1;
            if !settings.mode.has_many() {
                path = target;
                authorization = key;
            }
            let stamp = Stamp {
                sequence,
                time: now,
                lane,
            };
            settings
                .mode
                .append(&mut self.body, place, target, stamp, settings.pad);
        }
        settings.mode.end(&mut self.body);
        let (method, kind) = settings.mode.method();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {authorization}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n",
            settings.target,
            self.body.len()
        );
        channel.outgoing.extend_from_slice(head.as_bytes());
        channel.outgoing.extend_from_slice(&self.body);
        channel.unanswered.push_back((now, count));
        channel.requests += 1;
    }

    fn flush(&mut self, index: usize) -> Result<(), Failure> {
        let channel = &mut self.channels[index];
        let file = channel.socket.as_raw_fd();
        let mut sent = 0;
        while sent < channel.outgoing.len() {
            match sys::send(file, &channel.outgoing[sent..]) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        channel.outgoing.drain(..sent);
        let wait = !channel.outgoing.is_empty();
        if wait != channel.waits_to_write {
            channel.waits_to_write = wait;
            self.epoll.modify(
                file,
                index as u64,
                if wait { READABLE | WRITABLE } else { READABLE },
            )?;
        }
        Ok(())
    }

    fn read_answers(&mut self, index: usize) -> Result<(), Failure> {
        let channel = &mut self.channels[index];
        match sys::recv(channel.socket.as_raw_fd(), &mut self.buffer) {
            Ok(0) => return Err("the server closed a publisher's connection".into()),
            Ok(received) => channel.incoming.extend_from_slice(&self.buffer[..received]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let now = sys::now();
        let mut read = 0;
        while let Some(answer) = Answer::parse(&channel.incoming[read..])? {
            let (sent_at, events) = channel
                .unanswered
                .pop_front()
                .ok_or("an answer that nobody asked for")?;
            self.latency.record(now - sent_at);
            self.totals.requests += 1;
            let accepted = match (self.settings.mode, answer.status) {
                (Mode::Post | Mode::Get, 200..300) | (Mode::Put | Mode::Value, 204) => 1,
                (Mode::Bulk | Mode::Publications, 200) => {
                    count(answer.body, &self.settings.accepted).min(events)
                }
                _ => 0,
            };
            self.totals.accepted += accepted;
            self.totals.failed += events - accepted;
            if accepted < events && self.totals.first_failure.is_none() {
                let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(400)]);
                self.totals.first_failure = Some(format!("{} {body}", answer.status));
            }
            read += answer.length;
        }
        channel.incoming.drain(..read);
        Ok(())
    }

    fn report(&self, wall: f64, cpu: f64) -> String {
        let totals = &self.totals;
        let failure = totals
            .first_failure
            .as_ref()
            .map_or("null".to_owned(), |text| quoted(text));
        format!(
            "{{\"events\":{},\"requests\":{},\"accepted\":{},\"failed\":{},\"first_failure\":{failure},\
             \"start_ns\":{},\"wall_s\":{wall:.6},\"events_per_s\":{:.0},\"requests_per_s\":{:.0},\
             \"late_max_us\":{:.0},\"cpu_s\":{cpu:.4},\"latency\":{}}}",
            self.settings.events,
            totals.requests,
            totals.accepted,
            totals.failed,
            self.start,
            totals.accepted as f64 / wall,
            totals.requests as f64 / wall,
            totals.latest_late as f64 / 1e3,
            self.latency.json(),
        )
    }
}

//! Many WebSocket clients in one thread: they check that every event arrives once and in order.

use crate::account::{Order, Totals};
use crate::frame::{self, Parsed};
use crate::listener::{Client, Phase, control, message, say_to_server, stream, upgraded};
use crate::nats;
use crate::options::{Failure, Options};
use crate::sys::{self, Epoll, READABLE, WRITABLE};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

const BUFFER_BYTES: usize = 1 << 20;
const STANDARD_INPUT: u64 = u64::MAX;
/// Maximum length of a NATS subject: the greeting must fit into one short frame.
const SUBJECT_BYTES: usize = 50;
const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: f64 = 1e9;

pub struct Settings {
    target: SocketAddrV4,
    /// Request lines, one per connection: path with query, and the Authorization value (empty: none).
    requests: Vec<(String, String)>,
    expected: u64,
    pub lanes: usize,
    pub skip: u64,
    pub sample: u64,
    stall: u64,
    linger: u64,
    /// How long it sleeps after each check of its sockets; 0: each event wakes it.
    pause: u64,
    idle: bool,
    concurrency: usize,
    sources: usize,
    /// Whether the server's first message only says that the subscription is in force.
    welcome: bool,
    /// The first frame of each connection when the server speaks NATS; messages come in its protocol then.
    greeting: Option<Vec<u8>>,
}

impl Settings {
    fn read(arguments: &[String]) -> Result<Self, Failure> {
        let options = Options::from_arguments(arguments, &["idle", "welcome"])?;
        let text = std::fs::read_to_string(options.text("requests")?)?;
        let requests: Vec<_> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| match line.split_once(' ') {
                Some((path, authorization)) => (path.to_owned(), authorization.trim().to_owned()),
                None => (line.to_owned(), String::new()),
            })
            .collect();
        if requests.is_empty() {
            return Err("the file of requests is empty".into());
        }
        Ok(Self {
            target: options.text("target")?.parse()?,
            requests,
            expected: options.number("expected", 0)?,
            lanes: options.number("lanes", 1)?,
            skip: options.number("skip", 0)?,
            sample: options.number::<u64>("sample", 1)?.max(1),
            stall: (options.number("stall", 10.0)? * SECOND) as u64,
            linger: options.number::<u64>("linger-ms", 100)? * MILLISECOND,
            pause: options.number::<u64>("pause-us", 0)? * MICROSECOND,
            idle: options.has("idle"),
            welcome: options.has("welcome"),
            concurrency: options.number::<usize>("concurrency", 64)?.max(1),
            sources: options.number::<usize>("sources", 4)?.clamp(1, 250),
            greeting: match options.text("nats") {
                Ok(subject) if subject.len() > SUBJECT_BYTES => {
                    return Err("the subject is too long".into());
                }
                Ok(subject) => Some(frame::from_client(frame::BINARY, &nats::greeting(subject))),
                Err(_) => None,
            },
        })
    }
}

struct Listener {
    settings: Settings,
    epoll: Epoll,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    totals: Totals,
    opened: usize,
}

pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut listener = Listener {
        settings: Settings::read(arguments)?,
        epoll: Epoll::new()?,
        clients: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
        totals: Totals::default(),
        opened: 0,
    };
    let input = io::stdin().as_raw_fd();
    listener
        .epoll
        .add(input, STANDARD_INPUT, READABLE)
        .map_err(|error| format!("standard input must be a pipe, its end ends the run: {error}"))?;
    let start = sys::now();
    listener.open_all()?;
    let connect_seconds = (sys::now() - start) as f64 / SECOND;
    say(&format!(
        "ready {{\"connections\":{},\"seconds\":{connect_seconds:.3}}}",
        listener.opened
    ))?;
    let cpu_before = sys::cpu_time();
    listener.receive_all()?;
    let cpu = (sys::cpu_time() - cpu_before) as f64 / SECOND;
    let wanted = listener.settings.expected * listener.clients.len() as u64;
    let counts = listener.clients.iter().map(|client| client.messages);
    say(&listener.totals.report(wanted, counts, connect_seconds, cpu))?;
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

impl Listener {
    fn open_all(&mut self) -> Result<(), Failure> {
        let wanted = self.settings.requests.len();
        while self.opened < wanted {
            while self.clients.len() < wanted
                && self.clients.len() - self.opened < self.settings.concurrency
            {
                self.start_one()?;
            }
            let ready = self.epoll.wait(30_000)?;
            if ready == 0 {
                return Err(
                    format!("{} of {wanted} opened, then nothing for 30 s", self.opened).into(),
                );
            }
            for position in 0..ready {
                let (token, _) = self.epoll.event(position);
                if token == STANDARD_INPUT {
                    return Err("standard input ended before all connections were open".into());
                }
                self.turn(token as usize)?;
            }
        }
        Ok(())
    }

    fn start_one(&mut self) -> Result<(), Failure> {
        let index = self.clients.len();
        let source = Ipv4Addr::new(127, 0, 0, 1 + (index % self.settings.sources) as u8);
        let socket = sys::connect(self.settings.target, source)?;
        self.epoll.add(socket.as_raw_fd(), index as u64, WRITABLE)?;
        self.clients.push(Client {
            socket,
            phase: Phase::Connecting,
            partial: Vec::new(),
            unread: Vec::new(),
            order: Order::default(),
            messages: 0,
        });
        Ok(())
    }

    /// Handles one connection that is ready to read or write.
    fn turn(&mut self, index: usize) -> Result<(), Failure> {
        match self.clients[index].phase {
            Phase::Connecting => self.ask(index),
            Phase::Upgrading | Phase::Subscribing | Phase::Open => self.receive(index),
            Phase::Closed => Ok(()),
        }
    }

    fn ask(&mut self, index: usize) -> Result<(), Failure> {
        let file = self.clients[index].socket.as_raw_fd();
        sys::connected(file).map_err(|error| format!("connection {index}: {error}"))?;
        sys::reset_on_close(file)?;
        let (path, authorization) = &self.settings.requests[index];
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n",
            self.settings.target,
            frame::KEY
        );
        if !authorization.is_empty() {
            request.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        if sys::send(file, request.as_bytes())? != request.len() {
            return Err("an upgrade request did not fit into an empty send buffer".into());
        }
        self.epoll.modify(file, index as u64, READABLE)?;
        self.clients[index].phase = Phase::Upgrading;
        Ok(())
    }

    /// Reads once and handles all complete frames. An incomplete frame waits in the client's buffer.
    fn receive(&mut self, index: usize) -> Result<(), Failure> {
        let client = &mut self.clients[index];
        let kept = client.partial.len();
        self.buffer[..kept].copy_from_slice(&client.partial);
        client.partial.clear();
        let received = match sys::recv(client.socket.as_raw_fd(), &mut self.buffer[kept..]) {
            Ok(0) => return self.gone(index),
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                client.partial.extend_from_slice(&self.buffer[..kept]);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return self.gone(index),
            Err(error) => return Err(error.into()),
        };
        let now = sys::now();
        self.totals.receives += 1;
        self.totals.bytes += received as u64;
        let end = kept + received;
        let mut start = 0;
        if client.phase == Phase::Upgrading {
            match upgraded(&self.buffer[..end])? {
                Some(length) => start = length,
                None => {
                    client.partial.extend_from_slice(&self.buffer[..end]);
                    return Ok(());
                }
            }
            if let Some(greeting) = &self.settings.greeting {
                client.phase = Phase::Subscribing;
                say_to_server(client, greeting)?;
            } else if self.settings.welcome {
                client.phase = Phase::Subscribing;
            } else {
                client.phase = Phase::Open;
                self.opened += 1;
            }
        }
        while start < end {
            match frame::parse(&self.buffer[start..end]) {
                Parsed::Frame {
                    opcode: frame::TEXT,
                    payload,
                    length,
                } => {
                    if client.phase == Phase::Subscribing {
                        client.phase = Phase::Open;
                        self.opened += 1;
                    } else {
                        message(client, &mut self.totals, &self.settings, payload, now);
                    }
                    start += length;
                }
                Parsed::Frame {
                    opcode: frame::BINARY,
                    payload,
                    length,
                } if self.settings.greeting.is_some() => {
                    let was_open = client.phase == Phase::Open;
                    stream(client, &mut self.totals, &self.settings, payload, now)
                        .map_err(|error| format!("connection {index}: {error}"))?;
                    self.opened += usize::from(!was_open && client.phase == Phase::Open);
                    start += length;
                }
                Parsed::Frame {
                    opcode,
                    payload,
                    length,
                } => {
                    control(client, &mut self.totals, opcode, payload);
                    start += length;
                }
                Parsed::Incomplete => break,
                Parsed::Broken(what) => return Err(format!("connection {index}: {what}").into()),
            }
        }
        if end - start >= BUFFER_BYTES / 2 {
            return Err(
                format!("connection {index}: a frame larger than the client's buffer").into(),
            );
        }
        client.partial.extend_from_slice(&self.buffer[start..end]);
        Ok(())
    }

    fn gone(&mut self, index: usize) -> Result<(), Failure> {
        let client = &mut self.clients[index];
        if client.phase != Phase::Open {
            return Err(format!("connection {index}: closed before it was open").into());
        }
        self.epoll.remove(client.socket.as_raw_fd())?;
        client.phase = Phase::Closed;
        self.totals.closed += 1;
        self.totals.last_closed_at = sys::now();
        Ok(())
    }

    fn receive_all(&mut self) -> Result<(), Failure> {
        let wanted = self.settings.expected * self.clients.len() as u64;
        let mut quiet_since = sys::now();
        let mut seen = self.totals.messages;
        let mut complete_at = None;
        loop {
            let ready = self.epoll.wait(20)?;
            for position in 0..ready {
                let (token, _) = self.epoll.event(position);
                if token == STANDARD_INPUT {
                    return Ok(());
                }
                self.turn(token as usize)?;
            }
            if self.settings.idle {
                continue;
            }
            let now = sys::now();
            if self.settings.pause > 0 {
                sys::sleep_until(now + self.settings.pause);
            }
            if self.totals.messages != seen {
                seen = self.totals.messages;
                quiet_since = now;
            }
            if seen >= wanted {
                // What comes after the last expected event is a duplicate: wait for it a moment.
                let since = *complete_at.get_or_insert(now);
                if now - since >= self.settings.linger {
                    return Ok(());
                }
            } else if now - quiet_since > self.settings.stall
                || self.totals.closed == self.clients.len() as u64
            {
                return Ok(());
            }
        }
    }
}

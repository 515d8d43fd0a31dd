//! `load listen`: thousands of WebSocket clients in one thread, which check what they receive.
//! `load publish`: events over HTTP at a rate or as fast as they are answered.
//! `load floor`: the same deliveries by a bare loop of `send()`: what the kernel allows.

mod account;
mod answer;
mod floor;
mod frame;
mod histogram;
mod listen;
mod listener;
mod mode;
mod nats;
mod options;
mod publish;
mod stamp;
mod sys;

use options::Failure;
use std::process::ExitCode;

const USAGE: &str =
    "usage: load listen|publish|floor --option value …   (bench/README.md has the options)";

fn run(arguments: &[String]) -> Result<(), Failure> {
    sys::raise_file_limit()?;
    match arguments.split_first() {
        Some((command, rest)) if command == "listen" => listen::run(rest),
        Some((command, rest)) if command == "publish" => publish::run(rest),
        Some((command, rest)) if command == "floor" => floor::run(rest),
        _ => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}

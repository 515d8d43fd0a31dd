//! `--name value` options, and `name=value` words of commands on standard input.

use std::collections::BTreeMap;
use std::str::FromStr;

/// What went wrong, in words for the person who called the program.
pub type Failure = Box<dyn std::error::Error>;

pub struct Options {
    values: BTreeMap<String, String>,
}

impl Options {
    /// Reads `--name value` pairs; `switches` are the names that take no value.
    pub fn from_arguments(arguments: &[String], switches: &[&str]) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let name = argument
                .strip_prefix("--")
                .ok_or_else(|| format!("not an option: {argument}"))?;
            let value = if switches.contains(&name) {
                "true".to_owned()
            } else {
                rest.next()
                    .ok_or_else(|| format!("--{name} needs a value"))?
                    .clone()
            };
            values.insert(name.to_owned(), value);
        }
        Ok(Self { values })
    }

    /// Reads `name=value` words.
    pub fn from_words(line: &str) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for word in line.split_whitespace() {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| format!("not name=value: {word}"))?;
            values.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self { values })
    }

    pub fn text(&self, name: &str) -> Result<&str, Failure> {
        self.values
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| format!("{name} is missing").into())
    }

    pub fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, Failure> {
        match self.values.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| format!("{name}: {text} is no such number").into()),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

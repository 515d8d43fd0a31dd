//! Members of a JSON object as raw text, so that each can be checked under its own name.

use std::borrow::Cow;
use std::fmt;
use std::str;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{BODY, Invalid, MAX_DATA_BYTES, MAX_DEPTH, MAX_NAME_BYTES, too_many_items};

/// One member of an object: its raw JSON, if present.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    name: &'static str,
    json: Option<&'a str>,
}

impl<'a> Field<'a> {
    /// A required string.
    pub(super) fn required_name(self) -> Result<Cow<'a, str>, Invalid> {
        let json = self.json.ok_or_else(|| self.invalid("is required"))?;
        self.parse_name(json)
    }

    /// A string that may be absent or null.
    pub(super) fn optional_name(self) -> Result<Option<Cow<'a, str>>, Invalid> {
        self.present().map(|json| self.parse_name(json)).transpose()
    }

    /// An id from 0 on; 0 if absent or null.
    pub(super) fn id(self) -> Result<u64, Invalid> {
        let Some(json) = self.present() else {
            return Ok(0);
        };
        // Ids are signed integers elsewhere, hence 63 bits. JSON allows neither the plus sign nor the
        // leading zeros that `parse` would accept.
        match json.parse::<u64>() {
            Ok(id) if i64::try_from(id).is_ok() => Ok(id),
            _ => Err(self.invalid("must be an integer from 0 to 9223372036854775807")),
        }
    }

    /// The raw JSON of an object within the limits; `None` if absent or null.
    pub(super) fn object(self) -> Result<Option<&'a str>, Invalid> {
        let Some(json) = self.present() else {
            return Ok(None);
        };
        if !json.starts_with('{') {
            return Err(self.invalid("must be an object"));
        }
        if json.len() > MAX_DATA_BYTES {
            return Err(self.invalid(format!("must be at most {MAX_DATA_BYTES} bytes long")));
        }
        if is_deeper_than(json, MAX_DEPTH) {
            return Err(self.invalid(format!("must be nested at most {MAX_DEPTH} levels deep")));
        }
        Ok(Some(json))
    }

    fn present(self) -> Option<&'a str> {
        self.json.filter(|&json| json != "null")
    }

    fn parse_name(self, json: &'a str) -> Result<Cow<'a, str>, Invalid> {
        let name = json
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .ok_or_else(|| self.invalid("must be a string"))?;
        let name = if memchr::memchr(b'\\', name.as_bytes()).is_none() {
            Cow::Borrowed(name)
        } else {
            // The JSON was parsed already: only an unpaired surrogate can be wrong.
            let name = serde_json::from_str(json)
                .map_err(|_| self.invalid("must not have unpaired surrogates"))?;
            Cow::Owned(name)
        };
        match name.len() {
            0 => Err(self.invalid("must not be empty")),
            1..=MAX_NAME_BYTES => Ok(name),
            _ => Err(self.invalid(format!("must be at most {MAX_NAME_BYTES} bytes long"))),
        }
    }

    fn invalid(self, problem: impl Into<String>) -> Invalid {
        Invalid::new(self.name, problem)
    }
}

/// Parses an object and takes the members with these names; others are skipped.
///
/// # Errors
/// `body` is not an object, or has one of the names twice.
pub(super) fn read_members<'a, const COUNT: usize>(
    json: &'a str,
    names: [&'static str; COUNT],
) -> Result<[Field<'a>; COUNT], Invalid> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let members = deserializer
        .deserialize_map(MembersVisitor { names })
        .and_then(|members| deserializer.end().map(|()| members))
        .map_err(|error| not_json(&error, "must be a JSON object"))?;
    match members.duplicate {
        Some(name) => Err(Invalid::new(name, "must not occur more than once")),
        None => Ok(members.fields),
    }
}

/// Parses an array and splits it into its elements.
///
/// # Errors
/// `body` is not an array, or has more than `limit` elements.
pub(super) fn read_array(json: &str, limit: usize) -> Result<Vec<&str>, Invalid> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let elements = deserializer
        .deserialize_seq(ElementsVisitor { limit })
        .and_then(|elements| deserializer.end().map(|()| elements))
        .map_err(|error| not_json(&error, "must be a JSON array"))?;
    elements.ok_or_else(|| too_many_items(limit))
}

/// The position of a JSON error; the message of serde could repeat a part of the text.
fn not_json(error: &serde_json::Error, wrong_type: &str) -> Invalid {
    if error.is_data() {
        return Invalid::new(BODY, wrong_type);
    }
    let (line, column) = (error.line(), error.column());
    Invalid::new(
        BODY,
        format!("must be JSON: error at line {line}, column {column}"),
    )
}

/// Whether valid JSON is nested deeper than `limit`, without recursion.
fn is_deeper_than(json: &str, limit: usize) -> bool {
    // Nearly always there are fewer brackets than that, in strings or not.
    if memchr::memchr2_iter(b'{', b'[', json.as_bytes())
        .nth(limit)
        .is_none()
    {
        return false;
    }
    let mut depth = 0_usize;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth > limit {
            return true;
        }
    }
    false
}

/// Skips the rest of a string after its opening quote.
fn skip_string(bytes: &mut str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

struct Members<'a, const COUNT: usize> {
    fields: [Field<'a>; COUNT],
    duplicate: Option<&'static str>,
}

struct MembersVisitor<const COUNT: usize> {
    names: [&'static str; COUNT],
}

impl<'de, const COUNT: usize> Visitor<'de> for MembersVisitor<COUNT> {
    type Value = Members<'de, COUNT>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members {
            fields: self.names.map(|name| Field { name, json: None }),
            duplicate: None,
        };
        while let Some(known) = map.next_key_seed(NameSeed(&self.names))? {
            let Some(index) = known else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &RawValue = map.next_value()?;
            let field = &mut members.fields[index];
            if field.json.replace(value.get()).is_some() {
                members.duplicate.get_or_insert(field.name);
            }
        }
        Ok(members)
    }
}

/// Parses a member's name; returns its index among the known names.
struct NameSeed<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

/// Collects elements; `None` if there are more than `limit`.
struct ElementsVisitor {
    limit: usize,
}

impl<'de> Visitor<'de> for ElementsVisitor {
    type Value = Option<Vec<&'de str>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if elements.len() < self.limit {
                elements.push(element.get());
                continue;
            }
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(None);
        }
        Ok(Some(elements))
    }
}

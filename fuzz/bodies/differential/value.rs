//! Values in the terms that the serializers share, and what docs/serialization.md makes of them in another one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosspoint::wamp::codec::Serializer;

/// Stands in the place of what a library cannot read but we carry from sender to receiver, see [`Value::Unsayable`].
pub(super) const UNSAYABLE: &str = "\u{1}crosspoint: nothing that another serializer has";

/// One value. Maps have their entries in the order of the bytes until they are [settled](Self::settled).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Integer(i128),
    /// The bits; all NaN are one.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Map(Vec<(Self, Self)>),
    /// What has no counterpart in any other serializer.
    Unsayable,
}

impl Value {
    pub(super) fn float(value: f64) -> Self {
        Self::Float(if value.is_nan() { f64::NAN } else { value }.to_bits())
    }

    pub(super) fn text(text: &str) -> Self {
        if text == UNSAYABLE { Self::Unsayable } else { Self::Text(text.to_owned()) }
    }

    /// This value of `from` as it arrives in `to`; `None` where it is not representable.
    pub(super) fn said_in(&self, from: Serializer, to: Serializer) -> Option<Self> {
        if self.has_unsayable() {
            return None;
        }
        let value = if from == Serializer::Json { self.clone().with_bytes() } else { self.clone() };
        if to == Serializer::Json { value.in_json() } else { Some(value) }
    }

    fn has_unsayable(&self) -> bool {
        match self {
            Self::Unsayable => true,
            Self::List(elements) => elements.iter().any(Self::has_unsayable),
            Self::Map(entries) => {
                entries.iter().any(|(key, value)| key.has_unsayable() || value.has_unsayable())
            }
            _ => false,
        }
    }

    /// A string of JSON that is NUL and base64 means bytes; a key does not.
    fn with_bytes(self) -> Self {
        match self {
            Self::Text(text) => {
                match text.strip_prefix('\0').and_then(|encoded| STANDARD.decode(encoded).ok()) {
                    Some(bytes) => Self::Bytes(bytes),
                    None => Self::Text(text),
                }
            }
            Self::List(elements) => Self::List(elements.into_iter().map(Self::with_bytes).collect()),
            Self::Map(entries) => {
                Self::Map(entries.into_iter().map(|(key, value)| (key, value.with_bytes())).collect())
            }
            value => value,
        }
    }

    fn in_json(self) -> Option<Self> {
        Some(match self {
            Self::Bytes(bytes) => Self::Text(format!("\0{}", STANDARD.encode(bytes))),
            Self::Float(bits) if !f64::from_bits(bits).is_finite() => Self::Null,
            Self::List(elements) => {
                Self::List(elements.into_iter().map(Self::in_json).collect::<Option<_>>()?)
            }
            Self::Map(entries) => {
                let mut last = BTreeMap::new();
                for (key, value) in entries {
                    last.insert(key.as_key_of_json()?, value);
                }
                let said = last.into_iter().map(|(key, value)| Some((Self::Text(key), value.in_json()?)));
                Self::Map(said.collect::<Option<_>>()?)
            }
            value => value,
        })
    }

    fn as_key_of_json(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Integer(value) => Some(value.to_string()),
            Self::Boolean(value) => Some(value.to_string()),
            _ => None,
        }
    }

    /// Of keys that occur twice only the last, and in one order.
    pub(super) fn settled(self) -> Self {
        match self {
            Self::List(elements) => Self::List(elements.into_iter().map(Self::settled).collect()),
            Self::Map(entries) => {
                let entries = entries.into_iter().map(|(key, value)| (key.settled(), value.settled()));
                Self::Map(entries.collect::<BTreeMap<_, _>>().into_iter().collect())
            }
            value => value,
        }
    }
}

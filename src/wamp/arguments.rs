//! Payloads as values, for the few calls that the router answers or makes itself. What is only routed stays bytes.

use serde_json::{Map, Value};

use super::codec::{Encoder, NotRepresentable, Serializer};
use super::payload::Payload;

/// Args and kwargs as values.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Arguments {
    pub args: Vec<Value>,
    pub kwargs: Map<String, Value>,
}

impl Arguments {
    /// Reads a payload of any serializer. Bytes become what WAMP writes for them in JSON: NUL and base64.
    ///
    /// # Errors
    /// It has values that JSON has not, or very many of them (docs/serialization.md).
    pub fn read(payload: &Payload<'_>) -> Result<Self, NotRepresentable> {
        let transcoded;
        let json = if payload.serializer == Serializer::Json {
            *payload
        } else {
            transcoded = Encoder::new().transcode(payload, Serializer::Json)?;
            transcoded.as_payload()
        };
        let args = parsed(json.args)?.unwrap_or_default();
        let kwargs = parsed(json.kwargs)?.unwrap_or_default();
        Ok(Self { args, kwargs })
    }

    /// Writes them as JSON, for [`Written::as_payload`].
    #[must_use]
    pub fn write(&self) -> Written {
        let args = if self.args.is_empty() && self.kwargs.is_empty() {
            Vec::new()
        } else {
            serde_json::to_vec(&self.args).unwrap_or_default()
        };
        let kwargs = if self.kwargs.is_empty() {
            Vec::new()
        } else {
            serde_json::to_vec(&self.kwargs).unwrap_or_default()
        };
        Written { args, kwargs }
    }

    /// An argument by name, or else by position.
    #[must_use]
    pub fn get(&self, name: &str, position: usize) -> Option<&Value> {
        self.kwargs.get(name).or_else(|| self.args.get(position))
    }
}

impl From<Vec<Value>> for Arguments {
    fn from(args: Vec<Value>) -> Self {
        Self { args, kwargs: Map::new() }
    }
}

fn parsed<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<Option<T>, NotRepresentable> {
    if json.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(json).map(Some).map_err(|_| NotRepresentable)
}

/// Arguments in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    args: Vec<u8>,
    kwargs: Vec<u8>,
}

impl Written {
    /// A list and a map, or nothing, that are JSON already.
    pub(crate) fn from_json(args: Vec<u8>, kwargs: Vec<u8>) -> Self {
        Self { args, kwargs }
    }

    /// To be spliced into messages, or transcoded.
    #[must_use]
    pub fn as_payload(&self) -> Payload<'_> {
        Payload { serializer: Serializer::Json, args: &self.args, kwargs: &self.kwargs }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Arguments;
    use crate::wamp::codec::{Encoder, Serializer};
    use crate::wamp::payload::Payload;

    #[test]
    fn arguments_are_the_same_in_every_serializer() {
        let mut arguments = Arguments::from(vec![json!(1), json!("grün"), json!({ "a": [null, true] })]);
        arguments.kwargs.insert("limit".to_owned(), json!(9_007_199_254_740_992_u64));
        let written = arguments.write();
        assert_eq!(Arguments::read(&written.as_payload()), Ok(arguments.clone()));
        for serializer in [Serializer::MsgPack, Serializer::Cbor] {
            let transcoded = Encoder::new().transcode(&written.as_payload(), serializer);
            let transcoded = transcoded.expect("representable");
            assert_eq!(Arguments::read(&transcoded.as_payload()), Ok(arguments.clone()));
        }
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(Arguments::read(&Payload::EMPTY), Ok(Arguments::default()));
        assert!(Arguments::default().write().as_payload().is_empty());
    }

    #[test]
    fn a_name_stands_above_a_position() {
        let mut arguments = Arguments::from(vec![json!("by position")]);
        assert_eq!(arguments.get("uri", 0), Some(&json!("by position")));
        arguments.kwargs.insert("uri".to_owned(), json!("by name"));
        assert_eq!(arguments.get("uri", 0), Some(&json!("by name")));
        assert_eq!(arguments.get("uri", 1), Some(&json!("by name")));
        assert_eq!(arguments.get("match", 1), None);
    }
}

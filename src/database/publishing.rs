//! What rows of an outbox are as publications, whatever database they are in.

use crate::router::database::check_publication;
use crate::wamp::codec::DecodeLimits;
use crate::wamp::uri::{UriLimits, UriRule, check, is_reserved};

/// The bounds that a publication keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicationLimits {
    /// How long topics may be.
    pub uri: UriLimits,
    /// How deep arguments may nest, and how long lists in options may be.
    pub decode: DecodeLimits,
}

/// PUBLISH as JSON.
#[must_use]
pub(super) fn message(
    topic: &str,
    args: Option<&str>,
    kwargs: Option<&str>,
    options: Option<&str>,
) -> String {
    let (options, topic) = (options.unwrap_or("{}"), serde_json::Value::from(topic));
    let mut publish = format!("[16,1,{options},{topic}");
    if args.is_some() || kwargs.is_some() {
        publish.push(',');
        publish.push_str(args.unwrap_or("[]"));
    }
    if let Some(kwargs) = kwargs {
        publish.push(',');
        publish.push_str(kwargs);
    }
    publish.push(']');
    publish
}

/// Whether a message is a publication that may be made.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn check_message(publish: &str, topic: &str, limits: PublicationLimits) -> Result<(), String> {
    if is_reserved(topic) {
        return Err(format!("the topic {topic} begins with `wamp`, which is the protocol's own"));
    }
    check(topic, UriRule::Loose, limits.uri)
        .map_err(|error| format!("the topic {topic}: {}", error.as_str()))?;
    check_publication(publish, limits.decode).map(|_| ())
}

/// Options by which who calls does not get what the call publishes, unless `exclude_me` says otherwise.
///
/// # Errors
/// They are no object.
pub(super) fn excluding(options: Option<&str>, session: u64) -> Result<String, String> {
    let mut map = match options {
        None => serde_json::Map::new(),
        Some(options) => serde_json::from_str(options)
            .map_err(|error| format!("the options are no object of JSON: {error}"))?,
    };
    if map.get("exclude_me") != Some(&serde_json::Value::Bool(false)) {
        let exclude = map.entry("exclude").or_insert_with(|| serde_json::Value::Array(Vec::new()));
        if let Some(exclude) = exclude.as_array_mut() {
            exclude.push(session.into());
        }
    }
    Ok(serde_json::Value::Object(map).to_string())
}

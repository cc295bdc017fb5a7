//! The arguments of a call, as every database reads them.

use std::borrow::Cow;

use crate::router::database::Query;
use crate::wamp::codec::{Datum, data, entries};
use crate::wamp::message::Value;

/// Those by name.
pub(super) type Named<'q> = Vec<(Cow<'q, str>, Datum<'q>)>;

/// Those by position and those by name, at most so many of each.
///
/// # Errors
/// What is wrong with them, for people.
pub(super) fn arguments(
    query: &Query,
    count_max: usize,
) -> Result<(Vec<Datum<'_>>, Named<'_>), &'static str> {
    const UNREADABLE: &str = "an argument has a value that no database knows";
    let payload = query.payload.as_payload();
    let serializer = payload.serializer;
    let args = if payload.args.is_empty() {
        Vec::new()
    } else {
        data(Value { serializer, bytes: payload.args }, count_max).ok_or(UNREADABLE)?
    };
    let kwargs = if payload.kwargs.is_empty() {
        Vec::new()
    } else {
        entries(Value { serializer, bytes: payload.kwargs }, count_max).ok_or(UNREADABLE)?
    };
    Ok((args, kwargs))
}

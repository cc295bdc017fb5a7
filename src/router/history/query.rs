//! Which events of a history are asked for: the arguments of `wamp.subscription.get_events`.

use serde_json::Value;

use crate::router::meta::procedure::id;
use crate::wamp::codec::parse_rfc_3339;
use crate::wamp::{Arguments, PublicationId, SubscriptionId};

/// What is asked for. Whatever is there must hold (advanced profile, "Event History").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::router) struct Query {
    /// The last events first.
    pub(super) reverse: bool,
    pub(super) limit: Option<u64>,
    /// Microseconds since 1970: from it on, after it, before it, until it.
    pub(super) from_us: Option<i64>,
    pub(super) after_us: Option<i64>,
    pub(super) before_us: Option<i64>,
    pub(super) until_us: Option<i64>,
    pub(super) topic: Option<Box<str>>,
    pub(super) from: Option<PublicationId>,
    pub(super) after: Option<PublicationId>,
    pub(super) before: Option<PublicationId>,
    pub(super) until: Option<PublicationId>,
}

/// An event as a query sees it.
pub(super) trait Recorded {
    /// When it was recorded, in microseconds since 1970.
    fn time_us(&self) -> i64;
    fn topic(&self) -> &str;
    fn publication(&self) -> PublicationId;
}

/// A publication that a query goes by is not in the history: there is no telling what came before or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoSuchPublication;

impl Query {
    /// Reads the arguments: the subscription, and what is asked for.
    ///
    /// # Errors
    /// Says what is wrong, for people.
    pub(in crate::router) fn read(arguments: &Arguments) -> Result<(SubscriptionId, Self), &'static str> {
        const SUBSCRIPTION: &str = "the first argument must be the id of a subscription";
        let subscription = id(arguments.args.first()).ok_or(SUBSCRIPTION)?;
        let mut query = Self::default();
        for (key, value) in &arguments.kwargs {
            // A client that has nothing to say here says so.
            if value.is_null() {
                continue;
            }
            match key.as_str() {
                "reverse" => query.reverse = value.as_bool().ok_or("`reverse` must be true or false")?,
                "limit" => {
                    let limit = value.as_u64().filter(|limit| *limit > 0);
                    query.limit = Some(limit.ok_or("`limit` must be a positive integer")?);
                }
                "from_time" => query.from_us = Some(time(value)?),
                "after_time" => query.after_us = Some(time(value)?),
                "before_time" => query.before_us = Some(time(value)?),
                "until_time" => query.until_us = Some(time(value)?),
                "topic" => query.topic = Some(value.as_str().ok_or("`topic` must be a URI")?.into()),
                "from_publication" => query.from = Some(publication(value)?),
                "after_publication" => query.after = Some(publication(value)?),
                "before_publication" => query.before = Some(publication(value)?),
                "until_publication" => query.until = Some(publication(value)?),
                // As with options: who knows more than we do is not refused for it.
                _ => {}
            }
        }
        Ok((SubscriptionId(subscription), query))
    }

    /// What it holds beside itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.topic.as_deref().map_or(0, str::len)
    }

    /// The events that are asked for, in the order that is asked for, but for `limit`: others may have to be left out
    /// before that counts. `recorded` is in the order in which they came.
    ///
    /// # Errors
    /// A publication that is named is not there.
    pub(super) fn select<'a, E: Recorded>(
        &'a self,
        recorded: impl DoubleEndedIterator<Item = &'a E> + ExactSizeIterator + Clone + 'a,
    ) -> Result<Box<dyn Iterator<Item = &'a E> + 'a>, NoSuchPublication> {
        let place = |id: Option<PublicationId>| {
            let Some(id) = id else { return Ok(None) };
            let mut all = recorded.clone();
            all.position(|event| event.publication() == id).map(Some).ok_or(NoSuchPublication)
        };
        let first = place(self.from)?.max(place(self.after)?.map(|place| place + 1)).unwrap_or(0);
        let ends = [place(self.until)?.map(|place| place + 1), place(self.before)?];
        let end = ends.into_iter().flatten().min().unwrap_or_else(|| recorded.len());
        let chosen = recorded
            .skip(first)
            .take(end.saturating_sub(first))
            .filter(|event| self.is_in_time(event.time_us()))
            .filter(|event| self.topic.as_deref().is_none_or(|topic| topic == event.topic()));
        Ok(if self.reverse { Box::new(chosen.rev()) } else { Box::new(chosen) })
    }

    fn is_in_time(&self, time_us: i64) -> bool {
        self.from_us.is_none_or(|from_us| time_us >= from_us)
            && self.after_us.is_none_or(|after_us| time_us > after_us)
            && self.before_us.is_none_or(|before_us| time_us < before_us)
            && self.until_us.is_none_or(|until_us| time_us <= until_us)
    }
}

fn time(value: &Value) -> Result<i64, &'static str> {
    const WRONG: &str = "a time must be a text of RFC 3339, such as 2026-01-31T12:00:00.000Z";
    value.as_str().and_then(parse_rfc_3339).ok_or(WRONG)
}

fn publication(value: &Value) -> Result<PublicationId, &'static str> {
    id(Some(value)).map(PublicationId).ok_or("a publication must be named by its id")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug)]
    struct Event(u64, i64, &'static str);

    impl Recorded for Event {
        fn time_us(&self) -> i64 {
            self.1
        }

        fn topic(&self) -> &str {
            self.2
        }

        fn publication(&self) -> PublicationId {
            PublicationId(self.0)
        }
    }

    fn read(kwargs: Value) -> Result<Query, &'static str> {
        let mut arguments = Arguments::from(vec![json!(7)]);
        arguments.kwargs = kwargs.as_object().unwrap().clone();
        Query::read(&arguments).map(|(subscription, query)| {
            assert_eq!(subscription, SubscriptionId(7));
            query
        })
    }

    /// Publications 10, 30, 20, 50, 40 at seconds 1, 2, 2, 3, 4, to a and b in turn.
    fn found(kwargs: Value) -> Result<Vec<u64>, NoSuchPublication> {
        let events = [(10, 1, "a"), (30, 2, "b"), (20, 2, "a"), (50, 3, "b"), (40, 4, "a")]
            .map(|(id, second, topic)| Event(id, second * 1_000_000, topic));
        let query = read(kwargs).unwrap();
        query.select(events.iter()).map(|chosen| chosen.map(|event| event.0).collect())
    }

    #[test]
    fn everything_and_backwards() {
        assert_eq!(found(json!({})).unwrap(), [10, 30, 20, 50, 40]);
        assert_eq!(found(json!({"reverse": true})).unwrap(), [40, 50, 20, 30, 10]);
        assert_eq!(found(json!({"reverse": false, "limit": null, "other": 1})).unwrap().len(), 5);
    }

    #[test]
    fn by_time() {
        let second = |second: u64| format!("1970-01-01T00:00:0{second}Z");
        assert_eq!(found(json!({"from_time": second(2)})).unwrap(), [30, 20, 50, 40]);
        assert_eq!(found(json!({"after_time": second(2)})).unwrap(), [50, 40]);
        assert_eq!(found(json!({"before_time": second(2)})).unwrap(), [10]);
        assert_eq!(found(json!({"until_time": second(2)})).unwrap(), [10, 30, 20]);
        assert_eq!(found(json!({"after_time": second(1), "before_time": second(3)})).unwrap(), [30, 20]);
        assert_eq!(found(json!({"until_time": second(3), "from_time": second(3)})).unwrap(), [50]);
        assert_eq!(found(json!({"after_time": second(3), "before_time": second(2)})).unwrap(), [0; 0]);
    }

    #[test]
    fn by_publication_ids_are_in_no_order() {
        assert_eq!(found(json!({"from_publication": 20})).unwrap(), [20, 50, 40]);
        assert_eq!(found(json!({"after_publication": 20})).unwrap(), [50, 40]);
        assert_eq!(found(json!({"before_publication": 20})).unwrap(), [10, 30]);
        assert_eq!(found(json!({"until_publication": 20})).unwrap(), [10, 30, 20]);
        assert_eq!(
            found(json!({"after_publication": 10, "before_publication": 40, "reverse": true})).unwrap(),
            [50, 20, 30]
        );
        assert_eq!(found(json!({"after_publication": 40})).unwrap(), [0; 0]);
        assert_eq!(found(json!({"after_publication": 40, "before_publication": 10})).unwrap(), [0; 0]);
        assert_eq!(found(json!({"before_publication": 99})), Err(NoSuchPublication));
    }

    #[test]
    fn by_topic_and_all_together() {
        assert_eq!(found(json!({"topic": "b"})).unwrap(), [30, 50]);
        assert_eq!(found(json!({"topic": "c"})).unwrap(), [0; 0]);
        let all = json!({"topic": "a", "from_publication": 30, "until_time": "1970-01-01T00:00:03Z"});
        assert_eq!(found(all).unwrap(), [20]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for kwargs in [
            json!({"limit": 0}),
            json!({"limit": -1}),
            json!({"limit": "ten"}),
            json!({"reverse": 1}),
            json!({"from_time": 5}),
            json!({"until_time": "yesterday"}),
            json!({"topic": ["a"]}),
            json!({"after_publication": "x"}),
        ] {
            assert!(read(kwargs.clone()).is_err(), "{kwargs}");
        }
        assert!(Query::read(&Arguments::default()).is_err());
        assert!(Query::read(&Arguments::from(vec![json!("com.a")])).is_err());
    }
}

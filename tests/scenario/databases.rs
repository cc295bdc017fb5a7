//! The databases of a node, as far as its cores see them: what they were asked, and what a script has them say.

use std::collections::{BTreeMap, VecDeque};

use crosspoint::router::database::{
    DatabaseEvent, DatabaseIndex, DatabasePublication, Query, QueryNumber, Replay, Replayed,
};
use crosspoint::wamp::codec::{Encoder, OwnedPayload, Serializer};
use crosspoint::wamp::uri::matches;

use super::script::Database;

/// Databases are numbered below this.
pub(crate) const DATABASES_MAX: u16 = 2;

/// What one core asked of databases.
#[derive(Default)]
pub(crate) struct Databases {
    /// Not over, the oldest first.
    pub(crate) running: Vec<Query>,
    /// Not looked at.
    pub(crate) started: VecDeque<QueryNumber>,
    pub(crate) cancelled: Vec<QueryNumber>,
    pub(crate) more: Vec<QueryNumber>,
    /// Asked for and not answered, the oldest first.
    pub(crate) replays: VecDeque<Replay>,
    pub(crate) is_full: bool,
    /// How many got what, by position.
    pub(crate) counted: BTreeMap<u64, u64>,
}

impl Databases {
    pub(crate) fn replay(&mut self, replay: Replay) -> bool {
        if !self.is_full {
            self.replays.push_back(replay);
        }
        !self.is_full
    }

    pub(crate) fn query(&mut self, query: Query) -> bool {
        if !self.is_full {
            self.started.push_back(query.number);
            self.running.push(query);
        }
        !self.is_full
    }

    /// `None`: this core has not asked for that.
    pub(crate) fn act(
        &mut self,
        database: DatabaseIndex,
        act: &Database,
        encoder: &mut Encoder,
    ) -> Option<Result<Option<DatabaseEvent>, String>> {
        let oldest = |uri: &str| {
            let is = |query: &&Query| query.database == database && *query.procedure.uri == *uri;
            self.running.iter().find(is).cloned()
        };
        match act {
            Database::Runs(uri, args) => {
                let number = self.started.pop_front()?;
                let query = self.running.iter().find(|query| query.number == number)?.clone();
                let json = encoder.transcode(&query.payload.as_payload(), Serializer::Json);
                let payload = query.payload.as_payload();
                let bytes = match (&json, payload.serializer) {
                    (_, Serializer::Json) => payload.args,
                    (Ok(json), _) => json.as_payload().args,
                    (Err(error), _) => return Some(Err(error.to_string())),
                };
                let got = if bytes.is_empty() { "nothing".into() } else { String::from_utf8_lossy(bytes) };
                let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
                let is_same = value(&got) == value(args) && (got == **args || got != "nothing");
                if *query.procedure.uri == **uri && query.database == database && is_same {
                    return Some(Ok(None));
                }
                Some(Err(format!("it runs {} {got} of {:?}", query.procedure.uri, query.database)))
            }
            Database::Cancelled(uri) => {
                let query = oldest(uri)?;
                let place = self.cancelled.iter().position(|number| *number == query.number)?;
                self.cancelled.remove(place);
                Some(Ok(None))
            }
            Database::GoesOn(uri) => {
                let query = oldest(uri)?;
                let place = self.more.iter().position(|number| *number == query.number)?;
                self.more.remove(place);
                Some(Ok(None))
            }
            Database::Waits(uri) => {
                let query = oldest(uri)?;
                let waits = !self.more.contains(&query.number);
                Some(if waits { Ok(None) } else { Err("it may go on".to_owned()) })
            }
            Database::Sends(uri, args) => {
                let query = oldest(uri)?;
                Some(Ok(Some(DatabaseEvent::Part(query.number, payload_of(args, &query, encoder)))))
            }
            Database::Answers(uri, args) => {
                let query = oldest(uri)?;
                self.running.retain(|other| other.number != query.number);
                Some(Ok(Some(DatabaseEvent::Done(query.number, payload_of(args, &query, encoder)))))
            }
            Database::Fails(uri, error, args) => {
                let query = oldest(uri)?;
                self.running.retain(|other| other.number != query.number);
                let payload = payload_of(args, &query, encoder);
                Some(Ok(Some(DatabaseEvent::Failed(query.number, error.as_str().into(), payload))))
            }
            Database::Offers(_)
            | Database::Full(_)
            | Database::Publishes(..)
            | Database::Replays(_)
            | Database::LosesReplay
            | Database::IsLate
            | Database::HasNoReplay
            | Database::HasCounted(_)
            | Database::Forgets(_) => None,
        }
    }
}

/// What a database says to those who resume.
pub(crate) fn replayed(
    replay: &Replay,
    published: &[(DatabaseIndex, DatabasePublication)],
    count_max: usize,
) -> Replayed {
    let own = published.iter().filter(|(database, _)| *database == replay.database);
    let last = own.clone().map(|(_, publication)| publication.position).max().unwrap_or(0);
    let is_wanted = |publication: &&DatabasePublication| {
        let message = serde_json::from_str::<serde_json::Value>(&publication.publish).unwrap_or_default();
        publication.position > replay.after
            && message[3].as_str().is_some_and(|topic| matches(&replay.topic, replay.policy, topic))
    };
    let mut all: Vec<_> = own.map(|(_, publication)| publication).filter(is_wanted).cloned().collect();
    let is_complete = all.len() <= count_max;
    all.truncate(count_max);
    let upto = if is_complete { last } else { all.last().map_or(0, |publication| publication.position) };
    Replayed { publications: all, upto, is_complete }
}

/// As the threads of a database write it: in the serializer of the caller.
pub(crate) fn payload_of(args: &str, query: &Query, encoder: &mut Encoder) -> OwnedPayload {
    let json = OwnedPayload::new(Serializer::Json, args.as_bytes().to_vec(), Vec::new());
    if query.serializer == Serializer::Json {
        return json;
    }
    encoder.transcode(&json.as_payload(), query.serializer).expect("a script has what can be written")
}

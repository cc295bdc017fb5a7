//! What databases publish: as a publisher whose charges show when a batch has been offered to everybody (R8).

use std::sync::Arc;

use super::DatabaseIndex;
use crate::router::Router;
use crate::router::effects::{CreditTime, Effects};
use crate::router::peer::{
    Attributes, Audience, Charge, PeerMessage, PublicationHead, RealmIndex, SessionKey, SessionRef,
};
use crate::router::terms::carried;
use crate::wamp::SessionId;
use crate::wamp::codec::{DecodeLimits, Input, Serializer, decode};
use crate::wamp::message::{Message, Publish};

/// Sessions of databases are counted down from here: no slot of a connection comes near.
const LAST_SLOT: u32 = u32::MAX - 16;

/// An event that a database publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabasePublication {
    /// Its place among all that the database has published: EVENT.Details._event_id.
    pub position: u64,
    /// How many events led to it, one behind the other: EVENT.Details._depth.
    pub depth: u32,
    /// PUBLISH as JSON, which [`check_publication`] has taken.
    pub publish: Box<str>,
}

/// Publications that are offered together, in their order.
#[derive(Clone, Debug)]
pub struct DatabaseBatch {
    /// Whose subscribers get it.
    pub realm: RealmIndex,
    /// Who publishes.
    pub database: DatabaseIndex,
    /// Counts the batches of a database.
    pub number: u32,
    /// At least one.
    pub publications: Arc<[DatabasePublication]>,
    /// It is to be counted how many sessions get each.
    pub is_counted: bool,
}

/// How many sessions of one core got a publication of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receivers {
    /// See [`key_of_batch`].
    pub batch: SessionKey,
    /// Which of the batch.
    pub position: u64,
    /// One at least.
    pub count: u32,
}

/// The pseudo session that a batch is charged to.
#[must_use]
pub fn key_of_batch(database: DatabaseIndex, number: u32) -> SessionKey {
    SessionKey { slot: LAST_SLOT - u32::from(database.0), generation: number }
}

/// Which batch a session stands for; `None` where it is one of a client.
#[must_use]
pub fn batch_of_key(key: SessionKey) -> Option<(DatabaseIndex, u32)> {
    let index = LAST_SLOT.checked_sub(key.slot).filter(|_| key.slot <= LAST_SLOT)?;
    let database = u16::try_from(index).ok()?;
    Some((DatabaseIndex(database), key.generation))
}

/// Reads a publication as the router will.
///
/// # Errors
/// It is none: what is wrong with it, for people.
pub fn check_publication(publish: &str, limits: DecodeLimits) -> Result<Publish<'_>, String> {
    match decode(Serializer::Json, Input::Text(publish), limits) {
        Ok(Message::Publish(message)) => Ok(message),
        Ok(other) => Err(format!("{} is no PUBLISH", other.kind().name())),
        Err(error) => Err(error.message),
    }
}

impl Router {
    pub(super) fn publish_batch(&mut self, batch: &DatabaseBatch, effects: &mut impl Effects) {
        let &DatabaseBatch { realm, database, number, ref publications, is_counted } = batch;
        let publisher = SessionRef { core: self.core, key: key_of_batch(database, number) };
        // The batch is over when all is given back; this much is not before all of it was charged.
        let guard = Charge { bytes: 1, paused: true };
        let _ = effects.charge(publisher.key, guard.bytes);
        for publication in publications.iter() {
            self.publish_of_database((realm, publisher), publication, is_counted, effects);
            // Who could not take this one ends before it hears of the next: it would resume behind that.
            self.close_doomed(effects);
        }
        effects.credit(publisher, guard, CreditTime::Now);
    }

    fn publish_of_database(
        &mut self,
        (realm, publisher): (RealmIndex, SessionRef),
        publication: &DatabasePublication,
        is_counted: bool,
        effects: &mut impl Effects,
    ) {
        let limits = DecodeLimits { depth_max: self.limits.depth_max, list_max: self.limits.option_list_max };
        let Ok(message) = check_publication(&publication.publish, limits) else { return };
        let topic = &*message.topic;
        if self.realms[usize::from(realm.0)].check_uri(topic).is_err() {
            return;
        }
        let options = &message.options;
        let shard = options.rkey.as_deref().map(|rkey| self.shard(realm, topic, rkey, effects));
        let retained = &mut self.realms[usize::from(realm.0)].retained;
        let retain = retained.stamp(self.now.monotonic_us, self.core, NOBODY, options);
        let attributes = Attributes {
            retain,
            passthru: carried(&options.passthru),
            shard,
            position: publication.position,
            depth: publication.depth,
            is_counted,
            ..Attributes::default()
        };
        let head = PublicationHead {
            realm,
            publisher,
            publication: self.random.publication_id(),
            audience: Audience::of(options),
            attributes: Some(Box::new(attributes)),
            cause: None,
        };
        effects.counters().publications += 1;
        effects.counters().database_publications += 1;
        self.dispatch(head, topic, message.payload, None, effects);
    }

    /// Says to the core that counts them how many sessions of this one got a publication: by their slots, one for each
    /// subscription that matched.
    pub(in crate::router) fn tell_received(
        &self,
        head: &PublicationHead,
        mut slots: Vec<u32>,
        effects: &mut impl Effects,
    ) {
        slots.sort_unstable();
        slots.dedup();
        let (SessionRef { core, key: batch }, count) = (head.publisher, slots.len() as u32);
        let position = head.attributes.as_deref().map_or(0, |attributes| attributes.position);
        let receivers = Receivers { batch, position, count };
        if count == 0 {
            return;
        }
        if core == self.core {
            effects.received(receivers);
        } else {
            effects.peer(core, PeerMessage::Received(receivers));
        }
    }
}

/// Who publishes is no session.
const NOBODY: SessionId = SessionId(0);

//! Testaments: what a session wants to be published when it ends (advanced profile, "Session Testament").
//!
//! They lie with the session on its core, and are published there as it would have published them itself, once, by
//! whatever way it ends.

use serde_json::{Value as Json, json};

use super::Router;
use super::authorize::Action;
use super::authorizer::{Another, Permit};
use super::effects::Effects;
use super::meta::Refusal;
use super::peer::{Body, SessionKey};
use crate::wamp::codec::{DecodeLimits, Input, decode, first_elements, list_bytes, map_bytes};
use crate::wamp::error::uri;
use crate::wamp::features::ClientFeatures;
use crate::wamp::message::{Message, Publish, Value};
use crate::wamp::{Arguments, MatchPolicy, Payload};

/// The procedure that adds one.
pub(super) const ADD_TESTAMENT: &str = "wamp.session.add_testament";

/// When a testament is published. Without resumption of sessions both are at the same time, the first one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Detached,
    Destroyed,
}

/// One publication to come.
#[derive(Debug)]
struct Testament {
    /// The PUBLISH that it will be, in JSON, without its payload: the options were read from it and are well.
    publish: Box<str>,
    payload: Body,
    permit: Permit,
}

impl Testament {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.publish.len() + self.payload.len()
    }
}

/// Those of one session. They end with it, and by `wamp.session.flush_testaments`.
#[derive(Debug, Default)]
pub(super) struct Testaments {
    scopes: [Vec<Testament>; 2],
}

impl Testaments {
    fn all(&self) -> impl Iterator<Item = &Testament> {
        self.scopes.iter().flatten()
    }
}

const TOO_MANY: Refusal =
    (uri::LIMIT_REACHED, "the session has as many testaments, or as long ones, as it may have");

const NO_PASSTHRU: Refusal =
    (uri::INVALID_ARGUMENT, "the publisher did not announce payload_passthru_mode and uses ppt_scheme");

/// The scope that is named, or the one that holds where none is.
fn scope(arguments: &Arguments, position: usize) -> Result<Scope, Refusal> {
    match arguments.get("scope", position).unwrap_or(&Json::Null) {
        Json::Null => Ok(Scope::Destroyed),
        Json::String(word) if word == "destroyed" => Ok(Scope::Destroyed),
        Json::String(word) if word == "detached" => Ok(Scope::Detached),
        _ => Err((uri::INVALID_ARGUMENT, "the scope must be detached or destroyed")),
    }
}

/// The payload that is the second and third argument, as it came.
fn payload_of<'a>(payload: &Payload<'a>) -> Result<Payload<'a>, Refusal> {
    let serializer = payload.serializer;
    let given = first_elements(Value { serializer, bytes: payload.args }, 3);
    let bytes = |place: usize, read: fn(Value<'a>) -> Option<&'a [u8]>, text| match given.get(place) {
        Some(value) => read(*value).ok_or((uri::INVALID_ARGUMENT, text)),
        None => Ok(&[][..]),
    };
    let args = bytes(1, list_bytes, "the second argument must be a list: the arguments of the event")?;
    let kwargs = bytes(2, map_bytes, "the third argument must be a map: the keyword arguments of the event")?;
    Ok(if args.is_empty() && kwargs.is_empty() {
        Payload::EMPTY
    } else {
        Payload { serializer, args, kwargs }
    })
}

impl Router {
    /// What a testament needs a permission for beside the call itself, if its arguments are right.
    pub(super) fn testament_to_authorize(&self, key: SessionKey, payload: &Payload<'_>) -> Option<Another> {
        let arguments = Arguments::read(payload).ok()?;
        let topic = arguments.args.first().and_then(Json::as_str)?;
        let (realm, _) = self.realm_and_session(key);
        if !realm.meta_api || realm.check_uri(topic).is_err() {
            return None;
        }
        let given = arguments.kwargs.get("publish_options");
        let says = |key| given.and_then(|given| given.get(key)).and_then(Json::as_bool).unwrap_or(false);
        let wishes = [says("disclose_me"), says("retain")];
        let options = json!({
            "acknowledge": says("acknowledge"),
            "disclose_me": wishes[0],
            "retain": wishes[1],
        });
        let (uri, policy) = (topic.into(), MatchPolicy::Exact);
        Some(Another { action: Action::Publish, uri, policy, wishes, options })
    }

    /// `wamp.session.add_testament`
    pub(super) fn add_testament(
        &mut self,
        key: SessionKey,
        arguments: &Arguments,
        payload: &Payload<'_>,
    ) -> Result<(), Refusal> {
        let Some(topic) = arguments.args.first().and_then(Json::as_str) else {
            return Err((uri::INVALID_ARGUMENT, "the first argument must be the topic"));
        };
        let scope = scope(arguments, usize::MAX)?;
        let payload = payload_of(payload)?;
        let (realm, session) = self.realm_and_session(key);
        realm.check_uri(topic).map_err(|text| (uri::INVALID_URI, text))?;
        let can_seal = session.features.contains(ClientFeatures::PUBLISHER_PAYLOAD_PASSTHRU_MODE);
        let options = arguments.kwargs.get("publish_options").filter(|options| !options.is_null());
        let publish = json!([16, 1, options.cloned().unwrap_or_else(|| json!({})), topic]).to_string();
        let limits = DecodeLimits { depth_max: self.limits.depth_max, list_max: self.limits.option_list_max };
        let Ok(Message::Publish(message)) =
            decode(crate::wamp::codec::Serializer::Json, Input::Text(&publish), limits)
        else {
            return Err((
                uri::INVALID_ARGUMENT,
                "publish_options must be a map of options as PUBLISH has them",
            ));
        };
        if message.options.passthru.is_used() && !can_seal {
            return Err(NO_PASSTHRU);
        }
        let permit = self.permits(key, Action::Publish, topic, MatchPolicy::Exact);
        let permit = permit.map_err(|refusal| (refusal.error, refusal.text))?;
        if self.may_not_disclose(key, message.options.disclose_me, permit) {
            return Err((uri::DISCLOSE_ME_DISALLOWED, super::terms::DISCLOSE_ME_DENIED));
        }
        let payload = Body::new("", payload);
        let testament = Testament { publish: publish.into(), payload, permit };
        let (count_max, bytes_max) =
            (self.limits.testaments_per_session_max, self.limits.testament_bytes_per_session_max);
        let hash_seed = self.hash_seed;
        let testaments = self.sessions.at_mut(key.slot).active(hash_seed).testaments.get_or_insert_default();
        let bytes: usize = testaments.all().map(Testament::bytes).sum();
        if testaments.all().count() >= count_max || bytes + testament.bytes() > bytes_max {
            return Err(TOO_MANY);
        }
        testaments.scopes[scope as usize].push(testament);
        Ok(())
    }

    /// `wamp.session.flush_testaments`
    pub(super) fn flush_testaments(&mut self, key: SessionKey, arguments: &Arguments) -> Result<(), Refusal> {
        let scope = scope(arguments, 0)?;
        let hash_seed = self.hash_seed;
        let active = self.sessions.at_mut(key.slot).active(hash_seed);
        if let Some(testaments) = active.testaments.as_mut() {
            testaments.scopes[scope as usize].clear();
            if testaments.all().next().is_none() {
                active.testaments = None;
            }
        }
        Ok(())
    }

    /// The session has ended: those that hold when it is detached come first, all in the order in which they were added.
    pub(super) fn publish_testaments(&mut self, key: SessionKey, effects: &mut impl Effects) {
        let active = self.sessions.at_mut(key.slot).active.as_mut();
        let Some(testaments) = active.and_then(|active| active.testaments.take()) else { return };
        if self.ends_silently() {
            return;
        }
        // They were read once, by the limits of the configuration.
        let limits = DecodeLimits { depth_max: self.limits.depth_max, list_max: self.limits.option_list_max };
        for Testament { publish, payload, permit } in testaments.scopes.into_iter().flatten() {
            let read = decode(crate::wamp::codec::Serializer::Json, Input::Text(&publish), limits);
            let Ok(Message::Publish(message)) = read else { continue };
            let message = Publish { payload: payload.payload(), ..message };
            effects.counters().testaments += 1;
            self.publish(key, &message, permit, effects);
        }
    }
}

//! What a client makes of what it is sent.

use crosspoint::wamp::codec::{DecodeLimits, Input, decode};
use crosspoint::wamp::error::uri;
use crosspoint::wamp::message::{Error, Message, MessageType, Unregistered, Unsubscribed, Welcome};
use crosspoint::wamp::{Arguments, RequestId};

use super::{Client, META, Pending, Stage, State};
use crate::content::{Content, TESTAMENT};
use crate::history::databases::is_of_database;
use crate::history::kills::REASON;
use crate::history::{End, Kept, Session, Violation, broken};
use crate::transport::Framing;

impl Client {
    pub(super) fn receive(&mut self, bytes: &[u8], stage: &mut Stage<'_>) -> Kept {
        let limits = DecodeLimits::default();
        let decoded = decode(self.transport.serializer, Input::Bytes(bytes), limits);
        let message = match decoded {
            Ok(message) => message,
            Err(error) => return broken("integrity", format!("not a message: {}", error.message)),
        };
        let (step, number) = (stage.step, self.number);
        stage.trace.note(|| format!("{step:>6} client {number} hears {:.160}", format!("{message:?}")));
        match (&message, self.state) {
            (Message::Welcome(welcome), State::Hello) => {
                self.check_welcome(welcome, stage)?;
                self.receive_welcome(welcome, stage);
                Ok(())
            }
            (Message::Challenge(challenge), State::Hello) => self.receive_challenge(challenge, stage),
            (Message::Challenge(_), State::Ending) if self.session.is_none() => Ok(()),
            // It hung up before it was let in.
            (Message::Welcome(_), State::Ending) if self.session.is_none() => Ok(()),
            (Message::Abort(abort), _) => self.receive_end(&abort.reason, stage),
            (Message::Goodbye(goodbye), State::Goodbye) if goodbye.reason == uri::GOODBYE_AND_OUT => {
                self.end_session(stage, End::Left);
                self.forget_session();
                self.state = State::Between;
                Ok(())
            }
            (Message::Goodbye(goodbye), _) => self.receive_end(&goodbye.reason, stage),
            (_, State::Open | State::Goodbye | State::Ending) => match self.session {
                Some(session) => self.receive_in_session(session, &message, stage),
                None => broken("answer", format!("outside of a session: {message:?}")),
            },
            _ => broken("answer", format!("in state {:?}: {message:?}", self.state)),
        }
    }

    fn receive_welcome(&mut self, welcome: &Welcome<'_>, stage: &mut Stage<'_>) {
        self.forget_session();
        self.session = Some(stage.history.sessions.len());
        let id = welcome.session.0;
        let mut session = Session::new(self.realm, self.core, id, self.can_be_interrupted);
        (session.hello_at, session.welcomed_at) = (self.hello_at, stage.step);
        session.can_seal = self.can_seal;
        session.authid = welcome.details.authid.as_deref().unwrap_or_default().to_owned();
        session.authrole = welcome.details.authrole.as_deref().unwrap_or_default().to_owned();
        stage.history.happened.logins += u64::from(self.login.is_some());
        stage.history.sessions.push(session);
        self.state = State::Open;
    }

    /// The router ends the session.
    fn receive_end(&mut self, reason: &str, stage: &mut Stage<'_>) -> Kept {
        self.closed_by_router.push(reason.to_owned());
        if self.session.is_none() && self.is_denied(reason) {
            stage.history.happened.denials += 1;
        } else if let Some(session) = self.session.filter(|_| reason.starts_with(REASON)) {
            stage.history.receive_kill(session, reason)?;
        } else if !stage.may_close.contains(&reason) && !self.is_too_late(reason, stage) {
            return broken("closed", format!("client {} was closed for {reason}", self.number));
        }
        self.end_session(stage, End::Lost);
        if self.transport.framing == Framing::RawSocket || self.state != State::Ending {
            self.begin_end();
        }
        Ok(())
    }

    /// Whether it is closed because it resumes, cannot be told that it lost what it had not read, and has.
    fn is_too_late(&self, reason: &str, stage: &Stage<'_>) -> bool {
        let is_behind = || self.session.is_some_and(|session| stage.history.may_be_behind(session));
        reason == uri::SLOW_CONSUMER && !self.can_lose_subscriptions && is_behind()
    }

    fn receive_in_session(&mut self, session: usize, message: &Message<'_>, stage: &mut Stage<'_>) -> Kept {
        match message {
            Message::Event(event)
                if event.details.topic.as_deref().is_some_and(|topic| topic.starts_with(META)) =>
            {
                let arguments = Arguments::read(&event.payload).unwrap_or_default();
                stage.history.receive_meta_event(session, event, &arguments.args)
            }
            Message::Event(event) => {
                let content = Content::decode(event.payload);
                if let Some(content) = content.filter(|content| content.kind == TESTAMENT) {
                    return stage.history.receive_testament(session, event, content);
                }
                if let Some(content) = is_of_database(content) {
                    let (step, client) = (stage.step, self.number);
                    let Content { session: database, number, .. } = content;
                    stage.trace.note(|| {
                        format!("{step:>6} client {client} hears event {number} of database {database}")
                    });
                    return stage.history.receive_database_event(session, event, content);
                }
                stage.history.receive_event(session, event.subscription.0, content, &event.details)
            }
            Message::Invocation(invocation) => {
                let content = Content::decode(invocation.payload);
                let (request, registration) = (invocation.request.0, invocation.registration.0);
                let (details, history) = (&invocation.details, &mut *stage.history);
                let index = history.receive_invocation(session, request, registration, details, content)?;
                let Some(index) = index else { return Ok(()) };
                if self.state == State::Open && stage.random.once_in(3) {
                    let refuse = stage.reroutes && stage.random.once_in(2);
                    self.answer(session, request, index, refuse, stage);
                } else {
                    self.running.push((request, index));
                }
                Ok(())
            }
            Message::Interrupt(interrupt) => {
                let request = interrupt.request.0;
                let is_open = stage.history.receive_interrupt(session, request)?;
                // Now and then it does not obey.
                if is_open && !stage.random.once_in(4) && self.state == State::Open {
                    self.obey_interrupt(session, request, stage);
                }
                Ok(())
            }
            Message::Published(published) => self.expect(published.request, &Pending::Publish),
            Message::Result(result) if let Some(asked) = self.asked_with(result.request.0) => {
                let answer = Self::arguments_of(&result.payload)?;
                self.receive_word(session, asked, &Ok(answer), stage)
            }
            Message::Result(result) => {
                let content = Content::decode(result.payload);
                if result.details.progress {
                    return match self.pending.get(&result.request.0) {
                        Some(Pending::Call(number)) => {
                            stage.history.receive_progress(session, *number, content)
                        }
                        other => {
                            let request = result.request;
                            broken(
                                "progress",
                                format!("a part of the result of request {request}, {other:?}"),
                            )
                        }
                    };
                }
                let number = self.call_of(result.request)?;
                stage.history.check_seal(session, number, content, &result.details.passthru)?;
                stage.history.receive_answer(session, number, None, content)
            }
            Message::Error(error) => self.receive_error(session, error, stage),
            _ => self.receive_confirmation(session, message, stage),
        }
    }

    fn obey_interrupt(&mut self, session: usize, request: u64, stage: &mut Stage<'_>) {
        if let Some(at) = self.running.iter().position(|(running, _)| *running == request) {
            let (request, index) = self.running.swap_remove(at);
            self.answer(session, request, index, true, stage);
        }
    }

    fn call_of(&mut self, request: RequestId) -> Result<u64, Violation> {
        match self.pending.remove(&request.0) {
            Some(Pending::Call(number)) => Ok(number),
            other => broken("answer", format!("an answer to request {request}, which is {other:?}")),
        }
    }

    fn expect(&mut self, request: RequestId, expected: &Pending) -> Kept {
        match self.pending.remove(&request.0) {
            Some(pending) if pending == *expected => Ok(()),
            other => broken(
                "answer",
                format!("client {}: an answer to request {request}, which is {other:?}", self.number),
            ),
        }
    }

    fn receive_error(&mut self, session: usize, error: &Error<'_>, stage: &mut Stage<'_>) -> Kept {
        if error.request_type == MessageType::Call {
            if let Some(asked) = self.asked_with(error.request.0) {
                return self.receive_word(session, asked, &Err(&error.error), stage);
            }
            let content = Content::decode(error.payload);
            let number = self.call_of(error.request)?;
            return stage.history.receive_answer(session, number, Some(&error.error), content);
        }
        match (self.pending.remove(&error.request.0), error.request_type) {
            (Some(Pending::Register(place)), MessageType::Register)
                if error.error == uri::PROCEDURE_ALREADY_EXISTS =>
            {
                let held = &mut stage.history.sessions[session].registrations[place];
                (held.is_ending, held.is_over) = (true, true);
                Ok(())
            }
            (Some(Pending::Subscribe(place)), MessageType::Subscribe)
                if stage.history.may_not_resume(session, place, &error.error) =>
            {
                let held = &mut stage.history.sessions[session].subscriptions[place];
                (held.is_ending, held.is_over) = (true, true);
                Ok(())
            }
            (Some(Pending::Unsubscribe(place)), MessageType::Unsubscribe)
                if error.error == uri::NO_SUCH_SUBSCRIPTION
                    && stage.history.sessions[session].subscriptions[place].of_databases.is_revoked =>
            {
                Ok(())
            }
            // It was taken away meanwhile.
            (Some(Pending::Unregister(place)), MessageType::Unregister)
                if error.error == uri::NO_SUCH_REGISTRATION
                    && stage.history.sessions[session].registrations[place].is_revoked =>
            {
                Ok(())
            }
            (pending, _) => broken("answer", format!("{error:?} to {pending:?}")),
        }
    }

    fn receive_confirmation(&mut self, session: usize, message: &Message<'_>, stage: &mut Stage<'_>) -> Kept {
        let log = &mut stage.history.sessions[session];
        if let Message::Unregistered(Unregistered { request: RequestId(0), details: Some(details) }) = message
        {
            let registration = details.registration.map_or(0, |id| id.0);
            return stage.history.receive_revocation(session, registration, details.reason.as_deref());
        }
        if let Message::Unsubscribed(Unsubscribed { request: RequestId(0), details: Some(details) }) = message
        {
            let subscription = details.subscription.map_or(0, |id| id.0);
            let reason = details.reason.as_deref();
            return stage.history.receive_subscription_loss(session, subscription, reason);
        }
        let request = match message {
            Message::Subscribed(subscribed) => subscribed.request,
            Message::Unsubscribed(unsubscribed) => unsubscribed.request,
            Message::Registered(registered) => registered.request,
            Message::Unregistered(unregistered) => unregistered.request,
            other => return broken("answer", format!("a router does not send {other:?}")),
        };
        match (self.pending.remove(&request.0), message) {
            (Some(Pending::Subscribe(place)), Message::Subscribed(subscribed)) => {
                let held = &mut log.subscriptions[place];
                (held.id, held.since) = (subscribed.subscription.0, Some(stage.step));
            }
            (Some(Pending::Unsubscribe(place)), Message::Unsubscribed(_)) => {
                log.subscriptions[place].is_over = true;
            }
            (Some(Pending::Register(place)), Message::Registered(registered)) => {
                let held = &mut log.registrations[place];
                (held.id, held.since) = (registered.registration.0, Some(stage.step));
            }
            (Some(Pending::Unregister(place)), Message::Unregistered(_)) => {
                log.registrations[place].is_over = true;
            }
            (pending, _) => return broken("answer", format!("{message:?} to {pending:?}")),
        }
        Ok(())
    }
}

//! Bytes on their way in: receive, make messages of them, hand them to the router, and stop in time.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::ErrorKind;

use super::Shard;
use super::connection::{Backlog, Paused, Phase};
use super::core::{Core, SCRATCH_BYTES_MAX};
use super::recorder;
use super::world::World;
use crate::config::ListenerMode;
use crate::link::{Framing, Inflater, MessageBytes, Opened, Step, with_cookie};
use crate::router::effects::{Effects, Sent};
use crate::router::peer::SessionKey;
use crate::router::{Handled, LinkInfo};
use crate::wamp::codec::{DecodeLimits, Input, Serializer, decode};
use crate::wamp::message::Message;
use crate::wamp::{CloseReason, MessageType};

/// An outgoing echo may use all of an outbox.
const ECHO_RESERVE_BYTES: usize = 32 * 1024 * 1024;

impl<W: World> Shard<W> {
    /// One turn of one connection: what is left from before, one recv, and as many messages as its budget permits.
    pub(super) fn read(&mut self, key: SessionKey) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut inflater = std::mem::take(&mut self.inflater);
        self.read_into(key, &mut scratch, &mut inflater);
        inflater.give_scratch_back(SCRATCH_BYTES_MAX);
        self.inflater = inflater;
        self.scratch = scratch;
        self.close_broken();
    }

    fn read_into(&mut self, key: SessionKey, scratch: &mut [u8], inflater: &mut Inflater) {
        let Some(connection) = self.core.connections.get(key) else { return };
        if matches!(connection.phase, Phase::Closing | Phase::Lingering) {
            self.core.discard(key, scratch);
            return;
        }
        let budget = Budget::begin(&self.core);
        if !self.handle_waiting(key, &budget) {
            return;
        }
        let mut filled = self.core.take_unread(key, scratch);
        match self.core.receive(key, &mut scratch[filled..]) {
            Received::Bytes(count) => filled += count,
            Received::Ended => {}
            Received::Broken => {
                self.close(key, CloseReason::Reset);
                return;
            }
        }
        if self.core.turn_away(key, &scratch[..filled]) {
            return;
        }
        let consumed = self.feed(key, &mut scratch[..filled], inflater, &budget);
        self.after_feed(key, &scratch[consumed..filled], &budget);
    }

    /// Makes messages of bytes until they end, or the connection has to stop; returns how many were consumed.
    fn feed(&mut self, key: SessionKey, input: &mut [u8], inflater: &mut Inflater, budget: &Budget) -> usize {
        let mut at = 0;
        loop {
            let Some(connection) = self.core.connections.get_mut(key) else { return at };
            if connection.phase == Phase::Closing
                || connection.paused.reading()
                || budget.is_spent(self.core.deliveries)
            {
                return at;
            }
            let listener = connection.listener as usize;
            let config = &self.core.links[listener];
            let bytes_max = message_bytes_max(connection.phase, config.listener.mode, &self.core.limits);
            let (consumed, step) = connection.link.next(config, bytes_max, inflater, &mut input[at..]);
            at += consumed;
            match step {
                Step::Idle => return at,
                Step::Opened { opened, reply } => self.handle_opened(key, opened, &reply),
                Step::Message(bytes) => {
                    budget.take(&bytes, consumed);
                    self.handle_bytes(key, &bytes);
                }
                Step::Reply(reply) => {
                    // A PONG may be as long as a message, and an outbox no longer than that.
                    let reserve = self.core.tuning.reply_reserve_bytes;
                    if self.core.push_bytes(key, &reply, reserve) == Sent::Full {
                        self.core.doomed.push(key);
                    }
                }
                Step::Pong(number) => {
                    self.core.counters.pongs += 1;
                    if let Some(number) = number {
                        self.handle_pong(key, number);
                    }
                }
                Step::Violation(error) => {
                    self.router.handle_violation(self.core.now, key, &error, &mut self.core);
                    return at;
                }
                Step::Close { reply, reason } => {
                    let _ = self.core.push_bytes(key, &reply, ECHO_RESERVE_BYTES);
                    self.close(key, reason);
                    return at;
                }
            }
            if !self.core.doomed.is_empty() || !self.core.broken.is_empty() {
                self.close_broken();
            }
        }
    }

    /// The handshake of a link is done.
    fn handle_opened(&mut self, key: SessionKey, opened: Opened, reply: &[u8]) {
        let tick = self.core.lived.tick();
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        connection.encoding = opened.encoding;
        connection.deflate = opened.deflate;
        connection.peer_message_bytes_max = u32::try_from(opened.peer_message_bytes_max).unwrap_or(u32::MAX);
        connection.since = tick;
        let listener = connection.listener;
        let mut reply = Cow::Borrowed(reply);
        if opened.encoding.is_none() {
            connection.phase = Phase::Open;
            let first = self.core.first_ping(key);
            self.core.connections.check_at[key.slot as usize] = super::connection::NEVER;
            self.core.check_by(key, first);
        } else {
            connection.phase = Phase::Linked;
            let timeout = self.core.lived.ticks(self.core.limits.hello_timeout);
            self.core.connections.check_at[key.slot as usize] = super::connection::NEVER;
            self.core.check_by(key, tick.saturating_add(timeout));
            self.router.handle_open(self.core.now, key, LinkInfo { listener });
            if let Some(config) = &self.core.links[usize::from(listener)].listener.cookie
                && opened.encoding.is_some_and(|encoding| encoding.framing != Framing::RawSocket)
                && let Some(cookie) =
                    self.router.handle_cookie(self.core.now, key, opened.cookie.as_deref().copied())
            {
                self.core.counters.cookies_set += 1;
                reply = with_cookie(&reply, config, &cookie).into();
            }
        }
        let _ = self.core.push_bytes(key, &reply, 0);
    }

    /// One message of a link: a WAMP message, or something to be echoed.
    fn handle_bytes(&mut self, key: SessionKey, bytes: &MessageBytes<'_>) {
        let Some(connection) = self.core.connections.get(key) else { return };
        let Some(encoding) = connection.encoding else {
            self.echo(key, bytes);
            return;
        };
        let input = match bytes {
            MessageBytes::Text(text) => Input::Text(text),
            MessageBytes::TextOwned(text) => Input::Text(text),
            MessageBytes::Binary(bytes) => Input::Bytes(bytes),
            MessageBytes::BinaryOwned(bytes) => Input::Bytes(bytes),
        };
        self.handle_encoded(key, encoding.serializer, input);
    }

    fn echo(&mut self, key: SessionKey, bytes: &MessageBytes<'_>) {
        self.core.counters.messages_received += 1;
        let sent = self.core.push_echo(key, bytes.is_text(), bytes.as_bytes(), ECHO_RESERVE_BYTES);
        if sent == Sent::Full {
            self.core.doomed.push(key);
        }
    }

    /// Whether the connection may handle more in this turn; when only its budget is spent it is listed again.
    fn may_go_on(&mut self, key: SessionKey, budget: &Budget) -> bool {
        let Some(connection) = self.core.connections.get(key) else { return false };
        let paused = connection.paused;
        // Whoever takes one of these reasons away lists it again.
        let waits = paused.held_back() || (paused.reading() && paused.requests());
        if waits || matches!(connection.phase, Phase::Closing | Phase::Lingering) {
            self.core.account_input(key);
            return false;
        }
        if budget.is_spent(self.core.deliveries) {
            self.core.counters.paused_budget += 1;
            self.core.account_input(key);
            self.core.list_readable(key);
            return false;
        }
        true
    }

    /// One encoded WAMP message.
    fn handle_encoded(&mut self, key: SessionKey, serializer: Serializer, input: Input<'_>) {
        let limits = &self.core.limits;
        let decode_limits = DecodeLimits { depth_max: limits.depth_max, list_max: limits.option_list_max };
        let length = match input {
            Input::Text(text) => text.len(),
            Input::Bytes(bytes) => bytes.len(),
        };
        self.core.counters.messages_received += 1;
        self.core.deliveries_of_input = 0;
        self.core.met_slow_reader = false;
        let message = match decode(serializer, input, decode_limits) {
            Ok(message) => message,
            Err(error) => {
                self.router.handle_violation(self.core.now, key, &error, &mut self.core);
                return;
            }
        };
        let kind = message.kind();
        recorder::received(self.core.now.monotonic_us, key, kind, length);
        let waits = match &message {
            // It must not overtake its own call, which then nothing would cancel, nor another CANCEL, which may be of the
            // same call in another mode.
            Message::Cancel(cancel) => {
                !self.router.call_is_open(key, cancel.request) || self.core.cancels_wait(key)
            }
            _ => waits(kind),
        };
        if waits && self.core.requests_wait(key) {
            let bytes = match input {
                Input::Text(text) => text.as_bytes(),
                Input::Bytes(bytes) => bytes,
            };
            self.core.keep_request(key, bytes, kind);
            return;
        }
        if self.handle_message(key, &message) == Handled::Waits {
            let bytes = match input {
                Input::Text(text) => text.as_bytes(),
                Input::Bytes(bytes) => bytes,
            };
            self.core.keep_request(key, bytes, kind);
            self.core.await_decision(key);
        }
    }

    fn handle_message(&mut self, key: SessionKey, message: &Message<'_>) -> Handled {
        let handled = self.router.handle_message(self.core.now, key, message, &mut self.core);
        if message.kind() == MessageType::Publish && self.core.publishers_wait() {
            self.core.pause_publisher(key);
        }
        handled
    }

    /// The requests that waited, in order; false when the connection has to wait again.
    fn handle_waiting(&mut self, key: SessionKey, budget: &Budget) -> bool {
        loop {
            let waiting_bytes_max = self.core.tuning.waiting_bytes_max;
            let Some(connection) = self.core.connections.get_mut(key) else { return false };
            let (paused, encoding) = (connection.paused, connection.encoding);
            let waiting = connection.backlog.as_mut().filter(|backlog| !backlog.waiting.is_empty());
            let Some(backlog) = waiting else {
                connection.paused.remove(Paused::WAITING);
                return self.may_go_on(key, budget);
            };
            // While its own outbox is too full, what is no request may still come, unless too many requests wait.
            if paused.requests() || paused.held_back() || budget.is_spent(self.core.deliveries) {
                return self.may_go_on(key, budget);
            }
            let (Some(request), Some(encoding)) = (backlog.waiting.pop_front(), encoding) else {
                return false;
            };
            backlog.waiting_bytes -= request.len();
            if backlog.waiting_bytes < waiting_bytes_max {
                connection.paused.remove(Paused::WAITING);
            }
            self.replay(key, encoding.serializer, request);
        }
    }

    /// A request that waited: it is first in line, so it does not wait behind the others.
    fn replay(&mut self, key: SessionKey, serializer: Serializer, request: Box<[u8]>) {
        let limits = &self.core.limits;
        let decode_limits = DecodeLimits { depth_max: limits.depth_max, list_max: limits.option_list_max };
        self.core.deliveries_of_input = 0;
        self.core.met_slow_reader = false;
        // It was decoded once already; that it fails now cannot be.
        match decode(serializer, Input::Bytes(&request), decode_limits) {
            Ok(message) => {
                if matches!(message, Message::Cancel(_)) {
                    self.core.backlog(key, |backlog| backlog.waiting_cancels -= 1);
                }
                if self.handle_message(key, &message) == Handled::Waits {
                    self.core.put_back_request(key, request);
                    self.core.await_decision(key);
                }
            }
            Err(error) => self.router.handle_violation(self.core.now, key, &error, &mut self.core),
        }
        self.close_broken();
    }

    /// Keeps what was not consumed, and decides when the connection is looked at again.
    fn after_feed(&mut self, key: SessionKey, rest: &[u8], budget: &Budget) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        if matches!(connection.phase, Phase::Closing | Phase::Lingering) {
            if connection.readable || connection.hangup {
                self.core.list_readable(key);
            }
            return;
        }
        if !rest.is_empty() {
            self.core.backlog(key, |backlog| backlog.unread = rest.to_vec());
        }
        self.core.account_input(key);
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        if connection.paused.reading() {
            return;
        }
        let waiting = connection.backlog.as_ref().is_some_and(|backlog| !backlog.waiting.is_empty());
        let spent = budget.is_spent(self.core.deliveries);
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        if connection.ended {
            // What came before the end is handled first: PUBLISH, GOODBYE and FIN in one packet publish.
            if spent {
                self.core.list_readable(key);
            } else if !waiting {
                self.close(key, CloseReason::EndOfStream);
            }
            return;
        }
        let has_input = (connection.readable || connection.hangup) && !connection.starved;
        if has_input || spent {
            if spent {
                self.core.counters.paused_budget += 1;
            }
            self.core.list_readable(key);
        }
    }
}

/// What a recv came to.
enum Received {
    Bytes(usize),
    Ended,
    Broken,
}

impl<W: World> Core<W> {
    /// One recv, if there may be something.
    fn receive(&mut self, key: SessionKey, buffer: &mut [u8]) -> Received {
        let tick = self.lived.tick();
        let Some(connection) = self.connections.get_mut(key) else { return Received::Broken };
        if connection.ended || !(connection.readable || connection.hangup) || buffer.is_empty() {
            return Received::Bytes(0);
        }
        // At the bound of paused input nobody is received from, and nobody is closed (R9).
        if self.paused_bytes > self.limits.paused_bytes_per_core_max {
            connection.readable = true;
            if !connection.starved {
                // Not on the still-readable list, where it would keep the core awake.
                connection.starved = true;
                self.counters.paused_input += 1;
                self.starved.push(key);
            }
            return Received::Bytes(0);
        }
        let wanted = buffer.len().min(self.limits.turn_bytes_per_session);
        self.counters.receives += 1;
        match self.world.recv(&connection.socket, &mut buffer[..wanted]) {
            Ok(0) => {
                connection.ended = true;
                connection.readable = false;
                Received::Ended
            }
            Ok(count) => {
                // Edge-triggered: only a recv that did not fill its buffer has emptied the socket.
                connection.readable = count == wanted;
                connection.last_read = tick;
                connection.pinged = false;
                self.counters.bytes_received += count as u64;
                Received::Bytes(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                connection.readable = false;
                connection.hangup = false;
                Received::Bytes(0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Received::Bytes(0),
            Err(_) => Received::Broken,
        }
    }

    /// Whether the connection is one beyond a limit; its first bytes are its last.
    fn turn_away(&mut self, key: SessionKey, input: &[u8]) -> bool {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.refused) else {
            return false;
        };
        if let Some(first) = input.first() {
            connection.link.turn_away(*first);
            Effects::close(self, key, CloseReason::TooManyConnections, None);
        } else if connection.ended {
            Effects::close(self, key, CloseReason::EndOfStream, None);
        }
        true
    }

    /// Reads on where the bound of paused input is kept again.
    pub(super) fn feed_starved(&mut self) {
        if self.paused_bytes <= self.limits.paused_bytes_per_core_max {
            for key in std::mem::take(&mut self.starved) {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.starved = false;
                    self.list_readable(key);
                }
            }
        }
    }

    /// Moves what was kept in front of what comes next.
    fn take_unread(&mut self, key: SessionKey, scratch: &mut [u8]) -> usize {
        let Some(connection) = self.connections.get_mut(key) else { return 0 };
        let Some(backlog) = connection.backlog.as_mut() else { return 0 };
        let unread = std::mem::take(&mut backlog.unread);
        // The scratch buffer is twice as long as what can be left of one recv.
        let count = unread.len().min(scratch.len());
        scratch[..count].copy_from_slice(&unread[..count]);
        count
    }

    /// Changes the backlog of a connection, making or freeing it as needed.
    fn backlog(&mut self, key: SessionKey, change: impl FnOnce(&mut Backlog)) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let backlog = connection.backlog.get_or_insert_default();
        change(backlog);
        if backlog.is_empty() {
            connection.backlog = None;
        }
    }

    /// Brings the account of kept input up to date.
    pub(super) fn account_input(&mut self, key: SessionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.backlog.as_ref().is_some_and(|backlog| backlog.is_empty()) {
            connection.backlog = None;
        }
        let kept = connection.link.partial_bytes()
            + connection.backlog.as_ref().map_or(0, |backlog| backlog.bytes());
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        let (before, was_paused) = (connection.kept_bytes, connection.kept_paused);
        // What waits for nobody but its own client may be closed at the bound.
        let paused = connection.paused.held_back();
        (connection.kept_bytes, connection.kept_paused) = (kept, paused);
        *self.input_account(was_paused) -= before as usize;
        *self.input_account(paused) += kept as usize;
    }

    /// Whether a request of this connection has to wait, or would overtake one that does.
    fn requests_wait(&self, key: SessionKey) -> bool {
        self.connections.get(key).is_some_and(|connection| {
            connection.paused.requests()
                || connection.backlog.as_ref().is_some_and(|backlog| !backlog.waiting.is_empty())
        })
    }

    /// Whether a CANCEL of this connection waits.
    fn cancels_wait(&self, key: SessionKey) -> bool {
        let backlog = self.connections.get(key).and_then(|connection| connection.backlog.as_ref());
        backlog.is_some_and(|backlog| backlog.waiting_cancels > 0)
    }

    /// Keeps a request until it may be handled; behind too many of them nothing is read.
    fn keep_request(&mut self, key: SessionKey, request: &[u8], kind: MessageType) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let backlog = connection.backlog.get_or_insert_default();
        backlog.waiting_cancels += usize::from(kind == MessageType::Cancel);
        backlog.waiting.push_back(request.into());
        backlog.waiting_bytes += request.len();
        if backlog.waiting_bytes >= self.tuning.waiting_bytes_max && connection.paused.insert(Paused::WAITING)
        {
            self.counters.paused_waiting += 1;
        }
    }

    /// As [`Self::keep_request`], in front of the others.
    fn put_back_request(&mut self, key: SessionKey, request: Box<[u8]>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let backlog = connection.backlog.get_or_insert_default();
        backlog.waiting_bytes += request.len();
        backlog.waiting.push_front(request);
        if backlog.waiting_bytes >= self.tuning.waiting_bytes_max {
            connection.paused.insert(Paused::WAITING);
        }
    }

    /// The first request that waits does so for a decision; the router says when it is there.
    fn await_decision(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.paused.insert(Paused::DECISION)
        {
            self.counters.paused_decision += 1;
        }
    }

    /// Memory is short: this publisher is not read until it no longer is.
    fn pause_publisher(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !matches!(connection.phase, Phase::Closing | Phase::Lingering)
            && connection.paused.insert(Paused::MEMORY)
        {
            self.counters.paused_memory += 1;
            self.memory_waiting.push(key);
        }
    }
}

/// What one session may do in one turn.
struct Budget {
    deliveries_max: usize,
    /// Of what messages are longer than what came for them just now, because they were assembled in earlier turns or are
    /// inflated: for the others one recv is the bound.
    further_bytes_left: Cell<usize>,
}

impl Budget {
    fn begin<W: World>(core: &Core<W>) -> Self {
        Self {
            deliveries_max: core.deliveries + core.limits.turn_deliveries_per_session,
            further_bytes_left: Cell::new(core.limits.turn_bytes_per_session),
        }
    }

    fn take(&self, message: &MessageBytes<'_>, consumed: usize) {
        let further = message.as_bytes().len().saturating_sub(consumed);
        self.further_bytes_left.set(self.further_bytes_left.get().saturating_sub(further));
    }

    fn is_spent(&self, deliveries: usize) -> bool {
        deliveries >= self.deliveries_max || self.further_bytes_left.get() == 0
    }
}

/// The messages that wait while requests do; the others pass them, but CANCEL not the CALL that it cancels.
fn waits(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::Publish
            | MessageType::Subscribe
            | MessageType::Unsubscribe
            | MessageType::Call
            | MessageType::Register
            | MessageType::Unregister
            | MessageType::Goodbye
    )
}

/// How long a message may be at this point.
fn message_bytes_max(phase: Phase, mode: ListenerMode, limits: &crate::config::Limits) -> usize {
    match (phase, mode) {
        (_, ListenerMode::Echo) => super::ECHO_MESSAGE_BYTES_MAX,
        (Phase::Open, ListenerMode::Wamp) => limits.message_bytes_max,
        (_, ListenerMode::Wamp) => limits.hello_bytes_max,
    }
}

//! What a shard has beside its router: connections, ways out, accounts. Performs the router's effects.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::addresses::Addresses;
use super::checks::Checks;
use super::connection::{Connection, Connections, NEVER, Paused, Phase};
use super::credit::Credits;
use super::lived::LivedTime;
use super::mesh::MeshEnd;
use super::outbox::{Levels, Pool, Push};
use super::probes::Probe;
use super::queries::Queries;
use super::recorder;
use super::world::World;
use super::{CLOSES_A_TURN, PEER_DELIVERIES_A_TURN};
use crate::config::Limits;
use crate::link::{
    Deflater, Encoding, Framing, LinkConfig, WindowBits, frame, frame_deflated, frame_echo,
    frame_echo_deflated,
};
use crate::metrics::Counters;
use crate::router::database::{DatabaseIndex, Query, QueryNumber, Receivers, Replay, batch_of_key};
use crate::router::effects::{CreditTime, Effects, EventFrames, Sent, Transcoded};
use crate::router::peer::{Charge, CoreId, NEWS_KEY, PeerMessage, SessionKey, SessionRef};
use crate::router::{Now, SlowCheck};
use crate::wamp::codec::{Encoder, NotRepresentable, OwnedPayload, Serializer};
use crate::wamp::message::{Event, Message};
use crate::wamp::{CloseReason, Payload, SessionId};

/// Bounds that are no configuration. The simulation makes them smaller, so that they are reached.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Small replies may use this much more than the hard bound, in bytes.
    pub reply_reserve_bytes: usize,
    /// The first events of one input leave with the replies; the rest of a large fan-out goes to the bulk list.
    pub small_fan_out: u32,
    /// A slow reader that took less than this in the last second is not waited for, in bytes.
    pub slow_reader_bytes_min: u64,
    /// Requests that wait are kept up to this, in bytes, or one message; then the connection is not read.
    pub waiting_bytes_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            reply_reserve_bytes: 64 * 1024,
            small_fan_out: 64,
            slow_reader_bytes_min: 64 * 1024,
            waiting_bytes_max: 64 * 1024,
        }
    }
}

/// How short the router is of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryLevel {
    /// Enough.
    #[default]
    Normal,
    /// Publishers wait and nobody is accepted.
    High,
    /// The largest outboxes are closed as well.
    Critical,
}

/// Everything of one core that is not its router.
pub(super) struct Core<W: World> {
    pub(super) id: CoreId,
    pub(super) cores: u16,
    pub(super) limits: Arc<Limits>,
    pub(super) links: Vec<LinkConfig>,
    pub(super) world: W,
    pub(super) mesh: MeshEnd<PeerMessage>,
    pub(super) connections: Connections<W::Socket>,
    pub(super) addresses: Addresses,
    pub(super) pool: Pool,
    pub(super) counters: Counters,
    pub(super) now: Now,
    pub(super) lived: LivedTime,
    /// Clients that have to answer a ping.
    pub(super) probes: Vec<Probe>,
    /// The number of the last of those pings.
    pub(super) probe_number: u64,
    pub(super) credits: Credits,
    /// What this core is charged itself, for meta events of sessions that have ended, in bytes.
    pub(super) news_owed: u32,
    /// More of them wait than may, so that nobody is read who could cause others.
    pub(super) is_behind_with_news: bool,
    /// Sessions that could not even take a small reply: closed once the input is handled.
    pub(super) doomed: Vec<SessionKey>,
    /// Sessions whose waiting requests are held back from now on, because they do not read.
    pub(super) held_back: Vec<SessionKey>,
    /// Connections that broke while something was written to them.
    pub(super) broken: Vec<SessionKey>,
    /// To be flushed this turn.
    pub(super) dirty: Vec<SessionKey>,
    /// To be flushed as turns permit, first come first served.
    pub(super) bulk: VecDeque<SessionKey>,
    /// How many ever came onto `bulk`, and how many of them were flushed.
    pub(super) bulk_pushed: u64,
    pub(super) bulk_flushed: u64,
    /// To be read although no event will say so.
    pub(super) readable: Vec<SessionKey>,
    /// To be read once the input that is kept for those that are paused is back under its bound.
    pub(super) starved: Vec<SessionKey>,
    /// Bytes in all outboxes.
    pub(super) outbox_bytes: usize,
    /// Outboxes that are more than half full.
    pub(super) over_half: u32,
    /// The publication being delivered met an outbox that is worth waiting for.
    pub(super) met_slow_reader: bool,
    /// EVENTs queued since the turn began, and since the input began.
    pub(super) deliveries: usize,
    pub(super) deliveries_of_input: u32,
    pub(super) lingering: usize,
    /// Connections beyond a limit that are there to be told so.
    pub(super) refused: usize,
    /// Input that is kept for connections that are read, in bytes, and for those that are not (R9).
    pub(super) partial_bytes: usize,
    pub(super) paused_bytes: usize,
    pub(super) memory: MemoryLevel,
    /// Cores, this one included, whose outboxes are over their bound.
    pub(super) pressed: Vec<bool>,
    /// When the largest outboxes of this core are closed if publishers still wait for them, in ticks.
    pub(super) pressed_until: u32,
    /// The largest outboxes are closed until all of them hold no more than this, in bytes.
    pub(super) shed_to_bytes: Option<usize>,
    /// A bound is still exceeded after as many closes as one turn may make.
    pub(super) closes_are_left: bool,
    /// Publishers that wait for memory.
    pub(super) memory_waiting: Vec<SessionKey>,
    pub(super) stopping: bool,
    pub(super) accept_paused_until_us: Option<u64>,
    pub(super) accept_backoff_us: u64,
    pub(super) accepting: bool,
    pub(super) tuning: Tuning,
    pub(super) checks: Checks,
    pub(super) queries: Queries,
    encoder: Encoder,
    deflater: Deflater,
    encoded: Vec<u8>,
    framed: Vec<u8>,
}

/// What a core is made of.
pub(super) struct CoreParts<W: World> {
    pub(super) id: CoreId,
    pub(super) cores: u16,
    pub(super) limits: Arc<Limits>,
    pub(super) links: Vec<LinkConfig>,
    pub(super) world: W,
    pub(super) mesh: MeshEnd<PeerMessage>,
    /// Of tables of what clients choose.
    pub(super) hash_seed: u64,
}

impl<W: World> Core<W> {
    pub(super) fn new(parts: CoreParts<W>) -> Self {
        let CoreParts { id, cores, limits, links, world, mesh, hash_seed } = parts;
        Self {
            id,
            cores,
            addresses: Addresses::new(&limits, cores, hash_seed),
            deflater: Deflater::new(limits.compression_level),
            credits: Credits::new(cores, limits.credit_bytes_per_session),
            news_owed: 0,
            is_behind_with_news: false,
            doomed: Vec::new(),
            held_back: Vec::new(),
            broken: Vec::new(),
            limits,
            links,
            world,
            mesh,
            connections: Connections::new(),
            pool: Pool::default(),
            counters: Counters::default(),
            now: Now::default(),
            lived: LivedTime::default(),
            probes: Vec::new(),
            probe_number: 0,
            dirty: Vec::new(),
            bulk: VecDeque::new(),
            bulk_pushed: 0,
            bulk_flushed: 0,
            readable: Vec::new(),
            starved: Vec::new(),
            outbox_bytes: 0,
            over_half: 0,
            met_slow_reader: false,
            deliveries: 0,
            deliveries_of_input: 0,
            lingering: 0,
            refused: 0,
            partial_bytes: 0,
            paused_bytes: 0,
            memory: MemoryLevel::Normal,
            pressed: vec![false; cores as usize],
            pressed_until: 0,
            shed_to_bytes: None,
            closes_are_left: false,
            memory_waiting: Vec::new(),
            stopping: false,
            accept_paused_until_us: None,
            accept_backoff_us: 0,
            accepting: true,
            tuning: Tuning::default(),
            checks: Checks::default(),
            queries: Queries::default(),
            encoder: Encoder::new(),
            encoded: Vec::new(),
            framed: Vec::new(),
        }
    }

    /// The payload of a publication in a serializer: as it is, or transcoded once for all that speak this one.
    fn payload_for<'p>(
        &mut self,
        serializer: Serializer,
        payload: &Payload<'p>,
        transcoded: &'p mut Transcoded,
    ) -> Option<Payload<'p>> {
        if payload.serializer == serializer || payload.is_empty() {
            return Some(*payload);
        }
        let place = &mut transcoded.payloads[serializer as usize];
        if place.is_none() {
            self.counters.events_transcoded += 1;
        }
        let made = place.get_or_insert_with(|| self.encoder.transcode(payload, serializer));
        made.as_ref().ok().map(OwnedPayload::as_payload)
    }

    fn levels(&self, reserve: usize) -> Levels {
        let hard_bytes = self.limits.outbox_hard_bytes.saturating_add(reserve);
        Levels { soft_bytes: self.limits.outbox_soft_bytes, hard_bytes }
    }

    /// Encodes and frames into `self.framed`.
    fn encode(
        &mut self,
        message: &Message<'_>,
        encoding: Encoding,
        deflate: Option<WindowBits>,
    ) -> Result<(), NotRepresentable> {
        self.encoded.clear();
        self.encoder.encode(message, encoding.serializer, &mut self.encoded)?;
        let deflate = deflate.filter(|_| payload_bytes(message) >= self.limits.compression_bytes_min);
        self.frame(encoding, deflate);
        Ok(())
    }

    /// The same for an EVENT, with this payload instead of its own.
    fn encode_event(
        &mut self,
        event: &Event<'_>,
        payload: &Payload<'_>,
        encoding: Encoding,
        deflate: Option<WindowBits>,
    ) -> Result<(), NotRepresentable> {
        self.encoded.clear();
        self.encoder.encode_event(event, payload, encoding.serializer, &mut self.encoded)?;
        self.frame(encoding, deflate);
        Ok(())
    }

    fn frame(&mut self, encoding: Encoding, deflate: Option<WindowBits>) {
        self.framed.clear();
        if let Some(window) = deflate {
            let (encoded, deflater) = (&self.encoded, &mut self.deflater);
            let shorter = frame_deflated(encoding, window, encoded, deflater, &mut self.framed);
            self.count_compression(shorter);
            if shorter {
                return;
            }
        }
        frame(encoding, &self.encoded, &mut self.framed);
    }

    fn count_compression(&mut self, shorter: bool) {
        self.counters.frames_compressed += u64::from(shorter);
        self.counters.frames_incompressible += u64::from(!shorter);
    }

    /// Queues what an echo link received, as it came or compressed.
    pub(super) fn push_echo(
        &mut self,
        to: SessionKey,
        is_text: bool,
        message: &[u8],
        reserve: usize,
    ) -> Sent {
        let Some(connection) = self.connections.get(to) else { return Sent::Gone };
        let deflate = connection.deflate.filter(|_| message.len() >= self.limits.compression_bytes_min);
        let mut framed = std::mem::take(&mut self.framed);
        framed.clear();
        let shorter = deflate.is_some_and(|window| {
            let shorter = frame_echo_deflated(is_text, window, message, &mut self.deflater, &mut framed);
            self.count_compression(shorter);
            shorter
        });
        if !shorter {
            frame_echo(is_text, message, &mut framed);
        }
        let sent = self.push_bytes(to, &framed, reserve);
        self.framed = framed;
        self.give_scratch_back();
        sent
    }

    /// One large message must not pin its size for good.
    fn give_scratch_back(&mut self) {
        for scratch in [&mut self.encoded, &mut self.framed] {
            if scratch.capacity() > SCRATCH_BYTES_MAX {
                *scratch = Vec::new();
            }
        }
        self.deflater.give_scratch_back(SCRATCH_BYTES_MAX);
    }

    /// Queues the EVENT in `self.framed`, which nobody else gets: a copy, where a reference would have to be allocated.
    fn push_sole_event(&mut self, to: SessionKey, encoding: Encoding, peer_max: usize) -> Sent {
        let sent = if too_large(encoding, self.framed.len(), peer_max, &self.limits) {
            Sent::TooLarge
        } else {
            let levels = self.levels(0);
            let Some(connection) = self.connections.get_mut(to) else { return Sent::Gone };
            let before = connection.outbox.bytes();
            let pushed = connection.outbox.push_copy(&self.framed, levels, &mut self.pool);
            self.pushed(to, before, pushed, true)
        };
        self.give_scratch_back();
        sent
    }

    /// Queues one message for one connection.
    fn queue(&mut self, to: SessionKey, message: &Message<'_>, reserve: usize) -> Sent {
        let Some(connection) = self.connections.get(to) else { return Sent::Gone };
        if !matches!(connection.phase, Phase::Open | Phase::Linked) {
            return Sent::Gone;
        }
        let Some(encoding) = connection.encoding else { return Sent::Gone };
        let deflate = connection.deflate;
        let peer_max = connection.peer_message_bytes_max as usize;
        if self.encode(message, encoding, deflate).is_err() {
            return Sent::NotRepresentable;
        }
        if too_large(encoding, self.framed.len(), peer_max, &self.limits) {
            self.give_scratch_back();
            return Sent::TooLarge;
        }
        let framed = std::mem::take(&mut self.framed);
        let sent = self.push_bytes(to, &framed, reserve);
        self.framed = framed;
        self.give_scratch_back();
        sent
    }

    /// Who has no connection may be this core itself, or a batch of a database.
    #[cold]
    fn charge_nobody(&mut self, session: SessionKey, bytes: u32) -> bool {
        if session == NEWS_KEY {
            self.news_owed = self.news_owed.saturating_add(bytes);
            return !self.may_tell_news();
        }
        let Some((database, batch)) = batch_of_key(session) else { return false };
        self.queries.charge(database, batch, bytes);
        // Its credit goes back at once: the next batch waits for it.
        true
    }

    /// Whether what this core owes for meta events is within the share of a session.
    pub(super) fn may_tell_news(&self) -> bool {
        self.news_owed as usize <= self.limits.credit_bytes_per_session
    }

    /// Queues bytes that are framed already.
    pub(super) fn push_bytes(&mut self, to: SessionKey, bytes: &[u8], reserve: usize) -> Sent {
        let levels = self.levels(reserve);
        let Some(connection) = self.connections.get_mut(to) else { return Sent::Gone };
        let before = connection.outbox.bytes();
        let pushed = connection.outbox.push_copy(bytes, levels, &mut self.pool);
        self.pushed(to, before, pushed, false)
    }

    /// Accounts for a push: totals, dirty lists, bounds.
    fn pushed(&mut self, to: SessionKey, before: usize, pushed: Push, is_event: bool) -> Sent {
        if pushed == Push::Full {
            return Sent::Full;
        }
        self.counters.messages_sent += 1;
        let half = self.limits.outbox_hard_bytes / 2;
        let bulk = is_event && self.deliveries_of_input > self.tuning.small_fan_out;
        let Some(connection) = self.connections.get_mut(to) else { return Sent::Gone };
        let bytes = connection.outbox.bytes();
        self.outbox_bytes += bytes - before;
        if bytes > half {
            if !connection.over_half {
                connection.over_half = true;
                self.over_half += 1;
                if connection.phase == Phase::Open && connection.paused.insert(Paused::OUTBOX) {
                    self.counters.paused_outbox += 1;
                    if connection.backlog.as_ref().is_some_and(|backlog| !backlog.waiting.is_empty()) {
                        self.held_back.push(to);
                    }
                }
            }
            // Worth waiting for only while it takes something: a reader of a byte a second delays nobody.
            let accepted = connection.outbox.accepted_bytes(self.now.monotonic_us);
            if is_event && accepted >= self.tuning.slow_reader_bytes_min {
                self.met_slow_reader = true;
            }
        }
        // A refused connection leaves the lists until the kernel has room.
        if !connection.dirty && !connection.blocked {
            connection.dirty = true;
            if bulk {
                self.bulk.push_back(to);
                self.bulk_pushed += 1;
            } else {
                self.dirty.push(to);
            }
        }
        if pushed == Push::AboveSoft && !connection.blocked {
            // Above the soft bound the kernel must have refused: one more send finds out.
            self.flush_connection(to);
        }
        Sent::Accepted
    }

    /// Marks a connection to be read although no event will say so.
    pub(super) fn list_readable(&mut self, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.listed
        {
            connection.listed = true;
            self.readable.push(key);
        }
    }

    /// One reason less; when nothing holds it back any more it is read, without waiting for an event: its requests first,
    /// and when there are too many of them and they have to wait on, no more than that.
    pub(super) fn resume(&mut self, key: SessionKey, reason: Paused) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.paused.remove(reason)
            && !connection.paused.held_back()
        {
            self.account_input(key);
            self.list_readable(key);
        }
    }

    /// The timers of a connection are looked at at this tick at the latest.
    pub(super) fn check_by(&mut self, key: SessionKey, tick: u32) {
        let entry = &mut self.connections.check_at[key.slot as usize];
        *entry = (*entry).min(tick);
        self.lived.check_by(tick);
    }

    /// The account that kept input counts in.
    pub(super) fn input_account(&mut self, paused: bool) -> &mut usize {
        if paused { &mut self.paused_bytes } else { &mut self.partial_bytes }
    }

    /// Whether publishers wait: memory is short here, or outboxes are over their bound on some core.
    pub(super) fn publishers_wait(&self) -> bool {
        self.memory >= MemoryLevel::High || self.pressed.iter().any(|pressed| *pressed)
    }

    /// The largest outboxes are to be closed until all of them hold no more than this.
    pub(super) fn shed_outboxes(&mut self, to_bytes: usize) {
        let to_bytes = self.shed_to_bytes.map_or(to_bytes, |before| before.min(to_bytes));
        self.shed_to_bytes = Some(to_bytes);
    }

    /// The connections that measure largest and not 0, as many as one turn may close, the largest last.
    pub(super) fn largest(
        &self,
        measure: impl Fn(&Connection<W::Socket>) -> usize,
    ) -> Vec<(usize, SessionKey)> {
        let sized = |key| Some((measure(self.connections.get(key)?), key));
        let mut sizes: Vec<_> =
            self.connections.keys().filter_map(sized).filter(|(bytes, _)| *bytes > 0).collect();
        let smaller = sizes.len().saturating_sub(CLOSES_A_TURN);
        if smaller > 0 {
            sizes.select_nth_unstable(smaller);
            sizes.drain(..smaller);
        }
        sizes.sort_unstable();
        sizes
    }

    /// Forgets a connection and closes its socket.
    pub(super) fn free(&mut self, key: SessionKey) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        self.outbox_bytes -= connection.outbox.bytes();
        connection.outbox.clear(&mut self.pool);
        if connection.over_half {
            self.over_half -= 1;
        }
        if connection.phase == Phase::Lingering {
            self.lingering -= 1;
        }
        if connection.refused {
            self.refused -= 1;
        } else {
            self.mesh.free_place();
        }
        *self.input_account(connection.kept_paused) -= connection.kept_bytes as usize;
        self.addresses.closed(connection.address);
    }

    /// Nothing more is heard of this connection: the farewell, the link's own close, then the flush decides.
    fn begin_close(&mut self, key: SessionKey, reason: CloseReason, farewell: Option<&Message<'_>>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if matches!(connection.phase, Phase::Closing | Phase::Lingering) {
            return;
        }
        // One that was refused was never accepted: all that is counted of its end is that it was told.
        if !connection.refused || reason == CloseReason::TooManyConnections {
            self.counters.closed[reason as usize] += 1;
        }
        recorder::closed(self.now.monotonic_us, key, reason);
        let was_linked = connection.phase != Phase::Handshake;
        if matches!(reason, CloseReason::Reset) {
            self.free(key);
            return;
        }
        if matches!(reason, CloseReason::SlowConsumer | CloseReason::OutOfMemory) {
            let before = connection.outbox.bytes();
            connection.outbox.clear_but_partial_head(&mut self.pool);
            let after = connection.outbox.bytes();
            self.outbox_bytes -= before - after;
            if !connection.answered {
                // With the rest goes the answer to its handshake, and nothing can be said before that.
                self.free(key);
                return;
            }
            // No publisher waits for it any more.
            self.update_half(key);
        }
        if let Some(farewell) = farewell
            && was_linked
        {
            let _ = self.queue(key, farewell, usize::MAX);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.phase = Phase::Closing;
        connection.paused = Paused::default();
        connection.since = self.lived.tick();
        let freed = std::mem::take(&mut connection.kept_bytes);
        let kept_paused = connection.kept_paused;
        connection.backlog = None;
        *self.input_account(kept_paused) -= freed as usize;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut last = Vec::new();
        let text = farewell.map_or("", farewell_text);
        connection.link.close(reason, text, &mut last);
        if !last.is_empty() {
            let _ = self.push_bytes(key, &last, usize::MAX);
        }
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
            && !connection.blocked
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
        let timeout = self.lived.ticks(self.limits.linger_timeout);
        self.connections.check_at[key.slot as usize] = NEVER;
        self.check_by(key, self.lived.tick().saturating_add(timeout));
    }
}

/// So many shapes of wildcard patterns, tried in a look-up, cost what a delivery costs.
const SHAPES_A_DELIVERY: usize = 8;

/// A scratch buffer that grew beyond this is given back, in bytes.
pub(super) const SCRATCH_BYTES_MAX: usize = 256 * 1024;

/// RawSocket peers say how much they take; the others take what leaves room in their outbox for what comes next.
fn too_large(encoding: Encoding, framed: usize, peer_max: usize, limits: &Limits) -> bool {
    // A payload may become six times as long when it is transcoded to JSON: it must not make its receiver a slow one.
    let frame_max = (limits.outbox_hard_bytes / 2).max(limits.message_bytes_max + FRAME_BYTES_MAX);
    framed > frame_max
        || encoding.framing == Framing::RawSocket
            && (framed < RAWSOCKET_HEAD_BYTES || framed - RAWSOCKET_HEAD_BYTES > peer_max)
}

/// What a message may become longer by on its way without being transcoded: frame, codes, ids and details, in bytes.
const FRAME_BYTES_MAX: usize = 4096;

/// The head of a RawSocket frame, in bytes.
const RAWSOCKET_HEAD_BYTES: usize = 4;

/// What decides whether a message is worth compressing: without a payload it is short, and sent to one.
fn payload_bytes(message: &Message<'_>) -> usize {
    match message {
        Message::Error(error) => error.payload.len(),
        Message::Event(event) => event.payload.len(),
        Message::Invocation(invocation) => invocation.payload.len(),
        Message::Result(result) => result.payload.len(),
        _ => 0,
    }
}

/// The place of an encoding among the frames of an event: whoever has the same gets the same bytes.
fn encoding_index(encoding: Encoding, deflate: Option<WindowBits>) -> u8 {
    let serializer = match encoding.serializer {
        Serializer::Json => 0,
        Serializer::MsgPack => 1,
        Serializer::Cbor => 2,
    };
    let framing = match encoding.framing {
        Framing::WebSocket => 0,
        Framing::WebSocketBatched => 1,
        Framing::RawSocket => 2,
    };
    let window = deflate.map_or(0, |window| window.index() as u8 + 1);
    (window * 3 + serializer) * 3 + framing
}

/// What the Close frame tells people: the message of the ABORT or GOODBYE before it.
fn farewell_text<'a>(farewell: &'a Message<'_>) -> &'a str {
    let details = match farewell {
        Message::Abort(abort) => &abort.details,
        Message::Goodbye(goodbye) => &goodbye.details,
        _ => return "",
    };
    details.message.as_deref().unwrap_or_default()
}

impl<W: World> Effects for Core<W> {
    fn send(&mut self, to: SessionKey, message: &Message<'_>) -> Sent {
        self.queue(to, message, 0)
    }

    fn send_part(&mut self, to: SessionKey, message: &Message<'_>) -> Sent {
        let sent = self.queue(to, message, 0);
        if sent == Sent::Accepted
            && let Some(connection) = self.connections.get_mut(to)
            && connection.over_half
        {
            let accepted = connection.outbox.accepted_bytes(self.now.monotonic_us);
            self.met_slow_reader = accepted >= self.tuning.slow_reader_bytes_min;
        }
        sent
    }

    fn reply(&mut self, to: SessionKey, message: &Message<'_>) -> Sent {
        let sent = self.queue(to, message, self.tuning.reply_reserve_bytes);
        if sent == Sent::Full {
            self.doomed.push(to);
        }
        sent
    }

    fn event(
        &mut self,
        to: SessionKey,
        event: &Event<'_>,
        frames: &mut EventFrames,
        transcoded: &mut Transcoded,
    ) -> Sent {
        let Some(connection) = self.connections.get(to) else { return Sent::Gone };
        let (Phase::Open, Some(encoding)) = (connection.phase, connection.encoding) else {
            return Sent::Gone;
        };
        let peer_max = connection.peer_message_bytes_max as usize;
        // Judged by what all receivers have in common, so that those who take compressed frames share the small ones too.
        let deflate = connection.deflate.filter(|_| event.payload.len() >= self.limits.compression_bytes_min);
        self.deliveries += 1;
        self.deliveries_of_input += 1;
        let levels = self.levels(0);
        let index = encoding_index(encoding, deflate);
        if frames.get(index).is_none() {
            // A full outbox costs neither a transcoding nor a copy.
            if connection.outbox.is_full_for(0, levels) {
                return Sent::Full;
            }
            let Some(payload) = self.payload_for(encoding.serializer, &event.payload, transcoded) else {
                return Sent::NotRepresentable;
            };
            // First, whatever is queued: what no outbox takes must not make its receiver a slow one.
            let least = payload.len() + RAWSOCKET_HEAD_BYTES;
            if too_large(encoding, least, peer_max, &self.limits) {
                return Sent::TooLarge;
            }
            let outbox = self.connections.get(to).map(|connection| &connection.outbox);
            // How short it is compressed shows when it is.
            if deflate.is_none() && outbox.is_some_and(|outbox| outbox.is_full_for(payload.len(), levels)) {
                return Sent::Full;
            }
            if self.encode_event(event, &payload, encoding, deflate).is_err() {
                return Sent::NotRepresentable;
            }
            if frames.is_sole {
                return self.push_sole_event(to, encoding, peer_max);
            }
            frames.keep(index, Bytes::copy_from_slice(&self.framed));
            self.give_scratch_back();
        }
        let Some(frame) = frames.get(index) else { return Sent::NotRepresentable };
        if too_large(encoding, frame.len(), peer_max, &self.limits) {
            return Sent::TooLarge;
        }
        let Some(connection) = self.connections.get_mut(to) else { return Sent::Gone };
        let before = connection.outbox.bytes();
        let pushed = connection.outbox.push_shared(frame, levels, &mut self.pool);
        self.pushed(to, before, pushed, true)
    }

    fn announce(&mut self, topic: u64, wanted: bool) -> u32 {
        self.mesh.announce_interest(topic, wanted)
    }

    fn interest(&self, core: CoreId, topic: u64) -> (bool, u32) {
        self.mesh.interest(usize::from(core.0), topic)
    }

    fn may_tell(&self) -> bool {
        self.may_tell_news() && self.deliveries < PEER_DELIVERIES_A_TURN
    }

    fn searched(&mut self, shapes: usize) {
        self.deliveries += shapes / SHAPES_A_DELIVERY;
    }

    fn peer(&mut self, to: CoreId, message: PeerMessage) {
        self.send_to_peer(to, message);
    }

    fn charge(&mut self, session: SessionKey, bytes: u32) -> bool {
        let share = self.limits.credit_bytes_per_session;
        let Some(connection) = self.connections.get_mut(session) else {
            return self.charge_nobody(session, bytes);
        };
        connection.owed = connection.owed.saturating_add(bytes);
        if connection.owed as usize <= share {
            return false;
        }
        if connection.paused.insert(Paused::CREDIT) {
            self.counters.paused_credit += 1;
        }
        true
    }

    fn resume_requests(&mut self, session: SessionKey) -> bool {
        self.resume(session, Paused::DECISION);
        let paused = self.connections.get(session).map(|connection| connection.paused);
        paused.is_some_and(|paused| !paused.held_back() && !paused.requests())
    }

    fn credit(&mut self, session: SessionRef, charge: Charge, when: CreditTime) {
        self.return_credit(session, charge, when);
    }

    fn probe(&mut self, session: SessionKey) -> bool {
        self.begin_probe(session)
    }

    fn may_log_in(&mut self, session: SessionKey) -> bool {
        let now_us = self.now.monotonic_us;
        let Some(connection) = self.connections.get(session) else { return false };
        let may = self.addresses.may_log_in(connection.address, now_us);
        self.counters.logins_barred += u64::from(!may);
        may
    }

    fn login_failed(&mut self, session: SessionKey) {
        self.counters.logins_failed += 1;
        if let Some(connection) = self.connections.get(session) {
            self.addresses.login_failed(connection.address, self.now.monotonic_us);
        }
    }

    fn check(&mut self, session: SessionKey, check: SlowCheck) -> bool {
        let is_taken = self.checks.give(session, check);
        self.counters.checks += u64::from(is_taken);
        self.counters.checks_refused += u64::from(!is_taken);
        is_taken
    }

    fn query(&mut self, query: Query) -> bool {
        self.queries.query(query)
    }

    fn query_more(&mut self, database: DatabaseIndex, query: QueryNumber) {
        self.queries.more(database, query);
    }

    fn query_cancel(&mut self, database: DatabaseIndex, query: QueryNumber) {
        self.queries.cancel(database, query);
    }

    fn replay(&mut self, replay: Replay) -> bool {
        self.queries.replay(replay)
    }

    fn received(&mut self, receivers: Receivers) {
        self.queries.received(receivers);
    }

    fn has_room(&self, session: SessionKey) -> bool {
        let soft_bytes = self.limits.outbox_soft_bytes;
        // One that is gone takes everything.
        self.connections.get(session).is_none_or(|connection| connection.outbox.bytes() <= soft_bytes / 2)
    }

    fn opened(&mut self, session: SessionKey, _id: SessionId) {
        if let Some(connection) = self.connections.get_mut(session) {
            connection.phase = Phase::Open;
            connection.since = self.lived.tick();
            connection.last_read = self.lived.tick();
            let stalled = connection.blocked.then_some(connection.stalled_since);
            let first = self.first_ping(session);
            self.connections.check_at[session.slot as usize] = NEVER;
            self.check_by(session, first);
            if let Some(since) = stalled {
                let patience = self.lived.ticks(self.limits.slow_consumer_timeout);
                self.check_by(session, since.saturating_add(patience));
            }
        }
    }

    fn left(&mut self, session: SessionKey) {
        // It was asked about what it held then.
        self.probes.retain(|probe| !probe.is_of(session));
        if let Some(connection) = self.connections.get_mut(session) {
            connection.phase = Phase::Linked;
            connection.since = self.lived.tick();
            let timeout = self.lived.ticks(self.limits.hello_timeout);
            self.check_by(session, self.lived.tick().saturating_add(timeout));
        }
    }

    fn close(&mut self, session: SessionKey, reason: CloseReason, farewell: Option<&Message<'_>>) {
        self.begin_close(session, reason, farewell);
    }

    fn serializer(&self, session: SessionKey) -> Serializer {
        self.connections
            .get(session)
            .and_then(|connection| connection.encoding)
            .map_or(Serializer::Json, |encoding| encoding.serializer)
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

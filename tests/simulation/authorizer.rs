//! A client that is asked whether the others may: it says yes, sometimes late, and sometimes that this may be kept.

use std::collections::VecDeque;

use crosspoint::wamp::codec::Serializer;
use serde_json::{Value, json};

use super::history::{Kept, broken};
use super::random::Random;
use super::transport::{Frame, Framing, Transport};
use super::world::Net;

/// What it registers.
pub const PROCEDURE: &str = "sim.authorize";

const TRANSPORT: Transport =
    Transport { serializer: Serializer::Json, framing: Framing::RawSocket, window_bits: None };

/// More than it is ever sent at a time, and says.
const WIDE: usize = 1 << 20;

#[derive(Debug)]
pub struct Authorizer {
    realm: &'static str,
    wire: Option<usize>,
    is_open: bool,
    /// Its procedure is registered.
    pub is_ready: bool,
    out: VecDeque<u8>,
    input: Vec<u8>,
    /// Questions that it has not answered.
    questions: Vec<u64>,
    pub asked: u64,
}

impl Authorizer {
    pub fn new(core: usize, realm: &'static str, net: &mut Net) -> Self {
        Self {
            realm,
            wire: Some(net.connect(core, WIDE, WIDE)),
            is_open: false,
            is_ready: false,
            out: TRANSPORT.handshake().into(),
            input: Vec::new(),
            questions: Vec::new(),
            asked: 0,
        }
    }

    pub fn is_away(&self) -> bool {
        self.wire.is_none()
    }

    pub fn can_act(&self, net: &Net) -> bool {
        let Some(wire) = self.wire else { return false };
        let wire = &net.wires[wire];
        !self.out.is_empty()
            || !self.questions.is_empty()
            || !wire.to_client.is_empty()
            || wire.is_ended_by_router()
            || wire.reset_by_router
    }

    fn say(&mut self, message: &Value, random: &mut Random) {
        self.out.extend(TRANSPORT.frame(message.to_string().as_bytes(), random));
    }

    /// Reads, answers one question, and what it says arrives.
    pub fn act(&mut self, net: &mut Net, random: &mut Random) -> Kept {
        let Some(wire) = self.wire else { return Ok(()) };
        let ended = net.wires[wire].is_ended_by_router() || net.wires[wire].reset_by_router;
        if net.wires[wire].to_client.is_empty() && ended {
            net.arrive_fin(wire);
            self.wire = None;
            return Ok(());
        }
        net.read(wire, WIDE, &mut self.input);
        loop {
            let frame = TRANSPORT.next(&mut self.input, self.is_open, random);
            match frame.or_else(|text| broken("framing", text))? {
                None => break,
                Some(Frame::Opened) => {
                    self.is_open = true;
                    let hello = json!([1, self.realm, { "roles": { "callee": {} } }]);
                    self.say(&hello, random);
                }
                Some(Frame::Messages(messages)) => {
                    for message in messages {
                        self.receive(&message, random)?;
                    }
                }
                Some(Frame::Ping(pong)) => self.out.extend(pong),
                Some(Frame::Pong | Frame::Close) => {}
            }
        }
        if !self.questions.is_empty() {
            let at = random.below(self.questions.len());
            let question = self.questions.swap_remove(at);
            let answer = if random.once_in(2) {
                json!(true)
            } else {
                json!({ "allow": true, "cache": random.once_in(2) })
            };
            self.say(&json!([70, question, {}, [answer]]), random);
        }
        net.arrive(wire, self.out.drain(..));
        Ok(())
    }

    fn receive(&mut self, message: &[u8], random: &mut Random) -> Kept {
        let message: Value =
            serde_json::from_slice(message).or_else(|error| broken("answer", error.to_string()))?;
        match message[0].as_u64() {
            Some(2) => self.say(&json!([64, 1, {}, PROCEDURE]), random),
            Some(65) => self.is_ready = true,
            Some(68) => {
                self.asked += 1;
                self.questions.extend(message[1].as_u64());
            }
            // GOODBYE.
            Some(6) => {}
            _ => return broken("answer", format!("the authorizer got {message}")),
        }
        Ok(())
    }

    /// It leaves, without a word.
    pub fn depart(&mut self, net: &mut Net) {
        if let Some(wire) = self.wire {
            net.arrive_fin(wire);
        }
    }
}

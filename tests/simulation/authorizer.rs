//! A client that is asked whether the others may: it says yes, sometimes late, and sometimes that this may be kept. It
//! knows some of those who log in, too.

use std::collections::VecDeque;

use crosspoint::wamp::codec::Serializer;
use serde_json::{Value, json};

use super::advanced::{AUTHENTICATOR, PEOPLE};
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
    /// The registration by which it is asked whether somebody may.
    authorizes: Option<u64>,
    /// Questions that it has not answered.
    questions: Vec<(u64, About)>,
}

/// What it is asked about.
#[derive(Debug)]
enum About {
    Request,
    /// What it says of somebody; nothing if it does not know it.
    User(Option<Value>),
}

/// What is known of who wants to log in: a role for who shows the right ticket, and else what its proof is checked with.
fn user_of(args: &Value) -> Option<Value> {
    let person = PEOPLE.iter().find(|person| person.is_dynamic && args[1] == person.authid)?;
    match args[2]["authmethod"].as_str()? {
        "ticket" => (args[2]["ticket"] == person.ticket()).then(|| json!(person.role)),
        _ => Some(json!({ "role": person.role, "secret": person.secret() })),
    }
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
            authorizes: None,
            questions: Vec::new(),
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
                Some(Frame::Opened(_)) => {
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
            let (question, about) = self.questions.swap_remove(at);
            let message = match about {
                About::Request if random.once_in(2) => json!([70, question, {}, [true]]),
                About::Request => {
                    json!([70, question, {}, [{ "allow": true, "cache": random.once_in(2) }]])
                }
                About::User(Some(answer)) => json!([70, question, {}, [answer]]),
                About::User(None) => json!([8, 68, question, {}, "app.error.unknown"]),
            };
            self.say(&message, random);
        }
        net.arrive(wire, self.out.drain(..));
        Ok(())
    }

    fn receive(&mut self, message: &[u8], random: &mut Random) -> Kept {
        let message: Value =
            serde_json::from_slice(message).or_else(|error| broken("answer", error.to_string()))?;
        match message[0].as_u64() {
            Some(2) => {
                self.say(&json!([64, 1, {}, PROCEDURE]), random);
                self.say(&json!([64, 2, {}, AUTHENTICATOR]), random);
            }
            Some(65) => {
                self.is_ready = message[1] == 2;
                if !self.is_ready {
                    self.authorizes = message[2].as_u64();
                }
            }
            Some(68) => {
                let question = message[1].as_u64().unwrap_or_default();
                let about = if message[2].as_u64() == self.authorizes {
                    About::Request
                } else {
                    About::User(user_of(&message[4]))
                };
                self.questions.push((question, about));
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

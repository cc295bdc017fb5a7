//! A client that calls and hears events, in any serializer, as plain values.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crosspoint::wamp::codec::{Encoder, Serializer, to_json};
use crosspoint::wamp::message::Value as Encoded;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Nothing takes this long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a call comes to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Args of a progressive result.
    Part(Value),
    /// Args and kwargs.
    Result(Value, Value),
    Error(Failure),
}

impl Answer {
    /// The one argument of a result.
    pub(crate) fn value(self) -> Value {
        match self {
            Self::Result(Value::Array(mut args), _) if args.len() == 1 => args.remove(0),
            other => panic!("expected a result of one value: {other:?}"),
        }
    }

    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Error(failure) => failure,
            other => panic!("expected an error: {other:?}"),
        }
    }
}

/// An ERROR.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) uri: String,
    /// Its first argument.
    pub(crate) text: String,
}

impl Failure {
    /// Fails unless it has that URI.
    pub(crate) fn is(self, uri: &str) -> String {
        assert_eq!(self.uri, uri, "{self:?}");
        self.text
    }
}

/// An EVENT.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// `_event_id`, where it has one.
    pub(crate) id: Option<u64>,
    /// As the details say, or nothing.
    pub(crate) topic: String,
    pub(crate) args: Value,
    pub(crate) kwargs: Value,
}

/// A session.
pub(crate) struct Session {
    stream: TcpStream,
    serializer: Serializer,
    partial: Vec<u8>,
    last: u64,
    /// Answers that were not asked for yet.
    answers: VecDeque<(u64, Answer)>,
    events: VecDeque<Event>,
    pub(crate) id: u64,
}

/// How a session begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Login<'a> {
    /// Who logs in, with the ticket `secret`; nobody is anonymous.
    pub(crate) authid: Option<&'a str>,
    pub(crate) serializer: Option<Serializer>,
    /// Its kernel takes little of what it does not read.
    pub(crate) has_small_buffer: bool,
}

impl Session {
    pub(crate) fn join(address: SocketAddr) -> Self {
        Self::join_as(address, Login::default())
    }

    /// An error where there is no router.
    pub(crate) fn try_join(address: SocketAddr) -> io::Result<Self> {
        Self::try_join_as(address, Login::default())
    }

    pub(crate) fn join_as(address: SocketAddr, login: Login<'_>) -> Self {
        Self::try_join_as(address, login).unwrap()
    }

    fn try_join_as(address: SocketAddr, login: Login<'_>) -> io::Result<Self> {
        let serializer = login.serializer.unwrap_or(Serializer::Json);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if login.has_small_buffer {
            socket.set_recv_buffer_size(4096).unwrap();
        }
        socket.connect_timeout(&address.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let number = match serializer {
            Serializer::Json => 1,
            Serializer::MsgPack => 2,
            Serializer::Cbor => 3,
        };
        // The longest messages.
        stream.write_all(&[0x7F, 0xF0 | number, 0, 0])?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting)?;
        assert_eq!(greeting[1] & 0x0F, number, "{greeting:x?}");
        let (partial, answers, events) = (Vec::new(), VecDeque::new(), VecDeque::new());
        let mut session = Self { stream, serializer, partial, last: 0, answers, events, id: 0 };
        let mut details = json!({"roles": {
            "caller": {"features": {"progressive_call_results": true, "progressive_call_invocations": true,
                "call_canceling": true, "call_timeout": true}},
            "publisher": {}, "subscriber": {"features": {"pattern_based_subscription": true}},
        }});
        if let Some(authid) = login.authid {
            details["authid"] = authid.into();
            details["authmethods"] = json!(["ticket"]);
        }
        session.try_send(&json!([1, "realm1", details]))?;
        let mut answer = session.try_receive()?;
        if answer[0] == 4 {
            session.try_send(&json!([5, "secret", {}]))?;
            answer = session.try_receive()?;
        }
        assert_eq!(answer[0], 2, "expected WELCOME: {answer}");
        session.id = answer[1].as_u64().unwrap();
        Ok(session)
    }

    /// A message is a list, as arguments are.
    fn send(&mut self, message: &Value) {
        self.try_send(message).unwrap();
    }

    fn try_send(&mut self, message: &Value) -> io::Result<()> {
        let json = message.to_string();
        let encoded = Encoded { serializer: Serializer::Json, bytes: json.as_bytes() };
        let bytes = match self.serializer {
            Serializer::Json => json.into_bytes(),
            other => Encoder::new().transcode_value(encoded, other).unwrap(),
        };
        let mut frame = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(&bytes);
        self.stream.write_all(&frame)
    }

    fn receive(&mut self) -> Value {
        self.try_receive().expect("the connection is there")
    }

    /// The next message. Fails the test when the router says nothing; an error is the end of the connection.
    fn try_receive(&mut self) -> io::Result<Value> {
        Ok(self.try_receive_until(Instant::now() + PATIENCE)?.expect("the router says nothing"))
    }

    /// The next message, or `None` when there is none by then.
    fn try_receive_until(&mut self, until: Instant) -> io::Result<Option<Value>> {
        loop {
            if let Some(head) = self.partial.first_chunk::<4>() {
                let length = (u32::from_be_bytes(*head) & 0x00FF_FFFF) as usize;
                if self.partial.len() >= 4 + length {
                    let rest = self.partial.split_off(4 + length);
                    let payload = std::mem::replace(&mut self.partial, rest).split_off(4);
                    let value = Encoded { serializer: self.serializer, bytes: &payload };
                    let json = to_json(value, &mut Encoder::new()).expect("it can be said in JSON");
                    return Ok(Some(serde_json::from_str(&json).unwrap()));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = vec![0; 64 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.partial.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts what came where it belongs; whether it was anything but that.
    fn file(&mut self, message: Value) -> Option<Value> {
        let or_empty = |value: &Value, empty: Value| if value.is_null() { empty } else { value.clone() };
        let args = |at: usize| or_empty(&message[at], json!([]));
        let kwargs = |at: usize| or_empty(&message[at], json!({}));
        match message[0].as_u64() {
            Some(50) => {
                let request = message[1].as_u64().unwrap();
                let is_part = message[2]["progress"] == true;
                let answer = if is_part { Answer::Part(args(3)) } else { Answer::Result(args(3), kwargs(4)) };
                self.answers.push_back((request, answer));
            }
            Some(8) if message[1] == 48 => {
                let (request, uri) = (message[2].as_u64().unwrap(), message[4].as_str().unwrap().to_owned());
                let text = message[5][0].as_str().unwrap_or_default().to_owned();
                self.answers.push_back((request, Answer::Error(Failure { uri, text })));
            }
            Some(36) => {
                let details = &message[3];
                let (id, topic) = (details["_event_id"].as_u64(), details["topic"].as_str());
                let topic = topic.unwrap_or_default().to_owned();
                self.events.push_back(Event { id, topic, args: args(4), kwargs: kwargs(5) });
            }
            _ => return Some(message),
        }
        None
    }

    fn hear(&mut self) {
        let message = self.receive();
        if let Some(message) = self.file(message) {
            panic!("nobody asked for {message}");
        }
    }

    fn reply(&mut self) -> Value {
        loop {
            let message = self.receive();
            if let Some(message) = self.file(message) {
                return message;
            }
        }
    }

    /// Begins a call.
    pub(crate) fn begin(&mut self, uri: &str, options: Value, args: Value, kwargs: Value) -> u64 {
        self.last += 1;
        self.send(&json!([48, self.last, options, uri, args, kwargs]));
        self.last
    }

    /// The same, with arguments alone.
    pub(crate) fn start(&mut self, uri: &str, args: Value) -> u64 {
        self.begin(uri, json!({}), args, json!({}))
    }

    /// The next answer to this call.
    pub(crate) fn answer(&mut self, request: u64) -> Answer {
        loop {
            if let Some(at) = self.answers.iter().position(|(of, _)| *of == request) {
                return self.answers.remove(at).unwrap().1;
            }
            self.hear();
        }
    }

    /// The next answer to any call.
    pub(crate) fn any_answer(&mut self) -> (u64, Answer) {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return answer;
            }
            self.hear();
        }
    }

    pub(crate) fn cancel(&mut self, request: u64, mode: &str) {
        self.send(&json!([49, request, {"mode": mode}]));
    }

    pub(crate) fn call(&mut self, uri: &str, args: Value) -> Answer {
        self.call_with(uri, json!({}), args, json!({}))
    }

    pub(crate) fn call_with(&mut self, uri: &str, options: Value, args: Value, kwargs: Value) -> Answer {
        let request = self.begin(uri, options, args, kwargs);
        self.answer(request)
    }

    /// An error when the connection is over.
    pub(crate) fn try_call(&mut self, uri: &str, args: Value) -> io::Result<Answer> {
        self.last += 1;
        self.try_send(&json!([48, self.last, {}, uri, args]))?;
        loop {
            if let Some(at) = self.answers.iter().position(|(of, _)| *of == self.last) {
                return Ok(self.answers.remove(at).unwrap().1);
            }
            let message = self.try_receive()?;
            if let Some(message) = self.file(message) {
                return Err(io::Error::other(message.to_string()));
            }
        }
    }

    /// The one argument of its result.
    pub(crate) fn value(&mut self, uri: &str, args: Value) -> Value {
        match self.call(uri, args) {
            Answer::Result(Value::Array(mut args), _) if args.len() == 1 => args.remove(0),
            other => panic!("{uri}: {other:?}"),
        }
    }

    /// Calls what gives back whatever it gives.
    pub(crate) fn done(&mut self, uri: &str, args: Value) {
        let answer = self.call(uri, args);
        assert!(matches!(answer, Answer::Result(..)), "{uri}: {answer:?}");
    }

    pub(crate) fn failure(&mut self, uri: &str, args: Value) -> Failure {
        self.call(uri, args).failure()
    }

    pub(crate) fn subscribe(&mut self, topic: &str, options: Value) {
        let answer = self.try_subscribe(topic, options);
        assert_eq!(answer[0], 33, "{answer}");
    }

    /// SUBSCRIBED or ERROR.
    pub(crate) fn try_subscribe(&mut self, topic: &str, options: Value) -> Value {
        self.ask_to_subscribe(topic, options).expect("the connection is there")
    }

    /// The same; an error when the connection is over.
    pub(crate) fn ask_to_subscribe(&mut self, topic: &str, options: Value) -> io::Result<Value> {
        self.last += 1;
        self.try_send(&json!([32, self.last, options, topic]))?;
        loop {
            let message = self.try_receive()?;
            if let Some(message) = self.file(message) {
                return Ok(message);
            }
        }
    }

    /// Publishes by itself, as any client.
    pub(crate) fn publish(&mut self, topic: &str, args: Value) {
        self.last += 1;
        self.send(&json!([16, self.last, {"acknowledge": true, "exclude_me": false}, topic, args]));
        let answer = self.reply();
        assert_eq!(answer[0], 17, "{answer}");
    }

    pub(crate) fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.hear();
        }
    }

    pub(crate) fn events(&mut self, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.event()).collect()
    }

    /// The next event, if one comes by then; an error when the connection is over.
    pub(crate) fn try_event_within(&mut self, patience: Duration) -> io::Result<Option<Event>> {
        let until = Instant::now() + patience;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(message) = self.try_receive_until(until)? else { return Ok(None) };
            if let Some(message) = self.file(message) {
                assert_eq!(message[0], 3, "nobody asked for {message}");
                return Err(io::Error::other(message.to_string()));
            }
        }
    }

    /// What it has heard so far holds no event, and a round trip to the router brings none.
    pub(crate) fn expect_no_event(&mut self) {
        let failure = self.failure("com.nobody.has.it", json!([]));
        assert_eq!(failure.uri, "wamp.error.no_such_procedure");
        assert_eq!(self.events, [], "an event came that should not");
    }
}

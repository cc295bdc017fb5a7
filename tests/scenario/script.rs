//! The text of a scenario, parsed.

use std::fmt::Debug;
use std::str::FromStr;

use crosspoint::wamp::CloseReason;
use crosspoint::wamp::codec::Serializer;

/// One file.
pub(crate) struct Script {
    /// The lines that began with `| `: a configuration.
    pub(crate) config: String,
    /// `cores: n`; without it, every number from 1 to 3.
    pub(crate) cores: Option<u16>,
    /// `home: n`; without it, every core.
    pub(crate) home: Option<u16>,
    /// `databases: shop store`: those of realm1 that publish, by number; without it, the one is `shop`.
    pub(crate) databases: Vec<String>,
    pub(crate) parties: Vec<Party>,
    pub(crate) lines: Vec<Line>,
}

/// A client.
pub(crate) struct Party {
    pub(crate) name: String,
    /// `A on 0`; without it, every core.
    pub(crate) core: Option<u16>,
    /// `A speaks msgpack`
    pub(crate) serializer: Serializer,
    /// `A by 1`: the listener it comes in by.
    pub(crate) listener: u16,
}

pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) act: Act,
}

pub(crate) enum Act {
    /// A comment, an empty line, a part of the head.
    Nothing,
    /// `A< …`: what a party gets because of the last input.
    Expect(usize, String),
    Do(Input),
}

pub(crate) enum Input {
    /// `A opens`: a connection without a session.
    Opens(usize),
    /// `A opens with no cookie`, `A opens with B's cookie`: by a handshake of WebSocket, which has that one. `A< cookie`: it
    /// gets a new one.
    OpensWithCookie(usize, Option<usize>),
    /// `A joins`, `A joins realm2`, `A joins plainly`, `A joins fully`, `A joins with callee.call_canceling …`: a new
    /// connection, HELLO and WELCOME.
    Joins { party: usize, realm: String, manner: Manner },
    /// `A> …`
    Sends(usize, String),
    /// `A proves wampcra SECRET`, `A proves wamp-scram AUTHID PASSWORD NONCE`, `A proves cryptosign PRIVATE-KEY`: answers
    /// the last CHALLENGE.
    Proves(usize, Vec<String>),
    /// `A proves it again`: the last answer, whatever was challenged.
    ProvesAgain(usize),
    /// `A> hex …`
    SendsBytes(usize, Vec<u8>),
    /// `A closes end_of_stream`
    Closes(usize, CloseReason),
    /// `A is slow`, `A is full`, `A is stuck`, `A reads`
    Outbox(usize, Outbox),
    /// `A takes 100 bytes`
    Takes(usize, usize),
    /// `A pongs`, `A is silent`: what came of a ping that asked whether it is there (`A< pinged`).
    Pongs(usize, bool),
    /// `A takes no pings`: it cannot be asked.
    TakesNoPings(usize),
    /// `wait 100 ms`
    Wait(u64),
    /// `logins are barred`, `logins are open`: of the address of all parties.
    Bar(bool),
    /// `checks are full`, `checks have room`: of those that are too slow for a core.
    ChecksFull(bool),
    /// `database 0 …`: what a database does, or is asked to.
    Database(u16, Database),
    /// `hold`: nothing comes out of the rings. `hold 2 to 0`: nothing out of that one.
    Hold(Held),
}

/// What a party says of itself in HELLO.
pub(crate) enum Manner {
    /// That it is a caller and callee whose calls can be cancelled.
    Usual,
    /// That it has all roles, and no feature.
    Plain,
    /// That it has all features.
    Full,
    /// That it has all roles, and these features.
    With(Vec<(String, String)>),
}

/// What a database does, or is asked to.
pub(crate) enum Database {
    /// `offers com.p com.q`, `offers nothing`: to realm1.
    Offers(Vec<String>),
    /// `publishes [16, 1, {}, "com.t", [1]]`, `publishes at depth 2 [16, …]`: so many events led to it.
    Publishes(u32, String),
    /// `replays`, `replays 2`: the oldest that resumes gets what was published, so many of it at most.
    Replays(Option<usize>),
    /// `loses the replay`: it is away before it has answered that.
    LosesReplay,
    /// `is late`: it has not answered that in its time.
    IsLate,
    /// `has no replay`: nobody waits for one.
    HasNoReplay,
    /// `forgets up to 3`: that position is not kept any more, nor those before.
    Forgets(u64),
    /// `has counted 2`: so many sessions got what was published last.
    HasCounted(u64),
    /// `is full`, `has room`
    Full(bool),
    /// `runs com.p [1]`: the oldest call that was not looked at.
    Runs(String, String),
    /// `is cancelled com.p`: the oldest call that was cancelled and not looked at.
    Cancelled(String),
    /// `may go on with com.p`: another part may come. `waits with com.p`: none may.
    GoesOn(String),
    Waits(String),
    /// `answers com.p [1]`, with a result; `fails com.p com.error [1]`; `sends a part of com.p [1]`. The oldest call of it.
    Answers(String, String),
    Fails(String, String, String),
    Sends(String, String),
}

impl Database {
    fn parse(text: &str) -> Option<Self> {
        let own = |text: &str| text.to_owned();
        let two = |rest: &str| rest.split_once(' ').map(|(one, other)| (own(one), own(other)));
        if let Some(rest) = text.strip_prefix("offers ") {
            let all = rest.split(' ').filter(|word| *word != "nothing").map(own).collect();
            return Some(Self::Offers(all));
        }
        if let Some(rest) = text.strip_prefix("publishes at depth ") {
            return two(rest).map(|(depth, publish)| Self::Publishes(number(&depth), publish));
        }
        if let Some(publish) = text.strip_prefix("publishes ") {
            return Some(Self::Publishes(0, own(publish)));
        }
        if let Some(count) = text.strip_prefix("replays ") {
            return Some(Self::Replays(Some(number(count))));
        }
        if let Some(position) = text.strip_prefix("forgets up to ") {
            return Some(Self::Forgets(number(position)));
        }
        if let Some(count) = text.strip_prefix("has counted ") {
            return Some(Self::HasCounted(number(count)));
        }
        if let Some(rest) = text.strip_prefix("runs ") {
            return two(rest).map(|(uri, args)| Self::Runs(uri, args));
        }
        if let Some(uri) = text.strip_prefix("is cancelled ") {
            return Some(Self::Cancelled(own(uri)));
        }
        if let Some(uri) = text.strip_prefix("may go on with ") {
            return Some(Self::GoesOn(own(uri)));
        }
        if let Some(uri) = text.strip_prefix("waits with ") {
            return Some(Self::Waits(own(uri)));
        }
        if let Some(rest) = text.strip_prefix("answers ") {
            return two(rest).map(|(uri, args)| Self::Answers(uri, args));
        }
        if let Some(rest) = text.strip_prefix("sends a part of ") {
            return two(rest).map(|(uri, args)| Self::Sends(uri, args));
        }
        if let Some(rest) = text.strip_prefix("fails ") {
            let (uri, rest) = two(rest)?;
            return two(&rest).map(|(error, args)| Self::Fails(uri, error, args));
        }
        match text {
            "replays" => Some(Self::Replays(None)),
            "loses the replay" => Some(Self::LosesReplay),
            "is late" => Some(Self::IsLate),
            "has no replay" => Some(Self::HasNoReplay),
            "is full" => Some(Self::Full(true)),
            "has room" => Some(Self::Full(false)),
            _ => None,
        }
    }
}

/// Which rings nothing comes out of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    None,
    /// From one core to another.
    One(u16, u16),
    All,
}

/// What the outbox of a connection takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outbox {
    /// Anything.
    Reads,
    /// Anything, but nothing that is made for it alone shall be made before it has taken more.
    Slow,
    /// Small replies only: it is at its hard bound.
    Full,
    /// Nothing: the reserve for replies is used up too.
    Stuck,
}

impl Script {
    /// Parses a file.
    ///
    /// # Panics
    /// Names the line that is none.
    pub(crate) fn parse(name: &str, text: &str) -> Self {
        let mut script = Self {
            config: String::new(),
            cores: None,
            home: None,
            databases: vec!["shop".to_owned()],
            parties: Vec::new(),
            lines: Vec::new(),
        };
        for (number, text) in (1..).zip(text.lines()) {
            let Some(act) = script.line(text) else {
                panic!("{name}:{number}: this is no line of a scenario: {text}")
            };
            script.lines.push(Line { text: text.to_owned(), act });
        }
        script
    }

    fn line(&mut self, text: &str) -> Option<Act> {
        if text.is_empty() || text.starts_with('#') {
            return Some(Act::Nothing);
        }
        if let Some(config) = text.strip_prefix('|') {
            self.config.push_str(config);
            self.config.push('\n');
            return Some(Act::Nothing);
        }
        if let Some(rest) = text.strip_prefix("cores: ") {
            self.cores = Some(number(rest));
            return Some(Act::Nothing);
        }
        if let Some(rest) = text.strip_prefix("home: ") {
            self.home = Some(number(rest));
            return Some(Act::Nothing);
        }
        if let Some(names) = text.strip_prefix("databases: ") {
            self.databases = names.split(' ').filter(|name| *name != "none").map(str::to_owned).collect();
            return Some(Act::Nothing);
        }
        if let Some(rest) = text.strip_prefix("wait ") {
            return Some(Act::Do(Input::Wait(number(rest.strip_suffix(" ms")?))));
        }
        match text {
            "logins are barred" => return Some(Act::Do(Input::Bar(true))),
            "logins are open" => return Some(Act::Do(Input::Bar(false))),
            "checks are full" => return Some(Act::Do(Input::ChecksFull(true))),
            "checks have room" => return Some(Act::Do(Input::ChecksFull(false))),
            "hold" => return Some(Act::Do(Input::Hold(Held::All))),
            "release" => return Some(Act::Do(Input::Hold(Held::None))),
            _ => {}
        }
        if let Some((index, rest)) = text.strip_prefix("database ").and_then(|rest| rest.split_once(' ')) {
            return Some(Act::Do(Input::Database(number(index), Database::parse(rest)?)));
        }
        if let Some((from, to)) = text.strip_prefix("hold ").and_then(|pair| pair.split_once(" to ")) {
            return Some(Act::Do(Input::Hold(Held::One(number(from), number(to)))));
        }
        let end = text.find(|character: char| !character.is_ascii_alphanumeric())?;
        let (name, rest) = text.split_at(end);
        if !name.starts_with(|character: char| character.is_ascii_uppercase()) {
            return None;
        }
        let party = self.party(name);
        if let Some(expected) = rest.strip_prefix("< ") {
            return Some(Act::Expect(party, expected.to_owned()));
        }
        if let Some(hex) = rest.strip_prefix("> hex ") {
            return Some(Act::Do(Input::SendsBytes(party, bytes(hex)?)));
        }
        if let Some(sent) = rest.strip_prefix("> ") {
            return Some(Act::Do(Input::Sends(party, sent.to_owned())));
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        self.words(party, &words)
    }

    fn words(&mut self, party: usize, words: &[&str]) -> Option<Act> {
        let joins =
            |realm: &str, manner| Some(Act::Do(Input::Joins { party, realm: realm.to_owned(), manner }));
        match *words {
            ["on", core] => self.parties[party].core = Some(number(core)),
            ["by", listener] => self.parties[party].listener = number(listener),
            ["speaks", serializer] => {
                self.parties[party].serializer = match serializer {
                    "json" => Serializer::Json,
                    "msgpack" => Serializer::MsgPack,
                    "cbor" => Serializer::Cbor,
                    _ => return None,
                };
            }
            ["opens", "with", "no", "cookie"] => {
                return Some(Act::Do(Input::OpensWithCookie(party, None)));
            }
            ["opens", "with", whose, "cookie"] => {
                let whose = self.party(whose.strip_suffix("'s")?);
                return Some(Act::Do(Input::OpensWithCookie(party, Some(whose))));
            }
            ["opens"] => return Some(Act::Do(Input::Opens(party))),
            ["proves", "it", "again"] => return Some(Act::Do(Input::ProvesAgain(party))),
            ["proves", ref words @ ..] => {
                let words = words.iter().map(|word| (*word).to_owned()).collect();
                return Some(Act::Do(Input::Proves(party, words)));
            }
            ["joins"] => return joins("realm1", Manner::Usual),
            ["joins", "plainly"] => return joins("realm1", Manner::Plain),
            ["joins", "fully"] => return joins("realm1", Manner::Full),
            ["joins", "with", ref features @ ..] => {
                let pairs = features.iter().map(|feature| {
                    let (role, key) = feature.split_once('.')?;
                    Some((role.to_owned(), key.to_owned()))
                });
                return joins("realm1", Manner::With(pairs.collect::<Option<_>>()?));
            }
            ["joins", realm] => return joins(realm, Manner::Usual),
            ["closes", reason] => {
                let reason = CloseReason::ALL.iter().find(|known| known.info().key == reason)?;
                return Some(Act::Do(Input::Closes(party, *reason)));
            }
            ["is", "full"] => return Some(Act::Do(Input::Outbox(party, Outbox::Full))),
            ["is", "slow"] => return Some(Act::Do(Input::Outbox(party, Outbox::Slow))),
            ["is", "stuck"] => return Some(Act::Do(Input::Outbox(party, Outbox::Stuck))),
            ["pongs"] => return Some(Act::Do(Input::Pongs(party, true))),
            ["is", "silent"] => return Some(Act::Do(Input::Pongs(party, false))),
            ["reads"] => return Some(Act::Do(Input::Outbox(party, Outbox::Reads))),
            ["takes", "no", "pings"] => return Some(Act::Do(Input::TakesNoPings(party))),
            ["takes", bytes, "bytes"] => return Some(Act::Do(Input::Takes(party, number(bytes)))),
            _ => return None,
        }
        Some(Act::Nothing)
    }

    fn party(&mut self, name: &str) -> usize {
        if let Some(party) = self.parties.iter().position(|party| party.name == name) {
            return party;
        }
        self.parties.push(Party {
            name: name.to_owned(),
            core: None,
            serializer: Serializer::Json,
            listener: 0,
        });
        self.parties.len() - 1
    }
}

fn number<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text:?} is no number: {error:?}"))
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

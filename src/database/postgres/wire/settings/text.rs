//! The two forms of settings as text, and the variables of the environment, become values of known keys.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Place, SettingsError};

/// What can be set: the key, and the variable that says it where the text does not.
const KEYS: [(&str, Option<&str>); 27] = [
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("cleartext_password", None),
    ("client_encoding", Some("PGCLIENTENCODING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("fallback_application_name", None),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_count", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("message_bytes_max", None),
    ("options", Some("PGOPTIONS")),
    ("password", Some("PGPASSWORD")),
    ("port", Some("PGPORT")),
    ("replication", None),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslsni", Some("PGSSLSNI")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("tcp_user_timeout", None),
    ("user", Some("PGUSER")),
];

/// What libpq has and this client has not: the key, the variable, and what to do instead.
const NOT_HERE: [(&str, Option<&str>, &str); 19] = [
    ("gssdelegation", None, "Kerberos is not spoken"),
    ("gsslib", None, "Kerberos is not spoken"),
    ("krbsrvname", None, "Kerberos is not spoken"),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), "hosts are tried in their order"),
    ("max_protocol_version", Some("PGMAXPROTOCOLVERSION"), "version 3.0 is spoken"),
    ("min_protocol_version", Some("PGMINPROTOCOLVERSION"), "version 3.0 is spoken"),
    ("passfile", None, "no password file is read: give the password"),
    ("require_auth", Some("PGREQUIREAUTH"), "use channel_binding=require, or sslmode=verify-full"),
    ("requirepeer", Some("PGREQUIREPEER"), "give the socket a folder that nobody else can write to"),
    ("service", Some("PGSERVICE"), "no service file is read: give the values themselves"),
    ("servicefile", None, "no service file is read: give the values themselves"),
    ("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION"), "TLS 1.2 and 1.3 are spoken"),
    ("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION"), "TLS 1.2 and 1.3 are spoken"),
    ("sslcertmode", Some("PGSSLCERTMODE"), "a certificate is sent where sslcert names one"),
    ("sslcompression", None, "TLS is never compressed"),
    ("sslcrl", Some("PGSSLCRL"), "revoked certificates are not looked up"),
    ("sslcrldir", Some("PGSSLCRLDIR"), "revoked certificates are not looked up"),
    ("sslnegotiation", Some("PGSSLNEGOTIATION"), "TLS is asked for in PostgreSQL's way"),
    ("sslpassword", None, "keep the key unencrypted, in a file that only its user can read"),
];

/// A value, and where it stands.
#[derive(Clone, Debug)]
struct Value {
    text: String,
    place: Place,
}

/// Known keys and their values.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<&'static str, Value>);

fn wrong(place: Place, problem: impl Into<String>, hint: Option<&str>) -> SettingsError {
    SettingsError { place, problem: problem.into(), hint: hint.map(str::to_owned) }
}

impl Values {
    /// Those of the text, and of the environment where the text leaves them open.
    pub(super) fn read(text: &str, environment: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let mut values = Self::default();
        if let Some(scheme) =
            ["postgres://", "postgresql://"].iter().find(|scheme| text.starts_with(**scheme))
        {
            Url { text, at: scheme.len() }.read(&mut values)?;
        } else {
            values.read_pairs(text)?;
        }
        for (key, variable) in KEYS {
            let Some(variable) = variable else { continue };
            let Some(text) = environment.get(variable).filter(|text| !text.is_empty()) else { continue };
            // A host of the text must not be reached at the address that the environment has for another.
            if key == "hostaddr" && values.0.contains_key("host") {
                continue;
            }
            let place = Place::Variable(variable);
            values.0.entry(key).or_insert_with(|| Value { text: text.clone(), place });
        }
        for (_, variable, instead) in NOT_HERE {
            let Some(variable) = variable else { continue };
            if environment.get(variable).is_some_and(|text| !text.is_empty()) {
                return Err(wrong(Place::Variable(variable), "this is not supported", Some(instead)));
            }
        }
        values.word("client_encoding", &[("UTF8", ()), ("utf8", ()), ("UTF-8", ()), ("auto", ())], ())?;
        values.word("gssencmode", &[("disable", ()), ("prefer", ())], ())?;
        Ok(values)
    }

    /// Takes a value of the text. An empty one is none, as libpq has it.
    fn set(&mut self, key: &str, text: String, at: usize) -> Result<(), SettingsError> {
        let place = Place::Text(at);
        if let Some((known, _)) = KEYS.iter().find(|(known, _)| *known == key) {
            if text.contains('\0') {
                return Err(wrong(place, format!("{known} has a zero byte"), None));
            }
            if text.is_empty() {
                self.0.remove(known);
            } else {
                self.0.insert(known, Value { text, place });
            }
            return Ok(());
        }
        if let Some((known, _, instead)) = NOT_HERE.iter().find(|(known, ..)| *known == key) {
            return Err(wrong(place, format!("{known} is not supported"), Some(instead)));
        }
        // A name that is far from all others is not repeated: it may be half of a password that was not quoted.
        let near = KEYS.iter().map(|(known, _)| *known).min_by_key(|known| distance(known, key));
        let Some(near) = near.filter(|known| distance(known, key) <= 3) else {
            return Err(wrong(
                place,
                "this is the name of no setting",
                Some("values with spaces stand in quotes"),
            ));
        };
        let near = format!("did you mean `{near}`?");
        Err(wrong(place, format!("there is no setting `{key}`"), Some(&near)))
    }

    /// `key=value key='a b'`: spaces may stand around `=`, a backslash takes the next character as it is.
    fn read_pairs(&mut self, text: &str) -> Result<(), SettingsError> {
        let characters: Vec<char> = text.chars().collect();
        let mut at = 0;
        let skip_spaces = |at: &mut usize| {
            while characters.get(*at).is_some_and(|c| c.is_whitespace()) {
                *at += 1;
            }
        };
        loop {
            skip_spaces(&mut at);
            if at == characters.len() {
                return Ok(());
            }
            let begun = at;
            while characters.get(at).is_some_and(|c| !c.is_whitespace() && *c != '=') {
                at += 1;
            }
            let key: String = characters[begun..at].iter().collect();
            skip_spaces(&mut at);
            if characters.get(at) != Some(&'=') {
                let hint = "write key=value pairs, or a URL that begins with postgres://";
                return Err(wrong(Place::Text(begun + 1), "`=` is missing after a name", Some(hint)));
            }
            at += 1;
            skip_spaces(&mut at);
            let quoted = characters.get(at) == Some(&'\'');
            let opened = at + 1;
            at += usize::from(quoted);
            let mut value = String::new();
            loop {
                match characters.get(at) {
                    Some('\'') if quoted => {
                        at += 1;
                        break;
                    }
                    Some(c) if !quoted && c.is_whitespace() => break,
                    Some('\\') => {
                        value.extend(characters.get(at + 1));
                        at += 2;
                    }
                    Some(c) => {
                        value.push(*c);
                        at += 1;
                    }
                    None if quoted => {
                        return Err(wrong(Place::Text(opened), "this quote is not closed", None));
                    }
                    None => break,
                }
            }
            at = at.min(characters.len());
            self.set(&key, value, begun + 1)?;
        }
    }

    /// A value as text.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).map(|value| value.text.clone())
    }

    /// A value that is a list with commas.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        self.0.get(key).map_or_else(Vec::new, |value| value.text.split(',').map(str::to_owned).collect())
    }

    /// A value that is one of some words.
    pub(super) fn word<T: Copy>(&self, key: &str, words: &[(&str, T)], usual: T) -> Result<T, SettingsError> {
        let Some(value) = self.0.get(key) else { return Ok(usual) };
        words.iter().find(|(word, _)| *word == value.text).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(key, &format!("{key} is one of {}", known.join(", ")), None)
        })
    }

    /// A value that is 0 or 1.
    pub(super) fn flag(&self, key: &str, usual: bool) -> Result<bool, SettingsError> {
        self.word(key, &[("0", false), ("1", true)], usual)
    }

    /// A value that is a number.
    pub(super) fn number(&self, key: &str, usual: u64, least: u64, most: u64) -> Result<u64, SettingsError> {
        let Some(value) = self.0.get(key) else { return Ok(usual) };
        value
            .text
            .parse()
            .ok()
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.wrong(key, &format!("{key} is a number from {least} to {most}"), None))
    }

    /// A value that is a number of seconds, of which 0 leaves it as usual.
    pub(super) fn seconds(&self, key: &str, usual: Duration) -> Result<Duration, SettingsError> {
        let seconds = self.number(key, 0, 0, 32_767)?;
        Ok(if seconds == 0 { usual } else { Duration::from_secs(seconds) })
    }

    /// What is wrong with the value of a key.
    pub(super) fn wrong(&self, key: &str, problem: &str, hint: Option<&str>) -> SettingsError {
        let place = self.0.get(key).map_or(Place::Missing, |value| value.place.clone());
        wrong(place, problem, hint)
    }
}

/// A URL that is read from left to right.
struct Url<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Url<'a> {
    fn read(mut self, values: &mut Values) -> Result<(), SettingsError> {
        let rest = &self.text[self.at..];
        // As libpq looks for it: an @ before any of what ends the hosts.
        let user_end = rest.find(['@', '/', '?']).filter(|end| rest[*end..].starts_with('@'));
        if let Some(end) = user_end {
            let (user, password) = match rest[..end].split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (&rest[..end], None),
            };
            self.set(values, "user", user, self.at)?;
            if let Some(password) = password {
                self.set(values, "password", password, self.at + user.len() + 1)?;
            }
            self.at += end + 1;
        }
        self.hosts(values)?;
        let rest = &self.text[self.at..];
        if let Some(path) = rest.strip_prefix('/') {
            let database = path.split('?').next().unwrap_or_default();
            self.set(values, "dbname", database, self.at + 1)?;
            self.at += 1 + database.len();
        }
        let rest = &self.text[self.at..];
        let Some(query) = rest.strip_prefix('?') else { return Ok(()) };
        let mut at = self.at + 1;
        for pair in query.split('&').filter(|pair| !query.is_empty() || !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(wrong(self.place(at), "`=` is missing after a name", None));
            };
            let key_text = self.decode(key, at)?;
            // As drivers of other languages write it.
            if key_text == "ssl" && value == "true" {
                values.set("sslmode", "require".to_owned(), self.character(at))?;
            } else {
                values.set(&key_text, self.decode(value, at + key.len() + 1)?, self.character(at))?;
            }
            at += pair.len() + 1;
        }
        Ok(())
    }

    /// `host:port,[::1]:port,%2Frun%2Fpostgresql`.
    fn hosts(&mut self, values: &mut Values) -> Result<(), SettingsError> {
        let rest = &self.text[self.at..];
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let begun = self.at;
        let mut names = Vec::new();
        let mut ports = Vec::new();
        for host in rest[..end].split(',') {
            let (name, port) = if let Some(inner) = host.strip_prefix('[') {
                let Some((address, after)) = inner.split_once(']') else {
                    return Err(wrong(self.place(self.at), "`]` is missing after an address", None));
                };
                match after.strip_prefix(':') {
                    None if !after.is_empty() => {
                        let at = self.at + host.len() - after.len();
                        return Err(wrong(self.place(at), "only a port may follow an address", None));
                    }
                    port => (address, port.unwrap_or_default()),
                }
            } else {
                host.split_once(':').unwrap_or((host, ""))
            };
            let name = self.decode(name, self.at)?;
            if name.contains(',') {
                return Err(wrong(self.place(self.at), "a host has no comma", None));
            }
            names.push(name);
            ports.push(self.decode(port, self.at)?);
            self.at += host.len() + 1;
        }
        self.at = begun + end;
        if names.iter().any(|name| !name.is_empty()) {
            values.set("host", names.join(","), self.character(begun))?;
        }
        if ports.iter().any(|port| !port.is_empty()) {
            values.set("port", ports.join(","), self.character(begun))?;
        }
        Ok(())
    }

    fn set(&self, values: &mut Values, key: &str, text: &str, at: usize) -> Result<(), SettingsError> {
        values.set(key, self.decode(text, at)?, self.character(at))
    }

    /// The number of the character at a byte, from 1.
    fn character(&self, at: usize) -> usize {
        self.text.get(..at).map_or(0, |before| before.chars().count()) + 1
    }

    fn place(&self, at: usize) -> Place {
        Place::Text(self.character(at))
    }

    /// `%40` becomes `@`.
    fn decode(&self, text: &str, at: usize) -> Result<String, SettingsError> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            if byte != b'%' {
                bytes.push(byte);
                rest = after;
                continue;
            }
            let digit = |index: usize| after.get(index).and_then(|digit| char::from(*digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                let place = self.place(at + text.len() - rest.len());
                return Err(wrong(
                    place,
                    "two hexadecimal digits belong after `%`",
                    Some("`%` itself is %25"),
                ));
            };
            bytes.extend(u8::try_from(high * 16 + low));
            rest = &after[2..];
        }
        String::from_utf8(bytes).map_err(|_| wrong(self.place(at), "this is no UTF-8", None))
    }
}

/// How many characters are to be changed, added or left out to get from one word to the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, from) in one.chars().enumerate() {
        let mut diagonal = index;
        row[0] = index + 1;
        for (column, to) in other.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

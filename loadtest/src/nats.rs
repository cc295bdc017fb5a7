//! The text protocol of core NATS, as far as a load needs it: the same work as WAMP's, on the same generator.

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// INFO: what a server says first.
    Info,
    Ping,
    Pong,
    /// `+OK`
    Ok,
    /// MSG: something on a subject.
    Message {
        subject: &'a str,
        reply: Option<&'a str>,
        payload: &'a [u8],
    },
    /// `-ERR`
    Error(&'a str),
}

/// What CONNECT says: no answers to every message, and nobody gets his own.
pub(crate) const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1,\"echo\":false}\r\nPING\r\n";

/// The first thing in `bytes`, if all of it is there, and how long it is.
pub(crate) fn next(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "NATS: no text".to_owned())?;
    let after = end + 2;
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let said = match verb {
        "MSG" => {
            let mut words = rest.split_ascii_whitespace();
            let subject = words.next().unwrap_or_default();
            let words: Vec<_> = words.collect();
            let (reply, length) = match words[..] {
                [_, length] => (None, length),
                [_, reply, length] => (Some(reply), length),
                _ => return Err(format!("NATS: {line}")),
            };
            let length: usize = length.parse().map_err(|_| format!("NATS: {line}"))?;
            let Some(payload) = bytes.get(after..after + length + 2) else { return Ok(None) };
            let payload = &payload[..length];
            return Ok(Some((Said::Message { subject, reply, payload }, after + length + 2)));
        }
        "INFO" => Said::Info,
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "+OK" => Said::Ok,
        "-ERR" => Said::Error(rest.trim_matches('\'')),
        _ => return Err(format!("NATS: {line}")),
    };
    Ok(Some((said, after)))
}

/// Appends PUB.
pub(crate) fn push_publish(subject: &str, reply: Option<&str>, payload: &[u8], out: &mut Vec<u8>) {
    let reply = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
    out.extend_from_slice(format!("PUB {subject} {reply}{}\r\n", payload.len()).as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_whole_or_not_at_all() {
        let bytes = b"MSG a.b 1 5\r\nhello\r\nMSG a.b 1 _INBOX.2 2\r\nhi\r\nPING\r\n";
        for end in 0..20 {
            assert_eq!(next(&bytes[..end]), Ok(None), "{end}");
        }
        let (said, length) = next(bytes).unwrap().unwrap();
        assert_eq!(said, Said::Message { subject: "a.b", reply: None, payload: b"hello" });
        let rest = &bytes[length..];
        let (said, length) = next(rest).unwrap().unwrap();
        assert_eq!(said, Said::Message { subject: "a.b", reply: Some("_INBOX.2"), payload: b"hi" });
        assert_eq!(next(&rest[length..]), Ok(Some((Said::Ping, 6))));
        assert_eq!(next(b"-ERR 'Unknown'\r\n"), Ok(Some((Said::Error("Unknown"), 16))));
        assert!(next(b"HTTP/1.1 400\r\n").is_err());
    }

    #[test]
    fn publications_say_how_long_they_are() {
        let mut out = Vec::new();
        push_publish("a", Some("r"), b"xyz", &mut out);
        push_publish("a", None, b"", &mut out);
        assert_eq!(out, b"PUB a r 3\r\nxyz\r\nPUB a 0\r\n\r\n");
    }
}

//! HTTP/1.1 (RFC 9112): request heads in, small responses out. Bodies are not read, so every response ends
//! the connection.

use bytes::Bytes;
use httparse::{EMPTY_HEADER, Header};

/// The most header lines of a request.
pub(super) const HEADERS_MAX: usize = 64;

/// A request head as it arrives.
#[derive(Debug, Default)]
pub(super) struct HeadBuffer {
    bytes: Vec<u8>,
    /// Bytes in which the end of the head was looked for, so that a head of single bytes is not searched
    /// again and again.
    searched: usize,
}

/// What is known of the end of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadEnd {
    /// Not there yet.
    Missing,
    /// The head has this many bytes, the empty line included.
    At(usize),
    /// It has more than the limit.
    TooLong,
}

impl HeadBuffer {
    /// Takes bytes up to the end of the head: how many, and where the end is in [`HeadBuffer::bytes`].
    pub(super) fn take(&mut self, input: &[u8], bytes_max: usize) -> (usize, HeadEnd) {
        let before = self.bytes.len();
        let taken = input.len().min(bytes_max.saturating_sub(before));
        self.bytes.extend_from_slice(&input[..taken]);
        // An end needs three bytes, two of which may have come before.
        let from = self.searched.saturating_sub(2);
        self.searched = self.bytes.len();
        match find_end(&self.bytes, from) {
            Some(end) => (end - before, HeadEnd::At(end)),
            None if self.bytes.len() >= bytes_max => (taken, HeadEnd::TooLong),
            None => (taken, HeadEnd::Missing),
        }
    }

    /// What arrived.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Heap held.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Where the head ends that `input` begins with.
pub(super) fn head_end(input: &[u8], bytes_max: usize) -> HeadEnd {
    let input = &input[..input.len().min(bytes_max)];
    match find_end(input, 0) {
        Some(end) => HeadEnd::At(end),
        None if input.len() >= bytes_max => HeadEnd::TooLong,
        None => HeadEnd::Missing,
    }
}

/// The offset behind the first empty line at or after `from`. Line feeds alone count here and are refused by
/// [`check_lines`]: who waits for an answer shall get one.
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == b'\n')? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

/// A request head that keeps the rules.
#[derive(Debug)]
pub(super) struct Request<'h, 'b> {
    /// The method, a token.
    pub(super) method: &'b str,
    /// The path, without query.
    pub(super) path: &'b str,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub(super) version: u8,
    headers: &'h [Header<'b>],
}

/// A fresh place for the headers of [`Request::parse`].
pub(super) fn header_slots<'b>() -> [Header<'b>; HEADERS_MAX] {
    [EMPTY_HEADER; HEADERS_MAX]
}

impl<'h, 'b> Request<'h, 'b> {
    /// The request that `head` holds.
    ///
    /// # Errors
    /// The response to one that is against the rules, or that two programs could read differently.
    pub(super) fn parse(head: &'b [u8], slots: &'h mut [Header<'b>; HEADERS_MAX]) -> Result<Self, Response> {
        check_lines(head)?;
        let mut parsed = httparse::Request::new(slots);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(bad_request("The request is not complete.")),
            Err(error) => return Err(refusal_of(error)),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(bad_request("The request line is not complete."));
        };
        let request = Self { method, path: path_of(target), version, headers: parsed.headers };
        request.check()?;
        Ok(request)
    }

    /// The values of a header, in order, without spaces around them.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    /// The elements of a header that is a list, of all its lines.
    pub(super) fn elements(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// The value of a header that may come once.
    ///
    /// # Errors
    /// The response to one that came twice, or is not text.
    pub(super) fn single(&self, name: &str) -> Result<Option<&'b str>, Response> {
        let mut values = self.values(name);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(bad_request(format!("The request has more than one {name} header.")));
        }
        match std::str::from_utf8(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(bad_request(format!("The {name} header is not text."))),
        }
    }

    /// Whether a body follows, of which nothing will be read.
    pub(super) fn has_body(&self) -> bool {
        self.values("Transfer-Encoding").next().is_some()
            || self.values("Content-Length").any(|length| length.iter().any(|digit| *digit != b'0'))
    }

    /// What two readers of the same bytes could disagree on (RFC 9112 sections 3.2 and 6.3).
    fn check(&self) -> Result<(), Response> {
        let length = self.single("Content-Length")?;
        if length.is_some_and(|length| length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(bad_request("The Content-Length is not a number."));
        }
        if length.is_some() && self.values("Transfer-Encoding").next().is_some() {
            return Err(bad_request("The request has both a Content-Length and a Transfer-Encoding."));
        }
        match self.single("Host")? {
            Some(host) if !is_host(host) => Err(bad_request("The Host header is not a host and port.")),
            None if self.version >= 1 => Err(bad_request("The request has no Host header.")),
            _ => Ok(()),
        }
    }
}

/// The characters of host and port (RFC 3986 section 3.2.2); their order does not matter here.
fn is_host(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte))
}

/// The path of a target: its origin form without the query, also out of the absolute form (RFC 9112
/// section 3.2).
fn path_of(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// The rules of lines, before anything is made of them.
fn check_lines(head: &[u8]) -> Result<(), Response> {
    if head.contains(&0) {
        return Err(bad_request("The request contains a NUL byte."));
    }
    let mut previous = 0;
    for (at, byte) in head.iter().enumerate() {
        if previous == b'\r' && *byte != b'\n' {
            return Err(bad_request("The request contains a carriage return without a line feed."));
        }
        if *byte == b'\n' {
            if previous != b'\r' {
                return Err(bad_request("The request has a line that does not end with CR LF."));
            }
            if matches!(head.get(at + 1), Some(b' ' | b'\t')) {
                return Err(bad_request("The request has a folded header line."));
            }
        }
        previous = *byte;
    }
    Ok(())
}

fn refusal_of(error: httparse::Error) -> Response {
    match error {
        httparse::Error::TooManyHeaders => Response::text(
            "431 Request Header Fields Too Large",
            format!("The request has more than {HEADERS_MAX} headers."),
        ),
        httparse::Error::Version => {
            Response::text("505 HTTP Version Not Supported", "This server speaks HTTP/1.1.")
        }
        error => bad_request(format!("The request cannot be understood: {error}.")),
    }
}

/// The answer to a head above the limit.
pub(super) fn head_too_long(bytes_max: usize) -> Response {
    Response::text(
        "431 Request Header Fields Too Large",
        format!("The head of the request is longer than {bytes_max} bytes."),
    )
}

/// 400 with this text.
pub(super) fn bad_request(text: impl Into<String>) -> Response {
    Response::text("400 Bad Request", text)
}

/// A response, after which the connection ends.
#[derive(Debug)]
pub(super) struct Response {
    status: &'static str,
    content_type: &'static str,
    /// Header lines of its own, each with CR LF.
    headers: String,
    /// What stands in `Connection` besides `close`.
    connection: &'static str,
    body: String,
}

impl Response {
    /// A line for people. `status` is code and phrase.
    pub(super) fn text(status: &'static str, text: impl Into<String>) -> Self {
        let mut body = text.into();
        body.push('\n');
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: String::new(),
            connection: "",
            body,
        }
    }

    /// A page, and what it may do (Content Security Policy).
    pub(super) fn page(body: String, policy: &'static str) -> Self {
        let response = Self {
            status: "200 OK",
            content_type: "text/html; charset=utf-8",
            headers: String::new(),
            connection: "",
            body,
        };
        response.with_header("Content-Security-Policy", policy).with_header("Referrer-Policy", "no-referrer")
    }

    /// With one more header. Neither may hold anything that came from a peer.
    pub(super) fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        for part in [name, ": ", value, "\r\n"] {
            self.headers.push_str(part);
        }
        self
    }

    /// With an Upgrade header, which must be named in Connection too (RFC 9110 section 7.8).
    pub(super) fn with_upgrade(mut self) -> Self {
        self.connection = ", Upgrade";
        self.with_header("Upgrade", "websocket")
    }

    /// Whether it says that all is well.
    pub(super) fn is_success(&self) -> bool {
        self.status.starts_with('2')
    }

    /// The bytes; without the body for HEAD.
    pub(super) fn into_bytes(self, is_head: bool) -> Bytes {
        let Self { status, content_type, headers, connection, body } = self;
        let body_sent = if is_head { "" } else { &body };
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\n\
             Connection: close{connection}\r\n\
             Content-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             {headers}\r\n\
             {body_sent}"
        )
        .into()
    }
}

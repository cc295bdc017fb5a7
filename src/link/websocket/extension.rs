//! Agreeing on permessage-deflate (RFC 7692 section 7.1).
//!
//! Neither side may take its window over from one message to the next: the answer says so of both, which a server may
//! whatever the client offered. A compressed frame is then the same for all who agreed on the same window, as a plain one is,
//! and nothing is kept for a client between two of its messages.

use super::deflate::WindowBits;

const NAME: &str = "permessage-deflate";

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// The window of what is sent.
    pub(super) window: WindowBits,
    /// The client asked for a window: the answer must have one.
    has_asked: bool,
}

impl Agreed {
    /// Appends the header line of the answer.
    pub(super) fn push_header(self, reply: &mut String) {
        reply.push_str("Sec-WebSocket-Extensions: ");
        reply.push_str(NAME);
        reply.push_str("; server_no_context_takeover; client_no_context_takeover");
        if self.has_asked {
            reply.push_str(&format!("; server_max_window_bits={}", self.window.get()));
        }
        reply.push_str("\r\n");
    }
}

/// The first of the offers that can be taken, with the largest window that both sides want. `None` declines all of them.
pub(super) fn agree<'b>(offers: impl Iterator<Item = &'b [u8]>, window: WindowBits) -> Option<Agreed> {
    offers.filter_map(|offer| std::str::from_utf8(offer).ok()).find_map(|offer| accept(offer, window))
}

/// `None` for another extension, and for an offer with a parameter that is unknown, wrong, or there twice, which must be
/// declined.
fn accept(offer: &str, window: WindowBits) -> Option<Agreed> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some(NAME) {
        return None;
    }
    let mut agreed = Agreed { window, has_asked: false };
    let mut seen = [false; 4];
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start())?)),
            None => (part, None),
        };
        let which = match (name, value) {
            ("server_no_context_takeover", None) => 0,
            ("client_no_context_takeover", None) => 1,
            ("server_max_window_bits", Some(value)) => {
                // Who wants 8 is declined.
                agreed = Agreed { window: window.min(WindowBits::new(bits(value)?)?), has_asked: true };
                2
            }
            // How much less than the largest window a client may use makes no difference to who reads it.
            ("client_max_window_bits", value) => {
                if let Some(value) = value {
                    bits(value)?;
                }
                3
            }
            _ => return None,
        };
        if std::mem::replace(&mut seen[which], true) {
            return None;
        }
    }
    Some(agreed)
}

/// A value may stand in quotes (RFC 6455 section 9.1), within which a backslash stands for what follows it: no digit needs one.
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

/// 8 to 15, without zeros in front (RFC 7692 section 7.1.2).
fn bits(value: &str) -> Option<u8> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    let bits = value.parse().ok().filter(|_| is_number)?;
    (8..=15).contains(&bits).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to offers that stand in one header line.
    fn answer(header: &str, window: u8) -> Option<String> {
        let offers = header.split(',').map(|offer| offer.trim().as_bytes());
        let agreed = agree(offers, WindowBits::new(window).unwrap())?;
        let mut reply = String::new();
        agreed.push_header(&mut reply);
        let parameters = reply
            .strip_prefix(
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                 client_no_context_takeover",
            )
            .and_then(|rest| rest.strip_suffix("\r\n"));
        Some(format!("{} {}", agreed.window.get(), parameters.expect("as always").trim_start_matches("; ")))
    }

    #[test]
    fn offers_that_are_taken() {
        for (offers, window, expected) in [
            ("permessage-deflate", 15, "15 "),
            ("permessage-deflate", 12, "12 "),
            ("permessage-deflate; client_max_window_bits", 15, "15 "),
            ("permessage-deflate; client_max_window_bits=8", 15, "15 "),
            ("permessage-deflate; client_max_window_bits=\"10\"", 15, "15 "),
            ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", 15, "15 "),
            ("permessage-deflate;server_max_window_bits=10", 15, "10 server_max_window_bits=10"),
            ("permessage-deflate ; server_max_window_bits = \"9\"", 15, "9 server_max_window_bits=9"),
            ("permessage-deflate; server_max_window_bits=15", 11, "11 server_max_window_bits=11"),
            ("permessage-deflate; server_max_window_bits=10", 11, "10 server_max_window_bits=10"),
            // What cannot be taken is passed over.
            ("x-webkit-deflate-frame, permessage-deflate", 15, "15 "),
            (
                "permessage-deflate; later=1, permessage-deflate; server_max_window_bits=12, permessage-deflate",
                15,
                "12 server_max_window_bits=12",
            ),
            ("permessage-deflate; server_max_window_bits=8, permessage-deflate", 15, "15 "),
        ] {
            assert_eq!(answer(offers, window).as_deref(), Some(expected), "{offers}");
        }
    }

    #[test]
    fn offers_that_are_declined() {
        for offers in [
            "",
            "deflate",
            "permessage-deflates",
            "permessage-bzip2",
            "permessage-deflate;",
            "permessage-deflate; window_bits=9",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=\"9",
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=09",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
            "PERMESSAGE-DEFLATE",
        ] {
            assert_eq!(answer(offers, 15), None, "{offers}");
        }
    }
}

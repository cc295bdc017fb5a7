//! Every way a connection can end, in one table.

use super::error::uri;

/// What a reason means to each of those who hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseInfo {
    /// The key in logs and the label in metrics.
    pub key: &'static str,
    /// The reason of ABORT or GOODBYE; `""` where no WAMP message is owed.
    pub uri: &'static str,
    /// The code of the WebSocket Close frame (RFC 6455 section 7.4.1).
    pub websocket_code: u16,
    /// Whether the client may come back at once and do the same again.
    pub may_reconnect: bool,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $key:literal $uri:expr, $code:literal, $again:literal;)*) => {
        /// Why a connection ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum CloseReason {
            $($(#[$doc])* $name,)*
        }

        impl CloseReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The row of the table.
            #[must_use]
            pub const fn info(self) -> CloseInfo {
                match self {
                    $(Self::$name => CloseInfo {
                        key: $key, uri: $uri, websocket_code: $code, may_reconnect: $again,
                    },)*
                }
            }
        }
    };
}

reasons! {
    /// The client said GOODBYE, or closed its link in the orderly way.
    Goodbye = "goodbye" "", 1000, true;
    /// The client closed the connection without a word (FIN).
    EndOfStream = "end_of_stream" "", 1000, true;
    /// The connection was reset, or the kernel gave it up.
    Reset = "reset" "", 1006, true;
    /// An HTTP request was answered and that was all.
    HttpAnswered = "http_answered" "", 1000, true;
    /// An HTTP request could not be understood or was refused.
    HttpRefused = "http_refused" "", 1000, false;
    /// The first bytes were no protocol that this listener speaks.
    BadHandshake = "bad_handshake" "", 1002, false;
    /// No complete handshake in time.
    HandshakeTimeout = "handshake_timeout" uri::HANDSHAKE_TIMEOUT, 1008, true;
    /// No HELLO, or no answer to a CHALLENGE, in time.
    HelloTimeout = "hello_timeout" uri::HANDSHAKE_TIMEOUT, 1008, true;
    /// The session was refused: ABORT before WELCOME.
    SessionRefused = "session_refused" "", 1000, false;
    /// The client sent ABORT.
    ClientAbort = "client_abort" "", 1000, true;
    /// The peer broke WAMP.
    ProtocolViolation = "protocol_violation" uri::PROTOCOL_VIOLATION, 1002, false;
    /// The peer broke its link: WebSocket framing or RawSocket.
    LinkViolation = "link_violation" "", 1002, false;
    /// Data of a kind that the subprotocol does not use.
    UnsupportedData = "unsupported_data" "", 1003, false;
    /// Text that is not UTF-8.
    InvalidUtf8 = "invalid_utf8" "", 1007, false;
    /// A message above the limit.
    MessageTooLarge = "message_too_large" "", 1009, false;
    /// The peer did not read what it was sent.
    SlowConsumer = "slow_consumer" uri::SLOW_CONSUMER, 1008, true;
    /// The peer did not answer pings.
    PingTimeout = "ping_timeout" uri::PING_TIMEOUT, 1001, true;
    /// Another session ended this one.
    Killed = "killed" uri::KILLED, 1000, true;
    /// The router ran short of memory.
    OutOfMemory = "out_of_memory" uri::OUT_OF_MEMORY, 1013, true;
    /// A limit on connections was reached.
    TooManyConnections = "too_many_connections" uri::LIMIT_REACHED, 1013, true;
    /// The token that the session was opened with is good no more.
    TokenExpired = "token_expired" uri::TOKEN_EXPIRED, 1008, true;
    /// The user has logged out in another session with the same cookie.
    LoggedOut = "logged_out" uri::LOGOUT, 1000, false;
    /// The router shuts down.
    SystemShutdown = "system_shutdown" uri::SYSTEM_SHUTDOWN, 1001, true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_keys_are_unique() {
        let mut keys: Vec<_> = CloseReason::ALL.iter().map(|reason| reason.info().key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), CloseReason::ALL.len());
        for (number, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
    }
}

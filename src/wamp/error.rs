//! Every error and close URI, and what a peer can do wrong to the protocol.

use std::fmt;

// Error and close URIs (basic profile, "Predefined URIs"; advanced profile). Own ones are `crosspoint.error.*`.
macro_rules! uris {
    ($($(#[$doc:meta])* $name:ident = $uri:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $uri;)*
        /// All of them.
        pub const ALL: &[&str] = &[$($uri),*];
    };
}

/// The URIs themselves.
pub mod uri {
    uris! {
        /// A URI that the rules of the realm do not allow.
        INVALID_URI = "wamp.error.invalid_uri";
        /// Nobody registered the procedure.
        NO_SUCH_PROCEDURE = "wamp.error.no_such_procedure";
        /// Somebody registered the procedure already.
        PROCEDURE_ALREADY_EXISTS = "wamp.error.procedure_already_exists";
        /// UNREGISTER of a registration that the session does not hold.
        NO_SUCH_REGISTRATION = "wamp.error.no_such_registration";
        /// UNSUBSCRIBE of a subscription that the session does not hold.
        NO_SUCH_SUBSCRIPTION = "wamp.error.no_such_subscription";
        /// Arguments that the receiver cannot take.
        INVALID_ARGUMENT = "wamp.error.invalid_argument";
        /// The call was cancelled.
        CANCELED = "wamp.error.canceled";
        /// A payload larger than its receiver takes.
        PAYLOAD_SIZE_EXCEEDED = "wamp.error.payload_size_exceeded";
        /// A peer broke the protocol.
        PROTOCOL_VIOLATION = "wamp.error.protocol_violation";
        /// The role may not do this.
        NOT_AUTHORIZED = "wamp.error.not_authorized";
        /// Whether the role may do this could not be found out.
        AUTHORIZATION_FAILED = "wamp.error.authorization_failed";
        /// The realm does not exist here.
        NO_SUCH_REALM = "wamp.error.no_such_realm";
        /// The role does not exist in this realm.
        NO_SUCH_ROLE = "wamp.error.no_such_role";
        /// The router goes down.
        SYSTEM_SHUTDOWN = "wamp.close.system_shutdown";
        /// The client leaves the realm.
        CLOSE_REALM = "wamp.close.close_realm";
        /// The answer to GOODBYE.
        GOODBYE_AND_OUT = "wamp.close.goodbye_and_out";
        /// The user logs out.
        LOGOUT = "wamp.close.logout";
        /// The session was ended by another.
        KILLED = "wamp.close.killed";
        /// No authentication method that both sides know.
        NO_MATCHING_AUTH_METHOD = "wamp.error.no_matching_auth_method";
        /// The principal does not exist.
        NO_SUCH_PRINCIPAL = "wamp.error.no_such_principal";
        /// The authentication was denied.
        AUTHENTICATION_DENIED = "wamp.error.authentication_denied";
        /// The authentication could not be made.
        AUTHENTICATION_FAILED = "wamp.error.authentication_failed";
        /// Authentication is required.
        AUTHENTICATION_REQUIRED = "wamp.error.authentication_required";
        /// The authorization was denied.
        AUTHORIZATION_DENIED = "wamp.error.authorization_denied";
        /// Authorization is required.
        AUTHORIZATION_REQUIRED = "wamp.error.authorization_required";
        /// The call took longer than its timeout.
        TIMEOUT = "wamp.error.timeout";
        /// An option that this peer may not use.
        OPTION_NOT_ALLOWED = "wamp.error.option_not_allowed";
        /// The publisher or caller asked to be disclosed, which is not allowed.
        DISCLOSE_ME_DISALLOWED = "wamp.error.option_disallowed.disclose_me";
        /// The network between router and callee failed.
        NETWORK_FAILURE = "wamp.error.network_failure";
        /// The callee cannot take the call now.
        UNAVAILABLE = "wamp.error.unavailable";
        /// The callee left before it got the call.
        NO_AVAILABLE_CALLEE = "wamp.error.no_available_callee";
        /// The peer does not support what is asked for.
        FEATURE_NOT_SUPPORTED = "wamp.error.feature_not_supported";
        /// The session does not exist.
        NO_SUCH_SESSION = "wamp.error.no_such_session";
        /// The session does not read what it is sent.
        SLOW_CONSUMER = "crosspoint.error.slow_consumer";
        /// A limit of the router was reached.
        LIMIT_REACHED = "crosspoint.error.limit_reached";
        /// What a subscriber wants to resume after is not kept any more.
        EVENTS_NOT_KEPT = "crosspoint.error.events_not_kept";
        /// The session did not say HELLO, or answer a CHALLENGE, in time.
        HANDSHAKE_TIMEOUT = "crosspoint.error.handshake_timeout";
        /// The token that the session was opened with is good no more.
        TOKEN_EXPIRED = "crosspoint.error.token_expired";
        /// The client did not answer pings.
        PING_TIMEOUT = "crosspoint.error.ping_timeout";
        /// The router is short of memory.
        OUT_OF_MEMORY = "crosspoint.error.out_of_memory";
    }
}

/// What a peer did that ends its session with ABORT `wamp.error.protocol_violation`.
///
/// The text is for the people who wrote that peer: it says what was wrong and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// For people.
    pub message: String,
}

impl ProtocolError {
    /// An error with this text.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ProtocolError {}

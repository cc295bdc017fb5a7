//! What takes so long that no core may do it.

use std::fmt;

use crate::password::PasswordHash;
use crate::token::SlowSignature;

/// A check that a thread of its own makes (`shard/checks.rs`), while the client waits for WELCOME.
pub enum SlowCheck {
    /// Whether a ticket is the password that this is the hash of.
    Password {
        /// The ticket.
        ticket: Box<str>,
        /// Milliseconds of work, or more.
        hash: Box<PasswordHash>,
    },
    /// Whether a token is signed.
    Signature(SlowSignature),
}

impl SlowCheck {
    /// Makes it.
    #[must_use]
    pub fn run(self) -> bool {
        match self {
            Self::Password { ticket, hash } => hash.matches(ticket.as_bytes()),
            Self::Signature(signature) => signature.check(),
        }
    }
}

impl fmt::Debug for SlowCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without what is secret in it.
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Signature(_) => "Signature",
        })
    }
}

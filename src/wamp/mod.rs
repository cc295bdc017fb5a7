//! The vocabulary of WAMP: messages, ids, URIs, options, payloads, and their encodings. Pure.

pub mod arguments;
pub mod close_reason;
pub mod codec;
pub mod error;
pub mod features;
pub mod id;
pub mod message;
pub mod options;
pub mod payload;
pub mod uri;

pub use arguments::Arguments;
pub use close_reason::CloseReason;
pub use error::ProtocolError;
pub use id::{PublicationId, RegistrationId, RequestId, SessionId, SubscriptionId};
pub use message::{Message, MessageType};
pub use options::MatchPolicy;
pub use payload::Payload;

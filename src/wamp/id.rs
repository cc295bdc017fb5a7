//! Ids: integers in 1..=2^53, one type for each thing that they name (basic profile, "IDs").

use std::fmt;

/// The largest id, 2^53: the largest integer that every double carries exactly.
pub const ID_MAX: u64 = 1 << 53;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// A session: global scope, drawn at random (WELCOME.Session).
    SessionId
}
id! {
    /// A publication: global scope, drawn at random.
    PublicationId
}
id! {
    /// A subscription: router scope, the same for all subscribers of one topic and match policy.
    SubscriptionId
}
id! {
    /// A registration: router scope.
    RegistrationId
}
id! {
    /// A request: session scope, counts 1, 2, 3, … in each direction. Zero stands in revocations only.
    RequestId
}

impl RequestId {
    /// The id after this one: +1, and 1 again after 2^53.
    #[must_use]
    pub fn next(self) -> Self {
        if self.0 >= ID_MAX { Self(1) } else { Self(self.0 + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_wrap_after_two_to_the_53() {
        assert_eq!(RequestId(0).next(), RequestId(1));
        assert_eq!(RequestId(ID_MAX - 1).next(), RequestId(ID_MAX));
        assert_eq!(RequestId(ID_MAX).next(), RequestId(1));
    }
}

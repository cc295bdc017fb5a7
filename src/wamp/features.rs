//! Roles and their features, as HELLO and WELCOME announce them (basic profile, "Session Establishment").

/// What a client announces in HELLO.Details.roles, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFeatures(pub u32);

/// What the router announces in WELCOME.Details.roles, as a set of bits. Nothing that does not work is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterFeatures(pub u32);

/// One bit of a feature set: the role it belongs to, its key there, and its bit. A key of `""` is the role itself.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// `caller`, `callee`, `publisher`, `subscriber`, `broker` or `dealer`.
    pub role: &'static str,
    /// The key in `features`, or `""` for the role itself.
    pub key: &'static str,
    /// The one bit that stands for it.
    pub bit: u32,
}

macro_rules! features {
    ($set:ident: $($name:ident = $bit:literal $role:literal $key:literal;)*) => {
        impl $set {
            $(
                #[doc = concat!("`", $role, "` `", $key, "`")]
                pub const $name: Self = Self(1 << $bit);
            )*
            /// Every feature there is, the features of one role together, the role itself first.
            pub const ALL: &'static [Feature] = &[
                $(Feature { role: $role, key: $key, bit: 1 << $bit },)*
            ];

            /// Whether all of `other` is in this set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Both sets together.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// This set, but for what is in `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }
    };
}

features! { ClientFeatures:
    CALLER = 0 "caller" "";
    CALLER_PROGRESSIVE_CALL_RESULTS = 1 "caller" "progressive_call_results";
    CALLER_PROGRESSIVE_CALL_INVOCATIONS = 2 "caller" "progressive_call_invocations";
    CALLER_CALL_CANCELING = 3 "caller" "call_canceling";
    CALLER_CALL_TIMEOUT = 4 "caller" "call_timeout";
    CALLER_PAYLOAD_PASSTHRU_MODE = 5 "caller" "payload_passthru_mode";
    CALLEE = 8 "callee" "";
    CALLEE_PROGRESSIVE_CALL_RESULTS = 9 "callee" "progressive_call_results";
    CALLEE_PROGRESSIVE_CALL_INVOCATIONS = 10 "callee" "progressive_call_invocations";
    CALLEE_CALL_CANCELING = 11 "callee" "call_canceling";
    CALLEE_CALL_TIMEOUT = 12 "callee" "call_timeout";
    CALLEE_PAYLOAD_PASSTHRU_MODE = 13 "callee" "payload_passthru_mode";
    CALLEE_REGISTRATION_REVOCATION = 14 "callee" "registration_revocation";
    CALLEE_CALL_REROUTE = 15 "callee" "call_reroute";
    PUBLISHER = 16 "publisher" "";
    PUBLISHER_PAYLOAD_PASSTHRU_MODE = 17 "publisher" "payload_passthru_mode";
    SUBSCRIBER = 20 "subscriber" "";
    SUBSCRIBER_PAYLOAD_PASSTHRU_MODE = 21 "subscriber" "payload_passthru_mode";
    SUBSCRIBER_SUBSCRIPTION_REVOCATION = 22 "subscriber" "subscription_revocation";
}

features! { RouterFeatures:
    BROKER = 0 "broker" "";
    BROKER_PUBLISHER_EXCLUSION = 1 "broker" "publisher_exclusion";
    BROKER_SUBSCRIBER_BLACKWHITE_LISTING = 2 "broker" "subscriber_blackwhite_listing";
    BROKER_PATTERN_BASED_SUBSCRIPTION = 3 "broker" "pattern_based_subscription";
    BROKER_PUBLISHER_IDENTIFICATION = 4 "broker" "publisher_identification";
    BROKER_PUBLICATION_TRUSTLEVELS = 5 "broker" "publication_trustlevels";
    BROKER_SESSION_META_API = 6 "broker" "session_meta_api";
    BROKER_SUBSCRIPTION_META_API = 7 "broker" "subscription_meta_api";
    BROKER_EVENT_RETENTION = 8 "broker" "event_retention";
    BROKER_EVENT_HISTORY = 9 "broker" "event_history";
    BROKER_SUBSCRIPTION_REVOCATION = 10 "broker" "subscription_revocation";
    BROKER_PAYLOAD_PASSTHRU_MODE = 11 "broker" "payload_passthru_mode";
    BROKER_SHARDED_SUBSCRIPTION = 12 "broker" "sharded_subscription";
    DEALER = 16 "dealer" "";
    DEALER_CALL_CANCELING = 17 "dealer" "call_canceling";
    DEALER_PATTERN_BASED_REGISTRATION = 18 "dealer" "pattern_based_registration";
    DEALER_PROGRESSIVE_CALL_RESULTS = 19 "dealer" "progressive_call_results";
    DEALER_PROGRESSIVE_CALL_INVOCATIONS = 20 "dealer" "progressive_call_invocations";
    DEALER_CALL_TIMEOUT = 21 "dealer" "call_timeout";
    DEALER_CALLER_IDENTIFICATION = 22 "dealer" "caller_identification";
    DEALER_CALL_TRUSTLEVELS = 23 "dealer" "call_trustlevels";
    DEALER_SHARED_REGISTRATION = 24 "dealer" "shared_registration";
    DEALER_REGISTRATION_REVOCATION = 25 "dealer" "registration_revocation";
    DEALER_REGISTRATION_META_API = 26 "dealer" "registration_meta_api";
    DEALER_SESSION_META_API = 27 "dealer" "session_meta_api";
    DEALER_TESTAMENT_META_API = 28 "dealer" "testament_meta_api";
    DEALER_CALL_REROUTE = 29 "dealer" "call_reroute";
    DEALER_PAYLOAD_PASSTHRU_MODE = 30 "dealer" "payload_passthru_mode";
    DEALER_SHARDED_REGISTRATION = 31 "dealer" "sharded_registration";
}

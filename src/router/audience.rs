//! Who shall not, or alone shall, receive a publication (advanced profile, "Subscriber Black- and Whitelisting").

use super::peer::Audience;
use super::session::Session;
use crate::wamp::options::{AudienceOptions, PublishOptions, Text};

impl Audience {
    #[inline]
    pub(super) fn of(options: &PublishOptions<'_>) -> Option<Box<Self>> {
        Self::of_lists(options.audience.as_deref()?)
    }

    /// `None` where the lists are there and say nothing.
    fn of_lists(options: &AudienceOptions<'_>) -> Option<Box<Self>> {
        let everybody = options.exclude.is_empty()
            && options.exclude_authid.is_empty()
            && options.exclude_authrole.is_empty()
            && options.eligible.is_none()
            && options.eligible_authid.is_none()
            && options.eligible_authrole.is_none();
        if everybody {
            return None;
        }
        let texts = |list: &Vec<Text<'_>>| {
            let mut sorted: Vec<Box<str>> = list.iter().map(|text| Box::from(&**text)).collect();
            sorted.sort_unstable();
            sorted
        };
        let ids = |list: &Vec<crate::wamp::SessionId>| {
            let mut sorted = list.clone();
            sorted.sort_unstable();
            sorted
        };
        Some(Box::new(Self {
            exclude: ids(&options.exclude),
            exclude_authid: texts(&options.exclude_authid),
            exclude_authrole: texts(&options.exclude_authrole),
            eligible: options.eligible.as_ref().map(ids),
            eligible_authid: options.eligible_authid.as_ref().map(texts),
            eligible_authrole: options.eligible_authrole.as_ref().map(texts),
        }))
    }

    /// Whether a session may receive the publication (advanced profile, "Subscriber Black- and Whitelisting": every
    /// list that is given must agree).
    pub(super) fn admits(&self, session: &Session, role: &str) -> bool {
        if self.exclude.binary_search(&session.id).is_ok()
            || self.eligible.as_ref().is_some_and(|list| list.binary_search(&session.id).is_err())
            || !self.admits_role(role)
        {
            return false;
        }
        if self.exclude_authid.is_empty() && self.eligible_authid.is_none() {
            return true;
        }
        self.admits_authid(&session.authid())
    }

    /// The same for the lists that name no sessions.
    pub(super) fn admits_user(&self, authid: &str, role: &str) -> bool {
        self.admits_role(role) && self.admits_authid(authid)
    }

    fn admits_role(&self, role: &str) -> bool {
        !holds(&self.exclude_authrole, role)
            && self.eligible_authrole.as_ref().is_none_or(|list| holds(list, role))
    }

    fn admits_authid(&self, authid: &str) -> bool {
        !holds(&self.exclude_authid, authid)
            && self.eligible_authid.as_ref().is_none_or(|list| holds(list, authid))
    }
}

fn holds(sorted: &[Box<str>], text: &str) -> bool {
    sorted.binary_search_by(|entry| (**entry).cmp(text)).is_ok()
}

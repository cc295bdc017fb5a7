//! Calls whose input comes in parts (advanced profile, "Progressive Call Invocations"), at home: where the rest of it goes.
//!
//! All parts take one way, by home to the callee's core, so they keep their order; and all go to the callee that got the first,
//! whoever serves the procedure by then.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::peer::Sitting;
use crate::wamp::{RegistrationId, RequestId};

/// Where the parts of one call go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InputRoute {
    pub(super) request: RequestId,
    pub(super) callee: Sitting,
    pub(super) registration: RegistrationId,
    pub(super) pattern: bool,
}

/// The open ones of a realm. A caller has no more of them than calls: each ends with the last part, with the call, and with
/// the caller.
#[derive(Debug)]
pub(super) struct InputRoutes {
    by_caller: HashMap<Sitting, Vec<InputRoute>, FixedState>,
}

impl InputRoutes {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { by_caller: HashMap::with_hasher(hasher) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_caller.values().map(Vec::len).sum()
    }

    pub(super) fn insert(&mut self, caller: Sitting, route: InputRoute) {
        self.by_caller.entry(caller).or_default().push(route);
    }

    /// Where the next part goes; after the last one it is forgotten.
    pub(super) fn next(&mut self, caller: Sitting, request: RequestId, is_last: bool) -> Option<InputRoute> {
        let routes = self.by_caller.get_mut(&caller)?;
        let place = routes.iter().position(|route| route.request == request)?;
        if !is_last {
            return routes.get(place).copied();
        }
        let route = routes.swap_remove(place);
        if routes.is_empty() {
            self.by_caller.remove(&caller);
        }
        Some(route)
    }

    pub(super) fn remove_all(&mut self, caller: Sitting) {
        self.by_caller.remove(&caller);
    }
}

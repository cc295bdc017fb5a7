//! What is looked at when all is quiet: nothing is under way, and the tables hold what the clients hold.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crosspoint::router::TableSizes;
use crosspoint::router::peer::{CoreId, SessionRef};
use crosspoint::shard::Held;

use super::{Core, End, Kept, Run, broken};

impl Run {
    /// Nothing is under way any more, and everything was answered.
    pub(super) fn check_quiet(&self, with_calls: bool) -> Kept {
        let (mut tables, mut remembered) = (TableSizes::default(), 0);
        for (number, core) in self.cores.iter().map(RefCell::borrow).enumerate() {
            let peaks = core.shard.peaks();
            if peaks.paused + peaks.stuck_bytes + peaks.outbox_bytes > 0 {
                return broken("stuck", format!("core {number}: {peaks:?}"));
            }
            let (held, sockets) = (core.shard.held(), self.kernel.borrow().open_sockets(number));
            let expected =
                Held { connections: sockets, partial_bytes: held.partial_bytes, ..Held::default() };
            if held != expected {
                return broken("held", format!("core {number}: {held:?}"));
            }
            let sizes = core.shard.table_sizes();
            tables.registrations += sizes.registrations;
            tables.invocations += sizes.invocations;
            tables.call_deadlines += sizes.call_deadlines;
            tables.inputs += sizes.inputs;
            tables.own_calls += sizes.own_calls;
            tables.decisions += sizes.decisions;
            tables.subscriptions += sizes.subscriptions;
            remembered += sizes.remembered_calls;
        }
        for client in &self.clients {
            if let Some(text) = client.unanswered(with_calls) {
                return broken("answer", text);
            }
            if client.unsent() > 0 {
                return broken(
                    "stuck",
                    format!("client {} could not send {}", client.number, client.unsent()),
                );
            }
        }
        if with_calls && remembered > 0 {
            return broken("held", format!("{remembered} calls are remembered, and all are answered"));
        }
        self.check_databases()?;
        self.check_tables(tables)?;
        self.check_retained()?;
        self.check_credit()
    }

    /// R12: all cores end with the same. At a bound it may matter when one event took the place of several, and after a
    /// leap of time what was on its way all the while.
    fn check_retained(&self) -> Kept {
        let forgotten = |core: &RefCell<Core>| core.borrow().shard.counters().retained_forgotten;
        let leaps = self.profile.impatient || self.profile.advanced.leaps();
        if leaps || self.cores.iter().any(|core| forgotten(core) > 0) {
            return Ok(());
        }
        let first = self.cores[0].borrow();
        for (number, core) in self.cores.iter().enumerate().skip(1) {
            let core = core.borrow();
            // Topics and publications: a stamp is how they agree, and not what on.
            let kept = |core: &Core| -> Vec<_> {
                core.shard.retained().map(|(topic, _, publication)| (topic.to_owned(), publication)).collect()
            };
            let (here, there) = (kept(&first), kept(&core));
            if here != there {
                return broken("R12", format!("core 0 retains {here:?}, core {number} {there:?}"));
            }
        }
        Ok(())
    }

    /// The tables hold what the clients hold.
    fn check_tables(&self, tables: TableSizes) -> Kept {
        let mut expected = TableSizes::default();
        // All callees of a shared one have the same.
        let mut registered = BTreeSet::new();
        let mut subscribed = Vec::new();
        for (number, session) in
            self.history.sessions.iter().enumerate().filter(|(_, it)| it.end == End::Open)
        {
            let held = session.registrations.iter().filter(|held| !held.is_over);
            registered.extend(held.map(|held| (session.realm, held.id)));
            let open = || session.calls.iter().filter(|call| !call.is_answered);
            expected.invocations += open().filter(|call| !self.history.waits(call)).count();
            let is_open = |call: u64| !session.calls[call as usize].is_answered;
            expected.invocations -= self.history.databases.running_for(number, is_open);
            // At home and at the callee.
            expected.inputs += 2 * open().filter(|call| call.has_more).count();
            for held in session.subscriptions.iter().filter(|held| !held.is_over) {
                subscribed.push((session.core, session.realm, held.policy, held.pattern));
            }
        }
        let authorizers = self.authorizers.iter().filter(|authorizer| authorizer.is_ready).count();
        // One to ask whether others may, and one who knows others.
        expected.registrations = registered.len() + 2 * authorizers + self.callable().len();
        subscribed.sort_unstable();
        subscribed.dedup();
        expected.subscriptions = subscribed.len();
        if tables != expected {
            return broken("held", format!("tables: {tables:?}, the clients hold {expected:?}"));
        }
        Ok(())
    }

    /// What a session has not got back rests on some other core, below the bound of what may.
    fn check_credit(&self) -> Kept {
        let mut resting = Vec::new();
        for core in self.cores.iter().map(RefCell::borrow) {
            resting.extend(core.shard.credit().1);
        }
        for (number, core) in self.cores.iter().map(RefCell::borrow).enumerate() {
            for (key, owed) in core.shard.credit().0 {
                let of_session = |(session, _): &&(SessionRef, u32)| {
                    session.core == CoreId(number as u16) && session.key == key
                };
                let rests: u32 = resting.iter().filter(of_session).map(|(_, bytes)| bytes).sum();
                if rests != owed {
                    let text = format!("{owed} bytes are owed to {key:?} of core {number}, {rests} rest");
                    return broken("credit", text);
                }
            }
        }
        Ok(())
    }

    /// Dropped events were counted.
    pub(super) fn check_lost(&self, missing: u64) -> Kept {
        let dropped: u64 = self.cores.iter().map(|core| core.borrow().shard.counters().events_dropped).sum();
        if missing > dropped || (dropped > 0 && !self.history.may_drop) {
            return broken("loss", format!("{missing} events are missing, {dropped} were dropped"));
        }
        Ok(())
    }
}

//! The databases of a run: their steps, and what is looked at when all is quiet.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crosspoint::router::database::{DatabaseIndex, Publisher};
use crosspoint::router::peer::RealmIndex;

use super::{Client, Kept, Run, broken};
use crate::database::{Database, OFFERED, Shared, lock};
use crate::profile::Profile;
use crate::random::Random;
use crate::world::Traffic;

/// The databases of the first realm.
pub fn databases(profile: &Profile, seed: u64, traffic: &Traffic) -> Vec<Shared> {
    let database = |index: usize| {
        let places = (profile.cores, profile.home % profile.cores);
        let texts = (profile.limits.message_bytes_max - 256, profile.long_once_in);
        let random = Random::new(seed, 3 + index as u64);
        Arc::new(Mutex::new(Database::new(index, places, texts, Arc::clone(traffic), random)))
    };
    (0..profile.advanced.databases).map(database).collect()
}

/// As routers know them.
pub fn publishers(count: usize) -> Vec<Publisher> {
    let publisher = |index: usize| Publisher {
        realm: RealmIndex(0),
        database: DatabaseIndex(index as u16),
        name: Database::name(index).into(),
    };
    (0..count).map(publisher).collect()
}

impl Run {
    /// A database does one thing.
    pub(super) fn act_of_database(&mut self, number: usize, may_begin: bool) -> Kept {
        let mut database = lock(&self.history.databases.all[number]);
        database.act(may_begin);
        let step = self.step;
        self.trace.note(|| format!("{step:>6} database {number} {}", database.describe()));
        Ok(())
    }

    /// Before a step: what time it is.
    pub(super) fn tell_databases(&self) {
        let now_us = self.kernel.borrow().now_us;
        for database in &self.history.databases.all {
            let mut database = lock(database);
            (database.step, database.now_us) = (self.step, now_us);
        }
    }

    /// After a step: what cores did to databases.
    pub(super) fn judge_databases(&mut self) -> Kept {
        for index in 0..self.history.databases.all.len() {
            let database = Arc::clone(&self.history.databases.all[index]);
            let (wrong, started, reports) = {
                let mut database = lock(&database);
                (database.take_wrong(), std::mem::take(&mut database.started), database.take_reports())
            };
            if let Some(violation) = wrong {
                return Err(violation);
            }
            for started in &started {
                self.history.receive_query(index, started)?;
            }
            if !reports.is_empty() {
                let wires = self.clients.iter().filter_map(|client| Some((client.session?, client.wire?)));
                let wires: Vec<_> = wires.collect();
                let step = self.step;
                self.trace.note(|| format!("{step:>6} database {index} hears of {reports:?}"));
                reports.iter().for_each(|report| self.history.receive_report(index, report, &wires));
            }
        }
        Ok(())
    }

    /// A client has read.
    pub(super) fn judge_reading(&mut self, client: usize) {
        if let Some(wire) = self.clients[client].wire {
            let read_bytes = self.kernel.borrow().wires[wire].read_bytes;
            self.history.check_offered(wire, read_bytes);
        }
    }

    /// After a turn: nobody is sent more parts of results than there is room for.
    pub(super) fn check_parts(&self) -> Kept {
        if !self.history.databases.all.iter().any(|database| lock(database).has_calls_in_parts()) {
            return Ok(());
        }
        let room = self.profile.limits.outbox_soft_bytes / 2;
        for client in self.clients.iter().filter(|client| !client.is_compressed()) {
            let Some((session, wire)) = client.session.zip(client.wire) else { continue };
            let (bytes, longest) = self.history.unread_parts(session);
            // What the kernel has, what the outbox may have, one part of each, and what is half read.
            let bound = self.kernel.borrow().wires[wire].to_client_max + room + longest;
            if bytes > bound {
                let text = format!("{bytes} bytes of results wait for session {session}, not {bound}");
                return broken("credit", text);
            }
        }
        Ok(())
    }

    /// Whether all that was said to sleeping cores was heard.
    pub(super) fn check_heard(&self) -> Kept {
        for database in &self.history.databases.all {
            if let Some(core) = lock(database).unheard_core() {
                return broken("stuck", format!("core {core} sleeps, and a database has said something"));
            }
        }
        Ok(())
    }

    /// What databases are to have on all cores.
    pub(super) fn callable(&self) -> BTreeSet<&'static str> {
        let shadows = self.history.shadows();
        let mut callable = BTreeSet::new();
        for (index, database) in self.history.databases.all.iter().enumerate() {
            let database = lock(database);
            let offers = database.offers();
            let offered = OFFERED[index].iter().filter(|uri| offers.contains(uri) && !shadows.contains(*uri));
            callable.extend(offered.copied());
        }
        callable
    }

    /// When all is quiet: cores and databases agree.
    pub(super) fn check_databases(&self) -> Kept {
        if self.history.databases.all.is_empty() {
            return Ok(());
        }
        let callable = self.callable();
        let mut running = 0;
        for (index, database) in self.history.databases.all.iter().enumerate() {
            let database = lock(database);
            running += database.running();
            if let Some(text) = database.unrest() {
                return broken("stuck", format!("database {index}: {text}"));
            }
        }
        let (mut queries, mut resumptions) = (0, 0);
        for (number, core) in self.cores.iter().enumerate() {
            let sizes = core.borrow().shard.table_sizes();
            if sizes.callable != callable.len() {
                let text = format!("core {number} has {} procedures, not {callable:?}", sizes.callable);
                return broken("R7", text);
            }
            queries += sizes.queries;
            resumptions += sizes.resumptions;
        }
        if queries != running {
            return broken("held", format!("cores have {queries} queries, and databases {running}"));
        }
        // Whoever has caught up is remembered until the next event.
        let open = self.history.sessions.iter().filter(|session| session.end == super::End::Open);
        let resumed = open.flat_map(|session| &session.subscriptions);
        let resumed = resumed.filter(|held| !held.is_over && held.of_databases.after.is_some()).count();
        if resumptions > resumed {
            return broken("held", format!("{resumptions} resume, of {resumed}"));
        }
        Ok(())
    }

    /// Somebody of each core calls all that databases may offer, and they publish once more, while nothing else happens.
    pub(super) fn try_databases(&mut self) -> Kept {
        if self.history.databases.all.is_empty() {
            return Ok(());
        }
        // What is never answered stays so until all calls are.
        for database in &self.history.databases.all {
            lock(database).begin_trial();
        }
        let callable = self.callable();
        let shadows = self.history.shadows();
        let uris: BTreeSet<&'static str> = OFFERED.iter().copied().flatten().copied().collect();
        let mut calls = Vec::new();
        for core in 0..self.cores.len() {
            let is_there = |client: &Client| client.core == core && client.realm == 0 && client.is_open();
            let Some(client) = self.clients.iter().position(is_there) else { continue };
            for uri in uris.iter().copied() {
                self.on_stage(client, |client, stage| {
                    calls.extend(client.call_plainly(uri, stage).map(|call| (call, uri)));
                    Ok(())
                })?;
            }
        }
        for database in &self.history.databases.all {
            lock(database).publish_to_all();
        }
        self.settle()?;
        for (call, uri) in calls {
            let was_given = self.history.databases.has(call);
            let it = &self.history.sessions[call.0].calls[call.1 as usize];
            // It may have had as many calls as it may have.
            let is_there = !it.is_refused && self.history.sessions[call.0].end == super::End::Open;
            if is_there && was_given != callable.contains(uri) {
                let text = format!("{uri}: {callable:?} are offered, {shadows:?} registered: {it:?}");
                return broken("R7", format!("call {} of session {} of {text}", call.1, call.0));
            }
        }
        for database in &self.history.databases.all {
            lock(database).end_trial();
        }
        Ok(())
    }

    /// Databases answer everything, from now on at once.
    pub(super) fn answer_by_databases(&self) {
        self.history.databases.all.iter().for_each(|database| lock(database).be_prompt());
    }

    /// They offer nothing any more.
    pub(super) fn end_databases(&mut self) -> Kept {
        if self.history.databases.all.is_empty() {
            return Ok(());
        }
        self.history.databases.all.iter().for_each(|database| lock(database).retire());
        self.settle()?;
        for (number, core) in self.cores.iter().enumerate() {
            let count = core.borrow().shard.table_sizes().callable;
            if count > 0 {
                return broken("R7", format!("core {number} has {count} procedures that nobody offers"));
            }
        }
        Ok(())
    }
}

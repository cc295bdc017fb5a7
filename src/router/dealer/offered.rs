//! What databases offer, at home (R7): which of it is called, and what has to wait until all cores have forgotten it.
//!
//! A client's own registration of a URI stands above a database's, and the first database above the next. What a database
//! takes back stays taken until every core has said that it knows: until then one may still call it there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Dealer;
use super::queue::{Home, Work};
use super::registration::{Registration, Serves, Sharing};
use super::told::ChangeKind;
use crate::router::Router;
use crate::router::database::{Catalogue, DatabaseIndex, Procedure};
use crate::router::effects::Effects;
use crate::router::peer::{CoreId, PeerMessage, RealmIndex};
use crate::router::uri_map::EntryKey;
use crate::wamp::{MatchPolicy, RegistrationId, SessionId};

/// Meta events name a session; a database has none.
const NO_SESSION: SessionId = SessionId(0);

/// What one database offers to a realm.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// As it came.
    procedures: Vec<Arc<Procedure>>,
    version: u64,
    /// The version that each core has, in their order.
    taken: Vec<u64>,
    /// What is in none of the catalogues since this version: free once all cores have it.
    retiring: Vec<(u64, EntryKey)>,
    /// How many of its URIs others have.
    pub(super) shadowed: usize,
}

impl Dealer {
    /// Whether a database has taken back what it had registered, and not all cores have said that they know.
    #[inline]
    pub(super) fn is_retiring(&self, entry: EntryKey, registration: &Registration) -> bool {
        let Serves::Database(owner) = registration.serves else { return false };
        let offered = self.offered.get(&owner);
        offered.is_some_and(|offered| offered.retiring.iter().any(|(_, other)| *other == entry))
    }
}

impl Home<'_> {
    /// Registers what is free of an offer, and takes back what is in it no more; what all cores are to know.
    fn offer(&mut self, database: DatabaseIndex, procedures: Vec<Arc<Procedure>>, cores: u16) -> Catalogue {
        let mut offered = self.dealer.offered.remove(&database).unwrap_or_default();
        offered.version += 1;
        offered.taken.resize(usize::from(cores), 0);
        offered.shadowed = 0;
        self.dealer.shadowed.retain(|(_, other)| *other != database);
        let mut callable = Vec::new();
        for procedure in &procedures {
            let entry = self.dealer.registrations.find(MatchPolicy::Exact, &procedure.uri);
            let owner = entry.and_then(|entry| self.dealer.registrations.get(entry)).map(|it| &it.serves);
            match (entry, owner) {
                (None, _) => self.insert_offered(database, &procedure.uri),
                (Some(entry), Some(Serves::Database(owner))) if *owner == database => {
                    // It comes back before all had forgotten it.
                    offered.retiring.retain(|(_, other)| *other != entry);
                }
                _ => {
                    offered.shadowed += 1;
                    self.dealer.shadowed.insert((procedure.uri.clone(), database));
                    continue;
                }
            }
            callable.push(Arc::clone(procedure));
        }
        let uris: BTreeSet<&str> = callable.iter().map(|procedure| &*procedure.uri).collect();
        let is_gone = |(entry, uri, policy, registration): (EntryKey, &str, MatchPolicy, &Registration)| {
            let is_own = matches!(registration.serves, Serves::Database(owner) if owner == database);
            let is_gone = is_own && policy == MatchPolicy::Exact && !uris.contains(uri);
            is_gone.then_some(entry)
        };
        let gone: Vec<_> = self.dealer.registrations.iter().filter_map(is_gone).collect();
        for entry in gone {
            if !offered.retiring.iter().any(|(_, other)| *other == entry) {
                offered.retiring.push((offered.version, entry));
            }
        }
        offered.procedures = procedures;
        let version = offered.version;
        self.dealer.offered.insert(database, offered);
        Catalogue { realm: self.realm, database, version, procedures: callable }
    }

    fn insert_offered(&mut self, database: DatabaseIndex, uri: &str) {
        let dealer = &mut *self.dealer;
        let id = RegistrationId(dealer.last_id.0 + 1);
        dealer.last_id = id;
        let registration = Registration {
            id,
            serves: Serves::Database(database),
            sharing: Sharing::default(),
            created_us: self.created_us,
            disclose_caller: false,
            authid: None,
        };
        let entry = dealer.registrations.insert(MatchPolicy::Exact, uri, registration);
        dealer.by_id.insert(id, entry);
        let (invoke, created_us) = (Sharing::default().policy, self.created_us);
        let (uri, policy) = (uri.into(), MatchPolicy::Exact);
        self.tell(NO_SESSION, id, ChangeKind::Created { uri, policy, invoke, created_us });
    }

    /// A core has a catalogue: what all have forgotten is free.
    fn taken(&mut self, core: CoreId, database: DatabaseIndex, version: u64) {
        let Some(offered) = self.dealer.offered.get_mut(&database) else { return };
        if let Some(taken) = offered.taken.get_mut(usize::from(core.0)) {
            *taken = version.max(*taken);
        }
        let by_all = offered.taken.iter().copied().min().unwrap_or_default();
        let (free, waiting) = std::mem::take(&mut offered.retiring)
            .into_iter()
            .partition(|(since, _): &(u64, EntryKey)| *since <= by_all);
        offered.retiring = waiting;
        let is_over = offered.procedures.is_empty() && offered.retiring.is_empty();
        if is_over && by_all >= offered.version {
            self.dealer.offered.remove(&database);
        }
        let free: Vec<(u64, EntryKey)> = free;
        for (_, entry) in free {
            let uri = self.dealer.registrations.uri(entry).map(|(uri, _)| Box::from(uri));
            if let Some(registration) = self.dealer.registrations.remove(entry) {
                self.dealer.by_id.remove(&registration.id);
                self.tell(NO_SESSION, registration.id, ChangeKind::Deleted);
            }
            if let Some(uri) = uri {
                self.freed(uri);
            }
        }
    }

    /// Nobody has this URI any more: databases that offer it as well may have it.
    pub(super) fn freed(&mut self, uri: Box<str>) {
        let (first, last) = (DatabaseIndex(0), DatabaseIndex(u16::MAX));
        while let Some((_, database)) =
            self.dealer.shadowed.range((uri.clone(), first)..=(uri.clone(), last)).next().cloned()
        {
            self.dealer.shadowed.remove(&(uri.clone(), database));
            self.work.push_back(Work::Offer(self.realm, database));
        }
    }
}

impl Router {
    /// A database says what it offers. Every core hears it; home decides.
    pub(in crate::router) fn handle_offer(
        &mut self,
        realm: RealmIndex,
        database: DatabaseIndex,
        procedures: Arc<[Arc<Procedure>]>,
        effects: &mut impl Effects,
    ) {
        self.offer(realm, database, procedures.to_vec(), effects);
    }

    fn offer(
        &mut self,
        realm: RealmIndex,
        database: DatabaseIndex,
        procedures: Vec<Arc<Procedure>>,
        effects: &mut impl Effects,
    ) {
        let (own, cores) = (self.core, self.cores);
        let Some(mut home) = self.home(realm) else { return };
        let catalogue = Arc::new(home.offer(database, procedures, cores));
        effects.counters().database_procedures_shadowed +=
            home.dealer.offered.get(&database).map_or(0, |offered| offered.shadowed as u64);
        for core in (0..cores).map(CoreId).filter(|core| *core != own) {
            effects.peer(core, PeerMessage::Catalogue(Arc::clone(&catalogue)));
        }
        self.take_catalogue(&catalogue, effects);
    }

    /// At home: a core has the catalogue of this version.
    pub(in crate::router) fn catalogue_taken(
        &mut self,
        core: CoreId,
        realm: RealmIndex,
        database: DatabaseIndex,
        version: u64,
    ) {
        if let Some(mut home) = self.home(realm) {
            home.taken(core, database, version);
        }
    }

    /// At home: a client gave up a URI that a database offers as well.
    pub(in crate::router) fn offer_again(
        &mut self,
        realm: RealmIndex,
        database: DatabaseIndex,
        effects: &mut impl Effects,
    ) {
        let dealer = self.realms[usize::from(realm.0)].dealer.as_ref();
        let offered = dealer.and_then(|dealer| dealer.offered.get(&database));
        if let Some(procedures) = offered.map(|offered| offered.procedures.clone()) {
            self.offer(realm, database, procedures, effects);
        }
    }
}

//! Limits by address: how many connections it has, and how fast it opens them. IPv6 counts by /64.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::config::Limits;

/// No entry: addresses without limits.
pub(super) const UNLIMITED: u32 = u32::MAX;

/// Above so many addresses those without connections are forgotten, whatever they did: who has more than that has enough
/// of them to do without.
const ADDRESSES_MAX: usize = 65_536;

/// A table with room for no more entries than this is not made smaller.
const KEPT_MIN: usize = 64;

/// What is known of one address.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: IpAddr,
    connections: u32,
    /// Connects that may come at once, in thousandths.
    tokens_milli: u64,
    refilled_us: u64,
    /// Logins that failed lately, in thousandths: they are forgiven with time.
    failures_milli: u64,
    forgiven_us: u64,
}

/// The addresses that have connections, or had some lately.
#[derive(Debug)]
pub(super) struct Addresses {
    entries: Vec<Entry>,
    /// Those of no address. The lowest are taken first, so that the end of the table becomes free and can be given back.
    free: BTreeSet<u32>,
    /// An entry ends when its last connection is closed and its tokens are full again.
    by_address: HashMap<IpAddr, u32, FixedState>,
    connections_max: u32,
    tokens_max_milli: u64,
    refill_per_second: u64,
    failures_max_milli: u64,
    forgiven_per_minute: u64,
    /// Where the search for entries to be forgotten goes on.
    sweep: usize,
}

impl Addresses {
    /// Limits across cores are limit / N on each, rounded up. Who has many addresses must not know `seed`: with those that
    /// meet in the table he would make it slow.
    pub(super) fn new(limits: &Limits, cores: u16, seed: u64) -> Self {
        let share = |limit: usize| limit.div_ceil(usize::from(cores));
        Self {
            entries: Vec::new(),
            free: BTreeSet::new(),
            by_address: HashMap::with_hasher(FixedState::with_seed(seed)),
            connections_max: share(limits.connections_per_address_max) as u32,
            tokens_max_milli: share(limits.connects_per_address_burst as usize) as u64 * 1000,
            refill_per_second: share(limits.connects_per_address_per_second as usize) as u64,
            failures_max_milli: share(limits.login_failures_per_address_max as usize) as u64 * 1000,
            forgiven_per_minute: share(limits.login_failures_forgiven_per_minute as usize) as u64,
            sweep: 0,
        }
    }

    /// A connection from `address`: its entry, or `None` when it has too many or opens them too fast.
    pub(super) fn opened(&mut self, address: Option<IpAddr>, now_us: u64) -> Option<u32> {
        let Some(address) = address.map(network) else { return Some(UNLIMITED) };
        self.forget_some(now_us);
        let index = match self.by_address.get(&address) {
            Some(&index) => index,
            None => self.insert(address, now_us),
        };
        self.refill(index, now_us);
        let entry = &mut self.entries[index as usize];
        if entry.tokens_milli < 1000 || entry.connections >= self.connections_max {
            return None;
        }
        entry.tokens_milli -= 1000;
        entry.connections += 1;
        Some(index)
    }

    /// A connection with this entry ended.
    pub(super) fn closed(&mut self, index: u32) {
        if index != UNLIMITED {
            self.entries[index as usize].connections -= 1;
        }
    }

    /// Whether somebody from there may try to log in.
    pub(super) fn may_log_in(&mut self, index: u32, now_us: u64) -> bool {
        if index == UNLIMITED {
            return true;
        }
        self.forgive(index, now_us);
        self.entries[index as usize].failures_milli + 1000 <= self.failures_max_milli
    }

    /// Somebody from there failed to log in.
    pub(super) fn login_failed(&mut self, index: u32, now_us: u64) {
        if index != UNLIMITED {
            self.forgive(index, now_us);
            let most = self.failures_max_milli;
            let entry = &mut self.entries[index as usize];
            entry.failures_milli = (entry.failures_milli + 1000).min(most);
        }
    }

    /// Where the table has an address.
    #[cfg(test)]
    pub(super) fn hash_of(&self, address: IpAddr) -> u64 {
        std::hash::BuildHasher::hash_one(self.by_address.hasher(), address)
    }

    fn forgive(&mut self, index: u32, now_us: u64) {
        let entry = &mut self.entries[index as usize];
        let elapsed_ms = now_us.saturating_sub(entry.forgiven_us) / 1000;
        let forgiven = elapsed_ms.saturating_mul(self.forgiven_per_minute) / 60;
        // Only what it came to, so that nothing is lost to rounding.
        if forgiven > 0 {
            entry.forgiven_us = now_us;
            entry.failures_milli = entry.failures_milli.saturating_sub(forgiven);
        }
    }

    fn insert(&mut self, address: IpAddr, now_us: u64) -> u32 {
        let entry = Entry {
            address,
            connections: 0,
            tokens_milli: self.tokens_max_milli,
            refilled_us: now_us,
            failures_milli: 0,
            forgiven_us: now_us,
        };
        let index = if let Some(index) = self.free.pop_first() {
            self.entries[index as usize] = entry;
            index
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
        self.by_address.insert(address, index);
        index
    }

    fn refill(&mut self, index: u32, now_us: u64) {
        let entry = &mut self.entries[index as usize];
        let elapsed_us = now_us.saturating_sub(entry.refilled_us);
        // Whole milliseconds only, so that nothing is lost to rounding.
        let elapsed_ms = elapsed_us / 1000;
        entry.refilled_us += elapsed_ms * 1000;
        let gained = elapsed_ms.saturating_mul(self.refill_per_second);
        entry.tokens_milli = entry.tokens_milli.saturating_add(gained).min(self.tokens_max_milli);
    }

    /// Looks at two entries for every connect, so that the table never grows beyond twice the addresses of late.
    fn forget_some(&mut self, now_us: u64) {
        for _ in 0..2 {
            if self.entries.is_empty() {
                return;
            }
            self.sweep = (self.sweep + 1) % self.entries.len();
            let index = self.sweep as u32;
            let address = self.entries[self.sweep].address;
            if self.by_address.get(&address) != Some(&index) {
                continue;
            }
            self.refill(index, now_us);
            self.forgive(index, now_us);
            let entry = &self.entries[self.sweep];
            let is_as_new = entry.tokens_milli >= self.tokens_max_milli && entry.failures_milli == 0;
            if entry.connections == 0 && (is_as_new || self.by_address.len() > ADDRESSES_MAX) {
                self.by_address.remove(&address);
                self.free.insert(index);
                self.shrink();
            }
        }
    }

    /// Gives back the end of the table, as far as it is free.
    fn shrink(&mut self) {
        while let Some(last) = self.entries.len().checked_sub(1)
            && self.free.remove(&(last as u32))
        {
            self.entries.pop();
        }
        // Not at once, so that few that come and go do not make it grow and shrink.
        if self.entries.capacity() > KEPT_MIN.max(self.entries.len() * 4) {
            self.entries.shrink_to(self.entries.len() * 2);
            self.by_address.shrink_to(self.by_address.len() * 2);
        }
    }
}

/// A subscriber of an IPv6 provider has a /64 to himself.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            match v6.to_ipv4_mapped() {
                Some(v4) => IpAddr::V4(v4),
                None => Ipv6Addr::new(segments[0], segments[1], segments[2], segments[3], 0, 0, 0, 0).into(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn addresses(connections: usize, per_second: u32, burst: u32) -> Addresses {
        let mut limits = Config::default().limits;
        limits.connections_per_address_max = connections;
        limits.connects_per_address_per_second = per_second;
        limits.connects_per_address_burst = burst;
        Addresses::new(&limits, 1, 7)
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn connections_are_counted_until_they_close() {
        let mut addresses = addresses(2, 1000, 1000);
        let first = addresses.opened(address(1), 0).unwrap();
        assert!(addresses.opened(address(1), 0).is_some());
        assert_eq!(addresses.opened(address(1), 0), None);
        assert!(addresses.opened(address(2), 0).is_some());
        addresses.closed(first);
        assert!(addresses.opened(address(1), 0).is_some());
    }

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let mut addresses = addresses(1000, 10, 5);
        for _ in 0..5 {
            let index = addresses.opened(address(1), 0).unwrap();
            addresses.closed(index);
        }
        assert_eq!(addresses.opened(address(1), 50_000), None);
        assert!(addresses.opened(address(1), 100_000).is_some());
        assert_eq!(addresses.opened(address(1), 100_000), None);
    }

    #[test]
    fn failed_logins_bar_an_address_for_a_while() {
        let mut limits = Config::default().limits;
        limits.login_failures_per_address_max = 3;
        limits.login_failures_forgiven_per_minute = 6;
        let mut addresses = Addresses::new(&limits, 1, 7);
        let index = addresses.opened(address(1), 0).unwrap();
        let other = addresses.opened(address(2), 0).unwrap();
        for _ in 0..3 {
            assert!(addresses.may_log_in(index, 0));
            addresses.login_failed(index, 0);
        }
        assert!(!addresses.may_log_in(index, 0) && addresses.may_log_in(other, 0));
        assert!(addresses.may_log_in(UNLIMITED, 0));
        addresses.login_failed(UNLIMITED, 0);
        // Going away and coming back helps nobody, one failure is forgiven every ten seconds.
        addresses.closed(index);
        for second in 1..=9 {
            let again = addresses.opened(address(1), second * 1_000_000).unwrap();
            assert_eq!((again, addresses.may_log_in(again, 500_000)), (index, false));
            addresses.closed(again);
        }
        let again = addresses.opened(address(1), 10_100_000).unwrap();
        assert!(addresses.may_log_in(again, 10_100_000));
        addresses.login_failed(again, 10_100_000);
        assert!(!addresses.may_log_in(again, 10_100_000));
        assert!(addresses.may_log_in(again, 60_000_000));
    }

    #[test]
    fn very_many_addresses_that_failed_are_forgotten_in_the_end() {
        let mut limits = Config::default().limits;
        limits.login_failures_forgiven_per_minute = 1;
        let mut addresses = Addresses::new(&limits, 1, 7);
        for host in 0..3 * ADDRESSES_MAX as u32 {
            let index = addresses.opened(Some(IpAddr::from(host.to_be_bytes())), 0).unwrap();
            addresses.login_failed(index, 0);
            addresses.closed(index);
        }
        assert!(addresses.by_address.len() <= ADDRESSES_MAX + 2, "{}", addresses.by_address.len());
    }

    #[test]
    fn idle_addresses_are_forgotten() {
        let mut addresses = addresses(10, 100, 10);
        for last in 0..200 {
            let index = addresses.opened(address(last), u64::from(last) * 1_000_000).unwrap();
            addresses.closed(index);
        }
        assert!(addresses.by_address.len() < 20, "{}", addresses.by_address.len());
    }

    #[test]
    fn the_table_shrinks_when_many_are_forgotten() {
        let mut addresses = addresses(10, 100, 10);
        let host = |index: u32| Some(IpAddr::from(index.to_be_bytes()));
        // All at once, so that none can be forgotten; one of the first stays.
        let indices: Vec<_> = (0..10_000).map(|index| addresses.opened(host(index), 0).unwrap()).collect();
        for index in &indices[1..] {
            addresses.closed(*index);
        }
        assert_eq!(addresses.entries.len(), 10_000);
        for second in 3600..13_600 {
            let index = addresses.opened(host(7), second * 1_000_000).unwrap();
            addresses.closed(index);
        }
        assert!(addresses.entries.len() <= 2 && addresses.free.is_empty(), "{}", addresses.entries.len());
        assert!(addresses.entries.capacity() <= KEPT_MIN && addresses.by_address.capacity() <= 2 * KEPT_MIN);
        assert_eq!(addresses.entries[indices[0] as usize].address, host(0).unwrap());
        addresses.closed(indices[0]);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let mut addresses = addresses(1, 100, 10);
        assert!(addresses.opened(Some("2001:db8::1".parse().unwrap()), 0).is_some());
        assert_eq!(addresses.opened(Some("2001:db8::2".parse().unwrap()), 0), None);
        assert!(addresses.opened(Some("2001:db8:0:1::1".parse().unwrap()), 0).is_some());
    }
}

//! Procedures that `wamp.register` has noted.

use super::Postgres;
use super::functions::Function;
use super::statements::{Open, Target};
use super::values::Types;
use crate::database::{Discovered, Problem};

/// Whether the schema is there, and this role may see what is registered.
const MAY_SEE: &str = "select coalesce(pg_catalog.has_table_privilege(
    pg_catalog.to_regclass('wamp.registration'), 'SELECT'), false)";

/// What changes when one of them does, or a function of one.
pub(super) const REGISTRATIONS_FINGERPRINT: &str = "
select concat_ws(':', count(*), sum(r.xmin::text::bigint), sum(p.xmin::text::bigint), sum(p.oid::bigint))
from wamp.registration r left join pg_catalog.pg_proc p on p.oid = any (
    case when right(r.function, 1) = ')' then array[pg_catalog.to_regprocedure(r.function)::oid]
         else (select array_agg(q.oid) from pg_catalog.pg_proc q join pg_catalog.pg_namespace m on m.oid = q.pronamespace
               where format('%I.%I', m.nspname, q.proname) = r.function) end)";

/// All that are registered, each once for every function of its name; and the functions, as [`Function::read`] wants them.
const REGISTRATIONS: &str = "
select p.oid, n.nspname, p.proname, p.prokind, p.proretset, p.prorettype, p.provolatile, p.provariadic,
       p.pronargs, p.pronargdefaults,
       coalesce(p.proallargtypes, p.proargtypes::oid[])::text[],
       p.proargmodes::text[], p.proargnames,
       (select array_agg(pg_catalog.format_type(a.oid, null) order by a.place)
        from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality a(oid, place)),
       pg_catalog.obj_description(p.oid, 'pg_proc'),
       r.uri, r.function, r.options ->> 'timeout_ms', r.options ->> 'concurrency'
from wamp.registration r
left join (pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace)
    on p.prokind in ('f', 'p')
   and case when right(r.function, 1) = ')' then p.oid = pg_catalog.to_regprocedure(r.function)
            else format('%I.%I', n.nspname, p.proname) = r.function end
order by r.uri, p.oid";

/// A procedure that is registered.
#[derive(Debug)]
pub(super) struct Registered {
    uri: String,
    /// As it was registered, for people.
    function: String,
    timeout_ms: Option<String>,
    concurrency: Option<String>,
    functions: Vec<Function>,
}

impl Open {
    pub(super) fn may_see_registrations(&mut self) -> Result<bool, Problem> {
        let mut may_see = false;
        if self.driver.registers {
            self.rows(MAY_SEE, &[], |row| may_see = row.first().copied().flatten() == Some("t"))?;
        }
        Ok(may_see)
    }

    pub(super) fn look_for_registrations(&mut self, types: &Types) -> Result<Vec<Registered>, Problem> {
        let mut all: Vec<Registered> = Vec::new();
        if !self.may_see_registrations()? {
            return Ok(all);
        }
        self.rows(REGISTRATIONS, &[], |row| {
            let text = |index: usize| row.get(index).copied().flatten().map(str::to_owned);
            let uri = text(15).unwrap_or_default();
            if all.last().is_none_or(|last| last.uri != uri) {
                let (function, timeout_ms, concurrency) = (text(16).unwrap_or_default(), text(17), text(18));
                all.push(Registered { uri, function, timeout_ms, concurrency, functions: Vec::new() });
            }
            if let Some(last) = all.last_mut() {
                last.functions.extend(Function::read(row, types));
            }
        })?;
        Ok(all)
    }
}

impl Postgres {
    pub(super) fn offer_registered(&self, registered: Vec<Registered>, discovered: &mut Discovered) {
        for Registered { uri, function, timeout_ms, concurrency, functions } in registered {
            if functions.is_empty() {
                discovered.problems.push(format!("{uri} is registered for {function}, which is not there"));
                continue;
            }
            let mut number = |name: &str, text: Option<String>, otherwise: u64| {
                let Some(text) = text else { return otherwise };
                text.parse::<u32>().map(u64::from).unwrap_or_else(|_| {
                    discovered.problems.push(format!("{uri}: its {name} is no number"));
                    otherwise
                })
            };
            let timeout_ms = number("timeout_ms", timeout_ms, self.timeout_ms);
            let concurrency = number("concurrency", concurrency, 0) as u32;
            discovered.offer(
                &uri,
                Target::Functions(functions, super::Pace::default()),
                (timeout_ms, concurrency),
            );
        }
    }
}

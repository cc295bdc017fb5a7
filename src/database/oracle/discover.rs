//! What a database of Oracle offers.

use std::collections::HashMap;
use std::sync::Arc;

use super::Target;
use super::driver::Oracle;
use super::errors::problem;
use super::readable::Known;
use super::statements::Open;
use super::subprograms::{self, FINGERPRINT, Row, SUBPROGRAMS, Subprogram, quoted};
use crate::database::patterns::offers;
use crate::database::{Discovered, Problem};
use crate::router::database::Procedure;

/// As many registrations are looked at.
const REGISTRATIONS_MAX: usize = 10_000;

/// The first version of the server that makes JSON of object types and collections, and them of JSON.
const OBJECTS_SINCE: i32 = 19;

/// What changes when one of them does.
pub(super) const REGISTERED: &str = "count(*) || ' ' || \
    sum(ora_hash(uri || ' ' || schema_name || ' ' || package_name || ' ' || procedure_name))";

impl Open {
    /// Changes when what is offered may have changed.
    pub(super) fn read_fingerprint(&mut self) -> Result<String, Problem> {
        let connection = self.base()?;
        let mut all = String::new();
        let mut schemas: Vec<_> = self.driver().exposed.iter().map(|it| it.schema.clone()).collect();
        schemas.sort_unstable();
        schemas.dedup();
        if schemas.is_empty() {
            // Whether the database is still there is asked all the same.
            connection.ping().map_err(|error| problem(&error))?;
        }
        for schema in schemas {
            let found = connection.query_row_as::<Option<String>>(FINGERPRINT, &[&schema]);
            all.push_str(&found.map_err(|error| problem(&error))?.unwrap_or_default());
            all.push('\n');
        }
        // They may be installed, or removed, while the router runs.
        if self.look_for_identity()? {
            all.push_str("wamp_ctx ");
            // One that may not be read is said when it is looked for what there is.
            let sql = format!("select {REGISTERED} from {}.wamp_registration", quoted(&self.driver().owner));
            all.push_str(
                &connection.query_row_as::<Option<String>>(&sql, &[]).ok().flatten().unwrap_or_default(),
            );
        }
        Ok(all)
    }

    pub(super) fn look_for_procedures(&mut self) -> Result<Discovered, Problem> {
        self.fingerprint = Some(self.read_fingerprint()?);
        let connection = self.base()?;
        let (version, _) = connection.server_version().map_err(|error| problem(&error))?;
        let takes_objects = version.major() >= OBJECTS_SINCE;
        let mut discovered = Discovered::default();
        let mut found = Vec::with_capacity(self.driver().exposed.len());
        for exposed in &self.driver().exposed {
            let rows = read_rows(&connection, &exposed.schema, exposed.package.as_ref());
            let rows = rows.map_err(|error| problem(&error))?;
            found.push(subprograms::read(&exposed.schema, rows, takes_objects, &mut discovered.problems));
        }
        self.driver().offered(found, &mut discovered);
        if self.has_identity()? {
            self.look_for_registrations(&connection, takes_objects, &mut discovered)?;
        }
        Ok(discovered)
    }

    /// What was registered by `wamp.register`, beside what the configuration offers.
    fn look_for_registrations(
        &self,
        connection: &oracle::Connection,
        takes_objects: bool,
        discovered: &mut Discovered,
    ) -> Result<(), Problem> {
        let owner = quoted(&self.driver().owner);
        let sql = format!(
            "select uri, schema_name, package_name, procedure_name from {owner}.wamp_registration order by uri"
        );
        let registered = connection.query_as::<(String, String, Option<String>, String)>(&sql, &[]);
        let registered =
            registered.and_then(|rows| rows.take(REGISTRATIONS_MAX).collect::<oracle::Result<Vec<_>>>());
        let registered = match registered {
            Ok(registered) => registered,
            Err(error) if super::errors::is_lost(&error) => return Err(problem(&error)),
            Err(error) => {
                let Problem(text) = problem(&error);
                discovered
                    .problems
                    .push(format!("what was registered by wamp.register is not offered: {text}"));
                return Ok(());
            }
        };
        for (uri, schema, package, name) in registered {
            // What the router's user may not execute is not there for it.
            let object = package.as_ref().unwrap_or(&name);
            let rows = read_rows(connection, &schema, Some(object)).map_err(|error| problem(&error))?;
            let mut found = subprograms::read(&schema, rows, takes_objects, &mut discovered.problems);
            found.retain(|subprogram| subprogram.name == name && subprogram.package == package);
            if found.is_empty() {
                let what = format!("{schema}.{object}");
                discovered
                    .problems
                    .push(format!("{uri} is not offered: there is no {name} in {what} to execute"));
                continue;
            }
            self.driver().offer(uri, Target::Subprograms(found), (self.driver().timeout_ms, 0), discovered);
        }
        Ok(())
    }
}

pub(super) fn read_rows(
    connection: &oracle::Connection,
    schema: &String,
    package: Option<&String>,
) -> oracle::Result<Vec<Row>> {
    let package = package.cloned();
    let mut rows = Vec::new();
    for row in connection.query_named(SUBPROGRAMS, &[("owner", schema), ("package", &package)])? {
        let row = row?;
        let text = |index: usize| row.get::<_, Option<String>>(index);
        let number = |index: usize| row.get::<_, Option<i64>>(index);
        rows.push(Row {
            is_package: text(0)?.as_deref() == Some("PACKAGE"),
            object: text(1)?.unwrap_or_default(),
            procedure: text(2)?,
            subprogram: number(3)?.unwrap_or_default(),
            is_pipelined: text(4)?.as_deref() == Some("YES"),
            argument: text(5)?,
            position: number(6)?,
            data_type: text(7)?,
            is_defaulted: text(8)?.as_deref() == Some("Y"),
            in_out: text(9)?.map(|text| text.replace('/', " ")),
            precision: number(10)?,
            scale: number(11)?,
            type_name: text(12)?,
            type_owner: text(13)?,
            type_subname: text(14)?,
        });
    }
    Ok(rows)
}

impl Oracle {
    /// Procedures of subprograms: those with one name are one procedure, whose arguments choose. `found` has those of each of
    /// `exposed`.
    fn offered(&self, found: Vec<Vec<Subprogram>>, discovered: &mut Discovered) {
        let mut by_uri: HashMap<String, Vec<Subprogram>> = HashMap::new();
        let mut order = Vec::new();
        for (exposed, subprograms) in self.exposed.iter().zip(found) {
            for subprogram in subprograms {
                let name = subprogram.uri_name(exposed.package.is_some());
                if !offers(&name, &exposed.allow, &exposed.deny) {
                    continue;
                }
                let uri = format!("{}{name}", exposed.prefix);
                let entry = by_uri.entry(uri.clone()).or_insert_with(|| {
                    order.push(uri);
                    Vec::new()
                });
                entry.push(subprogram);
            }
        }
        for uri in order {
            let Some(subprograms) = by_uri.remove(&uri) else { continue };
            self.offer(uri, Target::Subprograms(subprograms), (self.timeout_ms, 0), discovered);
        }
        for declared in &self.procedures {
            let target = Target::Sql(declared.sql.clone(), declared.shape, Known::default());
            let bounds = (declared.timeout_ms, declared.concurrency);
            self.offer(declared.uri.clone(), target, bounds, discovered);
        }
    }

    fn offer(
        &self,
        uri: String,
        target: Target,
        (timeout_ms, concurrency): (u64, u32),
        discovered: &mut Discovered,
    ) {
        if discovered.procedures.iter().any(|procedure| *procedure.uri == *uri) {
            discovered.problems.push(format!("{uri} is offered by something else already"));
            return;
        }
        let procedure = Procedure { uri: uri.into(), driver: Arc::new(target), timeout_ms, concurrency };
        discovered.procedures.push(Arc::new(procedure));
    }
}

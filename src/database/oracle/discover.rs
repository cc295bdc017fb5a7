//! What a database of Oracle offers.

use std::collections::HashMap;
use std::sync::Arc;

use super::Target;
use super::driver::Oracle;
use super::errors::problem;
use super::statements::Open;
use super::subprograms::{self, FINGERPRINT, Row, SUBPROGRAMS, Subprogram};
use crate::database::patterns::offers;
use crate::database::{Discovered, Problem};
use crate::router::database::Procedure;

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
        Ok(all)
    }

    pub(super) fn look_for_procedures(&mut self) -> Result<Discovered, Problem> {
        self.fingerprint = Some(self.read_fingerprint()?);
        self.forget_identity();
        self.has_identity()?;
        let connection = self.base()?;
        let mut discovered = Discovered::default();
        let mut found = Vec::with_capacity(self.driver().exposed.len());
        for exposed in &self.driver().exposed {
            let rows = read_rows(&connection, &exposed.schema, exposed.package.as_ref());
            let rows = rows.map_err(|error| problem(&error))?;
            found.push(subprograms::read(&exposed.schema, rows, &mut discovered.problems));
        }
        self.driver().offered(found, &mut discovered);
        Ok(discovered)
    }
}

fn read_rows(
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
        let from_schemas = order.into_iter().filter_map(|uri| {
            let subprograms = by_uri.remove(&uri)?;
            Some((uri, Target::Subprograms(subprograms), self.timeout_ms, 0))
        });
        let declared = self.procedures.iter().map(|declared| {
            let target = Target::Sql(declared.sql.clone(), declared.shape);
            (declared.uri.clone(), target, declared.timeout_ms, declared.concurrency)
        });
        for (uri, target, timeout_ms, concurrency) in from_schemas.chain(declared) {
            if discovered.procedures.iter().any(|procedure| *procedure.uri == *uri) {
                discovered.problems.push(format!("{uri} is offered by something else already"));
                continue;
            }
            let procedure = Procedure { uri: uri.into(), driver: Arc::new(target), timeout_ms, concurrency };
            discovered.procedures.push(Arc::new(procedure));
        }
    }
}

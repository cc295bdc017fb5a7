//! Queries with columns of type JSON, which the library of this program cannot read: the server is asked for their texts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::subprograms::{Kind, quoted};
use super::values::{long_text, room};

/// Tells the columns of a query: of each its type, as the server numbers them, and its name. Nothing is run by it.
const DESCRIBE: &str = "declare
    l_cursor integer := dbms_sql.open_cursor;
    l_count integer;
    l_all dbms_sql.desc_tab2;
    l_text clob;
begin
    dbms_sql.parse(l_cursor, :w_sql, dbms_sql.native);
    dbms_sql.describe_columns2(l_cursor, l_count, l_all);
    dbms_sql.close_cursor(l_cursor);
    for i in 1 .. l_count loop
        l_text := l_text || l_all(i).col_type || ' ' || l_all(i).col_name || chr(10);
    end loop;
    :w_columns := l_text;
exception
    when others then
        if dbms_sql.is_open(l_cursor) then
            dbms_sql.close_cursor(l_cursor);
        end if;
        raise;
end;";

/// The number of the type JSON.
const JSON: &str = "119";

/// A query that gives the same in a form that can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Readable {
    pub(super) sql: String,
    /// Columns whose texts are JSON.
    pub(super) json: Vec<String>,
}

impl Readable {
    /// Asks the server which columns a query has.
    pub(super) fn ask(connection: &oracle::Connection, sql: &str) -> oracle::Result<Self> {
        let mut statement = connection.statement(DESCRIBE).build()?;
        statement.bind("w_sql", &long_text(sql))?;
        statement.bind("w_columns", &room(Kind::Clob))?;
        statement.execute(&[])?;
        Ok(Self::of(sql, &statement.bind_value::<_, Option<String>>("w_columns")?.unwrap_or_default()))
    }

    fn of(sql: &str, columns: &str) -> Self {
        let (mut list, mut json) = (Vec::new(), Vec::new());
        for (kind, name) in columns.lines().filter_map(|line| line.split_once(' ')) {
            let column = quoted(name);
            if kind == JSON {
                list.push(format!("json_serialize(q.{column} returning clob) as {column}"));
                json.push(name.to_owned());
            } else {
                list.push(format!("q.{column}"));
            }
        }
        // It may end with a comment.
        Self { sql: format!("select {} from (\n{sql}\n) q", list.join(", ")), json }
    }
}

/// What is known of the query of a procedure: nothing, until it was found that it cannot be read as it is.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Option<Arc<Readable>>>);

impl Known {
    fn guard(&self) -> MutexGuard<'_, Option<Arc<Readable>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> Option<Arc<Readable>> {
        self.guard().clone()
    }

    pub(super) fn set(&self, readable: Arc<Readable>) {
        *self.guard() = Some(readable);
    }

    /// Its tables may be others by now.
    pub(super) fn forget(&self) {
        *self.guard() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_json_come_as_texts() {
        let sql = "select id, doc, count(*) from item group by id, doc -- all";
        let readable = Readable::of(sql, "2 ID\n119 DOC\n2 COUNT(*)\n");
        assert_eq!(
            readable.sql,
            format!(
                "select q.\"ID\", json_serialize(q.\"DOC\" returning clob) as \"DOC\", q.\"COUNT(*)\" from (\n{sql}\n) q"
            )
        );
        assert_eq!(readable.json, ["DOC"]);
    }
}

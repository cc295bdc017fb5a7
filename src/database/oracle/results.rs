//! Rows and values as the result of a call.

use oracle::sql_type::RefCursor;
use oracle::{ResultSet, Row};

use super::errors::Failure;
use super::subprograms::Kind;
use super::values::{Cell, write};
use crate::database::patterns::is_like;
use crate::database::rows::Rows;
use crate::database::{Numbers, Results, Shape, Stopped};
use crate::router::database::Query;
use crate::wamp::codec::{Composer, OwnedPayload};

/// What a call gives back, by and by.
pub(super) struct Writer<'q> {
    query: &'q Query,
    numbers: Numbers,
    bytes_max: usize,
    /// Columns whose texts are JSON: names that the configuration has, with `*` for anything, and those that are known.
    json: [&'q [String]; 2],
}

/// What came out of a block beside what the function returned.
pub(super) struct Output {
    pub(super) name: String,
    pub(super) kind: Option<Kind>,
    pub(super) cell: Cell,
}

impl<'q> Writer<'q> {
    pub(super) fn new(query: &'q Query, numbers: Numbers, bytes_max: usize, json: [&'q [String]; 2]) -> Self {
        Self { query, numbers, bytes_max, json }
    }

    /// What a column is where its type does not say it.
    fn kind_of(&self, column: &str) -> Option<Kind> {
        let [named, known] = self.json;
        let is_json = known.iter().any(|name| name == column)
            || named.iter().any(|pattern| is_like(&name_of(column), pattern));
        is_json.then_some(Kind::Json)
    }

    pub(super) fn nothing(&self) -> OwnedPayload {
        OwnedPayload::new(self.query.serializer, Vec::new(), Vec::new())
    }

    /// One number.
    pub(super) fn count(&self, count: u64) -> OwnedPayload {
        let mut args = Composer::new(self.query.serializer);
        args.open_list();
        args.unsigned(count);
        args.close();
        OwnedPayload::new(self.query.serializer, args.finish(), Vec::new())
    }

    fn check(&self, out: &Composer) -> Result<(), Failure> {
        if out.len() > self.bytes_max { Err(Failure::TooLong) } else { Ok(()) }
    }

    fn row(&self, out: &mut Composer, row: &Row) -> Result<(), Failure> {
        out.open_map();
        for (column, value) in row.column_info().iter().zip(row.sql_values()) {
            out.key(&name_of(column.name()));
            let kind = self.kind_of(column.name());
            write(out, value.get()?, kind, (self.numbers, self.bytes_max))?;
        }
        out.close();
        self.check(out)
    }

    /// All rows, in parts where the caller takes parts. `before_fetch` is called before the server may be asked for more.
    pub(super) fn rows(
        &self,
        rows: &mut ResultSet<'_, Row>,
        results: &mut Results<'_>,
        before_fetch: &mut dyn FnMut(&Results<'_>) -> Result<(), Failure>,
    ) -> Result<OwnedPayload, Failure> {
        let mut list = Rows::new(self.query);
        loop {
            before_fetch(results)?;
            let Some(row) = rows.next() else { break };
            self.row(&mut list.args, &row?)?;
            list.row_written(results).map_err(Failure::Stopped)?;
        }
        Ok(list.finish())
    }

    /// What a query gives that is no list of rows.
    pub(super) fn first(&self, rows: &mut ResultSet<'_, Row>, shape: Shape) -> Result<OwnedPayload, Failure> {
        let first = rows.next().transpose()?;
        if shape == Shape::Nothing {
            return Ok(self.nothing());
        }
        let mut args = Composer::new(self.query.serializer);
        args.open_list();
        match first {
            None => args.null(),
            Some(row) if shape == Shape::Row => self.row(&mut args, &row)?,
            Some(row) => match row.column_info().iter().zip(row.sql_values()).next() {
                Some((column, value)) => {
                    let kind = self.kind_of(column.name());
                    write(&mut args, value.get()?, kind, (self.numbers, self.bytes_max))?;
                }
                None => args.null(),
            },
        }
        args.close();
        self.check(&args)?;
        Ok(OwnedPayload::new(self.query.serializer, args.finish(), Vec::new()))
    }

    /// What came out of a block: what it returned is the one argument, the rest stands by name. A cursor that is alone is
    /// the rows of the result, and comes in parts to who takes them.
    pub(super) fn outputs(
        &self,
        mut returned: Option<(Option<Kind>, Cell)>,
        mut outputs: Vec<Output>,
        mut cursors: Vec<RefCursor>,
        results: &mut Results<'_>,
        before_fetch: &mut dyn FnMut(&Results<'_>) -> Result<(), Failure>,
    ) -> Result<OwnedPayload, Failure> {
        let alone = matches!(
            (&returned, &outputs[..], &cursors[..]),
            (Some((_, Cell::Cursor(_))), [], [])
                | (None, [Output { cell: Cell::Cursor(_), .. }], [])
                | (None, [], [_])
        );
        if alone {
            let cell =
                returned.take().map(|(_, cell)| cell).or_else(|| outputs.pop().map(|output| output.cell));
            let cursor = match cell {
                Some(Cell::Cursor(cursor)) => Some(*cursor),
                _ => cursors.pop(),
            };
            if let Some(mut cursor) = cursor {
                return self.rows(&mut cursor.query()?, results, before_fetch);
            }
        }
        let serializer = self.query.serializer;
        let mut args = Composer::new(serializer);
        if let Some((kind, cell)) = returned {
            args.open_list();
            self.output(&mut args, kind, cell, results, before_fetch)?;
            args.close();
        }
        let mut kwargs = Composer::new(serializer);
        if !outputs.is_empty() || !cursors.is_empty() {
            kwargs.open_map();
            for Output { name, kind, cell } in outputs {
                kwargs.key(&name);
                self.output(&mut kwargs, kind, cell, results, before_fetch)?;
            }
            if !cursors.is_empty() {
                kwargs.key("results");
                kwargs.open_list();
                for cursor in cursors {
                    self.output(&mut kwargs, None, Cell::Cursor(Box::new(cursor)), results, before_fetch)?;
                }
                kwargs.close();
            }
            kwargs.close();
        }
        let (args, kwargs) = (args.finish(), kwargs.finish());
        if args.len() + kwargs.len() > self.bytes_max {
            return Err(Failure::TooLong);
        }
        Ok(OwnedPayload::new(serializer, args, kwargs))
    }

    fn output(
        &self,
        out: &mut Composer,
        kind: Option<Kind>,
        cell: Cell,
        results: &mut Results<'_>,
        before_fetch: &mut dyn FnMut(&Results<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Cell::Cursor(mut cursor) = cell else {
            return write(out, cell, kind, (self.numbers, self.bytes_max));
        };
        out.open_list();
        let mut rows = cursor.query()?;
        loop {
            before_fetch(results)?;
            let Some(row) = rows.next() else { break };
            self.row(out, &row?)?;
            if results.is_cancelled() {
                return Err(Failure::Stopped(Stopped::Cancelled));
            }
        }
        out.close();
        Ok(())
    }
}

/// Names that nobody has quoted are in capitals, and nobody writes them so.
pub(super) fn name_of(name: &str) -> String {
    if name == name.to_uppercase() { name.to_lowercase() } else { name.to_owned() }
}

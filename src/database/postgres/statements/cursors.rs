//! Functions that give a cursor: its rows are the result.

use super::{Form, Known, Open, Prepared, ROWS_A_PART, RowWriter};
use crate::database::Results;
use crate::database::postgres::errors::Failure;
use crate::database::postgres::wire::{Deadline, Event, OwnedColumn, Parameter, ResultFormat};
use crate::wamp::codec::OwnedPayload;

impl Open {
    /// Calls what gives a cursor, and reads the rows of that within the same transaction.
    pub(super) fn fetch(
        &mut self,
        prepared: &Prepared<'_>,
        known: &Known,
        parameters: &[Parameter<'_>],
        results: &mut Results<'_>,
        deadline: Deadline,
    ) -> Result<OwnedPayload, Failure> {
        let requests = self.wire.requests();
        requests.bind("c", &known.name, parameters, ResultFormat::Text)?;
        requests.execute("c", 0)?;
        requests.flush();
        self.wire.send()?;
        let cursor = match self.cursor(deadline) {
            Ok(cursor) => cursor,
            Err(failure) => return Err(self.end_group(failure, deadline)),
        };
        let bytes_max = self.driver.result_bytes_max;
        let Some(cursor) = cursor else {
            self.wire.requests().sync();
            self.wire.send()?;
            self.read_group(deadline)?;
            return Ok(RowWriter::new(prepared, &known.columns, bytes_max).finish());
        };
        // A cursor of SQL is a portal of the protocol, and ends with the transaction.
        let requests = self.wire.requests();
        requests.describe_portal(&cursor)?;
        requests.execute(&cursor, ROWS_A_PART)?;
        requests.flush();
        self.wire.send()?;
        let columns: Vec<OwnedColumn> = loop {
            match self.wire.next(deadline)? {
                Event::Columns(found) => break found.iter().map(OwnedColumn::from).collect(),
                Event::NoData => break Vec::new(),
                Event::Error(error) => return Err(self.end_group(Failure::Server(error), deadline)),
                _ => {}
            }
        };
        let mut writer = RowWriter::of(prepared.query, Form::Rows, &columns, bytes_max);
        self.read(&mut writer, Some(&cursor), results, deadline)?;
        Ok(writer.finish())
    }

    /// The name of the cursor that a function gives; `None` for null.
    fn cursor(&mut self, deadline: Deadline) -> Result<Option<String>, Failure> {
        let (mut cursor, mut first) = (None, std::mem::take(&mut self.is_identifying));
        loop {
            match self.wire.next(deadline)? {
                Event::Row(row) if !first => cursor = row.text(0).map(str::to_owned),
                Event::Complete(_) if first => first = false,
                Event::Complete(_) => return Ok(cursor),
                Event::Error(error) => return Err(Failure::Server(error)),
                _ => {}
            }
        }
    }
}

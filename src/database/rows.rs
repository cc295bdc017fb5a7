//! Rows of a result as a list, in parts where the caller takes parts.

use super::{Results, Stopped};
use crate::router::database::Query;
use crate::wamp::codec::{Composer, OwnedPayload};

/// A part ends with whichever comes first: so many rows, or so many bytes.
pub(super) const ROWS_A_PART: u32 = 500;
pub(super) const BYTES_A_PART: usize = 64 << 10;

/// The list, as far as it is written.
pub(super) struct Rows<'q> {
    query: &'q Query,
    /// Where the next row goes.
    pub(super) args: Composer,
    in_part: u32,
    count: u64,
}

impl<'q> Rows<'q> {
    pub(super) fn new(query: &'q Query) -> Self {
        let mut rows = Self { query, args: Composer::new(query.serializer), in_part: 0, count: 0 };
        rows.open();
        rows
    }

    /// One argument, which is the list.
    fn open(&mut self) {
        self.args.open_list();
        self.args.open_list();
    }

    fn close(&mut self) {
        self.args.close();
        self.args.close();
    }

    /// A row was written; sends what there is if that is a part.
    ///
    /// # Errors
    /// The call is to end.
    pub(super) fn row_written(&mut self, results: &mut Results<'_>) -> Result<(), Stopped> {
        (self.in_part, self.count) = (self.in_part + 1, self.count + 1);
        let is_part = self.in_part >= ROWS_A_PART || self.args.len() >= BYTES_A_PART;
        if self.query.receive_progress && is_part {
            self.close();
            results.part(OwnedPayload::new(self.query.serializer, self.args.take(), Vec::new()))?;
            self.open();
            self.in_part = 0;
        }
        Ok(())
    }

    /// The last part, or all of it; with how many there were where they came in parts.
    pub(super) fn finish(mut self) -> OwnedPayload {
        self.close();
        let mut kwargs = Composer::new(self.query.serializer);
        if self.query.receive_progress {
            kwargs.open_map();
            kwargs.key("rows");
            kwargs.unsigned(self.count);
            kwargs.close();
        }
        OwnedPayload::new(self.query.serializer, self.args.finish(), kwargs.finish())
    }
}

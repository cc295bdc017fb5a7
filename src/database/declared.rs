//! Procedures that are SQL of the configuration, whatever database runs it.

#[cfg(doc)]
use crate::router::database::Procedure;

/// What the result of a procedure looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// All rows, as a list of objects: the one argument. Without columns, how many rows were changed.
    #[default]
    Rows,
    /// The first row as an object, or null.
    Row,
    /// The first column of the first row, or null.
    Value,
    /// Nothing.
    Nothing,
}

/// A procedure of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Declared {
    pub uri: String,
    /// With its parameters by name.
    pub sql: String,
    pub shape: Shape,
    /// 0 is none.
    pub timeout_ms: u64,
    /// See [`Procedure::concurrency`].
    pub concurrency: u32,
}

//! What `encode` asks of every serializer: a writer that appends.

use super::Serializer;

/// Where an open dictionary began, and how many entries it has so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) start: usize,
    pub(super) count: usize,
}

/// Appends values to a message. A list or map whose count is known is opened with it; the dictionaries of options
/// are counted while they are written.
pub(super) trait Writer {
    /// The serializer that this writes.
    const SERIALIZER: Serializer;

    /// Opens a list of `count` values.
    fn list(&mut self, count: usize);
    /// Closes the innermost list.
    fn list_end(&mut self);
    /// Opens a map of `count` entries.
    fn map(&mut self, count: usize);
    /// Closes the innermost map.
    fn map_end(&mut self);
    /// Opens a map whose count is not known yet.
    fn dict(&mut self) -> Mark;
    /// Closes it.
    fn dict_end(&mut self, mark: Mark);
    /// A key of a dictionary or map; its value comes next.
    fn key(&mut self, mark: &mut Mark, key: &str);
    /// A string.
    fn text(&mut self, text: &str);
    /// An integer.
    fn unsigned(&mut self, value: u64);
    /// An integer below zero.
    fn negative(&mut self, value: i64);
    /// A double.
    fn float(&mut self, value: f64);
    /// true or false.
    fn boolean(&mut self, value: bool);
    /// Null.
    fn null(&mut self);
    /// Bytes.
    fn bytes(&mut self, bytes: &[u8]);
    /// One complete value in this serializer.
    fn raw(&mut self, bytes: &[u8]);
}

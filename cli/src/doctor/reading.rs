//! What was read, or why it could not be: each question to the API server fails for itself.

/// An answer, or in words why there is none.
pub(crate) type Reading<T> = Result<T, String>;

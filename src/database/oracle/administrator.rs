//! A session that installs and looks, for `crosspoint db`.

use std::time::Duration;

use super::driver::Oracle;
use super::errors::{code, problem};
use crate::database::Problem;

/// How long a statement may take: a table that others use makes whoever changes it wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// As who owns, or is to own, the packages.
#[derive(Debug)]
pub struct Administrator {
    connection: oracle::Connection,
}

impl Administrator {
    /// Logs in.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn connect(driver: &Oracle) -> Result<Self, Problem> {
        let connection = driver.open("")?;
        connection.set_call_timeout(Some(PATIENCE)).map_err(|error| problem(&error))?;
        Ok(Self { connection })
    }

    /// The version that is installed.
    ///
    /// # Errors
    /// The database does not say.
    pub fn installed(&self) -> Result<Option<u32>, Problem> {
        match self.connection.query_row_as::<Option<u32>>("select max(version) from wamp_version", &[]) {
            Err(error) if code(&error) == Some(942) => Ok(None),
            other => other.map_err(|error| problem(&error)),
        }
    }

    /// Runs a statement. What was compiled with errors is an error, too.
    ///
    /// # Errors
    /// What the database says.
    pub fn run(&self, sql: &str) -> Result<(), Problem> {
        let statement = self.connection.execute(sql, &[]).map_err(|error| problem(&error))?;
        drop(statement);
        // The server takes a package that does not compile, and warns.
        let Some(warning) = self.connection.last_warning() else { return Ok(()) };
        let sql = "select text from user_errors order by sequence fetch first 1 rows only";
        let why = self.connection.query_row_as::<String>(sql, &[]).unwrap_or_default();
        Err(Problem(format!("{} {why}", problem(&warning).0.trim_end())))
    }

    /// The values of the first row, as texts.
    ///
    /// # Errors
    /// What the database says.
    pub fn texts(&self, sql: &str) -> Result<Vec<String>, Problem> {
        let row = self.connection.query_row(sql, &[]).map_err(|error| problem(&error))?;
        let text =
            |value: &oracle::SqlValue<'_>| value.get::<Option<String>>().map(Option::unwrap_or_default);
        row.sql_values().iter().map(text).collect::<oracle::Result<_>>().map_err(|error| problem(&error))
    }
}

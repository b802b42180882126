//! What a caller is told after a write or sync of the log failed.

use crate::error::{Error, ErrorKind};
use crate::log::Lsn;

pub(super) struct Failure {
    pub cause: Error,
    /// Commits above this were never handed to the disk.
    pub attempted: Lsn,
}

pub(super) fn refused(cause: &Error) -> Error {
    Error::new(
        ErrorKind::Failed,
        format!(
            "writes are refused since a write or sync of the log failed ({cause}); everything \
             acknowledged as durable is readable; close the database and open it again"
        ),
    )
}

pub(super) fn outcome_after_failure(failure: &Failure, lsn: Lsn, durable: Lsn) -> Error {
    // Not `Failed`, which a caller takes for "nothing was written".
    if lsn <= durable {
        return Error::new(
            ErrorKind::UnknownOutcome,
            format!(
                "LSN {lsn} is committed and durable, but the database cannot show it before it is \
                 opened again ({}): close it, open it again, and do not write this again",
                failure.cause
            ),
        );
    }
    if lsn > failure.attempted {
        return Error::new(
            ErrorKind::Failed,
            format!("not committed, nothing of it was written: {}", refused(&failure.cause)),
        );
    }
    Error::new(
        ErrorKind::UnknownOutcome,
        format!(
            "whether this transaction is committed is not known ({}): close the database, open it \
             again and ask outcome(txn)",
            failure.cause
        ),
    )
}

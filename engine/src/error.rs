//! The one error type of the engine.
//!
//! Many places fail, few kinds exist: a kind is what the caller must do about it. The message says
//! what happened, what is lost (if anything) and the way out. `code` is stable text for programs.
//!
//! Corruption is an error; a broken invariant of our own is a panic.

use std::fmt;
use std::sync::Arc;

/// What the caller must do about an error. Each maps to one public exception class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Another commit came first; retry the transaction.
    Conflict,
    /// A stated precondition (`if_version`, `if_absent`) does not hold; not retryable.
    Precondition,
    /// A unique value belongs to another key; not retryable.
    Unique,
    /// Stored bytes are not what was written.
    Corruption,
    Closed,
    /// A sync failed earlier: durable data is readable, writes are refused until reopen.
    Failed,
    Locked,
    ReadOnly,
    /// Not a database, or one of a newer format.
    Format,
    /// A newer format by its number, and not whole: newer indeed, or damaged.
    UnknownFormat,
    /// The commit's fate is not known until the database is opened again.
    UnknownOutcome,
    Transaction,
    /// Older than the history that is kept, or newer than anything committed.
    History,
    SnapshotExpired,
    /// A vector without its row.
    Link,
    Schema,
    Limit,
    Vector,
    Document,
    /// The operating system refused.
    Storage,
    /// No space left.
    Full,
    NotFound,
    PermissionDenied,
    NotADirectory,
    Timeout,
    /// An argument that no call could accept.
    Argument,
}

impl ErrorKind {
    pub fn code(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Precondition => "precondition",
            Self::Unique => "unique",
            Self::Corruption => "corruption",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Locked => "locked",
            Self::ReadOnly => "read_only",
            Self::Format => "format",
            Self::UnknownFormat => "unknown_format",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Transaction => "transaction",
            Self::History => "history",
            Self::SnapshotExpired => "snapshot_expired",
            Self::Link => "link",
            Self::Schema => "schema",
            Self::Limit => "limit",
            Self::Vector => "vector",
            Self::Document => "document",
            Self::Storage => "storage",
            Self::Full => "full",
            Self::NotFound => "not_found",
            Self::PermissionDenied => "permission_denied",
            Self::NotADirectory => "not_a_directory",
            Self::Timeout => "timeout",
            Self::Argument => "argument",
        }
    }
}

#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    errno: Option<i32>,
    txn: Option<String>,
    source: Option<Arc<std::io::Error>>,
    /// It is about a file that can be made again from the log.
    derived: bool,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            errno: None,
            txn: None,
            source: None,
            derived: false,
        }))
    }

    pub fn corruption(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corruption, message)
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, message)
    }

    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Argument, message)
    }

    /// An operating system error, with what was being done and to which file.
    pub fn io(doing: &str, path: &str, cause: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match cause.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
            Io::NotADirectory => ErrorKind::NotADirectory,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Storage,
        };
        let way_out = match kind {
            ErrorKind::Full => "; free some space and try again, nothing acknowledged is lost",
            ErrorKind::PermissionDenied => "; check the owner and mode of the directory",
            _ => "",
        };
        Self(Box::new(Inner {
            kind,
            message: format!("cannot {doing} {path}: {cause}{way_out}"),
            errno: cause.raw_os_error(),
            txn: None,
            source: Some(Arc::new(cause)),
            derived: false,
        }))
    }

    pub fn with_txn(mut self, txn: impl Into<String>) -> Self {
        self.0.txn = Some(txn.into());
        self
    }

    /// The same error under another kind, keeping the cause.
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same error, told from one step further out.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// The same error, with the way out.
    pub fn hint(mut self, way_out: &str) -> Self {
        self.0.message = format!("{}; {way_out}", self.0.message);
        self
    }

    /// The same error, about a file that can be made again from the log.
    pub fn derived(mut self) -> Self {
        self.0.derived = true;
        self
    }

    pub fn is_derived(&self) -> bool {
        self.0.derived
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }

    pub fn txn(&self) -> Option<&str> {
        self.0.txn.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

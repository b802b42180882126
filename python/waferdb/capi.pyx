"""The engine for native callers: put, get, delete and batch commit without the GIL.

Cython code takes `Handle` and `Batch` from here (`from waferdb.capi cimport Handle, Batch`); C and
C++ code includes `waferdb.h` (its directory: `waferdb.get_include()`) and takes the same function
table directly.

1. Nothing is linked: the functions come from the capsule `waferdb._core._C_API`, checked by version
   and size.
2. A `Handle` owns one native handle for as long as it lives, so a pointer it hands out cannot
   dangle while another thread is inside a call.
3. A failure raises the same exception, with the same `.code`, as the Python API would.

Not here: searches, scans and transactions that read; they belong to the Python API.
"""

C_API_VERSION: int = WAFERDB_C_API_VERSION


cdef int raise_error(waferdb_error *error) except -1 with gil:
    from waferdb import errors

    cdef bytes code = error.code, message = error.message, txn = error.txn
    raise errors._make(
        code.decode(), message.decode(), error.os_errno or None, txn.decode() or None
    )


cdef class Handle:
    """A native handle on an open database.

    Args:
        database: a `waferdb.Database` (or the engine inside one).

    Raises:
        TypeError: it is neither.
        ClosedError, ForkedError: the database cannot be used any more.
    """

    def __cinit__(self, object database not None):
        engine = getattr(database, "_engine", database)
        self.api = waferdb_import()
        self.db = self.api.acquire(<void *> engine)

    def __dealloc__(self):
        if self.db is not NULL:
            self.api.release(self.db)

    def __reduce__(self):
        raise TypeError(
            "a Handle cannot be pickled: it is a pointer of this process; "
            "send the path, and open the database and a Handle there"
        )

    cdef uint32_t structure(self, str name) except? 0:
        cdef bytes text = name.encode()
        cdef const char *start = text
        cdef size_t length = len(text)
        cdef uint32_t number = 0
        cdef waferdb_error error
        if self.api.structure_id(self.db, start, length, &number, &error) < 0:
            raise_error(&error)
        return number

    cdef uint64_t put(
        self, uint32_t structure, const void *key, size_t key_len,
        const void *value, size_t value_len
    ) except? 0 nogil:
        cdef uint64_t lsn = 0
        cdef waferdb_error error
        if self.api.put(self.db, structure, key, key_len, value, value_len, &lsn, &error) < 0:
            raise_error(&error)
        return lsn

    cdef uint64_t delete_key(
        self, uint32_t structure, const void *key, size_t key_len
    ) except? 0 nogil:
        cdef uint64_t lsn = 0
        cdef waferdb_error error
        if self.api.delete_key(self.db, structure, key, key_len, &lsn, &error) < 0:
            raise_error(&error)
        return lsn

    cdef bint get(
        self, uint32_t structure, const void *key, size_t key_len, waferdb_buffer *out
    ) except? -1 nogil:
        cdef waferdb_error error
        cdef int status = self.api.get(self.db, structure, key, key_len, out, &error)
        if status < 0:
            raise_error(&error)
        return status == WAFERDB_OK

    cdef void free(self, waferdb_buffer *buffer) noexcept nogil:
        self.api.buffer_free(buffer)


cdef class Batch:
    """Writes that become one commit: all of them or none.

    Args:
        handle: the `Handle` of the database.
    """

    def __cinit__(self, Handle handle not None):
        cdef waferdb_error error
        self.handle = handle
        self.batch = handle.api.batch_new(handle.db, &error)
        if self.batch is NULL:
            raise_error(&error)

    def __dealloc__(self):
        if self.batch is not NULL:
            self.handle.api.batch_free(self.batch)

    def __reduce__(self):
        raise TypeError("a Batch cannot be pickled: commit it here and make another there")

    cdef int put(
        self, uint32_t structure, const void *key, size_t key_len,
        const void *value, size_t value_len
    ) except -1 nogil:
        cdef waferdb_error error
        if self.handle.api.batch_put(
            self.batch, structure, key, key_len, value, value_len, &error
        ) < 0:
            raise_error(&error)
        return 0

    cdef int delete_key(
        self, uint32_t structure, const void *key, size_t key_len
    ) except -1 nogil:
        cdef waferdb_error error
        if self.handle.api.batch_delete(self.batch, structure, key, key_len, &error) < 0:
            raise_error(&error)
        return 0

    cdef uint64_t commit(self) except? 0 nogil:
        cdef uint64_t lsn = 0
        cdef waferdb_error error
        if self.handle.api.batch_commit(self.batch, &lsn, &error) < 0:
            raise_error(&error)
        return lsn

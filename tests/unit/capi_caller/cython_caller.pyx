# A native agent in small: its loops hold no GIL.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp

from waferdb.capi cimport Batch, Handle, waferdb_buffer, waferdb_c_api, waferdb_error


def put(database, str structure, int first, int last):
    """Commits key:N -> value:N one by one; the last LSN."""
    cdef Handle handle = Handle(database)
    cdef uint32_t number = handle.structure(structure)
    cdef char key[32]
    cdef char value[32]
    cdef uint64_t lsn = 0
    cdef int n
    with nogil:
        for n in range(first, last):
            lsn = handle.put(
                number,
                key, snprintf(key, 32, "key:%d", n),
                value, snprintf(value, 32, "value:%d", n),
            )
    return lsn


def count(database, str structure, int first, int last):
    """How many of the keys have just the value that `put` gives them; AssertionError on another."""
    cdef Handle handle = Handle(database)
    cdef uint32_t number = handle.structure(structure)
    cdef char key[32]
    cdef char value[32]
    cdef waferdb_buffer found
    cdef int n, length, right = 0, wrong = 0
    with nogil:
        for n in range(first, last):
            if handle.get(number, key, snprintf(key, 32, "key:%d", n), &found):
                length = snprintf(value, 32, "value:%d", n)
                if found.len == <size_t> length and memcmp(found.data, value, length) == 0:
                    right += 1
                else:
                    wrong += 1
                handle.free(&found)
    assert wrong == 0, f"{wrong} values are not what was put"
    return right


def delete(database, str structure, int first, int last):
    """Deletes the keys one by one; the last LSN."""
    cdef Handle handle = Handle(database)
    cdef uint32_t number = handle.structure(structure)
    cdef char key[32]
    cdef uint64_t lsn = 0
    cdef int n
    with nogil:
        for n in range(first, last):
            lsn = handle.delete_key(number, key, snprintf(key, 32, "key:%d", n))
    return lsn


def batch(database, str structure, int puts, int deletes):
    """One commit of puts, the first of them deleted again; its LSN and that of an empty batch."""
    cdef Handle handle = Handle(database)
    cdef Batch writes = Batch(handle)
    cdef uint32_t number = handle.structure(structure)
    cdef char key[32]
    cdef char value[32]
    cdef uint64_t lsn = 0, empty = 0
    cdef int n
    with nogil:
        for n in range(puts):
            writes.put(
                number,
                key, snprintf(key, 32, "key:%d", n),
                value, snprintf(value, 32, "value:%d", n),
            )
        for n in range(deletes):
            writes.delete_key(number, key, snprintf(key, 32, "key:%d", n))
        lsn = writes.commit()
        empty = writes.commit()
    return lsn, empty


def abandon(database, str structure):
    """Fills a batch and drops it."""
    cdef Handle handle = Handle(database)
    cdef Batch writes = Batch(handle)
    writes.put(handle.structure(structure), b"abandoned", 9, b"value", 5)


def put_bytes(Handle handle not None, uint32_t structure, bytes key not None, bytes value not None):
    cdef const char *key_start = key
    cdef const char *value_start = value
    cdef size_t key_len = len(key), value_len = len(value)
    cdef uint64_t lsn
    with nogil:
        lsn = handle.put(structure, key_start, key_len, value_start, value_len)
    return lsn


def get_bytes(Handle handle not None, uint32_t structure, bytes key not None):
    cdef waferdb_buffer found
    cdef const char *key_start = key
    if not handle.get(structure, key_start, len(key), &found):
        return None
    try:
        return (<char *> found.data)[: found.len] if found.len else b""
    finally:
        handle.free(&found)


def overfill(Handle handle not None, uint32_t structure, size_t value_len):
    """Puts into one batch until it refuses; how many values it took, and the refusal."""
    cdef Batch writes = Batch(handle)
    cdef bytes value = bytes(value_len)
    cdef const char *start = value
    taken = 0
    try:
        while taken < 1 << 20:
            writes.put(structure, b"key", 3, start, value_len)
            taken += 1
    except Exception as error:
        return taken, error
    return taken, None


def structure(Handle handle not None, str name not None):
    return handle.structure(name)


def null_key(Handle handle not None, uint32_t structure):
    return handle.put(structure, NULL, 7, b"value", 5)


def table_sizes(Handle handle not None):
    """(version of the engine's table, its size, the size this module was compiled for)."""
    return handle.api.version, handle.api.size, sizeof(waferdb_c_api)


def error_without_a_place(Handle handle not None, uint32_t structure):
    """A failing call that asks for no error text; its status."""
    return handle.api.put(handle.db, structure, b"", 0, b"", 0, NULL, NULL)


def error_on_null():
    """The error of a call on NULL."""
    cdef Handle handle
    cdef waferdb_error error
    from waferdb import capi
    import waferdb
    with waferdb.open(":memory:", {"facts": waferdb.Rows(codec="raw")}) as database:
        handle = capi.Handle(database)
        handle.api.release(NULL)
        handle.api.batch_free(NULL)
        handle.api.buffer_free(NULL)
        status = handle.api.put(NULL, 1, b"key", 3, b"", 0, NULL, &error)
        return status, (<bytes> error.code).decode()

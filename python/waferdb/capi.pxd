# waferdb.capi for Cython: `from waferdb.capi cimport Handle, Batch, waferdb_buffer`.
#
# Methods marked nogil take bytes by pointer and length, run without the GIL, and raise the typed
# exceptions of waferdb.errors (taking the GIL only to raise). Compile with waferdb.get_include().

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef extern from "waferdb.h" nogil:
    int WAFERDB_C_API_VERSION
    int WAFERDB_OK
    int WAFERDB_ABSENT
    int WAFERDB_ERROR

    ctypedef struct waferdb_db:
        pass

    ctypedef struct waferdb_batch:
        pass

    ctypedef struct waferdb_error:
        char code[32]
        char message[512]
        char txn[256]
        int32_t os_errno

    ctypedef struct waferdb_buffer:
        uint8_t *data
        size_t len

    ctypedef struct waferdb_c_api:
        uint32_t version
        uint32_t size
        waferdb_db *(*acquire)(void *engine) except NULL
        void (*release)(waferdb_db *db) noexcept nogil
        int (*structure_id)(
            waferdb_db *db, const char *name, size_t name_len, uint32_t *id, waferdb_error *error
        ) noexcept nogil
        int (*put)(
            waferdb_db *db, uint32_t structure, const void *key, size_t key_len,
            const void *value, size_t value_len, uint64_t *lsn, waferdb_error *error
        ) noexcept nogil
        int (*delete_key)(
            waferdb_db *db, uint32_t structure, const void *key, size_t key_len,
            uint64_t *lsn, waferdb_error *error
        ) noexcept nogil
        int (*get)(
            waferdb_db *db, uint32_t structure, const void *key, size_t key_len,
            waferdb_buffer *out, waferdb_error *error
        ) noexcept nogil
        void (*buffer_free)(waferdb_buffer *buffer) noexcept nogil
        waferdb_batch *(*batch_new)(waferdb_db *db, waferdb_error *error) noexcept nogil
        int (*batch_put)(
            waferdb_batch *batch, uint32_t structure, const void *key, size_t key_len,
            const void *value, size_t value_len, waferdb_error *error
        ) noexcept nogil
        int (*batch_delete)(
            waferdb_batch *batch, uint32_t structure, const void *key, size_t key_len,
            waferdb_error *error
        ) noexcept nogil
        int (*batch_commit)(
            waferdb_batch *batch, uint64_t *lsn, waferdb_error *error
        ) noexcept nogil
        void (*batch_free)(waferdb_batch *batch) noexcept nogil


cdef extern from "waferdb.h":
    # The function table (GIL); ImportError if it is of another version.
    const waferdb_c_api *waferdb_import() except NULL


cdef class Handle:
    # The function table and the engine, for those who call them directly.
    cdef const waferdb_c_api *api
    cdef waferdb_db *db

    # The number of a structure, by name (GIL).
    cdef uint32_t structure(self, str name) except? 0
    # One commit; its LSN.
    cdef uint64_t put(
        self, uint32_t structure, const void *key, size_t key_len,
        const void *value, size_t value_len
    ) except? 0 nogil
    cdef uint64_t delete_key(
        self, uint32_t structure, const void *key, size_t key_len
    ) except? 0 nogil
    # True with the value in `out` (give it back with `free`), or False.
    cdef bint get(
        self, uint32_t structure, const void *key, size_t key_len, waferdb_buffer *out
    ) except? -1 nogil
    cdef void free(self, waferdb_buffer *buffer) noexcept nogil


# Many writes, one commit. Of one thread at a time.
cdef class Batch:
    cdef Handle handle
    cdef waferdb_batch *batch

    cdef int put(
        self, uint32_t structure, const void *key, size_t key_len,
        const void *value, size_t value_len
    ) except -1 nogil
    cdef int delete_key(
        self, uint32_t structure, const void *key, size_t key_len
    ) except -1 nogil
    # The commit's LSN (0 for an empty batch); the batch is empty again.
    cdef uint64_t commit(self) except? 0 nogil

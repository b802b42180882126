/* waferdb.h: calling the engine from native code, without the interpreter.
 *
 * The engine exports one table of functions in a PyCapsule; nothing is linked. A caller takes the
 * table (waferdb_import, with the GIL), acquires a handle from an open engine (with the GIL), and
 * from then on calls the other functions from any thread, with the GIL released: commits wait for
 * the disk, and a waiting thread that holds the GIL stops all of Python.
 *
 * 1. Every function returns a status: WAFERDB_OK, WAFERDB_ABSENT, or WAFERDB_ERROR with *error
 *    filled in (error may be NULL). No panic and no exception passes through this table.
 * 2. Keys and values are borrowed for the call. Keys of text structures are UTF-8; values are the
 *    encoded bytes the structure stores: msgpack for documents, any bytes for codec="raw".
 * 3. A handle keeps the engine's memory alive, not the database open: after Database.close() each
 *    call answers "closed", in the child of a fork "forked".
 * 4. A handle may be shared by threads; a batch belongs to one thread at a time.
 *
 * Additions go to the end of the table and grow `size`; any other change is a new version.
 */
#ifndef WAFERDB_H
#define WAFERDB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WAFERDB_C_API_VERSION 1
#define WAFERDB_C_API_MODULE "waferdb._core"
#define WAFERDB_C_API_ATTRIBUTE "_C_API"
#define WAFERDB_C_API_CAPSULE "waferdb._core._C_API"

#define WAFERDB_OK 0
#define WAFERDB_ABSENT 1
#define WAFERDB_ERROR (-1)

typedef struct waferdb_db waferdb_db;
typedef struct waferdb_batch waferdb_batch;

/* The texts are UTF-8, cut at a character's border where they are too long, and end in NUL. */
typedef struct waferdb_error {
    char code[32];     /* `.code` of the Python exception: "closed", "limit", "full" ... */
    char message[512]; /* what happened, what is lost, what to do */
    char txn[256];     /* under "unknown_outcome" the transaction's id, else empty */
    int32_t os_errno;  /* what the operating system answered, or 0 */
} waferdb_error;

/* Bytes the engine allocated: give them back with buffer_free. */
typedef struct waferdb_buffer {
    uint8_t *data; /* NULL where len is 0 */
    size_t len;
} waferdb_buffer;

typedef struct waferdb_c_api {
    uint32_t version; /* WAFERDB_C_API_VERSION of the engine */
    uint32_t size;    /* sizeof(waferdb_c_api) of the engine: never smaller within a version */

    /* With the GIL: a handle on a `waferdb._core.Engine` (a borrowed PyObject *), or NULL with a
     * Python exception set. */
    waferdb_db *(*acquire)(void *engine);
    /* Gives a handle back; NULL is allowed. */
    void (*release)(waferdb_db *db);
    /* The number by which the other calls name a structure; it never changes. */
    int (*structure_id)(waferdb_db *db, const char *name, size_t name_len, uint32_t *id,
                        waferdb_error *error);

    /* One commit each, durable on return unless the database was opened with
     * durability="async". lsn may be NULL. Deleting an absent key is no error. */
    int (*put)(waferdb_db *db, uint32_t structure, const void *key, size_t key_len,
               const void *value, size_t value_len, uint64_t *lsn, waferdb_error *error);
    int (*delete_key)(waferdb_db *db, uint32_t structure, const void *key, size_t key_len,
                      uint64_t *lsn, waferdb_error *error);
    /* The newest committed value, or WAFERDB_ABSENT; out is then empty. */
    int (*get)(waferdb_db *db, uint32_t structure, const void *key, size_t key_len,
               waferdb_buffer *out, waferdb_error *error);
    /* Leaves the buffer empty; an empty buffer is allowed. */
    void (*buffer_free)(waferdb_buffer *buffer);

    /* Many writes, one commit: all of them or none. NULL with *error filled in on failure. */
    waferdb_batch *(*batch_new)(waferdb_db *db, waferdb_error *error);
    int (*batch_put)(waferdb_batch *batch, uint32_t structure, const void *key, size_t key_len,
                     const void *value, size_t value_len, waferdb_error *error);
    int (*batch_delete)(waferdb_batch *batch, uint32_t structure, const void *key, size_t key_len,
                        waferdb_error *error);
    /* Success empties the batch for the next use; a failed batch keeps its writes. The LSN of an
     * empty batch is 0: nothing written, nothing logged. */
    int (*batch_commit)(waferdb_batch *batch, uint64_t *lsn, waferdb_error *error);
    /* Drops what is not committed; NULL is allowed. */
    void (*batch_free)(waferdb_batch *batch);
} waferdb_c_api;

#ifdef Py_PYTHON_H
/* With the GIL: the table, or NULL with a Python exception set. Include Python.h first. */
static inline const waferdb_c_api *waferdb_import(void)
{
    const waferdb_c_api *api = NULL;
    PyObject *capsule = NULL;
    PyObject *module = PyImport_ImportModule(WAFERDB_C_API_MODULE);
    if (module == NULL)
        return NULL;
    capsule = PyObject_GetAttrString(module, WAFERDB_C_API_ATTRIBUTE);
    Py_DECREF(module);
    if (capsule == NULL)
        return NULL;
    api = (const waferdb_c_api *)PyCapsule_GetPointer(capsule, WAFERDB_C_API_CAPSULE);
    Py_DECREF(capsule);
    if (api == NULL)
        return NULL;
    if (api->version != WAFERDB_C_API_VERSION || api->size < sizeof(waferdb_c_api)) {
        PyErr_Format(PyExc_ImportError,
                     "waferdb offers C API version %u (%u bytes), this module was compiled for "
                     "version %u (%u bytes); compile it again with the installed waferdb.h",
                     (unsigned)api->version, (unsigned)api->size,
                     (unsigned)WAFERDB_C_API_VERSION, (unsigned)sizeof(waferdb_c_api));
        return NULL;
    }
    return api;
}
#endif

#ifdef __cplusplus
}
#endif

#endif /* WAFERDB_H */

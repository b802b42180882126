/* The same in plain C: a thread that Python does not know writes one batch. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <string.h>

#include "waferdb.h"

typedef struct {
    const waferdb_c_api *api;
    waferdb_db *db;
    uint32_t structure;
    int writes;
    int status;
    uint64_t lsn;
    waferdb_error error;
} job;

static void *work(void *argument)
{
    job *own = argument;
    waferdb_batch *batch = own->api->batch_new(own->db, &own->error);
    own->status = batch == NULL ? WAFERDB_ERROR : WAFERDB_OK;
    for (int n = 0; own->status == WAFERDB_OK && n < own->writes; n++) {
        char key[32];
        size_t length = (size_t)snprintf(key, sizeof key, "thread:%d", n);
        own->status = own->api->batch_put(batch, own->structure, key, length, key, length,
                                          &own->error);
    }
    if (own->status == WAFERDB_OK)
        own->status = own->api->batch_commit(batch, &own->lsn, &own->error);
    own->api->batch_free(batch);
    return NULL;
}

/* write(engine, structure name, writes) -> LSN */
static PyObject *write_in_thread(PyObject *self, PyObject *arguments)
{
    PyObject *engine;
    const char *name;
    Py_ssize_t name_len;
    job own;
    pthread_t thread;
    int started;
    (void)self;
    memset(&own, 0, sizeof own);
    if (!PyArg_ParseTuple(arguments, "Os#i", &engine, &name, &name_len, &own.writes))
        return NULL;
    own.api = waferdb_import();
    if (own.api == NULL)
        return NULL;
    own.db = own.api->acquire(engine);
    if (own.db == NULL)
        return NULL;
    own.status = own.api->structure_id(own.db, name, (size_t)name_len, &own.structure, &own.error);
    if (own.status == WAFERDB_OK) {
        Py_BEGIN_ALLOW_THREADS
        started = pthread_create(&thread, NULL, work, &own);
        if (started == 0)
            pthread_join(thread, NULL);
        Py_END_ALLOW_THREADS
        if (started != 0) {
            own.api->release(own.db);
            return PyErr_Format(PyExc_OSError, "pthread_create: %d", started);
        }
    }
    own.api->release(own.db);
    if (own.status != WAFERDB_OK)
        return PyErr_Format(PyExc_RuntimeError, "%s: %s", own.error.code, own.error.message);
    return PyLong_FromUnsignedLongLong(own.lsn);
}

static PyMethodDef methods[] = {
    {"write", write_in_thread, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "c_caller", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_c_caller(void)
{
    return PyModule_Create(&module);
}

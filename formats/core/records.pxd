# Types for the compiled form; the code is in records.py.
cimport cython

from bytegen.formats.core.steps cimport Linked


cdef class Record:
    cdef public object by_byte, cells, kind
    cdef public Py_ssize_t size
    cdef public bint fixed


cdef class RecordsStep(Linked):
    cdef public object _path, detail, each, then
    cdef public Record record
    cdef public Py_ssize_t start, stop

    @cython.locals(size=Py_ssize_t, index=Py_ssize_t, at=Py_ssize_t, start=Py_ssize_t)
    cpdef choices(self, Py_ssize_t position, data)
    @cython.locals(index=Py_ssize_t, at=Py_ssize_t)
    cpdef complete(self, Py_ssize_t position, data)

# Types for the compiled form; the code is in written.py.
cimport cython


cdef class Written(bytearray):
    cdef public object log, min_bytes
    cdef public bytearray starts, wanted
    cdef public bint privileged, shared, static

    @cython.locals(i=Py_ssize_t)
    cpdef start(self, Py_ssize_t offset)
    cpdef no_start(self, Py_ssize_t offset)
    @cython.locals(i=Py_ssize_t)
    cpdef want(self, Py_ssize_t offset)
    cpdef own(self)
    @cython.locals(i=Py_ssize_t)
    cpdef bint is_start(self, Py_ssize_t offset)
    @cython.locals(i=Py_ssize_t)
    cpdef bint is_wanted(self, Py_ssize_t offset)
    @cython.locals(wanted=bytearray, i=Py_ssize_t, limit=Py_ssize_t, bits=Py_ssize_t, place=Py_ssize_t)
    cpdef Py_ssize_t next_wanted(self, Py_ssize_t offset) except -1

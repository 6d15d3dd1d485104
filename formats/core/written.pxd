# Types for the compiled form; the code is in written.py.
cimport cython


cdef class Written(bytearray):
    cdef public object log, starts, wanted
    cdef public object min_bytes
    cdef public bint privileged, shared, static

    @cython.locals(i=Py_ssize_t)
    cpdef start(self, Py_ssize_t offset)
    cpdef no_start(self, Py_ssize_t offset)
    @cython.locals(i=Py_ssize_t)
    cpdef want(self, Py_ssize_t offset)
    cpdef own(self)

# Types for the compiled form; the code is in intset.py.
cimport cython

from bytegen.formats.core.masks cimport Blanks, blank
from bytegen.formats.core.pieces cimport Bits, Finite, Span


cdef class IntSet:
    cdef public object only, _masks
    cdef public tuple pieces
    cdef public Py_ssize_t size
    cdef public bint full, _used

    @cython.locals(blanks=Blanks, row=Py_ssize_t, cells="unsigned char[:, ::1]", span=Span, finite=Finite, bits=Bits)
    cpdef mask(self, Py_ssize_t k, prefix)
    cpdef has(self, k, prefix)
    cpdef contains(self, x)

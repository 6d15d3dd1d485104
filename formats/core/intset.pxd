# Types for the compiled form; the code is in intset.py.
cimport cython


cdef class Span:
    cdef public object hi, lo, mod, rem


cdef class Window:
    cdef public object _parts, first, hi, last, lo, mid_hi, mid_lo, period


cdef class Finite:
    cdef public object _array, _few, _members


cdef class Bits:
    cdef public object may, must


cdef class IntSet:
    cdef public object pieces, only, _masks
    cdef public Py_ssize_t size
    cdef public bint full, _used

    cpdef mask(self, Py_ssize_t k, prefix)
    cpdef has(self, k, prefix)
    cpdef contains(self, x)

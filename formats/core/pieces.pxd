# Types for the compiled form; the code is in pieces.py.
cimport cython


cdef class Span:
    cdef public object hi, lo, mod, rem
    cdef bint _plain

    @cython.locals(lo=Py_ssize_t, hi=Py_ssize_t, mod=Py_ssize_t, rem=Py_ssize_t, shift=Py_ssize_t,
                   one=Py_ssize_t, unit=Py_ssize_t, first=Py_ssize_t, gap=Py_ssize_t)
    cpdef Py_ssize_t _first(self, Py_ssize_t k, Py_ssize_t prefix) except -2
    @cython.locals(first=Py_ssize_t, step=Py_ssize_t, last=Py_ssize_t, hi=Py_ssize_t, fixed=Py_ssize_t)
    cpdef write(self, Py_ssize_t k, prefix, unsigned char[:, ::1] cells, Py_ssize_t row, out)
    @cython.locals(least=Py_ssize_t, apart=Py_ssize_t, many=Py_ssize_t, hi=Py_ssize_t, fixed=Py_ssize_t)
    cpdef mask(self, Py_ssize_t k, prefix)
    cpdef bint has(self, Py_ssize_t k, prefix) except -1


cdef class Window:
    cdef public object _parts, first, hi, last, lo, mid_hi, mid_lo, period


cdef class Finite:
    cdef public object _array, _few

    @cython.locals(shift=Py_ssize_t, low="unsigned long long", value="unsigned long long",
                   fixed="unsigned long long")
    cpdef write(self, Py_ssize_t k, prefix, unsigned char[:, ::1] cells, Py_ssize_t row, out)


cdef class Bits:
    cdef public object may, must

    @cython.locals(may="unsigned int", must="unsigned int", byte="unsigned int")
    cpdef write(self, Py_ssize_t k, prefix, unsigned char[:, ::1] cells, Py_ssize_t row, out)


cdef class Ranges:
    cdef public object highs, lows, mod, rem

    @cython.locals(cells="unsigned char[::1]", lows="const long long[:]", highs="const long long[:]",
                   shift=Py_ssize_t, step=Py_ssize_t, left=Py_ssize_t, one=Py_ssize_t, unit=Py_ssize_t, i=Py_ssize_t,
                   low=Py_ssize_t, high=Py_ssize_t, last=Py_ssize_t, first=Py_ssize_t, fixed=Py_ssize_t)
    cpdef mark(self, Py_ssize_t k, prefix, out)

# Types for the compiled form; the code is in branches.py.
cimport cython

from bytegen.formats.core.masks cimport Blanks, blank
from bytegen.formats.core cimport octets
from bytegen.formats.core.steps cimport StreamStep, Targets
from bytegen.formats.core.written cimport Written


cdef class _Places(Targets):
    cdef public bint nowhere
    cdef Py_ssize_t _count, _wrap
    cdef const long long[:, ::1] _table

    @cython.locals(far=Py_ssize_t, near=Py_ssize_t, i=Py_ssize_t)
    cpdef Py_ssize_t _landing(self, StreamStep step, Py_ssize_t place, Py_ssize_t ahead, Written data) except -3


cdef class ByteBranches(_Places):
    @cython.locals(position=Py_ssize_t, k=Py_ssize_t, left=Py_ssize_t, end=Py_ssize_t, size=Py_ssize_t,
                   prefix=Py_ssize_t, zero=Py_ssize_t, i=Py_ssize_t)
    cpdef mask(self, StreamStep step, Py_ssize_t state, Py_ssize_t begin, Py_ssize_t field, Written data)
    @cython.locals(distance=Py_ssize_t)
    cpdef Py_ssize_t _zero(self, StreamStep step, Py_ssize_t end, Py_ssize_t k, Py_ssize_t prefix) except -3
    @cython.locals(blanks=Blanks, starts=bytearray, row=Py_ssize_t, i=Py_ssize_t, place=Py_ssize_t,
                   cells="unsigned char[:, ::1]")
    cpdef _near(self, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t end, Written data)
    @cython.locals(ahead=Py_ssize_t, blanks=Blanks, starts=bytearray, row=Py_ssize_t, i=Py_ssize_t,
                   count=Py_ssize_t, limit=Py_ssize_t, stride=Py_ssize_t, place=Py_ssize_t, byte=Py_ssize_t,
                   cells="unsigned char[:, ::1]")
    cpdef _far(self, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t base, Py_ssize_t shift, Py_ssize_t zero,
               Written data)
    @cython.locals(starts=bytearray, table="const long long[:, ::1]", blanks=Blanks, cells="unsigned char[:, ::1]",
                   row=Py_ssize_t, limit=Py_ssize_t, bits=Py_ssize_t, half=Py_ssize_t, count=Py_ssize_t,
                   fixed=Py_ssize_t, unit=Py_ssize_t, i=Py_ssize_t, base=Py_ssize_t, low=Py_ssize_t, high=Py_ssize_t,
                   most=Py_ssize_t, least=Py_ssize_t, y=Py_ssize_t, last=Py_ssize_t, place=Py_ssize_t)
    cpdef _into_any(self, Py_ssize_t shift, Py_ssize_t end, Py_ssize_t size, Py_ssize_t k, Py_ssize_t prefix,
                    Py_ssize_t zero, Written data)
    cpdef Py_ssize_t land(self, StreamStep step, Py_ssize_t end, Py_ssize_t distance, Written data) except -3
    @cython.locals(end=Py_ssize_t, bits=Py_ssize_t, value=Py_ssize_t, i=Py_ssize_t)
    cpdef Py_ssize_t target(self, StreamStep step, Py_ssize_t state, Py_ssize_t begin, Py_ssize_t field,
                            Written data) except -3
    @cython.locals(size=Py_ssize_t, value=Py_ssize_t, i=Py_ssize_t, distance=Py_ssize_t)
    cpdef Py_ssize_t whole(self, StreamStep step, Py_ssize_t state, Py_ssize_t begin, raw, Written data) except -3


@cython.locals(i=Py_ssize_t)
cdef bint _set(bytearray starts, Py_ssize_t place) except -1

@cython.locals(size=Py_ssize_t, low=Py_ssize_t, value=Py_ssize_t)
cdef Py_ssize_t _words(Py_ssize_t word) except? -3


cdef class WordBranches(_Places):
    cpdef Py_ssize_t land(self, StreamStep step, Py_ssize_t begin, Py_ssize_t word, Written data) except -3
    @cython.locals(low=Py_ssize_t, barred=Py_ssize_t, bit=Py_ssize_t, byte=Py_ssize_t)
    cpdef mask(self, StreamStep step, Py_ssize_t state, Py_ssize_t begin, Py_ssize_t field, Written data)
    @cython.locals(word=Py_ssize_t, i=Py_ssize_t)
    cpdef Py_ssize_t target(self, StreamStep step, Py_ssize_t state, Py_ssize_t begin, Py_ssize_t field,
                            Written data) except -3
    cpdef Py_ssize_t whole(self, StreamStep step, Py_ssize_t state, Py_ssize_t begin, raw, Written data) except -3

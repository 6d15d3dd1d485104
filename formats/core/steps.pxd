# Types for the compiled form; the code is in steps.py.
from bytegen.formats.core.written cimport Written

cdef class Linked:
    cdef public object parent

cdef class IntStep(Linked):
    cdef public object choices, then, _path, _rule
    cdef public Py_ssize_t start, size

cdef class FreeStep(Linked):
    cdef public object end_from, then, _path, _rule
    cdef public Py_ssize_t start, stop

cdef class Targets:
    cpdef mask(self, StreamStep step, Py_ssize_t state, Py_ssize_t begin, Py_ssize_t field, Written data)
    cpdef Py_ssize_t target(self, StreamStep step, Py_ssize_t state, Py_ssize_t begin, Py_ssize_t field,
                            Written data) except -3
    cpdef Py_ssize_t whole(self, StreamStep step, Py_ssize_t state, Py_ssize_t begin, raw, Written data) except -3

cdef class StreamStep(Linked):
    cdef public object machine, shift, tail, then, _path
    cdef public Targets targets
    cdef public list traits
    cdef public bytearray displacement_left
    cdef public Py_ssize_t start, stop, first, lists, longest, phase, word

# Types for the compiled form; the code is in constraint.py.
cimport cython

from bytegen.formats.core.intset cimport IntSet
from bytegen.formats.core cimport octets
from bytegen.formats.core.stream cimport StreamCursor


cdef class Constraint(StreamCursor):
    cdef public str format, level
    cdef public object max_bytes
    cdef public unsigned long long _value
    cdef public IntSet _choices
    cdef public Py_ssize_t _ended, _field, _field_end, _free_until, _fresh, _kind
    cdef public bint _free_end

    @cython.locals(position=Py_ssize_t)
    cpdef _settle(self)
    cpdef _open_field(self, Py_ssize_t start, Py_ssize_t size, IntSet choices)
    @cython.locals(position=Py_ssize_t)
    cpdef mask(self)
    cpdef _compute(self, Py_ssize_t position)
    @cython.locals(position=Py_ssize_t, kind=Py_ssize_t, was=Py_ssize_t, state=Py_ssize_t)
    cpdef advance(self, Py_ssize_t byte)
    @cython.locals(k=Py_ssize_t)
    cpdef bint _allows(self, Py_ssize_t byte, Py_ssize_t position) except -1

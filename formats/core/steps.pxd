# Types for the compiled form; the code is in steps.py.

cdef class IntStep:
    cdef public object parent, choices, then, _path, _rule
    cdef public Py_ssize_t start, size

cdef class FreeStep:
    cdef public object parent, end_from, then, _path, _rule
    cdef public Py_ssize_t start, stop

cdef class StreamStep:
    cdef public object parent, machine, shift, tail, targets, then, _path
    cdef public list traits
    cdef public Py_ssize_t start, stop, first, lists, longest, phase, word

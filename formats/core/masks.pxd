# Types for the compiled form; the code is in masks.py.

cdef class Blanks:
    cdef unsigned char[:, ::1] cells
    cdef Py_ssize_t used
    cdef list open, views

    cpdef _more(self)
    cpdef Py_ssize_t take(self) except -1

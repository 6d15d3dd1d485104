# Types for the compiled form; the code is in masks.py.
cimport cython

cdef class Blanks:
    cdef unsigned char[:, ::1] cells
    cdef object _rows
    cdef list open, views

    cpdef Py_ssize_t take(self) except -2


@cython.locals(blanks=Blanks, row=Py_ssize_t)
cpdef tuple blank()

# Types for the compiled form; the code is in stream.py.
cimport cython

from bytegen.formats.core cimport octets
from bytegen.formats.core.steps cimport StreamStep
from bytegen.formats.core.written cimport Written


cdef class StreamCursor:
    cdef public Py_ssize_t _accepted, _begin, _bound, _displacement, _plain, _recheck, _state, _until
    cdef public Written _data
    cdef public object _mask, _step
    cdef public list _least, _masks
    cdef public StreamStep _stream
    cdef const unsigned short[::1] _table

    cpdef _next(self, step)
    cpdef _leave(self)
    cpdef _copy_stream(self, StreamCursor twin)
    cpdef _enter_stream(self, StreamStep step)
    @cython.locals(aligned=Py_ssize_t)
    cpdef _instruction(self, StreamStep step, Py_ssize_t begin, Py_ssize_t after)
    cpdef _look(self, Py_ssize_t offset)
    cpdef bint _may_list(self, StreamStep step, Py_ssize_t begin)
    cpdef _cross(self, StreamStep step)
    cpdef _fill(self, StreamStep step, Py_ssize_t position)
    @cython.locals(room=Py_ssize_t)
    cpdef _stream_mask(self, StreamStep step)
    @cython.locals(was=Py_ssize_t)
    cpdef _advance_late(self, StreamStep step, Py_ssize_t byte, Py_ssize_t state)
    @cython.locals(plain=Py_ssize_t, taken=Py_ssize_t, total=Py_ssize_t, state=Py_ssize_t, first=Py_ssize_t,
                   more=Py_ssize_t, room=Py_ssize_t, after=Py_ssize_t)
    cpdef Py_ssize_t _many_stream(self, StreamStep step, data) except -1
    @cython.locals(begin=Py_ssize_t, stop=Py_ssize_t, position=Py_ssize_t, traits=Py_ssize_t, target=Py_ssize_t,
                   i=Py_ssize_t, until=Py_ssize_t)
    cpdef _complete(self, Py_ssize_t state)


cdef Py_ssize_t _aligned(StreamStep step, Py_ssize_t offset)

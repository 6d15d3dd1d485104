# What octets.py does, in C: for compiled modules to take in.
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize


cdef inline Py_ssize_t size_of(object data):
    return PyByteArray_GET_SIZE(data)


cdef inline Py_ssize_t byte_at(object data, Py_ssize_t i):
    return (<unsigned char*> PyByteArray_AS_STRING(data))[i]


cdef inline int put(object data, Py_ssize_t byte) except -1:
    cdef Py_ssize_t size = PyByteArray_GET_SIZE(data)
    PyByteArray_Resize(data, size + 1)
    PyByteArray_AS_STRING(data)[size] = <char> byte
    return 0

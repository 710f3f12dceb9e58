"""What other compiled modules take from this one."""

cimport numpy as cnp


cdef class ProductGradient:
    cdef readonly cnp.ndarray a, out
    cdef readonly object b
    cdef int multiply(self) except -1

"""What other compiled modules take from this one."""

cimport numpy as cnp

cdef int multiply(cnp.ndarray a, cnp.ndarray b, cnp.ndarray out) except -1

"""What other compiled modules take from this one: rows of a sparse matrix and their products."""

cimport numpy as cnp

from fastdrop.compiled._core cimport mask_rule


cdef class SparseRows:
    cdef readonly cnp.npy_intp samples, features
    cdef readonly int type
    cdef cnp.ndarray starts, columns, values
    cdef SparseRows masked(self, const mask_rule *mask)
    cdef int multiply(self, cnp.ndarray weight, cnp.ndarray out) except -1
    cdef int multiply_gradient(self, cnp.ndarray transposed, cnp.ndarray out) except -1
    cdef int check_gradient(self, cnp.ndarray transposed, cnp.ndarray out) except -1
    cdef int check(self, cnp.ndarray weight, cnp.ndarray z, bint weight_is_written) except -1
    cdef int run(self, cnp.ndarray weight, cnp.ndarray z, bint backward) except -1

"""What other compiled modules take from this one: matrix products."""

cimport numpy as cnp

cdef void enter_blas(bint ours) noexcept
cdef void leave_blas(bint ours) noexcept
cdef int multiply_by(object by, cnp.ndarray a, cnp.ndarray b, cnp.ndarray out) except -1


cdef class ProductGradient:
    cdef readonly cnp.ndarray a, out
    cdef readonly object b, matmul
    cdef int multiply(self) except -1

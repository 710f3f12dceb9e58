"""What other compiled modules take from this one: matrix products, and NumPy's BLAS."""

cimport numpy as cnp
from libc.stdint cimport int64_t

cdef extern from "blas_threads.h" nogil:
    ctypedef int (*fd_get_threads)() noexcept nogil
    ctypedef void (*fd_set_threads)(int n) noexcept nogil
    ctypedef void (*fd_sgemm)(int order, int a_transposed, int b_transposed, int64_t m, int64_t n,
                              int64_t k, float alpha, const float *a, int64_t a_stride,
                              const float *b, int64_t b_stride, float beta, float *c,
                              int64_t c_stride) noexcept nogil
    ctypedef void (*fd_dgemm)(int order, int a_transposed, int b_transposed, int64_t m, int64_t n,
                              int64_t k, double alpha, const double *a, int64_t a_stride,
                              const double *b, int64_t b_stride, double beta, double *c,
                              int64_t c_stride) noexcept nogil

cdef struct blas_functions:
    fd_sgemm multiply_floats
    fd_dgemm multiply_doubles
    fd_get_threads get
    fd_set_threads set

# NULL if NumPy's BLAS is not a known one.
cdef const blas_functions *numpy_blas() noexcept

cdef void enter_blas(bint ours) noexcept
cdef void leave_blas(bint ours) noexcept
cdef int multiply_by(object by, cnp.ndarray a, cnp.ndarray b, cnp.ndarray out) except -1


cdef class ProductGradient:
    cdef readonly cnp.ndarray a, b, out
    cdef readonly object matmul
    cdef int multiply(self) except -1

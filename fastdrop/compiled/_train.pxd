"""What other compiled modules take from this one: NumPy's BLAS, on one thread each."""

from libc.stdint cimport int64_t

cdef extern from "blas_threads.h" nogil:
    ctypedef int (*fd_get_threads)() noexcept nogil
    ctypedef void (*fd_set_threads)(int n) noexcept nogil

cdef extern from "kernels/attention.h" nogil:
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

# NULL where NumPy's BLAS is not one that is known.
cdef const blas_functions *numpy_blas() noexcept

# Between these two BLAS has one thread; how many the user wants it to have.
cdef int enter_blas() noexcept
cdef void leave_blas() noexcept

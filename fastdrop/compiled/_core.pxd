"""What other compiled modules take from this one: the instruction set in use, threads, kernels."""

cimport numpy as cnp
from libc.stdint cimport uint64_t

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct fd_kernels:
        const char *name

cdef extern from "pool.h" nogil:
    ctypedef void (*fd_share)(int share, int shares, void *argument) noexcept nogil

cdef const fd_kernels *active_kernels() noexcept


# As many threads as a call takes where nobody says how many.
cdef int most_threads() noexcept

# fd_pool_run of pool.h: all calls have the same helpers.
cdef void run_shares(fd_share f, int shares, void *argument, bint spin) noexcept nogil

# An element-wise mask, and what kept elements are multiplied by.
cdef struct mask_rule:
    double p
    double scale
    uint64_t seed
    uint64_t call
    uint64_t offset

# Operations on n elements of C-contiguous float32 or float64, which the caller has checked.
cdef int mask_memory(const void *x, void *y, uint64_t n, bint is_double,
                     const mask_rule *mask) except -1
cdef int bias_memory(void *z, const void *bias, char *cyclic, uint64_t n, uint64_t units,
                     bint is_double, bint relu, const mask_rule *mask) except -1
cdef size_t cyclic_bytes(uint64_t units, bint is_double) noexcept
cdef cnp.ndarray block_sums(cnp.npy_intp n, cnp.npy_intp units, bint is_double)
cdef int bias_backward_memory(void *dy, const void *y, uint64_t n, bint is_double, bint relu,
                              const mask_rule *mask, cnp.ndarray partial, void *dbias) except -1

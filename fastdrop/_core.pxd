"""What other compiled modules take from this one: the instruction set in use, threads."""

from libc.stdint cimport uint64_t

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct fd_kernels:
        const char *name

cdef const fd_kernels *active_kernels() noexcept

# How many threads for n elements that take one thread so long; num_threads: the user's or None.
cdef int threads_for(uint64_t n, double nanoseconds, num_threads) except -1

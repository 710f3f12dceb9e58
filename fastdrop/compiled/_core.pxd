"""What other compiled modules take from this one: the instruction set in use, threads."""

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

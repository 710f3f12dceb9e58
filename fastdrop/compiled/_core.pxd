"""What other compiled modules take from this one: the instruction set in use, threads."""

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct fd_kernels:
        const char *name

cdef const fd_kernels *active_kernels() noexcept

# As many threads as a call takes where nobody says how many.
cdef int most_threads() noexcept

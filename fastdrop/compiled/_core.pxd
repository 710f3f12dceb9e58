"""What other compiled modules take from this one: the instruction set in use, threads."""

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct fd_kernels:
        const char *name

cdef const fd_kernels *active_kernels() noexcept

# Is it a NumPy array, and one that masks nothing?
cdef int check_is_array(array, argument) except -1

# As many threads as a call takes where nobody says how many.
cdef int most_threads() noexcept

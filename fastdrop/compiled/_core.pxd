"""What other compiled modules take from this one: the instruction set in use, threads, kernels."""

cimport numpy as cnp
from libc.stdint cimport uint8_t, uint64_t

cdef extern from "kernels/softmax.h" nogil:
    struct fd_softmax_loops:
        double (*exponentials[2])(size_t n, double top, void *row) noexcept nogil

cdef extern from "kernels/products.h" nogil:
    struct fd_product_loops:
        const uint64_t *panel    # columns, for float32 and float64

cdef extern from "kernels/activations.h" nogil:
    enum:
        FD_SIGMOID
        FD_TANH
    struct fd_activation_loops:
        void (*apply[2][2])(size_t n, const void *z, void *y) noexcept nogil
        void (*gradient[2][2])(size_t n, const void *dy, const void *y, void *dz) noexcept nogil

cdef extern from "kernels/kernels.h" nogil:
    enum:
        FD_TILE
        FD_MAX_DIMS
    ctypedef enum fd_dtype:
        FD_FLOAT16
        FD_BFLOAT16
        FD_FLOAT32
        FD_FLOAT64
    ctypedef enum fd_op:
        FD_SCALE
        FD_ADD
        FD_BIAS
        FD_BIAS_RELU
        FD_ALPHA
        FD_PICK
        FD_RELU_BACKWARD
        FD_SCALE_RUNS
        FD_COPY
        FD_NORMAL_SCALE
        FD_NORMAL_ADD
    ctypedef struct fd_kernels:
        const char *name
        const fd_softmax_loops *softmax
        const fd_product_loops *products
        const fd_activation_loops *activations
    ctypedef struct fd_key:
        pass
    ctypedef struct fd_bits:
        const fd_kernels *kernels
        fd_key key
        uint64_t threshold
        uint64_t offset
        const uint8_t *packed
        uint64_t packed_bytes
        int ndim
        uint64_t *shape
        uint64_t *stride
    ctypedef struct fd_job:
        const fd_kernels *kernels
        const fd_bits *bits
        fd_op op
        fd_dtype dtype
        const void *x
        const void *z
        uint64_t z_period
        void *y
        double scale
        double shift
        double fill
        int stream
        uint8_t *packed
        uint8_t *bools
        void *column_sum
        uint64_t sum_period

cdef extern from "pool.h" nogil:
    ctypedef void (*fd_share)(int share, int shares, void *argument) noexcept nogil
    ctypedef enum fd_helpers:
        FD_ASLEEP
        FD_SPINNING
        FD_LENT

cdef const fd_kernels *active_kernels() noexcept


# The threads for a call's work
cdef struct crew:
    int threads    # at most this many
    fd_helpers helpers

# As many threads as a call takes if nobody says how many; and for `num_threads`, which is None, a
# number or AtMost, with n elements that take one thread so long.
cdef int most_threads() noexcept nogil
cdef crew crew_for(uint64_t n, double nanoseconds, num_threads) except *

# fd_pool_run, fd_pool_offer and fd_pool_settle of pool.h, with the same helpers for all calls.
cdef void run_shares(fd_share f, crew who, void *argument) noexcept nogil
cdef bint offer_shares(fd_share f, int shares, void *argument) noexcept nogil
cdef void settle_shares(void *argument) noexcept nogil

# An element-wise mask, and the factor of kept elements.
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

# Arrays: their dtypes, checks against each other, and what a kernel reads and writes.
cdef cnp.ndarray as_input(x, str name=*)
cdef int code_of(cnp.dtype dtype, str name) except -1
cdef int check_out(cnp.ndarray x, out, str name=*) except -1
cdef cnp.ndarray second(cnp.ndarray x, other, str name, out)
cdef void set_op(fd_job *job, fd_op op, double scale) noexcept
cdef cnp.ndarray prepare(fd_job *job, uint64_t n, cnp.ndarray x, out)
cdef object finish(cnp.ndarray y, out)

# Make bits come from the mask of (seed, call, p), one for each element.
cdef int generate(fd_bits *bits, double p, uint64_t seed, uint64_t call,
                  uint64_t offset) except -1

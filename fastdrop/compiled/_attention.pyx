# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, allow_none_for_extension_args=False
"""Softmax with dropout, row by row: checks arrays, divides rows among threads.

What is computed stands in kernels/softmax.h. Messages for users come from softmax.py; as in `_core`,
nothing is read or written beyond an array, whatever arguments come, and whoever assigns an array's
shape or dtype meanwhile.
"""

cimport numpy as cnp
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc

from fastdrop.compiled._core cimport (
    FD_MAX_DIMS,
    FD_SCALE,
    as_input,
    check_out,
    fd_bits,
    fd_dtype,
    fd_job,
    fd_kernels,
    finish,
    generate,
    prepare,
    run_shares,
    second,
    set_op,
    threads_for,
)
from fastdrop.compiled.arrays cimport check_is_array, is_plain

cnp.import_array()

cdef extern from "kernels/softmax.h" nogil:
    ctypedef struct fd_softmax:
        const fd_kernels *kernels
        const fd_bits *bits
        fd_dtype dtype
        const void *x
        const void *dy
        void *y
        void *dx
        uint64_t keys
        uint64_t stride
        uint64_t queries
        uint64_t first_query
        int causal
        double scale
        const uint8_t *taken
        const void *add
        int ndim
        uint64_t *shape
        uint64_t *mask_stride
    uint64_t fd_softmax_scratch(const fd_softmax *softmax)
    void fd_softmax_rows(const fd_softmax *softmax, uint64_t first, uint64_t last, void *scratch)

# Elements of neighbouring rows, of which each share has every so many: causal rows grow, and short
# rows share the tiles of the mask.
cdef uint64_t PIECE = 1 << 14

# Nanoseconds that an element of float32 takes one thread, forward or backward.
cdef double ELEMENT = 1.0

# Below this many elements releasing the GIL (about 30 ns) is not worth it.
cdef uint64_t GIL_RELEASE_PAYS = 1 << 12

cdef struct walk:
    fd_softmax softmax
    uint64_t rows
    uint64_t piece      # in rows
    uint64_t scratch    # bytes of each share
    char *memory


cdef void walk_share(int share, int shares, void *argument) noexcept nogil:
    cdef const walk *w = <const walk *>argument
    cdef uint64_t first = w.piece * share
    while first < w.rows:
        fd_softmax_rows(&w.softmax, first, min(first + w.piece, w.rows),
                        w.memory + w.scratch * share)
        first += w.piece * shares


cdef int run(walk *w, uint64_t n, int threads) except -1:
    """All rows, of n elements."""
    cdef fd_softmax *s = &w.softmax
    w.rows = n // s.stride
    w.piece = max(<uint64_t>1, PIECE // s.stride)
    threads = <int>max(<uint64_t>1, min(<uint64_t>threads, (w.rows + w.piece - 1) // w.piece))
    w.scratch = fd_softmax_scratch(s)
    w.memory = <char *>malloc(w.scratch * threads)
    if w.memory == NULL:
        raise MemoryError
    if threads == 1 and n < GIL_RELEASE_PAYS:
        walk_share(0, 1, w)
    else:
        with nogil:
            run_shares(walk_share, threads, w, False)
    free(w.memory)
    return 0


cdef bint lay_out(fd_softmax *s, cnp.ndarray x, cnp.ndarray mask) noexcept:
    """Fill in rows like those of x, and where the mask, if there is one, has the row of each."""
    cdef int d, axis, ndim = cnp.PyArray_NDIM(x), number = cnp.NPY_FLOAT32
    cdef bint is_bool
    cdef uint64_t stride
    if ndim == 0:
        return False
    s.keys = s.stride = cnp.PyArray_DIM(x, ndim - 1)
    s.queries = cnp.PyArray_DIM(x, ndim - 2) if ndim > 1 else 1
    if mask is None:
        return True
    is_bool = cnp.PyArray_TYPE(mask) == cnp.NPY_BOOL
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64:
        number = cnp.NPY_FLOAT64
    if not is_bool and cnp.PyArray_TYPE(mask) != number:
        return False
    if not is_plain(mask) or not 1 <= cnp.PyArray_NDIM(mask) <= ndim:
        return False
    stride = cnp.PyArray_DIM(mask, cnp.PyArray_NDIM(mask) - 1)
    if stride != s.keys:
        return False
    s.ndim = cnp.PyArray_NDIM(mask) - 1
    for d in range(s.ndim - 1, -1, -1):
        axis = ndim - 1 - s.ndim + d
        if cnp.PyArray_DIM(mask, d) not in (1, cnp.PyArray_DIM(x, axis)):
            return False
        s.shape[d] = cnp.PyArray_DIM(x, axis)
        s.mask_stride[d] = 0 if cnp.PyArray_DIM(mask, d) == 1 else stride
        stride *= cnp.PyArray_DIM(mask, d)
    if is_bool:
        s.taken = <const uint8_t *>cnp.PyArray_DATA(mask)
    else:
        s.add = cnp.PyArray_DATA(mask)
    return True


cdef object misfit(cnp.ndarray x, mask):
    got = "none" if mask is None else f"{mask.dtype} of shape {mask.shape}"
    return ValueError(
        "mask: expected a C-contiguous array of bool, or of the type that is computed in, that fits "
        f"scores of shape {(<object>x).shape}, got {got}"
    )


cdef object softmax(cnp.ndarray x, scores, mask, bint causal, double p, double scale,
                    uint64_t seed, uint64_t call, uint64_t offset, out, num_threads):
    """Forward, of x; or backward, of x = dy and scores."""
    cdef walk w
    cdef fd_softmax *s = &w.softmax
    cdef fd_job job
    cdef fd_bits bits
    cdef cnp.ndarray y, z = None
    cdef uint64_t n = cnp.PyArray_SIZE(x)
    cdef int threads
    set_op(&job, FD_SCALE, scale)
    generate(&bits, p, seed, call, offset)
    if mask is not None:
        check_is_array(mask, "mask")
    if out is not None:
        check_out(x, out, "scores" if scores is None else "dy")
    if scores is not None:
        z = second(x, scores, "scores", out)
    s.dy = s.y = s.dx = s.taken = s.add = NULL
    s.ndim = 0
    if not lay_out(s, x, mask):
        raise misfit(x, mask)
    threads = threads_for(n, n * ELEMENT * cnp.PyArray_ITEMSIZE(x) / 4, num_threads)
    y = prepare(&job, n, x, out)
    if z is None:
        s.x, s.y = job.x, job.y
    else:
        s.x, s.dy, s.dx = cnp.PyArray_DATA(z), job.x, job.y
    s.kernels, s.bits, s.dtype = job.kernels, &bits, job.dtype
    s.causal, s.first_query, s.scale = causal, 0, scale
    if n:
        run(&w, n, threads)
    return finish(y, out)


def softmax_dropout(x, mask, bint causal, double p, double scale, uint64_t seed, uint64_t call,
                    uint64_t offset, out, num_threads):
    """Dropout of the softmax of x's rows, which are what lies along its last axis.

    mask: None, or a C-contiguous array of bool, or of float32, for float64 of float64, of x's last
    axis and any axes before it that broadcast.
    """
    return softmax(as_input(x, "scores"), None, mask, causal, p, scale, seed, call, offset, out,
                   num_threads)


def softmax_dropout_backward(dy, scores, mask, bint causal, double p, double scale, uint64_t seed,
                             uint64_t call, uint64_t offset, out, num_threads):
    """The gradient of `softmax_dropout` for its x, here scores, of dy's shape and dtype."""
    if scores is None:
        raise TypeError("scores: expected a NumPy array, got NoneType")
    return softmax(as_input(dy, "dy"), scores, mask, causal, p, scale, seed, call, offset, out,
                   num_threads)

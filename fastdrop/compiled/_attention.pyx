# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, allow_none_for_extension_args=False
"""Softmax with dropout, row by row, and attention: checks arrays, divides the work among threads.

kernels/softmax.h and kernels/attention.h state what is computed. Messages for users come from
softmax.py and torch/attention.py. As in `_core`, nothing is read or written beyond an array,
whatever the arguments are, even if other code assigns an array's shape or dtype meanwhile.
"""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc

from fastdrop.compiled._core cimport (
    FD_FLOAT32,
    FD_FLOAT64,
    FD_MAX_DIMS,
    FD_SCALE,
    active_kernels,
    as_input,
    check_out,
    crew,
    crew_for,
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

cdef extern from "kernels/target.h" nogil:
    int fd_has_fma()

cdef extern from "kernels/attention.h" nogil:
    ctypedef struct fd_heads:
        char *data
        int64_t *stride
    ctypedef struct fd_attention:
        fd_softmax softmax
        fd_bits bits
        uint64_t batches
        uint64_t heads
        uint64_t kv_heads
        uint64_t queries
        uint64_t keys
        uint64_t width
        uint64_t value_width
        uint64_t rows
        double scale
        fd_heads q
        fd_heads k
        fd_heads v
        fd_heads out
        fd_heads mask
        int mask_is_bool
        fd_heads dout
        fd_heads dq
        fd_heads dk
        fd_heads dv
        uint64_t sums
    uint64_t fd_attention_scratch(const fd_attention *attention)
    uint64_t fd_attention_parts(const fd_attention *attention)
    void fd_attention_part(const fd_attention *attention, uint64_t part, void *scratch)

# Elements of neighbouring rows that a share takes at a time, by turns with the other shares: causal
# rows grow, and short rows share the tiles of the mask.
cdef uint64_t PIECE = 1 << 14

# Nanoseconds that one thread takes for an element of float32, forward or backward
cdef double ELEMENT = 1.2

# With fewer elements than this, releasing the GIL (about 30 ns) is not worth it.
cdef uint64_t GIL_RELEASE_PAYS = 1 << 12

cdef struct walk:
    fd_softmax softmax
    uint64_t rows
    uint64_t piece      # in rows
    uint64_t scratch    # bytes for each share
    char *memory


cdef void walk_share(int share, int shares, void *argument) noexcept nogil:
    cdef const walk *w = <const walk *>argument
    cdef uint64_t first = w.piece * share
    while first < w.rows:
        fd_softmax_rows(&w.softmax, first, min(first + w.piece, w.rows),
                        w.memory + w.scratch * share)
        first += w.piece * shares


cdef int run(walk *w, uint64_t n, crew who) except -1:
    """Computes all rows, of n elements."""
    cdef fd_softmax *s = &w.softmax
    w.rows = n // s.stride
    w.piece = max(<uint64_t>1, PIECE // s.stride)
    who.threads = <int>max(<uint64_t>1,
                           min(<uint64_t>who.threads, (w.rows + w.piece - 1) // w.piece))
    w.scratch = fd_softmax_scratch(s)
    w.memory = <char *>malloc(w.scratch * who.threads)
    if w.memory == NULL:
        raise MemoryError
    if who.threads == 1 and n < GIL_RELEASE_PAYS:
        walk_share(0, 1, w)
    else:
        with nogil:
            run_shares(walk_share, who, w)
    free(w.memory)
    return 0


cdef bint lay_out(fd_softmax *s, cnp.ndarray x, cnp.ndarray mask) noexcept:
    """Fill in rows like those of x, and where the mask, if there is one, has the row for each."""
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
    """Compute forward for x, or backward for x = dy and scores."""
    cdef walk w
    cdef fd_softmax *s = &w.softmax
    cdef fd_job job
    cdef fd_bits bits
    cdef cnp.ndarray y, z = None
    cdef uint64_t n = cnp.PyArray_SIZE(x)
    cdef crew who
    set_op(&job, FD_SCALE, scale)
    generate(&bits, p, seed, call, offset)
    check_mask(mask)
    if out is not None:
        check_out(x, out, "scores" if scores is None else "dy")
    if scores is not None:
        z = second(x, scores, "scores", out)
    s.dy = s.y = s.dx = s.taken = s.add = NULL
    s.ndim = 0
    if not lay_out(s, x, mask):
        raise misfit(x, mask)
    who = crew_for(n, n * ELEMENT * cnp.PyArray_ITEMSIZE(x) / 4, num_threads)
    y = prepare(&job, n, x, out)
    if z is None:
        s.x, s.y = job.x, job.y
    else:
        s.x, s.dy, s.dx = cnp.PyArray_DATA(z), job.x, job.y
    s.kernels, s.bits, s.dtype = job.kernels, &bits, job.dtype
    s.causal, s.first_query, s.scale = causal, 0, scale
    if n:
        run(&w, n, who)
    return finish(y, out)


def softmax_dropout(x, mask, bint causal, double p, double scale, uint64_t seed, uint64_t call,
                    uint64_t offset, out, num_threads):
    """Return dropout of the softmax of the rows of x, which lie along its last axis.

    mask is None, or a C-contiguous array of bool or of floats (float64 for float64, else float32)
    with the last axis of x, and with any axes before it that broadcast.
    """
    return softmax(as_input(x, "scores"), None, mask, causal, p, scale, seed, call, offset, out,
                   num_threads)


def softmax_dropout_backward(dy, scores, mask, bint causal, double p, double scale, uint64_t seed,
                             uint64_t call, uint64_t offset, out, num_threads):
    """Return the gradient of `softmax_dropout` for its x, here scores, which is like dy."""
    if scores is None:
        raise TypeError("scores: expected a NumPy array, got NoneType")
    return softmax(as_input(dy, "dy"), scores, mask, causal, p, scale, seed, call, offset, out,
                   num_threads)

# ---- attention -----------------------------------------------------------------------------------

def has_products():
    """Tell whether this processor has fused multiply-adds, without which attention takes too long."""
    return fd_has_fma() != 0


# Rows of a block. With twice as many, (8, 4, 256, 64) takes 1.07 times as long where causal, and
# elsewhere as long; with half of them it takes 1.03 times as long either way.
cdef uint64_t ROWS = 64, CAUSAL_ROWS = 32

# Parts of forward for each thread, or more, if there are that many blocks: threads may be late.
cdef int PARTS = 4


cdef bint describe(cnp.ndarray x, int type, uint64_t batches, uint64_t heads, uint64_t rows,
                   uint64_t columns, fd_heads *h) noexcept:
    """Check type and shape, and that a row's elements lie side by side."""
    cdef cnp.npy_intp size = cnp.PyArray_ITEMSIZE(x)
    cdef cnp.npy_intp *strides = cnp.PyArray_STRIDES(x)
    cdef int d
    if (cnp.PyArray_NDIM(x) != 4 or cnp.PyArray_TYPE(x) != type or not cnp.PyArray_ISBEHAVED_RO(x)
            or <uint64_t>cnp.PyArray_DIM(x, 0) != batches
            or <uint64_t>cnp.PyArray_DIM(x, 1) != heads
            or <uint64_t>cnp.PyArray_DIM(x, 2) != rows
            or <uint64_t>cnp.PyArray_DIM(x, 3) != columns
            or (columns > 1 and strides[3] != size)):
        return False
    h.data = <char *>cnp.PyArray_DATA(x)
    for d in range(3):
        if strides[d] % size:
            return False
        h.stride[d] = strides[d] // size
    return True


cdef bint describe_inputs(fd_attention *a, cnp.ndarray q, cnp.ndarray k, cnp.ndarray v,
                          cnp.ndarray mask) noexcept:
    """Fill in what forward and backward share."""
    cdef int type = cnp.PyArray_TYPE(q), mask_type = cnp.NPY_BOOL
    if (cnp.PyArray_NDIM(q) != 4 or cnp.PyArray_NDIM(k) != 4 or cnp.PyArray_NDIM(v) != 4
            or type not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64)):
        return False
    a.batches, a.heads = cnp.PyArray_DIM(q, 0), cnp.PyArray_DIM(q, 1)
    a.queries, a.width = cnp.PyArray_DIM(q, 2), cnp.PyArray_DIM(q, 3)
    a.kv_heads, a.keys = cnp.PyArray_DIM(k, 1), cnp.PyArray_DIM(k, 2)
    a.value_width = cnp.PyArray_DIM(v, 3)
    if (not a.batches or not a.queries or not a.width or not a.keys or not a.value_width
            or not a.kv_heads or not a.heads or a.heads % a.kv_heads
            or not describe(q, type, a.batches, a.heads, a.queries, a.width, &a.q)
            or not describe(k, type, a.batches, a.kv_heads, a.keys, a.width, &a.k)
            or not describe(v, type, a.batches, a.kv_heads, a.keys, a.value_width, &a.v)):
        return False
    a.mask.data = a.dout.data = NULL
    a.mask.stride[0] = a.mask.stride[1] = a.mask.stride[2] = 0
    if mask is not None:
        a.mask_is_bool = cnp.PyArray_TYPE(mask) == cnp.NPY_BOOL
        if not describe(mask, mask_type if a.mask_is_bool else type, a.batches, a.heads, a.queries,
                        a.keys, &a.mask):
            return False
    a.softmax.dtype = FD_FLOAT64 if type == cnp.NPY_FLOAT64 else FD_FLOAT32
    return True


cdef struct attending:
    fd_attention attention
    uint64_t parts
    uint64_t scratch    # bytes for each share
    char *memory


cdef void attending_share(int share, int shares, void *argument) noexcept nogil:
    cdef const attending *w = <const attending *>argument
    cdef void *scratch = w.memory + w.scratch * share
    cdef uint64_t part = share
    while part < w.parts:
        fd_attention_part(&w.attention, part, scratch)
        part += shares


cdef int attend(attending *w, bint causal, double p, double keep_scale, double scale,
                uint64_t seed, num_threads) except -1:
    """Computes all parts of what has been described."""
    cdef fd_attention *a = &w.attention
    cdef void *memory
    cdef uint64_t blocks, n = a.batches * a.heads * a.queries * a.keys
    cdef double products = (0.05 if a.dout.data else 0.02) * (a.width + a.value_width)
    cdef crew who = crew_for(n, n * (ELEMENT + products), num_threads)
    generate(&a.bits, p, seed, 0, 0)
    a.softmax.kernels = active_kernels()
    a.softmax.causal, a.softmax.scale = causal, keep_scale
    a.rows = min(CAUSAL_ROWS if causal else ROWS, a.queries)
    a.scale = scale
    if not a.dout.data:    # results do not depend on the number of parts
        blocks = (a.queries + a.rows - 1) // a.rows
        a.sums = min(blocks, 1 + PARTS * who.threads // (a.batches * a.kv_heads))
    w.parts = fd_attention_parts(a)
    who.threads = <int>min(<uint64_t>who.threads, w.parts)
    w.scratch = (fd_attention_scratch(a) + 63) // 64 * 64
    memory = malloc(w.scratch * who.threads + 63)
    if memory == NULL:
        raise MemoryError
    w.memory = <char *>((<uintptr_t>memory + 63) // 64 * 64)
    with nogil:
        run_shares(attending_share, who, w)
    free(memory)
    return 0


cdef object unfit(str names):
    return ValueError(
        f"{names}: expected arrays of (batch, head, row, column), of float32 or float64, that fit "
        "each other, with rows whose elements lie side by side, got others"
    )


def attention(cnp.ndarray q, cnp.ndarray k, cnp.ndarray v, mask, bint causal, double p,
              double keep_scale, double scale, uint64_t seed, cnp.ndarray out, num_threads):
    """Compute out = dropout(softmax(scale q k^T + mask)) v, with the key (seed, 0).

    kernels/attention.h has the details. q is (batch, heads, queries, width), k and v are (batch,
    kv_heads, keys, width or another), and head h of q belongs to their head h * kv_heads // heads.
    mask is None, or has bool or q's dtype and the scores' shape, with strides of 0 where it is
    shared. `out` is apart from all of them.
    """
    cdef attending w
    cdef fd_attention *a = &w.attention
    check_mask(mask)
    if (not describe_inputs(a, q, k, v, mask) or not cnp.PyArray_ISWRITEABLE(out)
            or not describe(out, cnp.PyArray_TYPE(q), a.batches, a.heads, a.queries, a.value_width,
                            &a.out)):
        raise unfit("q, k, v, mask, out")
    attend(&w, causal, p, keep_scale, scale, seed, num_threads)


def attention_backward(cnp.ndarray dout, cnp.ndarray q, cnp.ndarray k, cnp.ndarray v, mask,
                       bint causal, double p, double keep_scale, double scale, uint64_t seed,
                       cnp.ndarray dq, cnp.ndarray dk, cnp.ndarray dv, num_threads):
    """Compute dq, dk, dv, the gradients of `attention`.

    dk and dv may be several sums, if they have a multiple of k's batches: one after the other.
    """
    cdef attending w
    cdef fd_attention *a = &w.attention
    cdef int type = cnp.PyArray_TYPE(q)
    cdef uint64_t batches
    check_mask(mask)
    if (not describe_inputs(a, q, k, v, mask)
            or not cnp.PyArray_ISWRITEABLE(dq) or not cnp.PyArray_ISWRITEABLE(dk)
            or not cnp.PyArray_ISWRITEABLE(dv) or cnp.PyArray_NDIM(dk) != 4
            or not describe(dout, type, a.batches, a.heads, a.queries, a.value_width, &a.dout)
            or not describe(dq, type, a.batches, a.heads, a.queries, a.width, &a.dq)):
        raise unfit("dout, q, k, v, mask, dq, dk, dv")
    batches = cnp.PyArray_DIM(dk, 0)
    a.sums = batches // a.batches
    if (a.sums == 0 or batches % a.batches
            or not describe(dk, type, batches, a.kv_heads, a.keys, a.width, &a.dk)
            or not describe(dv, type, batches, a.kv_heads, a.keys, a.value_width, &a.dv)):
        raise unfit("dk, dv")
    attend(&w, causal, p, keep_scale, scale, seed, num_threads)


cdef int check_mask(mask) except -1:
    if mask is not None:
        check_is_array(mask, "mask")
    return 0

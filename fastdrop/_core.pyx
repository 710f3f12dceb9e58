# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""NumPy arrays in, kernels out: checks arrays, takes pointers, divides the work among threads.

The contract is in kernels/kernels.h. Arguments other than arrays are checked in functional.py and
random.py, which are the only callers.
"""

from contextlib import contextmanager

import numpy as np
cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cnp.import_array()

cdef extern from "openmp.h" nogil:
    int FD_OPENMP
    int fd_max_threads()
    int fd_usable_threads(int n)
    void fd_guard_forks()

cdef extern from "kernels/kernels.h" nogil:
    enum:
        FD_TILE
        FD_MAX_DIMS
    ctypedef enum fd_dtype:
        FD_FLOAT32
        FD_FLOAT64
    ctypedef struct fd_key:
        pass
    ctypedef struct fd_kernels:
        const char *name
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
    void fd_key_init(fd_key *key, uint64_t seed, uint64_t call)
    void fd_philox(const uint32_t *counter, uint64_t seed, uint32_t *out)
    const fd_kernels *const *fd_available()
    uint64_t fd_threshold(double p)
    ctypedef struct fd_job:
        const fd_bits *bits
        fd_dtype dtype
        const void *x
        void *y
        double scale
        uint8_t *packed
        uint8_t *bools
    void fd_run(const fd_job *job, uint64_t start, uint64_t n)
    void fd_words(const fd_kernels *kernels, const fd_key *key, uint64_t offset, uint64_t n,
                  uint32_t *out)

fd_guard_forks()

# ---- instruction sets ------------------------------------------------------------------------------

cdef const fd_kernels *active = fd_available()[0]


def available_isas():
    """Instruction sets this build has and this machine runs, best first.

    Returns
    -------
    tuple of str
        Some of "avx512", "avx2", "neon"; always "generic".
    """
    cdef const fd_kernels *const *isa = fd_available()
    names = []
    while isa[0] != NULL:
        names.append(isa[0].name.decode())
        isa += 1
    return tuple(names)


def active_isa():
    """Name of the instruction set in use."""
    return active.name.decode()


def set_isa(name):
    global active
    cdef const fd_kernels *const *isa = fd_available()
    while isa[0] != NULL:
        if isa[0].name.decode() == name:
            active = isa[0]
            return
        isa += 1
    raise ValueError(f"isa: expected one of {', '.join(available_isas())}, got {name!r}")


@contextmanager
def use_isa(name):
    """Use one instruction set inside a ``with`` block, in all threads; for tests and comparisons.

    Parameters
    ----------
    name : str
        One of `available_isas`.

    Raises
    ------
    ValueError
        If this build or this machine lacks it.
    """
    before = active_isa()
    set_isa(name)
    try:
        yield
    finally:
        set_isa(before)

# ---- threads ---------------------------------------------------------------------------------------

# Below this many elements a second thread costs more than it saves: waking it takes about 40 us,
# and one thread drops half a million elements meanwhile.
cdef uint64_t THREADS_PAY = 1 << 20
# Below this many elements releasing the GIL (about 30 ns) is not worth it either.
cdef uint64_t GIL_RELEASE_PAYS = 1 << 15

cdef int default_threads = 1


def set_num_threads(n):
    """Set the number of threads that calls use by default.

    Parameters
    ----------
    n : int
        At least 1. A call also never uses more than ``omp_get_max_threads()`` says at that
        moment, so threadpoolctl's limits work.

    Raises
    ------
    ValueError
        If n is below 1.
    TypeError
        If n is not an integer.
    """
    global default_threads
    default_threads = checked_threads(n)


def get_num_threads():
    """Number of threads that calls use by default, for arrays large enough to gain by them.

    Initially FASTDROP_NUM_THREADS or OMP_NUM_THREADS where set, else the CPUs this process may
    use: its affinity and its control group's quota.

    Returns
    -------
    int
    """
    return default_threads


def openmp_version():
    """Date (yyyymm) of the OpenMP standard of this build; 0 for a build without OpenMP."""
    return FD_OPENMP


def openmp_max_threads():
    """``omp_get_max_threads()`` of the library this module uses."""
    return fd_max_threads()


cdef int checked_threads(n) except -1:
    try:
        count = n.__index__()
    except AttributeError:
        raise TypeError(f"num_threads: expected an integer, got {type(n).__name__}") from None
    if count < 1:
        raise ValueError(f"num_threads: expected at least 1, got {count}")
    return min(count, 1 << 16)


cdef int threads_for(uint64_t n, num_threads) except -1:
    cdef uint64_t tiles = (n + <uint64_t>FD_TILE - 1) // <uint64_t>FD_TILE
    cdef uint64_t count
    if num_threads is not None:
        count = fd_usable_threads(checked_threads(num_threads))
    elif n < THREADS_PAY:
        count = 1
    else:
        count = min(default_threads, fd_max_threads())
    return <int>max(<uint64_t>1, min(count, tiles))

cdef void run(const fd_job *job, uint64_t n, int threads) noexcept:
    cdef uint64_t tiles, first, last
    cdef int t
    if threads == 1 and n < GIL_RELEASE_PAYS:
        fd_run(job, 0, n)
    elif threads == 1:
        with nogil:
            fd_run(job, 0, n)
    else:
        tiles = (n + <uint64_t>FD_TILE - 1) // <uint64_t>FD_TILE
        for t in prange(threads, nogil=True, schedule="static", chunksize=1, num_threads=threads):
            first = tiles * <uint64_t>t // <uint64_t>threads * <uint64_t>FD_TILE
            last = tiles * <uint64_t>(t + 1) // <uint64_t>threads * <uint64_t>FD_TILE
            fd_run(job, first, min(last, n) - first)

# ---- arrays ----------------------------------------------------------------------------------------


cdef inline bint is_plain(cnp.ndarray a) noexcept:
    """Can a kernel walk it: C-contiguous, aligned, native byte order?"""
    cdef int flags = cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED
    return (cnp.PyArray_FLAGS(a) & flags) == flags and cnp.PyArray_ISNOTSWAPPED(a)


cdef int dtype_of(cnp.ndarray x) except -1:
    cdef int type_num = cnp.PyArray_TYPE(x)
    if type_num == cnp.NPY_FLOAT32:
        return FD_FLOAT32
    if type_num == cnp.NPY_FLOAT64:
        return FD_FLOAT64
    raise TypeError(f"x: expected an array of float32 or float64, got {x.dtype}")


cdef cnp.ndarray as_input(x):
    cdef cnp.ndarray a = np.asarray(x)
    dtype_of(a)
    return a


cdef bint is_same(cnp.ndarray a, cnp.ndarray b):
    return cnp.PyArray_DATA(a) == cnp.PyArray_DATA(b) and (<object>a).strides == (<object>b).strides


cdef int check_out(cnp.ndarray x, out) except -1:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: expected a NumPy array, got {type(out).__name__}")
    if out.shape != (<object>x).shape:
        raise ValueError(f"out: expected shape {(<object>x).shape}, got {out.shape}")
    if not np.can_cast(out.dtype, x.dtype, "equiv"):
        raise TypeError(f"out: expected dtype {x.dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out: expected a writeable array, got a read-only one")
    if not is_same(x, out) and np.shares_memory(x, out):
        raise ValueError("out: expected x itself or memory apart from x, got an overlapping array")
    return 0


def identity(x, out):
    """x itself, or `out` with x's values: dropout where nothing is dropped."""
    cdef cnp.ndarray a = as_input(x)
    if out is None:
        return a
    check_out(a, out)
    np.copyto(out, a)
    return out


cdef object apply(fd_bits *bits, cnp.ndarray x, out, double scale, uint8_t *packed, num_threads):
    """y = mask ? x * scale : +0.0, into `out` or a new array."""
    cdef fd_job job
    cdef cnp.ndarray source = x, y
    cdef uint64_t n = cnp.PyArray_SIZE(x)
    cdef int threads = threads_for(n, num_threads)
    if out is not None:
        check_out(x, out)
    if out is not None and is_plain(out):
        y = out
    else:
        y = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    if not is_plain(x):
        np.copyto(y, x)
        source = y
    job.bits = bits
    job.dtype = <fd_dtype>dtype_of(x)
    job.x = cnp.PyArray_DATA(source)
    job.y = cnp.PyArray_DATA(y)
    job.scale = scale
    job.packed = packed
    job.bools = NULL
    run(&job, n, threads)
    if out is not None and y is not out:
        np.copyto(out, y)
        return out
    return y

# ---- masks -----------------------------------------------------------------------------------------


cdef void generate(fd_bits *bits, double p, uint64_t seed, uint64_t call, uint64_t offset) noexcept:
    """Let the bits come from the generator, one for each element."""
    bits.kernels = active
    fd_key_init(&bits.key, seed, call)
    bits.threshold = fd_threshold(p)
    bits.offset = offset
    bits.packed = NULL


cdef void stored(fd_bits *bits, cnp.ndarray packed, cnp.ndarray x, axes) noexcept:
    """Let the bits come from `packed`, a mask of x's shape with `axes` set to 1."""
    cdef uint64_t stride = 1
    cdef int d, groups = 0, ndim = cnp.PyArray_NDIM(x)
    cdef bint shared, before = False
    cdef uint64_t shape[FD_MAX_DIMS]
    cdef uint64_t strides[FD_MAX_DIMS]
    for d in range(ndim - 1, -1, -1):       # innermost first; neighbours of one kind are merged
        shared = d in axes
        if groups and shared == before:
            shape[groups - 1] *= cnp.PyArray_DIM(x, d)
        else:
            shape[groups] = cnp.PyArray_DIM(x, d)
            strides[groups] = 0 if shared else stride
            groups += 1
        if not shared:
            stride *= cnp.PyArray_DIM(x, d)
        before = shared
    if groups == 0:                         # 0-d: one bit
        shape[0] = strides[0] = groups = 1
    bits.kernels = active
    bits.packed = <const uint8_t *>cnp.PyArray_DATA(packed)
    bits.packed_bytes = cnp.PyArray_SIZE(packed)
    bits.ndim = groups
    for d in range(groups):
        bits.shape[d] = shape[groups - 1 - d]
        bits.stride[d] = strides[groups - 1 - d]


cdef cnp.ndarray empty_bytes(uint64_t n):
    cdef cnp.npy_intp dims[1]
    dims[0] = <cnp.npy_intp>n
    return cnp.PyArray_EMPTY(1, dims, cnp.NPY_UINT8, 0)


def make_mask(uint64_t n, double p, uint64_t seed, uint64_t call, uint64_t offset, bint packed,
              num_threads):
    """Flat uint8 array: the mask bits of n elements, packed or one byte (0 or 1) each."""
    cdef fd_bits bits
    cdef fd_job job
    cdef int threads = threads_for(n, num_threads)
    cdef cnp.ndarray mask = empty_bytes((n + 7) // 8 if packed else n)
    generate(&bits, p, seed, call, offset)
    job.bits = &bits
    job.dtype = FD_FLOAT32
    job.x = NULL
    job.y = NULL
    job.packed = <uint8_t *>cnp.PyArray_DATA(mask) if packed else NULL
    job.bools = NULL if packed else <uint8_t *>cnp.PyArray_DATA(mask)
    run(&job, n, threads)
    return mask


def masked_scale(x, double p, double scale, uint64_t seed, uint64_t call, tuple axes,
                 uint64_t offset, out, bint return_mask, num_threads):
    """Where the mask of (seed, call, p) keeps, x * scale; elsewhere +0.0.

    `axes` are the shared axes, each in [0, x.ndim). Returns y, or (y, packed mask).
    """
    cdef fd_bits bits
    cdef cnp.ndarray a = as_input(x), mask
    cdef uint64_t n
    cdef int d
    if axes:
        n = 1
        for d in range(cnp.PyArray_NDIM(a)):
            if d not in axes:
                n *= cnp.PyArray_DIM(a, d)
        mask = make_mask(n, p, seed, call, offset, True, num_threads)
        stored(&bits, mask, a, axes)
        y = apply(&bits, a, out, scale, NULL, num_threads)
    else:
        generate(&bits, p, seed, call, offset)
        if not return_mask:
            return apply(&bits, a, out, scale, NULL, num_threads)
        mask = empty_bytes((cnp.PyArray_SIZE(a) + 7) // 8)
        y = apply(&bits, a, out, scale, <uint8_t *>cnp.PyArray_DATA(mask), num_threads)
    return (y, mask) if return_mask else y


def apply_packed(x, cnp.ndarray packed, double scale, tuple axes, out, num_threads):
    """masked_scale with the bits of `packed`, a contiguous uint8 array of the right length."""
    cdef fd_bits bits
    cdef cnp.ndarray a = as_input(x)
    stored(&bits, packed, a, axes)
    return apply(&bits, a, out, scale, NULL, num_threads)

# ---- the generator itself --------------------------------------------------------------------------


def philox(counter, uint64_t seed):
    """Philox4x32-10: four output words of four counter words and a 64-bit key."""
    cdef uint32_t words[4]
    cdef uint32_t result[4]
    for i in range(4):
        words[i] = counter[i]
    fd_philox(words, seed, result)
    return result[0], result[1], result[2], result[3]


def random_words(uint64_t n, uint64_t seed, uint64_t call, uint64_t offset):
    """uint32 words [offset, offset + n) of domain 1: one for each element."""
    cdef fd_key key
    cdef cnp.npy_intp dims[1]
    dims[0] = <cnp.npy_intp>n
    cdef cnp.ndarray words = cnp.PyArray_EMPTY(1, dims, cnp.NPY_UINT32, 0)
    fd_key_init(&key, seed, call)
    with nogil:
        fd_words(active, &key, offset, n, <uint32_t *>cnp.PyArray_DATA(words))
    return words

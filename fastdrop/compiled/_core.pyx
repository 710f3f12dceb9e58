# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, allow_none_for_extension_args=False
"""NumPy arrays in, kernels out: checks arrays, takes pointers, divides the work among threads.

The contract is in kernels/kernels.h. Messages for users come from functional.py and similar files,
which are the only callers. But whatever the arguments are, nothing here reads or writes beyond an
array. Other code and other threads may assign an array's shape or dtype during a call. So what a
kernel is told about an array is read at one moment, or compared with what was read before. Only
addresses are taken on trust.
"""

from contextlib import contextmanager
from operator import index

import numpy as np
cimport numpy as cnp
from cpython.object cimport PyTypeObject
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF, PyObject
from libc.math cimport INFINITY
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from fastdrop.compiled.arrays cimport check_is_array, check_like, do_meet, is_plain

cnp.import_array()

cdef extern from *:
    """
    #include <sys/mman.h>
    #ifdef MADV_HUGEPAGE
    #define fd_want_huge_pages(address, n) madvise(address, n, MADV_HUGEPAGE)
    #else
    #define fd_want_huge_pages(address, n) ((void)(address), (void)(n), 0)
    #endif
    """
    int fd_want_huge_pages(void *address, size_t n) nogil

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(PyTypeObject *subtype, cnp.dtype descr, int nd, cnp.npy_intp *dims,
                                cnp.npy_intp *strides, void *data, int flags, PyObject *obj)

cdef extern from "openmp.h" nogil:
    int FD_OPENMP
    int fd_max_threads()

cdef extern from "dlfcn.h" nogil:
    int RTLD_LAZY
    int RTLD_NOLOAD
    void *dlopen(const char *path, int mode)
    void *dlsym(void *library, const char *name)

cdef extern from "pool.h" nogil:
    ctypedef void (*fd_parallel)(void (*f)(void *), void *argument, unsigned int threads,
                                 unsigned int flags) noexcept nogil
    void fd_pool_lend(fd_parallel parallel)
    int fd_pool_lends()
    void fd_pool_run(fd_share f, int shares, void *argument, fd_helpers who)
    int fd_pool_offer(fd_share f, int shares, void *argument)
    void fd_pool_settle(void *argument)

cdef extern from *:
    """
    #ifdef __clang__
    #define FD_COMPILER __VERSION__    /* names itself */
    #else
    #define FD_COMPILER "gcc " __VERSION__
    #endif
    """
    const char *FD_COMPILER

cdef extern from "kernels/kernels.h" nogil:
    enum:
        FD_DOMAIN_FOLD
    void fd_philox(const uint32_t *counter, uint64_t seed, uint32_t *out)
    const fd_kernels *const *fd_available()
    void fd_run(const fd_job *job, uint64_t start, uint64_t n)
    ctypedef struct fd_blocks:
        fd_job job
        uint64_t maps
        uint64_t height
        uint64_t width
        uint64_t block
    uint64_t fd_blocks_scratch(const fd_blocks *blocks)
    void fd_drop_blocks(const fd_blocks *blocks, uint64_t sample, uint64_t *scratch)
    void fd_words(const fd_kernels *kernels, const fd_key *key, uint64_t offset, uint64_t n,
                  uint32_t *out)
    void fd_key_init(fd_key *key, uint64_t seed, uint64_t call)
    uint64_t fd_threshold(double p)

cdef extern from "xla.h" nogil:
    ctypedef struct fd_xla_call_frame:
        pass
    ctypedef struct fd_xla_error:
        pass
    ctypedef struct fd_xla_settings:
        const fd_kernels *const *kernels
        double (*work)(const fd_job *job, uint64_t n, uint64_t bytes_moved) noexcept nogil
        int (*threads_pay)(double work, uint64_t bytes_moved) noexcept nogil
        int (*goes_around)(const fd_job *job, uint64_t bytes_moved, int threads) noexcept nogil
        int (*teaches)(const fd_job *job, uint64_t bytes_moved, int threads,
                       double work) noexcept nogil
        void (*learn)(const fd_job *job, uint64_t bytes_moved, int threads,
                      double times) noexcept nogil
    void fd_xla_use(const fd_xla_settings *settings)
    fd_xla_error *fd_xla_masked(fd_xla_call_frame *frame)

cdef extern from "tensorflow.h":
    const char *fd_tf_register(void *library, int (*most_threads)() noexcept nogil)

fd_max_threads()    # LLVM's OpenMP reads its environment at its first call

# ---- instruction sets --------------------------------------------------------------------------

cdef const fd_kernels *const *isas = fd_available()    # asked once, while there is only one thread
cdef const fd_kernels *active = isas[0]


def available_isas():
    """Return the instruction sets that this build has and this machine runs, the best one first.

    Returns
    -------
    tuple of str
        Some of "avx512", "avx2" and "neon", and always "generic".
    """
    cdef const fd_kernels *const *isa = isas
    names = []
    while isa[0] != NULL:
        names.append(isa[0].name.decode())
        isa += 1
    return tuple(names)


def active_isa():
    """Return the name of the instruction set in use."""
    return active.name.decode()


cdef const fd_kernels *active_kernels() noexcept:
    return active


def set_isa(name):
    global active
    cdef const fd_kernels *const *isa = isas
    while isa[0] != NULL:
        if isa[0].name.decode() == name:
            active = isa[0]
            return
        isa += 1
    raise ValueError(f"isa: expected one of {', '.join(available_isas())}, got {name!r}")


@contextmanager
def use_isa(name):
    """Use one instruction set inside a ``with`` block, in all threads, for tests and comparisons.

    Parameters
    ----------
    name : str
        One of `available_isas`.

    Raises
    ------
    ValueError
        If this build or this machine does not have it.
    """
    before = active_isa()
    set_isa(name)
    try:
        yield
    finally:
        set_isa(before)

# ---- threads -----------------------------------------------------------------------------------

# A second thread pays if one thread alone would take about this many nanoseconds: sleeping threads
# take 30 to 40 us to wake, and two threads reach memory only a little faster than one. Measured by
# benchmarks/threads.py on 2 cores (docs/explanation/threads.md): 2 Mi float32 at p = 0.5, 1 Mi at
# p = 0.1.
cdef double THREADS_PAY = 190e3

# The same for threads that another library lends, whose own work before and after keeps them awake.
# This was not measured by itself; models of benchmarks/torch_enable.py are faster with it.
cdef double LENT_THREADS_PAY = 50e3

# The same for passes between the products of a training step, whose helpers are awake: to call them
# takes less than a microsecond. docs/explanation/findings.md says what other limits gave.
cdef double AWAKE_THREADS_PAY = 20e3

# How many times as long as `work` estimates have calls on one thread taken, by the number of bits
# in their count of bytes written: what one processor has in its cache another one has to fetch.
cdef double[64] slowness
slowness[:] = [1.0] * 64

# Calls that take at least this many nanoseconds are worth two looks at the clock.
cdef double WORTH_TIMING = 10e3

# With fewer elements than this, even releasing the GIL (about 30 ns) is not worth it.
cdef uint64_t GIL_RELEASE_PAYS = 1 << 15

# The contract's limit for offset plus elements.
cdef uint64_t MOST_ELEMENTS = <uint64_t>1 << 55

# From this many elements on, aligned stores gain more than bits cost that start inside a tile.
cdef uint64_t ALIGNING_PAYS = 1 << 13

cdef int default_threads = 1

# Size of the last-level cache, which _config.py sets.
cdef uint64_t last_cache_bytes = 32 << 20


# Only trying shows how much of that cache others leave to us. Calls whose x and y take a quarter of
# it or more write by turns with ordinary stores and around the cache, and from then on in the
# quicker way. Writing around it has to be quicker by far, because whoever reads y next has to fetch
# it. In docs/bench/*/streaming.md y.sum() loses nothing by it from 1.4 times on: at p = 0.5 a thread
# of an Intel Xeon gained 1.13 times at 2^20 elements, and 0.95 times with y.sum(), 1.41 and 1.12
# times at 2^21; one of a Zen 3 1.18 and 0.94 times, 1.92 and 1.15. A quarter, because JAX's forward
# and backward passes at 2^20 have four such arrays, 16 MiB, and gain by it.
cdef struct stores:
    int untried             # calls that are still to try
    double[2] quickest      # ordinary stores, stores around the cache: times as long as `work`

cdef enum:
    TRIES = 8
cdef double GOING_AROUND_PAYS = 1.4
cdef stores[4] tried        # a quarter or a half of the cache, on one thread; on several
tried[:] = [stores(TRIES, [INFINITY, INFINITY])] * 4


def set_cache_bytes(uint64_t n):
    global last_cache_bytes
    last_cache_bytes = n


def cache_bytes():
    """Return the size of the last-level cache, which decides about streaming stores."""
    return last_cache_bytes


def set_num_threads(n):
    """Set the number of threads that calls use by default.

    Parameters
    ----------
    n : int
        At least 1. Besides, a call never uses more threads than ``omp_get_max_threads()`` returns
        at that moment, so threadpoolctl's limits work.

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
    """Return the number of threads that calls use by default for arrays large enough to gain by it.

    Initially it is FASTDROP_NUM_THREADS or OMP_NUM_THREADS if one of them is set. Otherwise it is
    the number of CPUs that this process may use by its affinity and its control group's quota.

    Returns
    -------
    int
        The number of threads.
    """
    return default_threads


def openmp_version():
    """Return the date (yyyymm) of this build's OpenMP standard, or 0 for a build without OpenMP."""
    return FD_OPENMP


def compiler():
    """Return the name and version of the C compiler of this build."""
    return FD_COMPILER.decode()


def openmp_max_threads():
    """Return ``omp_get_max_threads()`` of the library that this module uses."""
    return fd_max_threads()


cdef int checked_threads(n) except -1:
    try:
        count = index(n)
    except TypeError:
        raise TypeError(f"num_threads: expected an integer, got {type(n).__name__}") from None
    if count < 1:
        raise ValueError(f"num_threads: expected at least 1, got {count}")
    return min(count, 1024)    # more would only exhaust the system


cdef class AtMost:
    """A value of `num_threads`: the library decides, but takes no more than `n` threads.

    The threads are those of `lend_threads`, if there are any.

    Parameters
    ----------
    n : int
        At least 1.
    """
    cdef uint64_t n

    def __init__(self, n):
        self.n = checked_threads(n)


cdef double work(const fd_job *job, uint64_t n, uint64_t bytes_moved) noexcept nogil:
    """Nanoseconds that one thread of a Zen 4 takes for n elements: bytes written, planes drawn."""
    cdef double planes = 0
    cdef uint32_t digits
    if job.op == FD_NORMAL_SCALE or job.op == FD_NORMAL_ADD:
        return 0.8 * n
    if job.bits != NULL and job.bits.packed == NULL:
        digits = <uint32_t>job.bits.threshold
        while digits and planes < 12:       # after that nothing is undecided any more
            digits <<= 1
            planes += 1
    return 0.022 * bytes_moved + 0.008 * planes * n


cdef int size_class(uint64_t nbytes) noexcept nogil:
    cdef int bits = 0
    while nbytes:
        nbytes >>= 1
        bits += 1
    return bits


def lend_threads(bytes path):
    """Compute calls with `AtMost` on the OpenMP threads of a library, if it is loaded and has any.

    Parameters
    ----------
    path : bytes
        The path of the library.

    Returns
    -------
    bool
        Whether the library lends its threads.
    """
    cdef void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD)    # stays open, like its loader's
    cdef void *parallel = NULL
    if library != NULL:
        parallel = dlsym(library, b"GOMP_parallel")    # this also searches what it is linked with
    if parallel == NULL:
        return False
    fd_pool_lend(<fd_parallel>parallel)
    return True


cdef double now() noexcept:
    """Nanoseconds on a clock."""
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1e9 + time.tv_nsec


cdef void learn_speed(uint64_t nbytes, double times) noexcept nogil:
    """Remember that a call on one thread took `times` as long as `work` estimates.

    Fresh memory and other programs can only make a call longer. So shorter calls count more, and a
    single long call does not decide. If two threads learn at once, one of them may learn in vain.
    """
    cdef double *known = &slowness[size_class(nbytes)]
    times = min(max(times, 0.25), 4.0)
    known[0] += (times - known[0]) / (2 if times < known[0] else 4)


cdef double estimate(const fd_job *job, uint64_t n, uint64_t bytes_moved) noexcept nogil:
    """Nanoseconds that one thread of this machine takes for n elements, as far as is known."""
    return work(job, n, bytes_moved) * slowness[size_class(bytes_moved)]


cdef int most_threads() noexcept nogil:
    """As many threads as a call takes if nobody says how many."""
    return <int>max(1, min(default_threads, fd_max_threads()))


cdef crew crew_for(uint64_t n, double nanoseconds, num_threads) except *:
    if num_threads is None:
        return own_crew(n, nanoseconds)
    if type(num_threads) is AtMost:
        most = min(<uint64_t>most_threads(), (<AtMost>num_threads).n)
        pay = LENT_THREADS_PAY if fd_pool_lends() else THREADS_PAY
        return crew(1 if nanoseconds < pay else at_most_tiles(n, most), FD_LENT)
    return crew(at_most_tiles(n, checked_threads(num_threads) if FD_OPENMP else 1), FD_ASLEEP)


cdef crew own_crew(uint64_t n, double nanoseconds) noexcept:
    """As many threads as gain on n elements that take one thread so long."""
    return crew(1 if nanoseconds < THREADS_PAY else at_most_tiles(n, most_threads()), FD_ASLEEP)


cdef crew step_crew(uint64_t n, double nanoseconds) noexcept:
    """The same between the products of a training step."""
    pays = nanoseconds >= AWAKE_THREADS_PAY
    return crew(at_most_tiles(n, most_threads()) if pays else 1, FD_SPINNING)


cdef int at_most_tiles(uint64_t n, uint64_t threads) noexcept:
    cdef uint64_t tiles = (n + <uint64_t>FD_TILE - 1) // <uint64_t>FD_TILE
    return <int>max(<uint64_t>1, min(threads, tiles))


cdef void run_shares(fd_share f, crew who, void *argument) noexcept nogil:
    fd_pool_run(f, who.threads, argument, who.helpers)


cdef bint offer_shares(fd_share f, int shares, void *argument) noexcept nogil:
    return fd_pool_offer(f, shares, argument)


cdef void settle_shares(void *argument) noexcept nogil:
    fd_pool_settle(argument)


cdef struct walk:
    const fd_job *job
    uint64_t n
    uint64_t head


cdef void walk_share(int share, int shares, void *argument) noexcept nogil:
    """Computes some of the tiles; the first share also has the elements before them."""
    cdef const walk *w = <const walk *>argument
    cdef uint64_t tiles = (w.n - w.head + <uint64_t>FD_TILE - 1) // <uint64_t>FD_TILE
    cdef uint64_t first = w.head + tiles * share // shares * FD_TILE
    cdef uint64_t last = w.head + tiles * (share + 1) // shares * FD_TILE
    if share == 0:
        fd_run(w.job, 0, w.head)
    fd_run(w.job, first, min(last, w.n) - first)


cdef void run(const fd_job *job, uint64_t n, uint64_t head, crew who) noexcept:
    """Computes elements [0, n) in tiles that start at element `head`, with the rest before it."""
    cdef walk w = walk(job=job, n=n, head=head)
    if who.threads == 1 and n < GIL_RELEASE_PAYS:
        walk_share(0, 1, &w)
    else:
        with nogil:
            run_shares(walk_share, who, &w)


cdef struct summing:
    const fd_job *job
    uint64_t rows
    uint64_t units
    uint64_t blocks
    char *sums
    size_t stride


cdef void summing_share(int share, int shares, void *argument) noexcept nogil:
    cdef const summing *s = <const summing *>argument
    cdef fd_job job = s.job[0]
    cdef uint64_t b, first, last
    for b in range(s.blocks * share // shares, s.blocks * (share + 1) // shares):
        first = s.rows * b // s.blocks * s.units
        last = s.rows * (b + 1) // s.blocks * s.units
        job.column_sum = s.sums + b * s.stride
        fd_run(&job, first, last - first)


cdef void run_blocks(fd_job *job, uint64_t n, cnp.ndarray partial, crew who) noexcept:
    """Computes n elements in as many blocks as `partial` has, so sums never depend on threads."""
    cdef uint64_t units = cnp.PyArray_DIM(partial, 2)
    cdef summing s = summing(
        job=job, rows=n // units if units else 0, units=units, blocks=cnp.PyArray_DIM(partial, 0),
        sums=<char *>cnp.PyArray_DATA(partial), stride=cnp.PyArray_STRIDE(partial, 0),
    )
    job.sum_period = units * <uint64_t>cnp.PyArray_DIM(partial, 1)
    if who.threads == 1 and n < GIL_RELEASE_PAYS:
        summing_share(0, 1, &s)
        return
    with nogil:
        run_shares(summing_share, who, &s)

# ---- arrays ------------------------------------------------------------------------------------

cdef int bfloat16_num = cnp.NPY_NOTYPE    # ml_dtypes' type number, known once such an array comes

# bfloat16 without ml_dtypes: arrays of this very dtype object, which only `memory` makes
cdef object bfloat16_bits = np.dtype(np.uint16, metadata={"holds": "bfloat16"})

MEMORY_DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": bfloat16_bits,
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


def memory(uintptr_t address, tuple shape, cnp.dtype dtype):
    """Return an array over memory that somebody else owns, and keeps while the array is used.

    Parameters
    ----------
    address : int
        Address of the first element, aligned to the dtype's size. The elements lie in C order.
    shape : tuple of int
        The shape of the array.
    dtype : dtype
        One of MEMORY_DTYPES.

    Returns
    -------
    ndarray
        A writeable array.

    Raises
    ------
    TypeError, ValueError
        If no array can be like that. Nothing can check whether the memory is there.
    """
    cdef cnp.npy_intp dims[FD_MAX_DIMS]
    cdef Py_ssize_t d, ndim = len(shape)
    code_of(dtype, "dtype")
    if ndim > FD_MAX_DIMS:
        raise ValueError(f"shape: expected at most {FD_MAX_DIMS} axes, got {ndim}")
    if address == 0 or address % <uintptr_t>dtype.itemsize:
        raise ValueError(f"address: expected one aligned for {dtype}, got {address}")
    for d in range(ndim):
        dims[d] = shape[d]
    Py_INCREF(dtype)    # the next call takes over a reference
    return PyArray_NewFromDescr(<PyTypeObject *>cnp.ndarray, dtype, ndim, dims, NULL, <void *>address,
                                cnp.NPY_ARRAY_CARRAY, NULL)


def want_huge_pages(uintptr_t address, size_t nbytes):
    """Ask the system for huge pages in fresh memory, whose faults cost a third of small ones'.

    This applies to whole pages inside [address, address + nbytes). Without huge pages nothing is
    done.
    """
    cdef uintptr_t page = 1 << 16           # no system has larger ones
    cdef uintptr_t first = (address + page - 1) & ~(page - 1)
    cdef uintptr_t last = (address + nbytes) & ~(page - 1)
    if first < last:
        fd_want_huge_pages(<void *>first, last - first)


cdef int dtype_of(cnp.ndarray x, str name="x") except -1:
    return code_of(<cnp.dtype>cnp.PyArray_DESCR(x), name)


cdef int code_of(cnp.dtype dtype, str name) except -1:
    global bfloat16_num
    cdef int type_num = dtype.type_num
    if type_num == cnp.NPY_FLOAT32:
        return FD_FLOAT32
    if type_num == cnp.NPY_FLOAT64:
        return FD_FLOAT64
    if type_num == cnp.NPY_FLOAT16:
        return FD_FLOAT16
    if type_num == bfloat16_num:
        return FD_BFLOAT16
    if dtype is bfloat16_bits:
        return FD_BFLOAT16
    if type_num >= 256 and dtype.name == "bfloat16" and dtype.itemsize == 2:
        bfloat16_num = type_num
        return FD_BFLOAT16
    raise TypeError(
        f"{name}: expected an array of float16, bfloat16, float32 or float64, "
        f"got {'records' if (<object>dtype).names else dtype}"
    )


cdef cnp.ndarray as_input(x, str name="x"):
    cdef cnp.ndarray a = x if type(x) is np.ndarray else np.asarray(x)
    dtype_of(a, name)
    return a


cdef bint is_same(cnp.ndarray a, cnp.ndarray b):
    """Tell whether two arrays of one shape have their elements at the same places."""
    if cnp.PyArray_DATA(a) != cnp.PyArray_DATA(b):
        return False
    return (is_plain(a) and is_plain(b)) or (<object>a).strides == (<object>b).strides


cdef bint may_share(cnp.ndarray a, cnp.ndarray b):
    """Tell whether their stretches of memory overlap. This is exact for contiguous arrays."""
    if is_plain(a) and is_plain(b):
        return do_meet(a, b)
    return np.shares_memory(a, b)


cdef int check_apart(cnp.ndarray out, cnp.ndarray other, str name) except -1:
    if may_share(other, out) and not is_same(other, out):
        raise ValueError(
            f"out: expected {name} itself or memory apart from it, got an overlapping array"
        )
    return 0


cdef int check_out(cnp.ndarray x, out, str name="x") except -1:
    check_like(x, out, "out")
    if not cnp.PyArray_ISWRITEABLE(out):
        raise ValueError("out: expected a writeable array, got a read-only one")
    return check_apart(out, x, name)


def identity(x, out):
    """Return x itself, or `out` with the values of x: dropout where nothing is dropped."""
    cdef cnp.ndarray a = as_input(x)
    if out is None:
        return a
    check_out(a, out)
    np.copyto(out, a)
    return out


cdef bint long_runs(const fd_bits *bits) noexcept:
    """Tell whether a stored bit decides on enough elements to pay for a wrong branch."""
    if bits.packed == NULL:
        return False
    return bits.stride[bits.ndim - 1] == 0 and bits.shape[bits.ndim - 1] >= 512


cdef cnp.ndarray prepare(fd_job *job, uint64_t n, cnp.ndarray x, out):
    """Fill in x, of which n elements are expected, and y; return y, which is `out` or a new array.

    Only kernels may run after this, because both arrays are checked here for the last time.
    """
    cdef cnp.ndarray source = x, y
    if <uint64_t>cnp.PyArray_SIZE(x) != n:
        raise changed("x", x)
    dtype_of(x)    # before `out` is blamed for it
    if out is not None:
        check_out(x, out)
    if out is not None and is_plain(out):
        y = out
    else:
        y = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    if not is_plain(x):
        np.copyto(y, x)
        source = y
    job.kernels = active
    job.dtype = <fd_dtype>dtype_of(x)
    if not is_now(source, n, x):
        raise changed("x", x)
    if not is_now(y, n, x) or not cnp.PyArray_ISWRITEABLE(y):
        raise changed("out", y)
    job.x = cnp.PyArray_DATA(source)
    job.y = cnp.PyArray_DATA(y)
    job.bools = NULL
    return y


cdef bint is_now(cnp.ndarray a, uint64_t n, cnp.ndarray like) noexcept:
    """Tell whether an array that was checked before still has n plain elements of like's dtype."""
    return (<uint64_t>cnp.PyArray_SIZE(a) == n and is_plain(a)
            and cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(like))


cdef object changed(str name, cnp.ndarray a):
    return ValueError(
        f"{name}: expected an array that stays as it is during the call, got one that is now "
        f"{a.dtype} of shape {(<object>a).shape}"
    )


cdef uint64_t touched(const fd_job *job, uint64_t nbytes) noexcept nogil:
    """Return the number of bytes of x and y together."""
    return nbytes * (1 if job.x == job.y else 2)


cdef bint overflows(const fd_job *job, uint64_t nbytes) noexcept nogil:
    """Tell whether x and y together exceed the last-level cache, so that y is written around it."""
    return touched(job, nbytes) >= last_cache_bytes


cdef bint in_doubt(const fd_job *job, uint64_t nbytes) noexcept nogil:
    """Tell whether x and y may not fit into our part of a cache that has room for both."""
    return (job.bits != NULL and touched(job, nbytes) >= last_cache_bytes // 4
            and not overflows(job, nbytes))


cdef stores *tries_of(const fd_job *job, uint64_t nbytes, int threads) noexcept nogil:
    """Return what is known of calls like this one."""
    return &tried[2 * (threads > 1) + (touched(job, nbytes) >= last_cache_bytes // 2)]


cdef int goes_around(const fd_job *job, uint64_t nbytes, int threads) noexcept nogil:
    """Tell whether y is to be written around the cache."""
    cdef const stores *known = tries_of(job, nbytes, threads)
    if not in_doubt(job, nbytes):
        return overflows(job, nbytes)
    if known.untried > 0:    # other threads count as well
        # 0, 1, 1, 0, ...: both kinds forward and both backward, where these two take turns
        return (known.untried >> 1) % 2
    return known.quickest[1] * GOING_AROUND_PAYS < known.quickest[0]


cdef int teaches(const fd_job *job, uint64_t nbytes, int threads, double expected) noexcept nogil:
    """Tell whether a call, expected to take so many nanoseconds, is worth a look at the clock."""
    return expected >= WORTH_TIMING and (threads == 1 or in_doubt(job, nbytes))


cdef void learn(const fd_job *job, uint64_t nbytes, int threads, double times) noexcept nogil:
    """Remember that a call that teaches took `times` as long as `work` estimates."""
    cdef stores *known = tries_of(job, nbytes, threads)
    if threads == 1:
        learn_speed(nbytes, times)
    if in_doubt(job, nbytes) and known.untried > 0:
        known.quickest[job.stream] = min(known.quickest[job.stream], times)
        known.untried -= 1


cdef object finish(cnp.ndarray y, out):
    """Return y, copied into `out` if that is given and is another array."""
    if out is None or y is out:
        return y
    np.copyto(out, y)
    return out


cdef object apply(fd_job *job, uint64_t n, cnp.ndarray x, out, num_threads,
                  cnp.ndarray partial=None):
    """Fill in x, of which n elements are expected, y, and how to walk; run; return y.

    Each row of `partial` gets the column sums of a block of rows of y.
    """
    cdef uint64_t itemsize = cnp.PyArray_ITEMSIZE(x)
    cdef crew who = crew_for(n, estimate(job, n, n * itemsize), num_threads)
    cdef cnp.ndarray y = prepare(job, n, x, out)
    if partial is not None:
        run_blocks(job, n, partial, who)
    else:
        run_aligned(job, n, cnp.PyArray_ITEMSIZE(y), who)
    return finish(y, out)


cdef void run_aligned(fd_job *job, uint64_t n, uint64_t itemsize, crew who) noexcept:
    """Do what `run` does, with the stores and the loop that suit x, y and the mask best."""
    cdef uint64_t head = 0, nbytes = n * itemsize
    cdef double expected = work(job, n, nbytes), start = 0
    if teaches(job, nbytes, who.threads, expected):
        start = now()
    if job.packed == NULL and n >= ALIGNING_PAYS:
        # so that each vector lies within one cache line
        head = (-<uintptr_t>job.y) % 64 // itemsize
    job.stream = ((<uintptr_t>job.y + head * itemsize) % 64 == 0
                  and goes_around(job, nbytes, who.threads))
    if job.op == FD_SCALE and not job.stream and long_runs(job.bits):
        job.op = FD_SCALE_RUNS
    run(job, n, head, who)
    if start:
        learn(job, nbytes, who.threads, (now() - start) / expected)

# ---- masks -------------------------------------------------------------------------------------


cdef int generate(fd_bits *bits, double p, uint64_t seed, uint64_t call,
                  uint64_t offset) except -1:
    """Make the bits come from the generator, one for each element."""
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability, 0 <= p <= 1, got {p}")
    bits.kernels = active
    fd_key_init(&bits.key, seed, call)
    bits.threshold = fd_threshold(p)
    bits.offset = offset
    bits.packed = NULL
    return 0


cdef uint64_t set_of(tuple axes, int ndim) except? 0xFFFFFFFFFFFFFFFF:
    """Return the axes, each a number in [0, ndim), as bits; ndim is at most FD_MAX_DIMS."""
    cdef uint64_t shared = 0
    cdef Py_ssize_t axis
    for axis in axes:
        if not 0 <= axis < ndim:
            raise ValueError(f"axes: expected numbers in [0, {ndim}), got {axis}")
        shared |= <uint64_t>1 << axis
    return shared


cdef uint64_t lay_out(fd_bits *bits, cnp.ndarray x, uint64_t shared_axes) noexcept:
    """Make the bits come from a mask with the shared axes set to 1; return its size."""
    cdef uint64_t stride = 1
    cdef int d, groups = 0, ndim = cnp.PyArray_NDIM(x)
    cdef bint shared, before = False
    cdef uint64_t shape[FD_MAX_DIMS]
    cdef uint64_t strides[FD_MAX_DIMS]
    for d in range(ndim - 1, -1, -1):       # innermost first; neighbours of one kind are merged
        shared = shared_axes >> d & 1
        if groups and shared == before:
            shape[groups - 1] *= cnp.PyArray_DIM(x, d)
        else:
            shape[groups] = cnp.PyArray_DIM(x, d)
            strides[groups] = 0 if shared else stride
            groups += 1
        if not shared:
            stride *= cnp.PyArray_DIM(x, d)
        before = shared
    if groups == 0:                         # a 0-d array has one bit
        shape[0] = strides[0] = groups = 1
    bits.kernels = active
    bits.ndim = groups
    for d in range(groups):
        bits.shape[d] = shape[groups - 1 - d]
        bits.stride[d] = strides[groups - 1 - d]
    return stride


cdef int store(fd_bits *bits, uint64_t n, cnp.ndarray packed) except -1:
    """Take the n bits of `packed`, which has to exist while they are used."""
    if (cnp.PyArray_TYPE(packed) != cnp.NPY_UINT8 or not is_plain(packed)
            or <uint64_t>cnp.PyArray_SIZE(packed) != (n + 7) // 8):
        raise ValueError(
            f"mask: expected {(n + 7) // 8} contiguous bytes of uint8 for {n} packed bits, "
            f"got {packed.dtype} of shape {(<object>packed).shape}"
        )
    bits.packed = <const uint8_t *>cnp.PyArray_DATA(packed)
    bits.packed_bytes = cnp.PyArray_SIZE(packed)
    return 0


cdef cnp.ndarray empty_bytes(uint64_t n):
    cdef cnp.npy_intp dims[1]
    dims[0] = <cnp.npy_intp>n
    return cnp.PyArray_EMPTY(1, dims, cnp.NPY_UINT8, 0)


def make_mask(uint64_t n, double p, uint64_t seed, uint64_t call, uint64_t offset, bint packed,
              num_threads):
    """Return the mask bits of n elements as a flat uint8 array, packed or one byte each."""
    cdef fd_bits bits
    cdef fd_job job
    if n > MOST_ELEMENTS:
        raise ValueError(f"n: expected at most {MOST_ELEMENTS} elements, got {n}")
    generate(&bits, p, seed, call, offset)
    cdef cnp.ndarray mask = empty_bytes((n + 7) // 8 if packed else n)
    memset(&job, 0, sizeof(job))
    job.kernels = active
    job.bits = &bits
    cdef crew who = crew_for(n, estimate(&job, n, cnp.PyArray_SIZE(mask)), num_threads)
    job.packed = <uint8_t *>cnp.PyArray_DATA(mask) if packed else NULL
    job.bools = NULL if packed else <uint8_t *>cnp.PyArray_DATA(mask)
    run(&job, n, 0, who)
    return mask


cdef cnp.ndarray draw_shared(fd_bits *bits, cnp.ndarray x, uint64_t shared_axes, double p,
                             uint64_t seed, uint64_t call, uint64_t offset, num_threads):
    """Make the bits come from the packed mask with these axes set to 1; return this mask."""
    cdef uint64_t n = lay_out(bits, x, shared_axes)
    cdef cnp.ndarray mask = make_mask(n, p, seed, call, offset, True, num_threads)
    store(bits, n, mask)
    return mask


cdef object masked(fd_job *job, cnp.ndarray x, double p, uint64_t seed, uint64_t call, tuple axes,
                   uint64_t offset, out, bint return_mask, num_threads):
    """Call `apply` with the mask of (seed, call, p); return y, or (y, packed mask)."""
    cdef fd_bits bits
    cdef cnp.ndarray mask
    cdef uint64_t shared = set_of(axes, cnp.PyArray_NDIM(x)), n = cnp.PyArray_SIZE(x)
    job.bits = &bits
    if shared:
        mask = draw_shared(&bits, x, shared, p, seed, call, offset, num_threads)
        y = apply(job, n, x, out, num_threads)
    else:
        generate(&bits, p, seed, call, offset)
        if not return_mask:
            return apply(job, n, x, out, num_threads)
        mask = empty_bytes((n + 7) // 8)
        job.packed = <uint8_t *>cnp.PyArray_DATA(mask)
        y = apply(job, n, x, out, num_threads)
    return (y, mask) if return_mask else y

# ---- operations --------------------------------------------------------------------------------


cdef void set_op(fd_job *job, fd_op op, double scale) noexcept:
    memset(job, 0, sizeof(fd_job))
    job.op = op
    job.scale = scale


def masked_scale(x, double p, double scale, uint64_t seed, uint64_t call, tuple axes,
                 uint64_t offset, out, bint return_mask, num_threads):
    """Return x * scale where the mask of (seed, call, p) keeps, and +0.0 elsewhere.

    `axes` are the shared axes, each in [0, x.ndim). The result is y, or (y, packed mask).
    """
    cdef fd_job job
    set_op(&job, FD_SCALE, scale)
    return masked(&job, as_input(x), p, seed, call, axes, offset, out, return_mask, num_threads)


def masked_scale_memory(uintptr_t x, uintptr_t y, uint64_t n, cnp.dtype dtype, double p,
                        double scale, uint64_t seed, num_threads):
    """Do what masked_scale does, from n aligned elements in C order at address x to address y.

    dtype is one of MEMORY_DTYPES. call, offset and axes are 0, 0 and (). The caller guarantees that
    the memory is there.
    """
    cdef fd_job job
    cdef fd_bits bits
    cdef uint64_t itemsize = dtype.itemsize
    set_op(&job, FD_SCALE, scale)
    generate(&bits, p, seed, 0, 0)
    job.kernels = active
    job.bits = &bits
    job.dtype = <fd_dtype>code_of(dtype, "dtype")
    if n > MOST_ELEMENTS or x == 0 or y == 0 or x % itemsize or y % itemsize:
        raise ValueError(
            f"x, y, n: expected addresses aligned for {dtype} and at most {MOST_ELEMENTS} elements, "
            f"got {x}, {y} and {n}"
        )
    job.x = <const void *>x
    job.y = <void *>y
    run_aligned(&job, n, itemsize, crew_for(n, estimate(&job, n, n * itemsize), num_threads))


def apply_packed(x, cnp.ndarray packed, double scale, tuple axes, out, num_threads):
    """Do masked_scale with the bits of `packed`, a contiguous uint8 array of the right length."""
    cdef fd_bits bits
    cdef fd_job job
    cdef cnp.ndarray a = as_input(x)
    cdef uint64_t shared, n
    if out is not None:
        check_out(a, out)
        if np.may_share_memory(out, packed):    # packed would be overwritten before it is read
            packed = np.array(packed)
    shared = set_of(axes, cnp.PyArray_NDIM(a))
    n = cnp.PyArray_SIZE(a)
    store(&bits, lay_out(&bits, a, shared), packed)
    set_op(&job, FD_SCALE, scale)
    job.bits = &bits
    return apply(&job, n, a, out, num_threads)


cdef cnp.ndarray second(cnp.ndarray x, other, str name, out):
    """Return `other`, checked to be like x, in a form that kernels can read."""
    check_like(x, other, name)
    if out is not None:
        check_out(x, out)
        check_apart(out, other, name)
    # Kernels read z where they write y. Otherwise x is copied to y first, which may be z.
    if not is_plain(other) or (not is_plain(x) and out is not None and is_same(out, other)):
        other = np.array(other, x.dtype.newbyteorder("="), order="C")
    check_like(x, other, name)    # as both are now
    return other


def masked_add(x, residual, double p, double scale, uint64_t seed, uint64_t call, tuple axes,
               uint64_t offset, out, num_threads):
    """Return masked_scale(x) + residual."""
    cdef fd_job job
    cdef cnp.ndarray a = as_input(x)
    cdef cnp.ndarray z = second(a, residual, "residual", out)
    set_op(&job, FD_ADD, scale)
    job.z = cnp.PyArray_DATA(z)
    return masked(&job, a, p, seed, call, axes, offset, out, False, num_threads)


def masked_pick(x, previous, double p, uint64_t seed, uint64_t call, tuple axes, uint64_t offset,
                out, num_threads):
    """Return x where the mask of (seed, call, p) keeps, and `previous` elsewhere."""
    cdef fd_job job
    cdef cnp.ndarray a = as_input(x)
    cdef cnp.ndarray z = second(a, previous, "previous", out)
    set_op(&job, FD_PICK, 1)
    job.z = cnp.PyArray_DATA(z)
    return masked(&job, a, p, seed, call, axes, offset, out, False, num_threads)


def masked_alpha(x, double p, double scale, double shift, double fill, uint64_t seed,
                 uint64_t call, tuple axes, uint64_t offset, out, num_threads):
    """Return x * scale + shift where the mask of (seed, call, p) keeps, and `fill` elsewhere."""
    cdef fd_job job
    set_op(&job, FD_ALPHA, scale)
    job.shift = shift
    job.fill = fill
    return masked(&job, as_input(x), p, seed, call, axes, offset, out, False, num_threads)


def normal_noise(x, bint multiply, double scale, uint64_t seed, uint64_t call, uint64_t offset,
                 out, num_threads):
    """Return x * (1 + scale * z) or, without `multiply`, x + scale * z; z are normal variates."""
    cdef fd_job job
    cdef fd_bits bits
    set_op(&job, FD_NORMAL_SCALE if multiply else FD_NORMAL_ADD, scale)
    generate(&bits, 0, seed, call, offset)
    job.bits = &bits
    cdef cnp.ndarray a = as_input(x)
    return apply(&job, cnp.PyArray_SIZE(a), a, out, num_threads)


cdef struct dropping:
    fd_blocks blocks
    uint64_t samples
    uint64_t words      # scratch memory of each share
    uint64_t *memory


cdef void dropping_share(int share, int shares, void *argument) noexcept nogil:
    cdef const dropping *d = <const dropping *>argument
    cdef uint64_t s
    for s in range(d.samples * share // shares, d.samples * (share + 1) // shares):
        fd_drop_blocks(&d.blocks, s, d.memory + d.words * share)


def drop_blocks(x, uint64_t block, double gamma, uint64_t seed, uint64_t call, uint64_t offset,
                out, num_threads):
    """Apply DropBlock to (samples, maps, height, width); gamma is the probability of a corner."""
    cdef cnp.ndarray a = as_input(x), y, scratch
    cdef uint64_t n, size
    cdef crew who
    cdef fd_bits bits
    cdef dropping d
    cdef fd_blocks *blocks = &d.blocks
    if cnp.PyArray_NDIM(a) != 4:
        raise ValueError(f"x: expected 4 axes, got shape {(<object>a).shape}")
    d.samples, blocks.maps = cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1)
    blocks.height, blocks.width = cnp.PyArray_DIM(a, 2), cnp.PyArray_DIM(a, 3)
    blocks.block = block
    n = cnp.PyArray_SIZE(a)
    if not 1 <= block <= min(blocks.height, blocks.width):
        raise ValueError(f"block: expected one that fits on shape {(<object>a).shape}, got {block}")
    set_op(&blocks.job, FD_SCALE, 1)
    generate(&bits, gamma, seed, call, offset)
    blocks.job.bits = &bits
    who = crew_for(n, estimate(&blocks.job, n, cnp.PyArray_NBYTES(a)), num_threads)
    who.threads = <int>max(<uint64_t>1, min(<uint64_t>who.threads, d.samples))
    d.words = fd_blocks_scratch(blocks) if n else 0
    scratch = empty_bytes(8 * d.words * <uint64_t>who.threads)
    d.memory = <uint64_t *>cnp.PyArray_DATA(scratch)
    y = prepare(&blocks.job, n, a, out)
    size = blocks.maps * blocks.height * blocks.width * cnp.PyArray_ITEMSIZE(y)
    blocks.job.stream = (overflows(&blocks.job, d.samples * size) and size % 64 == 0
                         and <uintptr_t>blocks.job.y % 64 == 0)
    if n:
        with nogil:
            run_shares(dropping_share, who, &d)
    return finish(y, out)


cdef cnp.ndarray cyclic_bias(cnp.ndarray x, bias):
    """Return the bias, repeated for a tile's length, so that a tile finds its part in one piece."""
    if cnp.PyArray_NDIM(x) == 0:
        raise ValueError("x: expected at least one axis, got a 0-d array")
    check_is_array(bias, "bias")
    cdef cnp.npy_intp units = cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
    if bias.shape != (units,):
        raise ValueError(f"bias: expected shape ({units},), got {bias.shape}")
    if not np.can_cast(bias.dtype, x.dtype, "equiv"):
        raise TypeError(f"bias: expected dtype {x.dtype}, got {bias.dtype}")
    cdef cnp.npy_intp dims[1]
    dims[0] = units + FD_TILE
    cdef cnp.ndarray result = cnp.PyArray_EMPTY(1, dims, cnp.PyArray_TYPE(x), 0)
    (<object>result)[:units] = bias
    go_on(<char *>cnp.PyArray_DATA(result), units * cnp.PyArray_ITEMSIZE(x),
          cnp.PyArray_NBYTES(result))
    return result


cdef void go_on(char *data, size_t done, size_t total) noexcept:
    """Repeat the first `done` bytes, which are there, until there are `total`."""
    cdef size_t piece
    while 0 < done < total:
        piece = min(done, total - done)
        memcpy(data + done, data, piece)
        done += piece


def masked_bias(x, bias, bint relu, double p, double scale, uint64_t seed, uint64_t call,
                tuple axes, uint64_t offset, out, num_threads):
    """Return masked_scale(x + bias) or, with relu, masked_scale(relu(x + bias))."""
    cdef fd_job job
    cdef cnp.ndarray a = as_input(x)
    cdef cnp.ndarray z = cyclic_bias(a, bias)
    set_op(&job, FD_BIAS_RELU if relu else FD_BIAS, scale)
    job.z = cnp.PyArray_DATA(z)
    job.z_period = cnp.PyArray_SIZE(z) - FD_TILE
    return masked(&job, a, p, seed, call, axes, offset, out, False, num_threads)

# Elements of a block of rows whose columns are summed apart, which a thread takes at a time
cdef Py_ssize_t SUMMED_APART = 1 << 15


cdef cnp.ndarray block_sums(cnp.npy_intp n, cnp.npy_intp units, bint is_double):
    """Return zeros for the column sums of 1 to 16 blocks of rows, n elements in all; short rows are
    summed in bundles."""
    cdef cnp.npy_intp rows = n // max(1, units)
    cdef cnp.npy_intp dims[3]
    dims[0] = max(1, min(16, rows, n // SUMMED_APART))
    dims[1] = max(1, min(512 // max(1, units), rows // dims[0]))
    dims[2] = units
    return cnp.PyArray_ZEROS(3, dims, cnp.NPY_FLOAT64 if is_double else cnp.NPY_FLOAT32, 0)


ctypedef fused real:
    float
    double


cdef void add_rows(const real *x, Py_ssize_t rows, Py_ssize_t units, real *total) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef double sum = 0
    if units == 1:    # a number for each row of a batch, of which there may be many
        for i in range(rows):
            sum += x[i]
        total[0] = <real>sum
        return
    for j in range(units):
        total[j] = x[j]
    for i in range(1, rows):
        for j in range(units):
            total[j] += x[i * units + j]


cdef void sum_of(cnp.ndarray partial, void *total) noexcept nogil:
    """Adds up the blocks, row after row."""
    cdef cnp.npy_intp rows = cnp.PyArray_DIM(partial, 0) * cnp.PyArray_DIM(partial, 1)
    cdef cnp.npy_intp units = cnp.PyArray_DIM(partial, 2)
    if cnp.PyArray_TYPE(partial) == cnp.NPY_FLOAT64:
        add_rows[double](<const double *>cnp.PyArray_DATA(partial), rows, units, <double *>total)
    else:
        add_rows[float](<const float *>cnp.PyArray_DATA(partial), rows, units, <float *>total)


def bias_backward(dy, y, bint relu, double p, double scale, uint64_t seed, uint64_t call,
                  tuple axes, uint64_t offset, out, num_threads):
    """Return gradients (dx, dbias) of masked_bias, with relu from its output y, else from the mask.

    dbias has float32, or float64 for float64.
    """
    cdef fd_job job
    cdef fd_bits bits
    cdef cnp.ndarray a = as_input(dy, "dy"), partial, total, z, mask
    cdef uint64_t shared = set_of(axes, cnp.PyArray_NDIM(a)), n
    cdef cnp.npy_intp units
    if relu:
        z = second(a, y, "y", out)
    if cnp.PyArray_NDIM(a) == 0:
        raise ValueError("dy: expected at least one axis, got a 0-d array")
    n = cnp.PyArray_SIZE(a)
    units = cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1)
    partial = block_sums(n, units, cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64)
    if relu:
        set_op(&job, FD_RELU_BACKWARD, scale)
        job.z = cnp.PyArray_DATA(z)
    else:
        set_op(&job, FD_SCALE, scale)
        if shared:
            mask = draw_shared(&bits, a, shared, p, seed, call, offset, num_threads)
        else:
            generate(&bits, p, seed, call, offset)
        job.bits = &bits
    dx = apply(&job, n, a, out, num_threads, partial)
    total = cnp.PyArray_EMPTY(1, &units, cnp.PyArray_TYPE(partial), 0)
    sum_of(partial, cnp.PyArray_DATA(total))
    return dx, total


# ---- the same on memory that another compiled module has checked ---------------------------------

cdef int own_job(fd_job *job, fd_op op, fd_bits *bits, const mask_rule *mask, bint is_double,
                 const void *x, void *y) except -1:
    """Describe a job on n elements of float32 or float64 with an element-wise mask."""
    set_op(job, op, mask.scale)
    generate(bits, mask.p, mask.seed, mask.call, mask.offset)
    job.kernels = active
    job.bits = bits
    job.dtype = FD_FLOAT64 if is_double else FD_FLOAT32
    job.x = x
    job.y = y
    return 0


cdef int mask_memory(const void *x, void *y, uint64_t n, bint is_double,
                     const mask_rule *mask) except -1:
    """Does masked_scale."""
    cdef fd_job job
    cdef fd_bits bits
    cdef uint64_t itemsize = 8 if is_double else 4
    own_job(&job, FD_SCALE, &bits, mask, is_double, x, y)
    run_aligned(&job, n, itemsize, step_crew(n, estimate(&job, n, n * itemsize)))
    return 0


cdef int bias_memory(void *z, const void *bias, char *cyclic, uint64_t n, uint64_t units,
                     bint is_double, bint relu, const mask_rule *mask) except -1:
    """Does masked_bias in place; `cyclic` has room for `cyclic_bytes`."""
    cdef fd_job job
    cdef fd_bits bits
    cdef uint64_t itemsize = 8 if is_double else 4
    memcpy(cyclic, bias, units * itemsize)
    go_on(cyclic, units * itemsize, (units + min(n, <uint64_t>FD_TILE)) * itemsize)
    own_job(&job, FD_BIAS_RELU if relu else FD_BIAS, &bits, mask, is_double, z, z)
    job.z = cyclic
    job.z_period = units
    run_aligned(&job, n, itemsize, step_crew(n, estimate(&job, n, n * itemsize)))
    return 0


cdef size_t cyclic_bytes(uint64_t units, bint is_double) noexcept:
    return (units + FD_TILE) * (8 if is_double else 4)


cdef int bias_backward_memory(void *dy, const void *y, uint64_t n, bint is_double, bint relu,
                              const mask_rule *mask, cnp.ndarray partial, void *dbias) except -1:
    """Does bias_backward in place; `partial` is what `block_sums` returns for dy."""
    cdef fd_job job
    cdef fd_bits bits
    cdef uint64_t itemsize = 8 if is_double else 4
    own_job(&job, FD_RELU_BACKWARD if relu else FD_SCALE, &bits, mask, is_double, dy, dy)
    if relu:
        job.bits = NULL    # y shows what was kept
        job.z = y
    memset(cnp.PyArray_DATA(partial), 0, cnp.PyArray_NBYTES(partial))
    run_blocks(&job, n, partial, step_crew(n, estimate(&job, n, n * itemsize)))
    sum_of(partial, dbias)
    return 0


def stream_copy(cnp.ndarray x, cnp.ndarray out, num_threads):
    """Copy x to out around the cache: the limit that large arrays are measured against."""
    cdef fd_job job
    set_op(&job, FD_COPY, 1)
    return apply(&job, cnp.PyArray_SIZE(x), as_input(x), out, num_threads)

# ---- XLA ---------------------------------------------------------------------------------------

cdef int threads_pay(double expected, uint64_t bytes_moved) noexcept nogil:
    return expected * slowness[size_class(bytes_moved)] >= THREADS_PAY


OPS = {    # the handler's operations
    "scale": FD_SCALE,
    "add": FD_ADD,
    "bias": FD_BIAS,
    "bias relu": FD_BIAS_RELU,
    "alpha": FD_ALPHA,
    "gaussian": FD_NORMAL_SCALE,
    "noise": FD_NORMAL_ADD,
}


cdef void use_handler() noexcept:
    """Lend the handler of xla.h what it needs from here."""
    cdef fd_xla_settings settings
    settings.kernels = &active
    settings.work = work
    settings.threads_pay = threads_pay
    settings.goes_around = goes_around
    settings.teaches = teaches
    settings.learn = learn
    fd_xla_use(&settings)


def xla_handler():
    """Return the handler of xla.h as a capsule that XLA's registry of foreign functions takes."""
    use_handler()
    return PyCapsule_New(<void *>fd_xla_masked, NULL, NULL)

# ---- TensorFlow --------------------------------------------------------------------------------


def register_tensorflow_op(bytes path):
    """Make the op of tensorflow.h known to TensorFlow; calls after the first change nothing.

    Parameters
    ----------
    path : bytes
        The path of TensorFlow's library, which is loaded.

    Raises
    ------
    ImportError
        If this TensorFlow does not have the interface.
    """
    cdef void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD)    # stays open, like its loader's
    cdef const char *wrong = b"it is not loaded"
    if library != NULL:
        use_handler()
        wrong = fd_tf_register(library, most_threads)
    if wrong != NULL:
        raise ImportError(f"no op in TensorFlow's library: {wrong.decode()}")

# ---- the generator itself ----------------------------------------------------------------------


def philox(counter, uint64_t seed):
    """Return four output words of Philox4x32-10, for four counter words and a 64-bit key."""
    cdef uint32_t words[4]
    cdef uint32_t result[4]
    words[0], words[1], words[2], words[3] = counter
    fd_philox(words, seed, result)
    return result[0], result[1], result[2], result[3]


def fold_in(uint64_t seed, uint64_t call, uint64_t n):
    """Return the seed of the n-th key of the key (seed, call), for n below 2**48."""
    cdef uint32_t words[4]
    cdef uint32_t result[4]
    words[0], words[1] = <uint32_t>n, <uint32_t>(n >> 32) | FD_DOMAIN_FOLD << 21
    words[2], words[3] = <uint32_t>call, <uint32_t>(call >> 32)
    fd_philox(words, seed, result)
    return result[0] | <uint64_t>result[1] << 32


def random_words(uint64_t n, uint64_t seed, uint64_t call, uint64_t offset):
    """Return uint32 words [offset, offset + n) of domain 1, one for each element."""
    cdef fd_key key
    cdef cnp.npy_intp dims[1]
    dims[0] = <cnp.npy_intp>n
    cdef cnp.ndarray words = cnp.PyArray_EMPTY(1, dims, cnp.NPY_UINT32, 0)
    fd_key_init(&key, seed, call)
    with nogil:
        fd_words(active, &key, offset, n, <uint32_t *>cnp.PyArray_DATA(words))
    return words

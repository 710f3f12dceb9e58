# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, allow_none_for_extension_args=False
"""Matrix products on the threads of pool.h, with the same bits on every machine.

kernels/products.h says in which order numbers are added. It is the same for every instruction set,
and for every element of a product: rows and columns may be split among threads, and a row has the
same result whatever the rows beside it are.
"""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc

from fastdrop.compiled._core cimport (
    FD_SPINNING,
    active_kernels,
    crew,
    fd_product_loops,
    most_threads,
    run_shares,
)

cnp.import_array()

cdef extern from "kernels/products.h" nogil:
    ctypedef struct fd_product:
        uint64_t m
        uint64_t n
        uint64_t k
        double factor
        const void *a
        int64_t a_row
        int64_t a_column
        const void *b
        void *c
        int64_t c_row
        int add
    uint64_t fd_panels_bytes(const fd_product_loops *loops, int is_double, const fd_product *p)
    void fd_multiply(const fd_product_loops *loops, int is_double, const fd_product *p,
                     int64_t b_row, int64_t b_column, void *panels)

# Multiplications from which a second thread pays: some us on one
cdef uint64_t SPLITTING_PAYS = 1 << 18

# The least rows or columns of a share, for each share copies panels of b or goes through all of a
cdef uint64_t WIDE = 32


cdef struct product:
    fd_product whole
    const fd_product_loops *loops
    int64_t b_row, b_column
    bint is_double, by_rows
    char *memory
    uint64_t bytes    # of each share


cdef bint describe(cnp.ndarray array, int type, const void **data, int64_t *row, int64_t *column):
    """Tell whether it is a matrix of this type whose strides are multiples of its itemsize, and
    store them, in elements."""
    cdef cnp.npy_intp size = cnp.PyArray_ITEMSIZE(array)
    cdef cnp.npy_intp *strides = cnp.PyArray_STRIDES(array)
    if (cnp.PyArray_NDIM(array) != 2 or cnp.PyArray_TYPE(array) != type
            or not cnp.PyArray_ISBEHAVED_RO(array) or cnp.PyArray_SIZE(array) == 0
            or strides[0] % size or strides[1] % size):
        return False
    data[0] = cnp.PyArray_DATA(array)
    row[0], column[0] = strides[0] // size, strides[1] // size
    return True


cdef bint describe_product(cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, product *p):
    """Tell whether it is a product for the kernels."""
    cdef int type = cnp.PyArray_TYPE(a)
    cdef const void *c
    cdef int64_t c_column
    if (type not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or not cnp.PyArray_ISWRITEABLE(out)
            or not describe(a, type, &p.whole.a, &p.whole.a_row, &p.whole.a_column)
            or not describe(b, type, &p.whole.b, &p.b_row, &p.b_column)
            or not describe(out, type, &c, &p.whole.c_row, &c_column)
            or (c_column != 1 and cnp.PyArray_DIM(out, 1) != 1)
            or cnp.PyArray_DIM(a, 0) != cnp.PyArray_DIM(out, 0)
            or cnp.PyArray_DIM(b, 1) != cnp.PyArray_DIM(out, 1)
            or cnp.PyArray_DIM(a, 1) != cnp.PyArray_DIM(b, 0)):
        return False
    p.whole.c = <void *>c
    p.whole.m, p.whole.n = cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(b, 1)
    p.whole.k = cnp.PyArray_DIM(a, 1)
    p.whole.factor, p.whole.add = 1, 0
    p.is_double = type == cnp.NPY_FLOAT64
    p.loops = active_kernels().products
    p.by_rows = p.whole.m > p.whole.n    # each share goes through all of the other factor
    return True


cdef void product_share(int share, int shares, void *argument) noexcept nogil:
    """Computes some rows or columns of c."""
    cdef const product *p = <const product *>argument
    cdef fd_product part = p.whole
    cdef int64_t size = 8 if p.is_double else 4, first
    if p.by_rows:
        first = p.whole.m * share // shares
        part.m = p.whole.m * (share + 1) // shares - first
        part.a = <const char *>part.a + first * part.a_row * size
        part.c = <char *>part.c + first * part.c_row * size
    else:    # whole panels
        first = column_of(p, share, shares)
        part.n = column_of(p, share + 1, shares) - first
        part.b = <const char *>part.b + first * p.b_column * size
        part.c = <char *>part.c + first * size
    fd_multiply(p.loops, p.is_double, &part, p.b_row, p.b_column, p.memory + share * p.bytes)


cdef int64_t column_of(const product *p, int64_t share, int64_t shares) noexcept nogil:
    """Return where a share's columns start."""
    cdef int64_t panel = p.loops.panel[p.is_double], n = p.whole.n
    return n if share == shares else n * share // shares // panel * panel


cdef int multiply(cnp.ndarray a, cnp.ndarray b, cnp.ndarray out) except -1:
    """Compute np.matmul(a, b, out) for an `out` apart from `a` and `b`."""
    cdef product p
    cdef void *memory
    cdef int shares = 1
    cdef uint64_t work
    if not describe_product(a, b, out, &p):
        np.matmul(a, b, out=out)
        return 0
    work = p.whole.m * p.whole.n * p.whole.k
    if work > SPLITTING_PAYS:
        shares = <int>max(<uint64_t>1, min(<uint64_t>most_threads(),
                                           (p.whole.m if p.by_rows else p.whole.n) // WIDE))
    p.bytes = (fd_panels_bytes(p.loops, p.is_double, &p.whole) + 63) // 64 * 64
    memory = malloc(p.bytes * shares + 63)
    if memory == NULL:
        raise MemoryError
    p.memory = <char *>((<uintptr_t>memory + 63) // 64 * 64)
    if work <= SPLITTING_PAYS:
        product_share(0, 1, &p)
    else:
        with nogil:
            run_shares(product_share, crew(shares, FD_SPINNING), &p)
    free(memory)
    return 0


def matmul(cnp.ndarray a, cnp.ndarray b, out=None):
    """Compute np.matmul(a, b, out) for matrices, and an `out` apart from `a` and `b`.

    NumPy does it if they are not all of float32 or of float64, aligned and in native byte order,
    with strides that are multiples of the itemsize, or if the elements of a row of `out` lie apart.
    """
    if out is None:
        if cnp.PyArray_NDIM(a) != 2 or cnp.PyArray_NDIM(b) != 2:
            return np.matmul(a, b)
        out = np.empty((cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(b, 1)), np.result_type(a, b))
    multiply(a, b, out)
    return out

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, allow_none_for_extension_args=False
"""Rows of a sparse matrix as a network's inputs: products with a layer's weight, and dropout::

    product     z = x @ weight.T      z[i, u] is the sum of x[i, j] weight[u, j]
    gradient    g = d.T @ x           g[u, j] is the sum of d[i, u] x[i, j]    over stored x[i, j]

Both go through the batch once for a few units, whose weights are rows in memory: these stay in the
cache. Threads share the units, and each sum has the order of the stored numbers. So results depend
neither on threads nor on the instruction set.
"""

import numpy as np
cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy, memset

from fastdrop.compiled import _core
from fastdrop.compiled._core cimport FD_SPINNING, crew, mask_rule, most_threads, run_shares
from fastdrop.compiled.arrays cimport is_plain

cnp.import_array()

ctypedef fused real:
    float
    double

ctypedef fused index:
    int32_t
    int64_t

# Multiplications from which a second thread pays: some 10 us on one
cdef double MULTIPLYING_PAYS = 1 << 14


cdef class SparseRows:
    """Rows of a CSR matrix, with copies of its arrays that nobody else can change.

    Parameters
    ----------
    indptr, indices, data : ndarray
        The matrix in SciPy's form. A column may be stored several times in a row; such numbers are
        added up.
    rows : ndarray of intp
        Which of its rows to take.
    features : int
        The number of columns.
    dtype : {float32, float64}
        The dtype of the copied numbers.

    Raises
    ------
    ValueError
        When the arrays are not those of a CSR matrix with these rows and columns.
    """

    def __cinit__(self, indptr, indices, data, rows, cnp.npy_intp features, dtype):
        cdef cnp.ndarray begins, pointers = np.ascontiguousarray(indptr, np.int64)
        cdef cnp.ndarray own = np.ascontiguousarray(indices)
        cdef cnp.ndarray chosen = np.array(rows, np.intp)
        cdef cnp.ndarray numbers = np.ascontiguousarray(data, dtype)
        cdef cnp.npy_intp total = -1
        if cnp.PyArray_TYPE(own) != cnp.NPY_INT32 or not is_plain(own):
            own = np.ascontiguousarray(own, np.int64)
        self.type, self.features = cnp.PyArray_TYPE(numbers), features
        if self.type not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or not is_plain(numbers):
            raise TypeError(f"dtype: expected float32 or float64, got {dtype}")
        if (cnp.PyArray_NDIM(pointers) == cnp.PyArray_NDIM(own) == cnp.PyArray_NDIM(numbers) == 1
                and cnp.PyArray_NDIM(chosen) == 1
                and cnp.PyArray_SIZE(own) == cnp.PyArray_SIZE(numbers)):
            self.samples = cnp.PyArray_SIZE(chosen)
            begins, self.starts = np.empty_like(chosen), np.empty(self.samples + 1, np.intp)
            total = find_rows(chosen, pointers, cnp.PyArray_SIZE(own), begins, self.starts)
        if total >= 0:
            self.columns, self.values = np.empty(total, np.intp), np.empty(total, numbers.dtype)
            if cnp.PyArray_TYPE(own) == cnp.NPY_INT32:
                total = copy_rows(self, begins, <const int32_t *>cnp.PyArray_DATA(own), numbers)
            else:
                total = copy_rows(self, begins, <const int64_t *>cnp.PyArray_DATA(own), numbers)
        if total < 0:
            raise ValueError(
                f"indptr, indices, data: expected a CSR matrix with the chosen rows and {features} "
                "columns"
            )

    cdef SparseRows masked(self, const mask_rule *mask):
        """Return these rows behind a dropout whose first element is that of the first row."""
        cdef SparseRows kept = SparseRows(
            self.starts, self.columns, self.values, np.arange(self.samples), self.features,
            self.values.dtype,
        )
        cdef cnp.ndarray bits = _core.make_mask(
            self.samples * self.features, mask.p, mask.seed, mask.call, mask.offset, True, None
        )
        if self.type == cnp.NPY_FLOAT64:
            drop(kept, <const uint8_t *>cnp.PyArray_DATA(bits), mask.scale,
                 <double *>cnp.PyArray_DATA(kept.values))
        else:
            drop(kept, <const uint8_t *>cnp.PyArray_DATA(bits), mask.scale,
                 <float *>cnp.PyArray_DATA(kept.values))
        return kept

    cdef int multiply(self, cnp.ndarray weight, cnp.ndarray out) except -1:
        """Compute out = x @ weight.T; weight is (units, features), out (samples, units)."""
        self.check(weight, out, False)
        return self.run(weight, out, False)

    cdef int multiply_gradient(self, cnp.ndarray transposed, cnp.ndarray out) except -1:
        """Compute out = d.T @ x; `transposed` is d.T, d is (samples, units)."""
        self.check_gradient(transposed, out)
        return self.run(out, cnp.PyArray_Transpose(transposed, NULL), True)

    cdef int check_gradient(self, cnp.ndarray transposed, cnp.ndarray out) except -1:
        return self.check(out, cnp.PyArray_Transpose(transposed, NULL), True)

    cdef int check(self, cnp.ndarray weight, cnp.ndarray z, bint weight_is_written) except -1:
        cdef bint fit = (
            cnp.PyArray_NDIM(weight) == 2 and cnp.PyArray_NDIM(z) == 2
            and cnp.PyArray_DIM(weight, 0) == cnp.PyArray_DIM(z, 1)
            and cnp.PyArray_DIM(weight, 1) == self.features
            and cnp.PyArray_DIM(z, 0) == self.samples
            and cnp.PyArray_TYPE(weight) == self.type and cnp.PyArray_TYPE(z) == self.type
            and is_plain(weight) and is_plain(z)
            and cnp.PyArray_ISWRITEABLE(weight if weight_is_written else z)
        )
        if not fit:
            raise ValueError(
                f"weight, z: expected plain {self.values.dtype} for {self.samples} samples and "
                f"{self.features} features, got {weight.dtype} {(<object>weight).shape} and "
                f"{z.dtype} {(<object>z).shape}"
            )
        return 0

    cdef int run(self, cnp.ndarray weight, cnp.ndarray z, bint backward) except -1:
        cdef product p = product(
            starts=<const cnp.npy_intp *>cnp.PyArray_DATA(self.starts),
            columns=<const cnp.npy_intp *>cnp.PyArray_DATA(self.columns),
            values=cnp.PyArray_DATA(self.values), samples=self.samples, features=self.features,
            units=cnp.PyArray_DIM(weight, 0), weight=cnp.PyArray_DATA(weight),
            z=cnp.PyArray_DATA(z), is_double=self.type == cnp.NPY_FLOAT64, backward=backward,
        )
        cdef double multiplications = <double>cnp.PyArray_SIZE(self.values) * p.units
        cdef int shares = 1
        if multiplications >= MULTIPLYING_PAYS:
            shares = <int>max(1, min(<cnp.npy_intp>most_threads(), p.units // AT_ONCE))
        with nogil:
            run_shares(product_share, crew(shares, FD_SPINNING), &p)
        return 0


cdef enum:
    AT_ONCE = 4    # units whose sums are kept in registers


cdef struct product:
    const cnp.npy_intp *starts
    const cnp.npy_intp *columns
    const void *values
    cnp.npy_intp samples, features, units
    void *weight    # or its gradient
    void *z         # or its gradient
    bint is_double, backward


cdef void product_share(int share, int shares, void *argument) noexcept nogil:
    """Computes what belongs to some units."""
    cdef const product *p = <const product *>argument
    cdef cnp.npy_intp groups = (p.units + AT_ONCE - 1) // AT_ONCE
    cdef cnp.npy_intp first = groups * share // shares * AT_ONCE
    cdef cnp.npy_intp last = min(p.units, groups * (share + 1) // shares * AT_ONCE)
    if p.is_double:
        some_units(p, <const double *>p.values, <double *>p.weight, <double *>p.z, first, last)
    else:
        some_units(p, <const float *>p.values, <float *>p.weight, <float *>p.z, first, last)


cdef void some_units(const product *p, const real *values, real *weight, real *z,
                     cnp.npy_intp first, cnp.npy_intp last) noexcept nogil:
    cdef cnp.npy_intp u = first
    if p.backward and last > first:
        memset(weight + first * p.features, 0, (last - first) * p.features * sizeof(real))
    while u < last:
        if u + AT_ONCE <= last:
            together(p, values, weight + u * p.features, z + u, AT_ONCE)
            u += AT_ONCE
        else:
            together(p, values, weight + u * p.features, z + u, 1)
            u += 1


cdef inline void together(const product *p, const real *values, real *weight, real *z,
                          int units) noexcept nogil:
    """Computes the sums or the gradients of `units` units, a constant up to AT_ONCE."""
    cdef real[AT_ONCE] of_units
    cdef cnp.npy_intp i, k, j
    cdef real x
    cdef int u
    for i in range(p.samples):
        for u in range(units):
            of_units[u] = z[u] if p.backward else 0
        for k in range(p.starts[i], p.starts[i + 1]):
            j, x = p.columns[k], values[k]
            for u in range(units):
                if p.backward:
                    weight[u * p.features + j] += x * of_units[u]
                else:
                    of_units[u] += x * weight[u * p.features + j]
        if not p.backward:
            for u in range(units):
                z[u] = of_units[u]
        z += p.units


cdef void drop(SparseRows rows, const uint8_t *bits, double scale, real *values) noexcept:
    """Apply a packed mask of all rows' elements to those that are stored."""
    cdef const cnp.npy_intp *starts = <const cnp.npy_intp *>cnp.PyArray_DATA(rows.starts)
    cdef const cnp.npy_intp *columns = <const cnp.npy_intp *>cnp.PyArray_DATA(rows.columns)
    cdef cnp.npy_intp i, k, element
    for i in range(rows.samples):
        for k in range(starts[i], starts[i + 1]):
            element = i * rows.features + columns[k]
            values[k] = values[k] * <real>scale if bits[element >> 3] >> (element & 7) & 1 else 0


cdef cnp.npy_intp find_rows(cnp.ndarray rows, cnp.ndarray indptr, cnp.npy_intp size,
                            cnp.ndarray begins, cnp.ndarray starts) noexcept:
    """Find where rows begin in the matrix, and where in their own copies.

    Return how many numbers they have, or -1 if there are no such rows.
    """
    cdef const cnp.npy_intp *row = <const cnp.npy_intp *>cnp.PyArray_DATA(rows)
    cdef const int64_t *of_row = <const int64_t *>cnp.PyArray_DATA(indptr)
    cdef cnp.npy_intp *begin = <cnp.npy_intp *>cnp.PyArray_DATA(begins)
    cdef cnp.npy_intp *start = <cnp.npy_intp *>cnp.PyArray_DATA(starts)
    cdef int64_t end
    cdef cnp.npy_intp i
    start[0] = 0
    for i in range(cnp.PyArray_SIZE(rows)):
        if not 0 <= row[i] < cnp.PyArray_SIZE(indptr) - 1:
            return -1
        begin[i], end = of_row[row[i]], of_row[row[i] + 1]
        if not 0 <= begin[i] <= end <= size:
            return -1
        start[i + 1] = start[i] + end - begin[i]
    return start[cnp.PyArray_SIZE(rows)]


cdef cnp.npy_intp copy_rows(SparseRows to, cnp.ndarray begins, const index *indices,
                            cnp.ndarray values) noexcept:
    """Copy rows that begin there in the matrix; return -1 if a column is none of the matrix."""
    cdef const cnp.npy_intp *begin = <const cnp.npy_intp *>cnp.PyArray_DATA(begins)
    cdef const cnp.npy_intp *start = <const cnp.npy_intp *>cnp.PyArray_DATA(to.starts)
    cdef cnp.npy_intp *column = <cnp.npy_intp *>cnp.PyArray_DATA(to.columns)
    cdef cnp.npy_intp size = cnp.PyArray_ITEMSIZE(values), i, k, wrong = 0
    for i in range(to.samples):
        memcpy(cnp.PyArray_BYTES(to.values) + start[i] * size,
               cnp.PyArray_BYTES(values) + begin[i] * size, (start[i + 1] - start[i]) * size)
        for k in range(start[i + 1] - start[i]):
            column[start[i] + k] = indices[begin[i] + k]    # read once: others may write to it
            wrong |= not 0 <= column[start[i] + k] < to.features
    return -1 if wrong else start[to.samples]

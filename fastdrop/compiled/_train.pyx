# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""What a training step does besides dropout, on the threads of pool.h.

Optimisers: checks a model's parameters, gradients and states, and updates all in one go. The
formulas are in kernels/optimizers.h. Everything is checked before anything is changed. What
describes the optimiser itself is checked in optimizers.py, the only caller. At the end, matrix
products, parts of weights (blocks.py) and softmax with cross-entropy (losses.py).
"""

import numpy as np
cimport numpy as cnp
from libc.math cimport INFINITY, exp, expf, log, logf, sqrt
from libc.stdint cimport int64_t, intptr_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc

from fastdrop.compiled._core cimport active_kernels, check_is_array, fd_kernels, most_threads

cnp.import_array()

cdef extern from "pool.h" nogil:
    ctypedef void (*fd_share)(int share, int shares, void *argument) noexcept nogil
    void fd_pool_run(fd_share f, int shares, void *argument)

cdef extern from "blas_threads.h" nogil:
    ctypedef int (*fd_get_threads)() noexcept nogil
    ctypedef void (*fd_set_threads)(int n) noexcept nogil
    int fd_blas_enter(fd_get_threads get, fd_set_threads set)
    void fd_blas_leave(fd_get_threads get, fd_set_threads set)
    void fd_blas_after_fork(fd_set_threads set)

cdef extern from "kernels/optimizers.h" nogil:
    ctypedef enum fd_optimizer:
        FD_SGD
        FD_MOMENTUM
        FD_NESTEROV
        FD_ADAM
        FD_RMSPROP
        FD_RMSPROP_MOMENTUM
        FD_RMSPROP_CENTERED
        FD_RMSPROP_CENTERED_MOMENTUM
    ctypedef struct fd_step:
        double rate
        double momentum
        double keep
        double gain
        double square_gain
        double epsilon
        double l1
        double l2
        double limit
        double scale
        double decay
    ctypedef struct fd_part:
        uint64_t num_rows
        uint64_t num_columns
        const intptr_t *rows
        uint64_t *column_bits
        const void *values
    ctypedef struct fd_update:
        const fd_kernels *kernels
        fd_optimizer optimizer
        int is_double
        fd_step step
        double max_norm
        void *w
        void **state
        const void *d
        const fd_part *parts
        uint64_t num_parts
        uint64_t n
        uint64_t columns
    uint64_t fd_num_rows(const fd_update *update)
    uint64_t fd_update_scratch(const fd_update *update)
    void fd_update_rows(const fd_update *update, uint64_t first, uint64_t last, void *scratch)
    void fd_gradient_squares(const fd_update *update, uint64_t first, uint64_t last, void *scratch,
                             double *sums)
    void fd_submatrix(const fd_kernels *kernels, int is_double, const void *matrix, uint64_t width,
                      const intptr_t *rows, uint64_t first, uint64_t last,
                      const uint64_t *column_bits, const intptr_t *columns, uint64_t num_columns,
                      void *values)

# name: its loop, the names of its states in the order of the formula
cdef dict OPTIMIZERS = {
    "sgd": (FD_SGD, ()),
    "momentum": (FD_MOMENTUM, ("velocity",)),
    "nesterov": (FD_NESTEROV, ("velocity",)),
    "adam": (FD_ADAM, ("m", "v")),
    "rmsprop": (FD_RMSPROP, ("velocity",)),
    "rmsprop_momentum": (FD_RMSPROP_MOMENTUM, ("velocity", "momentum")),
    "rmsprop_centered": (FD_RMSPROP_CENTERED, ("velocity", "average_gradient")),
    "rmsprop_centered_momentum": (
        FD_RMSPROP_CENTERED_MOMENTUM, ("velocity", "average_gradient", "momentum")
    ),
}

# The names of each optimiser's states, for those who keep them.
STATES = {name: names for name, (_, names) in OPTIMIZERS.items()}

# Elements that are one row where nothing asks for the array's own rows.
cdef uint64_t PIECE = 2048

# Bytes read and written, and multiplications, from which a second thread pays: some us of one.
cdef double MOVING_PAYS = 1 << 18
cdef int64_t MULTIPLYING_PAYS = 1 << 18

# Rows or columns that a share of a product has at least: each rearranges the other factor for itself.
cdef int64_t WIDE = 64

# Below this many elements releasing the GIL (about 30 ns) is not worth it.
cdef uint64_t GIL_RELEASE_PAYS = 1 << 12

cdef int threads_for(double bytes_moved) noexcept:
    return most_threads() if bytes_moved >= MOVING_PAYS else 1

# ---- checks --------------------------------------------------------------------------------------

cdef bint is_plain(cnp.ndarray a) noexcept:
    cdef int flags = cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED
    return (cnp.PyArray_FLAGS(a) & flags) == flags and cnp.PyArray_ISNOTSWAPPED(a)


cdef int check_array(array, str what, name) except -1:
    """Can the kernels change it?"""
    cdef int type_num
    if type(array) is not cnp.ndarray:
        check_is_array(array, f"{what}[{name!r}]")
    type_num = cnp.PyArray_TYPE(array)
    if type_num != cnp.NPY_FLOAT32 and type_num != cnp.NPY_FLOAT64:
        raise TypeError(f"{what}[{name!r}]: expected float32 or float64, got {array.dtype}")
    if not is_plain(array) or not cnp.PyArray_ISWRITEABLE(array):
        raise ValueError(
            f"{what}[{name!r}]: expected a writeable C-contiguous array of native byte order, "
            "got another"
        )
    return 0


cdef int check_like(cnp.ndarray param, array, str what, name) except -1:
    """Has it the parameter's shape and dtype?"""
    cdef int d, ndim = cnp.PyArray_NDIM(param)
    cdef bint fits
    if type(array) is not cnp.ndarray:
        check_is_array(array, f"{what}[{name!r}]")
    fits = cnp.PyArray_NDIM(array) == ndim
    for d in range(ndim):
        fits = fits and cnp.PyArray_DIM(array, d) == cnp.PyArray_DIM(param, d)
    if not fits:
        raise ValueError(
            f"{what}[{name!r}]: expected shape {(<object>param).shape}, got {array.shape}"
        )
    if cnp.PyArray_TYPE(array) != cnp.PyArray_TYPE(param):
        raise TypeError(f"{what}[{name!r}]: expected dtype {param.dtype}, got {array.dtype}")
    return 0


cdef cnp.ndarray checked_indices(indices, intptr_t length, name, str axis):
    """Indices that strictly ascend in [0, length)."""
    cdef cnp.ndarray array = np.ascontiguousarray(indices)
    cdef const intptr_t *index
    cdef intptr_t i, n, last = -1
    cdef bint ok = cnp.PyArray_TYPE(array) == cnp.NPY_INTP and cnp.PyArray_NDIM(array) == 1
    if ok:
        index = <const intptr_t *>cnp.PyArray_DATA(array)
        n = cnp.PyArray_SIZE(array)
        for i in range(n):
            ok = ok & (index[i] > last)
            last = index[i]
        ok = ok and last < length
    if not ok:
        raise ValueError(
            f"grads[{name!r}]: expected {axis} that are ascending intp indices below {length}, "
            f"got {indices!r}"
        )
    return array


cdef uint64_t *bits_of(cnp.ndarray indices, uint64_t length) except NULL:
    """A 1 for each index, in whole words."""
    cdef const intptr_t *index = <const intptr_t *>cnp.PyArray_DATA(indices)
    cdef uint64_t *bits = <uint64_t *>calloc((length + 63) // 64 + 1, sizeof(uint64_t))
    cdef intptr_t i
    if bits == NULL:
        raise MemoryError
    for i in range(cnp.PyArray_SIZE(indices)):
        bits[index[i] // 64] |= <uint64_t>1 << (index[i] % 64)
    return bits

# ---- updates -------------------------------------------------------------------------------------

cdef class Updates:
    """The updates of all parameters, and what keeps their memory alive."""

    cdef fd_update *updates
    cdef uint64_t count
    cdef fd_step step
    cdef fd_optimizer optimizer
    cdef tuple state_names
    cdef bint by_rows    # is something asked of every gradient's rows?
    cdef dict state
    cdef list arrays, new_states
    cdef list products   # of update i its gradient's (a, b, out, matmul), or None

    def __cinit__(self, count):
        self.updates = <fd_update *>calloc(max(count, 1), sizeof(fd_update))
        if self.updates == NULL:
            raise MemoryError
        self.arrays = []
        self.products = []
        self.new_states = []

    def __dealloc__(self):
        cdef uint64_t i, part
        if self.updates != NULL:
            for i in range(self.count):
                for part in range(self.updates[i].num_parts):
                    free(self.updates[i].parts[part].column_bits)
                free(<void *>self.updates[i].parts)
            free(self.updates)

    cdef int add(self, name, array, grad, rule) except -1:
        """Check one parameter and all that belongs to it."""
        cdef fd_update *update = &self.updates[self.count]
        cdef cnp.ndarray param
        cdef int ndim
        check_array(array, "params", name)
        param = array
        ndim = cnp.PyArray_NDIM(param)
        self.count += 1
        update.kernels = active_kernels()
        update.optimizer = self.optimizer
        update.is_double = cnp.PyArray_TYPE(param) == cnp.NPY_FLOAT64
        update.step = self.step
        update.max_norm = INFINITY
        update.w = cnp.PyArray_DATA(param)
        update.n = cnp.PyArray_SIZE(param)
        if rule is not None:
            self.add_rule(update, name, param, rule)
        product = grad if hasattr(grad, "matmul") and hasattr(grad, "out") else None
        self.products.append(product)
        if product is not None:
            if self.by_rows:
                raise TypeError(
                    f"grads[{name!r}]: expected an array where norms are clipped, got a product"
                )
            grad = product.out
            check_array(grad, "grads", name)
            a, b = product.a, product.b
            if ((a.shape[:1] + b.shape[1:], a.shape[1:], a.dtype, b.dtype)
                    != (grad.shape, b.shape[:1], grad.dtype, grad.dtype)):
                raise ValueError(
                    f"grads[{name!r}]: expected factors of a product of shape {grad.shape} and "
                    f"dtype {grad.dtype}, got {a.shape} {a.dtype} and {b.shape} {b.dtype}"
                )
        if isinstance(grad, np.ndarray):
            check_like(param, grad, "grads", name)
            if not is_plain(grad):
                grad = np.array(grad, (<object>param).dtype, order="C")
            update.d = cnp.PyArray_DATA(grad)
            self.arrays.append(grad)
        else:
            self.add_parts(update, name, param, grad)
        self.add_states(update, name, param)
        if ndim > 1 and (self.by_rows or update.d == NULL or update.max_norm < INFINITY):
            update.columns = max(<uint64_t>1, update.n // max(1, cnp.PyArray_DIM(param, 0)))
        else:
            update.columns = PIECE
        self.arrays.append(param)
        return 0

    cdef int add_states(self, fd_update *update, name, cnp.ndarray param) except -1:
        cdef dict states = self.state.get(name)
        cdef int k = 0
        for state_name in self.state_names:
            array = None if states is None else states.get(state_name)
            if array is None:
                array = cnp.PyArray_ZEROS(cnp.PyArray_NDIM(param), cnp.PyArray_DIMS(param),
                                          cnp.PyArray_TYPE(param), 0)
                self.new_states.append((name, state_name, array))
            else:
                check_array(array, state_name, name)
                check_like(param, array, state_name, name)
            update.state[k] = cnp.PyArray_DATA(array)
            self.arrays.append(array)
            k += 1
        return 0

    cdef int add_rule(self, fd_update *update, name, cnp.ndarray param, rule) except -1:
        cdef double l1 = rule.l1, l2 = rule.l2
        if not (0 <= l1 < INFINITY and 0 <= l2 < INFINITY):
            raise ValueError(
                f"rules[{name!r}]: expected finite l1 and l2 of at least 0, got {l1} and {l2}"
            )
        update.step.l1 = l1
        update.step.l2 = 2 * l2
        max_norm = rule.max_norm
        if max_norm is not None:
            if not 0 < max_norm < INFINITY:
                raise ValueError(
                    f"rules[{name!r}]: expected a finite max_norm above 0, got {max_norm}"
                )
            if cnp.PyArray_NDIM(param) < 2:
                raise ValueError(
                    f"rules[{name!r}]: expected a matrix for max_norm, "
                    f"got shape {(<object>param).shape}"
                )
            update.max_norm = max_norm
        return 0

    cdef int add_parts(self, fd_update *update, name, cnp.ndarray param, grad) except -1:
        cdef fd_part *part
        cdef cnp.ndarray rows, columns, values
        parts = getattr(grad, "parts", None)
        if parts is None:
            raise TypeError(
                f"grads[{name!r}]: expected a NumPy array or a PartialGradient, "
                f"got {type(grad).__name__}"
            )
        if cnp.PyArray_NDIM(param) != 2 or tuple(grad.shape) != (<object>param).shape:
            raise ValueError(
                f"grads[{name!r}]: expected shape {(<object>param).shape}, "
                f"got a PartialGradient of shape {grad.shape}"
            )
        part = <fd_part *>calloc(max(len(parts), 1), sizeof(fd_part))
        if part == NULL:
            raise MemoryError
        update.parts = part
        update.num_parts = len(parts)
        for given_rows, given_columns, given_values in parts:
            rows = checked_indices(given_rows, cnp.PyArray_DIM(param, 0), name, "rows")
            columns = checked_indices(given_columns, cnp.PyArray_DIM(param, 1), name, "columns")
            part.num_rows = cnp.PyArray_SIZE(rows)
            part.num_columns = cnp.PyArray_SIZE(columns)
            check_is_array(given_values, f"grads[{name!r}]")
            values = np.ascontiguousarray(given_values)
            if (<object>values).shape != (part.num_rows, part.num_columns):
                raise ValueError(
                    f"grads[{name!r}]: expected values of shape "
                    f"{(part.num_rows, part.num_columns)}, got {(<object>values).shape}"
                )
            if cnp.PyArray_TYPE(values) != cnp.PyArray_TYPE(param) or not is_plain(values):
                raise TypeError(
                    f"grads[{name!r}]: expected values of dtype {param.dtype}, got {values.dtype}"
                )
            part.rows = <const intptr_t *>cnp.PyArray_DATA(rows)
            part.column_bits = bits_of(columns, cnp.PyArray_DIM(param, 1))
            part.values = cnp.PyArray_DATA(values)
            self.arrays += (rows, values)
            part += 1
        return 0

    cdef int run_all(self) except -1:
        """Update all parameters, a gradient that is a product just after that is multiplied."""
        cdef uint64_t i, first = 0
        for i in range(self.count):
            if self.products[i] is not None:
                self.run(first, i)
                a, b, out, matmul = self.products[i]
                matmul(a, b, out)
                self.run(i, i + 1)
                first = i + 1
        self.run(first, self.count)
        return 0

    cdef int run(self, uint64_t first, uint64_t last, double *sums=NULL) except -1:
        """Run updates [first, last); with `sums`, take each gradient row's sum of squares
        instead."""
        cdef updating u = updating(updates=&self.updates[first], count=last - first, scratch=0,
                                   memory=NULL, aligned=NULL, sums=sums)
        cdef uint64_t i, n = 0
        cdef double bytes_moved = 0
        cdef int shares
        for i in range(u.count):
            n += u.updates[i].n
            bytes_moved += u.updates[i].n * (8.0 if u.updates[i].is_double else 4.0)
            u.scratch = max(u.scratch, fd_update_scratch(&u.updates[i]))
        shares = threads_for(bytes_moved * (3 + 2 * len(self.state_names)))
        u.memory = <char *>malloc(shares * u.scratch + 64)
        if u.memory == NULL:
            raise MemoryError
        u.aligned = u.memory + (64 - <uintptr_t>u.memory % 64)
        if n < GIL_RELEASE_PAYS:
            fd_pool_run(update_share, shares, &u)
        else:
            with nogil:
                fd_pool_run(update_share, shares, &u)
        free(u.memory)
        return 0

    cdef int clip_norms(self, double limit, bint together) except -1:
        """Set each update's scale so that its gradient's norm, or all gradients', is in limit."""
        cdef uint64_t i, row, rows = 0
        cdef double *sums
        cdef double total = 0
        for i in range(self.count):
            rows += fd_num_rows(&self.updates[i])
        sums = <double *>malloc((rows + 1) * sizeof(double))
        if sums == NULL:
            raise MemoryError
        try:
            self.run(0, self.count, sums)
            rows = 0
            for i in range(self.count):
                for row in range(fd_num_rows(&self.updates[i])):
                    total += sums[rows + row]
                rows += fd_num_rows(&self.updates[i])
                if not together:
                    self.updates[i].step.scale = scale_within(limit, total)
                    total = 0
        finally:
            free(sums)
        if together:
            for i in range(self.count):
                self.updates[i].step.scale = scale_within(limit, total)
        return 0


cdef double scale_within(double limit, double squares) noexcept:
    cdef double norm = sqrt(squares)
    return limit / norm if norm > limit else 1.0


cdef struct updating:
    const fd_update *updates
    uint64_t count
    uint64_t scratch    # bytes of each share
    char *memory
    char *aligned
    double *sums


cdef void update_share(int share, int shares, void *argument) noexcept nogil:
    """The same part of each update's rows."""
    cdef const updating *u = <const updating *>argument
    cdef void *scratch = u.aligned + share * u.scratch
    cdef double *sums = u.sums
    cdef uint64_t i, rows, first, last
    for i in range(u.count):
        rows = fd_num_rows(&u.updates[i])
        first = rows * share // shares
        last = rows * (share + 1) // shares
        if sums == NULL:
            fd_update_rows(&u.updates[i], first, last, scratch)
        else:
            fd_gradient_squares(&u.updates[i], first, last, scratch, sums)
            sums += rows


def update(params, grads, rules, dict state, str optimizer, *, double rate, double momentum=0,
           double keep=0, double gain=0, double square_gain=0, double epsilon=0, double decay=0,
           clipnorm=None, clipvalue=None, global_clipnorm=None):
    """One update of all `params`; `state` gets the arrays that it lacks."""
    cdef Updates updates = Updates(len(params))
    number, updates.state_names = OPTIMIZERS[optimizer]
    updates.optimizer = <fd_optimizer><int>number
    updates.step = fd_step(
        rate=rate, momentum=momentum, keep=keep, gain=gain, square_gain=square_gain,
        epsilon=epsilon, decay=decay, l1=0, l2=0, scale=1,
        limit=INFINITY if clipvalue is None else clipvalue,
    )
    updates.by_rows = clipnorm is not None or global_clipnorm is not None
    updates.state = state
    if params.keys() != grads.keys():
        raise ValueError(
            f"grads: expected one for each of {', '.join(params)}, got {', '.join(grads)}"
        )
    if rules and not rules.keys() <= params.keys():
        raise ValueError(
            f"rules: expected names out of {', '.join(params)}, got {', '.join(rules)}"
        )
    for name, param in params.items():
        updates.add(name, param, grads[name], rules.get(name) if rules else None)
    if clipnorm is not None:
        updates.clip_norms(clipnorm, together=False)
    elif global_clipnorm is not None:
        updates.clip_norms(global_clipnorm, together=True)
    for name, state_name, array in updates.new_states:
        state.setdefault(name, {})[state_name] = array
    updates.run_all()


# ---- products, and the parts of weights that have part in them ---------------------------------

ctypedef void (*sgemm)(int order, int a_transposed, int b_transposed, int64_t m, int64_t n,
                       int64_t k, float alpha, const float *a, int64_t a_stride, const float *b,
                       int64_t b_stride, float beta, float *c, int64_t c_stride) noexcept nogil
ctypedef void (*dgemm)(int order, int a_transposed, int b_transposed, int64_t m, int64_t n,
                       int64_t k, double alpha, const double *a, int64_t a_stride, const double *b,
                       int64_t b_stride, double beta, double *c, int64_t c_stride) noexcept nogil

cdef enum:    # CBLAS's
    ROW_MAJOR = 101
    PLAIN = 111
    TRANSPOSED = 112

cdef struct blas_functions:
    sgemm multiply_floats
    dgemm multiply_doubles
    fd_get_threads get
    fd_set_threads set

cdef blas_functions blas = blas_functions(NULL, NULL, NULL, NULL)


def use_blas(*addresses):
    """Call these functions of a BLAS with 64-bit integers: cblas_sgemm, cblas_dgemm, and those
    that get and set its number of threads."""
    cdef uintptr_t s, d, g, n
    s, d, g, n = addresses
    blas.multiply_floats, blas.multiply_doubles = <sgemm>s, <dgemm>d
    blas.get, blas.set = <fd_get_threads>g, <fd_set_threads>n


def after_fork_in_child():
    """For `os.register_at_fork`."""
    if blas.set != NULL:
        fd_blas_after_fork(blas.set)


cdef struct operand:
    const char *data
    int64_t stride      # elements from one row to the next, of what is in memory
    int order           # PLAIN or TRANSPOSED


cdef struct product:
    operand a, b, c
    int64_t m, n, k
    bint is_double, by_rows


cdef bint describe(cnp.ndarray array, int type, operand *o):
    """Does it fit BLAS: two axes, and along one of them elements side by side?"""
    cdef cnp.npy_intp size = cnp.PyArray_ITEMSIZE(array), step
    cdef cnp.npy_intp *strides = cnp.PyArray_STRIDES(array)
    cdef int inner = 1
    if (cnp.PyArray_NDIM(array) != 2 or cnp.PyArray_TYPE(array) != type
            or not cnp.PyArray_ISBEHAVED_RO(array) or cnp.PyArray_SIZE(array) == 0):
        return False
    if strides[1] != size:
        inner = 0
    step = strides[1 - inner]
    if strides[inner] != size or step % size or step < cnp.PyArray_DIM(array, inner) * size:
        return False
    o.data = cnp.PyArray_BYTES(array)
    o.stride = step // size
    o.order = PLAIN if inner else TRANSPOSED
    return True


cdef void product_share(int share, int shares, void *argument) noexcept nogil:
    """Some rows or columns of c."""
    cdef const product *p = <const product *>argument
    cdef operand a = p.a, b = p.b, c = p.c
    cdef int64_t m = p.m, n = p.n, first, size = 8 if p.is_double else 4
    if p.by_rows:
        first = part_from(m, share, shares)
        m = part_from(m, share + 1, shares) - first
        a.data += first * size * (a.stride if a.order == PLAIN else 1)
        c.data += first * size * c.stride
    else:
        first = part_from(n, share, shares)
        n = part_from(n, share + 1, shares) - first
        b.data += first * size * (1 if b.order == PLAIN else b.stride)
        c.data += first * size
    if m == 0 or n == 0:
        return
    if p.is_double:
        blas.multiply_doubles(ROW_MAJOR, a.order, b.order, m, n, p.k, 1, <const double *>a.data,
                              a.stride, <const double *>b.data, b.stride, 0, <double *>c.data,
                              c.stride)
    else:
        blas.multiply_floats(ROW_MAJOR, a.order, b.order, m, n, p.k, 1, <const float *>a.data,
                             a.stride, <const float *>b.data, b.stride, 0, <float *>c.data,
                             c.stride)


cdef int64_t part_from(int64_t n, int64_t share, int64_t shares) noexcept nogil:
    """Where a share starts: BLAS multiplies in blocks of whole vectors."""
    return n if share == shares else n * share // shares // 16 * 16


def matmul(cnp.ndarray a, cnp.ndarray b, cnp.ndarray out):
    """np.matmul(a, b, out), `out` apart from `a` and `b`.

    As many threads as NumPy's BLAS would use, but those of pool.h: BLAS's own would go on spinning
    for 0.1 s, and keep the cores from all that follows.
    """
    cdef product p
    cdef int type = cnp.PyArray_TYPE(a), threads, shares = 1
    if (blas.get == NULL or type not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64)
            or not cnp.PyArray_ISWRITEABLE(out) or not describe(out, type, &p.c)
            or p.c.order != PLAIN or not describe(a, type, &p.a) or not describe(b, type, &p.b)
            or cnp.PyArray_DIM(a, 0) != cnp.PyArray_DIM(out, 0)
            or cnp.PyArray_DIM(b, 1) != cnp.PyArray_DIM(out, 1)
            or cnp.PyArray_DIM(a, 1) != cnp.PyArray_DIM(b, 0)):
        return np.matmul(a, b, out=out)
    p.m, p.n, p.k = cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(b, 1), cnp.PyArray_DIM(a, 1)
    p.is_double = type == cnp.NPY_FLOAT64
    # The longer axis has the weights on it, so that nothing large is read twice. Gradients, d.T @ x, go
    # by rows: with 256 units and 784 inputs a step takes 3 % less, with 1024 units 1 % more.
    p.by_rows = p.m > p.n or (p.a.order == TRANSPOSED and p.m >= 2 * WIDE)
    threads = fd_blas_enter(blas.get, blas.set)
    if p.m * p.n * p.k > MULTIPLYING_PAYS:
        shares = <int>max(1, min(<int64_t>threads, (p.m if p.by_rows else p.n) // WIDE))
    if shares == 1 and p.m * p.n * p.k < MULTIPLYING_PAYS:
        product_share(0, 1, &p)
    else:
        with nogil:
            fd_pool_run(product_share, shares, &p)
    fd_blas_leave(blas.get, blas.set)
    return out


cdef struct picking:
    const fd_kernels *kernels
    int is_double
    const char *matrix
    uint64_t width
    const intptr_t *rows
    uint64_t num_rows
    const uint64_t *bits
    const intptr_t *columns
    uint64_t num_columns
    char *values


cdef void picking_share(int share, int shares, void *argument) noexcept nogil:
    cdef const picking *p = <const picking *>argument
    cdef uint64_t first = p.num_rows * share // shares, last = p.num_rows * (share + 1) // shares
    fd_submatrix(p.kernels, p.is_double, p.matrix, p.width, p.rows, first, last, p.bits, p.columns,
                 p.num_columns, p.values)


def submatrix(cnp.ndarray matrix, rows, columns, cnp.ndarray out):
    """out = matrix[rows][:, columns], all of them where one is None.

    `matrix` and `out` are C-contiguous, of one dtype, float32 or float64, and the right shapes;
    indices are intp, contiguous and in range, columns ascending: the callers, blocks.py and
    batches.py, make them themselves.
    """
    cdef picking p = picking(
        kernels=active_kernels(), is_double=cnp.PyArray_TYPE(matrix) == cnp.NPY_FLOAT64,
        matrix=<const char *>cnp.PyArray_DATA(matrix), width=cnp.PyArray_DIM(matrix, 1), rows=NULL,
        num_rows=cnp.PyArray_DIM(out, 0), bits=NULL, columns=NULL,
        num_columns=cnp.PyArray_DIM(out, 1), values=<char *>cnp.PyArray_DATA(out),
    )
    cdef uint64_t *bits = NULL
    cdef int shares
    if rows is not None:
        p.rows = <const intptr_t *>cnp.PyArray_DATA(<cnp.ndarray>rows)
    if columns is not None:
        p.columns = <const intptr_t *>cnp.PyArray_DATA(<cnp.ndarray>columns)
        p.bits = bits = bits_of(columns, p.width)
    shares = threads_for(p.num_rows * (p.width + p.num_columns) * (8.0 if p.is_double else 4.0))
    with nogil:
        fd_pool_run(picking_share, shares, &p)
    free(bits)


ctypedef fused real:
    float
    double


cdef real exponentials(const real *z, uint64_t classes, real *top, real *e) noexcept nogil:
    """e = exp(z - top), top the largest of z; their sum."""
    cdef uint64_t j
    cdef real total = 0
    top[0] = z[0]
    for j in range(1, classes):
        if z[j] > top[0]:
            top[0] = z[j]
    for j in range(classes):
        e[j] = expf(z[j] - top[0]) if real is float else exp(z[j] - top[0])
        total += e[j]
    return total


cdef void with_labels(const real *z, const intptr_t *labels, uint64_t n, uint64_t classes,
                      real *losses, real *gradient) noexcept nogil:
    cdef uint64_t i, j
    cdef real top, total
    for i in range(n):
        total = exponentials(z, classes, &top, gradient)
        losses[i] = (logf(total) if real is float else log(total)) - (z[labels[i]] - top)
        for j in range(classes):
            gradient[j] /= total
        gradient[labels[i]] -= 1
        z += classes
        gradient += classes


cdef void with_probabilities(const real *z, const real *y, uint64_t n, uint64_t classes,
                             real *losses, real *gradient) noexcept nogil:
    cdef uint64_t i, j
    cdef real top, total, sum, hit
    for i in range(n):
        total = exponentials(z, classes, &top, gradient)
        sum = hit = 0
        for j in range(classes):
            sum += y[j]
            hit += y[j] * (z[j] - top)
        losses[i] = sum * (logf(total) if real is float else log(total)) - hit
        for j in range(classes):
            gradient[j] = gradient[j] * (sum / total) - y[j]
        z += classes
        y += classes
        gradient += classes


def softmax_cross_entropy(cnp.ndarray logits, cnp.ndarray y):
    """-sum(y log(softmax(logits))) of each row, and the gradient of the sum of all.

    `logits` is C-contiguous, (n, classes), float32 or float64; `y` C-contiguous, labels of intp,
    (n,), or like `logits`: losses.py, the only caller, sees to that. A row with NaN or infinity has
    a loss of NaN.
    """
    cdef uint64_t n = cnp.PyArray_DIM(logits, 0), classes = cnp.PyArray_DIM(logits, 1)
    cdef cnp.npy_intp *dims = cnp.PyArray_DIMS(logits)
    cdef cnp.ndarray losses = cnp.PyArray_EMPTY(1, dims, cnp.PyArray_TYPE(logits), 0)
    cdef cnp.ndarray gradient = cnp.PyArray_EMPTY(2, dims, cnp.PyArray_TYPE(logits), 0)
    cdef bint is_float = cnp.PyArray_TYPE(logits) == cnp.NPY_FLOAT32
    cdef const void *z = cnp.PyArray_DATA(logits)
    cdef const void *t = cnp.PyArray_DATA(y)
    cdef const intptr_t *label = <const intptr_t *>t
    cdef void *l = cnp.PyArray_DATA(losses)
    cdef void *g = cnp.PyArray_DATA(gradient)
    cdef uint64_t i
    cdef bint labelled = cnp.PyArray_NDIM(y) == 1
    cdef bint fits = classes > 0 and <uint64_t>cnp.PyArray_DIM(y, 0) == n
    if not labelled:
        fits = fits and <uint64_t>cnp.PyArray_DIM(y, 1) == classes
    if not fits:
        raise ValueError(
            f"y: expected labels or probabilities for outputs of shape {(n, classes)}, "
            f"got shape {(<object>y).shape}"
        )
    if not labelled:
        with nogil:
            if is_float:
                with_probabilities[float](<const float *>z, <const float *>t, n, classes,
                                          <float *>l, <float *>g)
            else:
                with_probabilities[double](<const double *>z, <const double *>t, n, classes,
                                           <double *>l, <double *>g)
        return losses, gradient
    for i in range(n):
        if not 0 <= label[i] < <intptr_t>classes:
            raise ValueError(f"y: expected class numbers in [0, {classes}), got {label[i]}")
    with nogil:
        if is_float:
            with_labels[float](<const float *>z, label, n, classes, <float *>l, <float *>g)
        else:
            with_labels[double](<const double *>z, label, n, classes, <double *>l, <double *>g)
    return losses, gradient

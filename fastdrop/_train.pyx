# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""What a training step does besides its products and dropout.

Optimisers: checks a model's parameters, gradients and states, and updates all in one go. The
formulas are in kernels/optimizers.h. Everything is checked before anything is changed. What
describes the optimiser itself is checked in optimizers.py, the only caller. At the end, parts of
weights (fused.py) and softmax with cross-entropy (losses.py).
"""

import numpy as np
cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport INFINITY, exp, expf, log, logf, sqrt
from libc.stdint cimport intptr_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc

from fastdrop._core cimport active_kernels, fd_kernels, threads_for

cnp.import_array()

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
                      const intptr_t *rows, uint64_t num_rows, const uint64_t *column_bits,
                      const intptr_t *columns, uint64_t num_columns, void *values)

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

# Elements that are one row where nothing asks for the array's own rows.
cdef uint64_t PIECE = 2048

# Nanoseconds that a byte read or written takes one thread, roughly: measured with Adam and SGD.
cdef double NS_PER_BYTE = 0.01

# Below this many elements releasing the GIL (about 30 ns) is not worth it.
cdef uint64_t GIL_RELEASE_PAYS = 1 << 12

# ---- checks --------------------------------------------------------------------------------------

cdef bint is_plain(cnp.ndarray a) noexcept:
    cdef int flags = cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED
    return (cnp.PyArray_FLAGS(a) & flags) == flags and cnp.PyArray_ISNOTSWAPPED(a)


cdef int check_array(array, str what, name) except -1:
    """Can the kernels change it?"""
    cdef int type_num
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{what}[{name!r}]: expected a NumPy array, got {type(array).__name__}")
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
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{what}[{name!r}]: expected a NumPy array, got {type(array).__name__}")
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
    cdef uint64_t count, elements
    cdef double bytes_moved
    cdef fd_step step
    cdef fd_optimizer optimizer
    cdef tuple state_names
    cdef bint by_rows    # is something asked of every gradient's rows?
    cdef dict state
    cdef list arrays, new_states

    def __cinit__(self, count):
        self.updates = <fd_update *>calloc(max(count, 1), sizeof(fd_update))
        if self.updates == NULL:
            raise MemoryError
        self.arrays = []
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
        self.elements += update.n
        self.bytes_moved += cnp.PyArray_NBYTES(param) * (3.0 + 2 * len(self.state_names))
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

    cdef int run(self, double *sums=NULL) except -1:
        """Update all parameters; with `sums`, take each gradient row's sum of squares instead."""
        cdef const fd_update *updates = self.updates
        cdef uint64_t scratch = 0, i, count = self.count
        cdef int t, threads = threads_for(self.elements, self.bytes_moved * NS_PER_BYTE, None)
        cdef char *memory
        cdef char *aligned
        for i in range(count):
            scratch = max(scratch, fd_update_scratch(&updates[i]))
        memory = <char *>malloc(threads * scratch + 64)
        if memory == NULL:
            raise MemoryError
        aligned = memory + (64 - <uintptr_t>memory % 64)
        if threads == 1 and self.elements < GIL_RELEASE_PAYS:
            run_share(updates, count, 0, 1, aligned, sums)
        elif threads == 1:
            with nogil:
                run_share(updates, count, 0, 1, aligned, sums)
        else:
            for t in prange(threads, nogil=True, schedule="static", chunksize=1,
                            num_threads=threads):
                run_share(updates, count, t, threads, aligned + t * scratch, sums)
        free(memory)
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
            self.run(sums)
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


cdef void run_share(const fd_update *updates, uint64_t count, uint64_t thread, uint64_t threads,
                    void *scratch, double *sums) noexcept nogil:
    """The rows of one thread, the same part of each update's."""
    cdef uint64_t i, rows, first, last
    for i in range(count):
        rows = fd_num_rows(&updates[i])
        first = rows * thread // threads
        last = rows * (thread + 1) // threads
        if sums == NULL:
            fd_update_rows(&updates[i], first, last, scratch)
        else:
            fd_gradient_squares(&updates[i], first, last, scratch, sums)
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
    updates.run()


def submatrix(cnp.ndarray matrix, rows, cnp.ndarray columns, cnp.ndarray out):
    """out = matrix[rows][:, columns], all rows where `rows` is None.

    `matrix` and `out` are C-contiguous, of one dtype, float32 or float64, and the right shapes;
    indices are intp, contiguous, ascending and in range: fused.py, the only caller, makes them
    itself.
    """
    cdef uint64_t width = cnp.PyArray_DIM(matrix, 1)
    cdef const fd_kernels *kernels = active_kernels()
    cdef const intptr_t *r = NULL
    cdef uint64_t *bits
    if rows is not None:
        r = <const intptr_t *>cnp.PyArray_DATA(<cnp.ndarray>rows)
    bits = bits_of(columns, width)
    with nogil:
        fd_submatrix(kernels, cnp.PyArray_TYPE(matrix) == cnp.NPY_FLOAT64,
                     cnp.PyArray_DATA(matrix), width, r, cnp.PyArray_DIM(out, 0), bits,
                     <const intptr_t *>cnp.PyArray_DATA(columns), cnp.PyArray_SIZE(columns),
                     cnp.PyArray_DATA(out))
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

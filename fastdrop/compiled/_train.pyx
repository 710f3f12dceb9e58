# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, allow_none_for_extension_args=False
"""What a training step does besides dropout, on the threads of pool.h.

Optimisers: this module checks a model's parameters, gradients and states, and updates all of them
at once. kernels/optimizers.h has the formulas. Everything is checked before anything is changed.
optimizers.py, the only caller, checks what describes the optimiser itself. Parts of weights and
rows of tables are at the end of the file.

Callbacks and other threads may assign an array's shape or dtype at any time. Every function reads
its arguments anew in each call, and nothing beyond them.
"""

from collections.abc import Mapping
from weakref import ref

import numpy as np
cimport cython
cimport numpy as cnp
from cpython.dict cimport PyDict_GetItemWithError
from cpython.ref cimport PyObject
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int64_t, intptr_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastdrop.compiled._core cimport (
    FD_SPINNING,
    active_kernels,
    crew,
    fd_kernels,
    most_threads,
    offer_shares,
    run_shares,
    settle_shares,
)
from fastdrop.compiled._products cimport multiply
from fastdrop.compiled._sparse cimport SparseRows
from fastdrop.compiled.arrays cimport check_is_array, check_like, do_meet, is_plain

cnp.import_array()

cdef extern from "kernels/kernels.h" nogil:
    enum:
        FD_MAX_DIMS

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
                      const intptr_t *rows, uint64_t num_rows, uint64_t first, uint64_t last,
                      const uint64_t *column_bits, const intptr_t *columns, uint64_t num_columns,
                      void *values)

# name: its loop, and the names of its states in the order of the formula
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

# The names of each optimiser's states, for code that stores them
STATES = {name: names for name, (_, names) in OPTIMIZERS.items()}

# Elements of one row where nothing needs the array's own rows
cdef uint64_t PIECE = 2048

# Bytes read and written from which a second thread pays: some us on one
cdef double MOVING_PAYS = 1 << 17

# With fewer elements than this, releasing the GIL (about 30 ns) is not worth it.
cdef uint64_t GIL_RELEASE_PAYS = 1 << 12

cdef int threads_for(double bytes_moved) noexcept:
    return most_threads() if bytes_moved >= MOVING_PAYS else 1

# ---- checks --------------------------------------------------------------------------------------

cdef int check_array(array, str what, name) except -1:
    """Check that the kernels can change the array."""
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


cdef inline bint is_like(cnp.ndarray param, array) noexcept:
    """Tell quickly whether it passes `check_array` and `check_like`, as usual."""
    cdef int changeable = (cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED
                           | cnp.NPY_ARRAY_WRITEABLE)
    cdef cnp.ndarray a
    cdef int d
    if type(array) is not cnp.ndarray:
        return False
    a = array
    if (cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(param) or not cnp.PyArray_ISNOTSWAPPED(a)
            or (cnp.PyArray_FLAGS(a) & changeable) != changeable
            or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(param)):
        return False
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(param, d):
            return False
    return True


cdef bint ascend(cnp.ndarray array, intptr_t length) noexcept:
    """Tell whether they are intp indices that strictly ascend in [0, length)."""
    cdef const intptr_t *index = <const intptr_t *>cnp.PyArray_DATA(array)
    cdef intptr_t i, last = -1
    cdef bint ok = are_indices(array)
    if ok:
        for i in range(cnp.PyArray_SIZE(array)):
            ok = ok & (index[i] > last)
            last = index[i]
    return ok and last < length


cdef bint are_indices(cnp.ndarray array) noexcept:
    return (cnp.PyArray_TYPE(array) == cnp.NPY_INTP and cnp.PyArray_NDIM(array) == 1
            and is_plain(array))


cdef cnp.ndarray checked_indices(indices, intptr_t length, name, str axis):
    """Return a private copy of indices that strictly ascend in [0, length)."""
    cdef cnp.ndarray array = np.array(indices)
    if not ascend(array, length):
        raise ValueError(
            f"grads[{name!r}]: expected {axis} that are ascending intp indices below {length}, "
            f"got {indices!r}"
        )
    return array


cdef uint64_t *bits_of(cnp.ndarray indices, uint64_t length) except NULL:
    """Return bits with a 1 for each index, in whole words."""
    cdef const intptr_t *index = <const intptr_t *>cnp.PyArray_DATA(indices)
    cdef uint64_t *bits = <uint64_t *>calloc((length + 63) // 64 + 1, sizeof(uint64_t))
    cdef intptr_t i
    if bits == NULL:
        raise MemoryError
    for i in range(cnp.PyArray_SIZE(indices)):
        bits[index[i] // 64] |= <uint64_t>1 << (index[i] % 64)
    return bits


cdef struct layout:
    PyObject *array
    PyObject *dtype
    int ndim
    cnp.npy_intp shape[FD_MAX_DIMS]
    cnp.npy_intp strides[FD_MAX_DIMS]


cdef class Layouts:
    """Shapes, strides and dtypes of arrays at the time when something was made for them.

    As long as this object exists, NumPy refuses to give these arrays other memory, which
    `ndarray.resize(refcheck=False)` does unless there are weak references.

    Parameters
    ----------
    arrays : dict of str to ndarray
        The arrays by their names in messages.
    written : bool
        Whether they also have to stay writeable.
    """

    cdef list described    # and kept alive
    cdef layout *layouts
    cdef Py_ssize_t count
    cdef bint written

    def __cinit__(self, dict arrays, bint written=False):
        cdef cnp.ndarray array
        cdef layout *l
        cdef int d
        self.described = [
            (name, a, a.dtype, a.shape, a.strides, ref(owner_of(a))) for name, a in arrays.items()
        ]
        self.layouts = <layout *>calloc(len(self.described) + 1, sizeof(layout))
        if self.layouts == NULL:
            raise MemoryError
        self.written = written
        for _, a, dtype, _, _, _ in self.described:
            array = a
            l = &self.layouts[self.count]
            l.array, l.dtype = <PyObject *>array, <PyObject *>dtype
            l.ndim = cnp.PyArray_NDIM(array)
            for d in range(l.ndim):
                l.shape[d] = cnp.PyArray_DIM(array, d)
                l.strides[d] = cnp.PyArray_STRIDE(array, d)
            self.count += 1

    def __dealloc__(self):
        free(self.layouts)

    def check(self):
        """Refuse an array to which another shape, other strides or a dtype have been assigned."""
        cdef Py_ssize_t i
        for i in range(self.count):
            if not is_as_it_was(&self.layouts[i], self.written):
                self.compare(i)

    cdef int compare(self, Py_ssize_t i) except -1:
        name, array, dtype, shape, strides, _ = self.described[i]
        if (array.dtype, array.shape, array.strides) != (dtype, shape, strides):
            raise ValueError(
                f"{name}: expected it to stay {dtype} of shape {shape} and strides {strides}, "
                f"got {array.dtype}, {array.shape} and {array.strides}, assigned in place"
            )
        if self.written and not cnp.PyArray_ISWRITEABLE(array):
            raise ValueError(f"{name}: expected it to stay writeable, got a read-only array")
        return 0


cdef struct attribute:
    PyObject *owner
    PyObject *name
    PyObject *value
    PyObject *own    # the owner's dictionary, where a look into it reads the attribute, else NULL


cdef class Watched:
    """Layers, their parameters and settings at the time when something was made for them.

    Parameters
    ----------
    layers : list of Layer
        The layers.
    settings : list of (Layer, str)
        Attributes, by layer and name, of these layers or of layers inside them.
    """

    cdef list layers, params
    cdef list dicts    # for each layer, the dictionary that has its `params`, or None
    cdef list kept    # what the attributes point to
    cdef attribute *attributes
    cdef Py_ssize_t count

    def __cinit__(self, list layers, list settings):
        cdef attribute *a
        self.layers = list(layers)
        self.params = [dict(layer.params) for layer in layers]
        self.dicts = [vars(layer) if is_own(layer, "params") else None for layer in layers]
        self.kept = [
            (owner, name, getattr(owner, name), vars(owner) if is_own(owner, name) else None)
            for owner, name in settings
        ]
        self.attributes = <attribute *>calloc(len(self.kept) + 1, sizeof(attribute))
        if self.attributes == NULL:
            raise MemoryError
        for owner, name, value, own in self.kept:
            a = &self.attributes[self.count]
            a.owner, a.name, a.value = <PyObject *>owner, <PyObject *>name, <PyObject *>value
            a.own = NULL if own is None else <PyObject *>own
            self.count += 1

    def __dealloc__(self):
        free(self.attributes)

    def is_still(self, list layers):
        """Tell whether these are still the same layers, with the same arrays and equal settings."""
        cdef Py_ssize_t i
        if len(layers) != len(self.layers):
            return False
        for i in range(len(self.layers)):
            layer, own = layers[i], self.dicts[i]
            if layer is not self.layers[i]:
                return False
            params = layer.params if own is None else (<dict>own).get("params")
            if not are_same(params, self.params[i]):
                return False
        for i in range(self.count):
            if not is_same(&self.attributes[i]):
                return False
        return True


cdef bint is_own(owner, str name):
    """Tell whether reading the attribute is no more than a look into the object's dictionary."""
    cls = type(owner)
    return (
        cls.__getattribute__ is object.__getattribute__
        and name in getattr(owner, "__dict__", ())
        and not hasattr(getattr(cls, name, None), "__set__")
    )


cdef bint is_same(const attribute *a) except -1:
    """Tell whether an attribute has an equal value. Most have the same one, which is quick."""
    if a.own != NULL and PyDict_GetItemWithError(<object>a.own, <object>a.name) == a.value:
        return True
    value = getattr(<object>a.owner, <object>a.name)
    return value is <object>a.value or value == <object>a.value


cdef bint are_same(params, dict before) except -1:
    """Tell whether parameters are the same arrays."""
    cdef dict now = params if type(params) is dict else dict(params)
    if len(now) != len(before):
        return False
    for name, array in before.items():
        if PyDict_GetItemWithError(now, name) != <PyObject *>array:
            return False
    return True


cdef object owner_of(array):
    """Return the array whose memory the array uses."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


cdef bint is_as_it_was(const layout *l, bint written) noexcept:
    """Tell whether an array is as it was. It is not if it has another dtype, even an equal one."""
    cdef cnp.ndarray array = <cnp.ndarray>l.array
    cdef int d
    if (<PyObject *>cnp.PyArray_DESCR(array) != l.dtype or cnp.PyArray_NDIM(array) != l.ndim
            or (written and not cnp.PyArray_ISWRITEABLE(array))):
        return False
    for d in range(l.ndim):
        if (cnp.PyArray_DIM(array, d) != l.shape[d]
                or cnp.PyArray_STRIDE(array, d) != l.strides[d]):
            return False
    return True


def are_batch(x, y, cnp.dtype dtype, shape):
    """Tell whether `x` is an array with a sample or more of this dtype and shape.

    `y` has to be an array with as many labels, or None; their values and further axes do not count.
    """
    cdef cnp.ndarray a
    cdef int d
    if type(x) is not cnp.ndarray or type(shape) is not tuple:
        return False
    a = x
    if (cnp.PyArray_TYPE(a) != dtype.type_num or not cnp.PyArray_ISNOTSWAPPED(a)
            or cnp.PyArray_NDIM(a) != len(shape) + 1 or cnp.PyArray_DIM(a, 0) == 0):
        return False
    for d in range(cnp.PyArray_NDIM(a) - 1):
        if cnp.PyArray_DIM(a, d + 1) != <cnp.npy_intp>(<tuple>shape)[d]:
            return False
    if y is None:
        return True
    return (type(y) is cnp.ndarray and cnp.PyArray_NDIM(<cnp.ndarray>y) > 0
            and cnp.PyArray_DIM(<cnp.ndarray>y, 0) == cnp.PyArray_DIM(a, 0))


# ---- updates -------------------------------------------------------------------------------------

cdef class ProductGradient:
    """The gradient of a matrix, as a product that the update itself computes.

    So the gradients of all matrices of a model can use the same memory, one after the other.

    Parameters
    ----------
    a : ndarray
        The first factor.
    b : ndarray or SparseRows
        The second one.
    out : ndarray
        Where the product is written, with the shape of the matrix.
    """

    def __init__(self, cnp.ndarray a, b, cnp.ndarray out):
        if type(b) is not SparseRows and not isinstance(b, cnp.ndarray):
            raise TypeError(f"b: expected an array or SparseRows, got {type(b).__name__}")
        self.a, self.b, self.out = a, b, out

    cdef int multiply(self) except -1:
        if type(self.b) is SparseRows:
            return (<SparseRows>self.b).multiply_gradient(self.a, self.out)
        return multiply(self.a, self.b, self.out)


cdef class Updates:
    """The updates of all parameters, and the objects that keep their memory alive."""

    cdef fd_update *updates
    cdef uint64_t count
    cdef fd_step step
    cdef fd_optimizer optimizer
    cdef tuple state_names
    cdef bint by_rows    # whether something is computed for the rows of every gradient
    cdef dict params, grads, state
    cdef list arrays     # those that are not in these dicts
    cdef list new_states
    cdef list products   # for each update, its gradient as a product, or None

    cdef int take(self, dict params, dict grads, dict state) except -1:
        """Make room for the updates of these parameters. The first two dicts are private ones."""
        self.updates = <fd_update *>calloc(max(len(params), 1), sizeof(fd_update))
        if self.updates == NULL:
            raise MemoryError
        self.params, self.grads, self.state = params, grads, state
        self.arrays, self.new_states, self.products = [], [], []
        return 0

    def __dealloc__(self):
        cdef uint64_t i, part
        if self.updates != NULL:
            for i in range(self.count):
                for part in range(self.updates[i].num_parts):
                    free(self.updates[i].parts[part].column_bits)
                free(<void *>self.updates[i].parts)
            free(self.updates)

    cdef int add(self, name, array, grad, rule) except -1:
        """Check one parameter and everything that belongs to it."""
        cdef fd_update *update = &self.updates[self.count]
        cdef cnp.ndarray param
        cdef int ndim
        cdef uint64_t rows, columns
        check_array(array, "params", name)
        param = array
        ndim = cnp.PyArray_NDIM(param)
        rows = cnp.PyArray_DIM(param, 0) if ndim else 1
        columns = max(<uint64_t>1, cnp.PyArray_SIZE(param) // max(<uint64_t>1, rows))
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
        self.products.append(grad if type(grad) is ProductGradient else None)
        if type(grad) is ProductGradient:
            grad = self.out_of(name, grad)
            self.arrays.append(grad)
        if isinstance(grad, cnp.ndarray):
            if not is_like(param, grad):
                check_like(param, grad, "grads", name)
                if not is_plain(grad):
                    grad = np.array(grad, (<object>param).dtype, order="C")
                    check_like(param, grad, "grads", name)
                    self.arrays.append(grad)
            update.d = cnp.PyArray_DATA(<cnp.ndarray>grad)
        else:
            self.add_parts(update, name, param, rows, columns, grad)
        self.add_states(update, name, param)
        by_rows = self.by_rows or update.d == NULL or update.max_norm < INFINITY
        update.columns = columns if ndim > 1 and by_rows else PIECE
        return 0

    cdef cnp.ndarray out_of(self, name, ProductGradient product):
        """Return the array for the gradient, if the factors fit."""
        cdef cnp.ndarray a = product.a, b, out = product.out
        cdef int type = cnp.PyArray_TYPE(out)
        if self.by_rows:
            raise TypeError(
                f"grads[{name!r}]: expected an array where norms are clipped, got a product"
            )
        check_array(out, "grads", name)
        if isinstance(product.b, SparseRows):
            (<SparseRows>product.b).check_gradient(a, out)
            return out
        b = product.b
        if (cnp.PyArray_NDIM(a) != 2 or cnp.PyArray_NDIM(b) != 2 or cnp.PyArray_NDIM(out) != 2
                or cnp.PyArray_TYPE(a) != type or cnp.PyArray_TYPE(b) != type
                or cnp.PyArray_DIM(a, 0) != cnp.PyArray_DIM(out, 0)
                or cnp.PyArray_DIM(a, 1) != cnp.PyArray_DIM(b, 0)
                or cnp.PyArray_DIM(b, 1) != cnp.PyArray_DIM(out, 1)):
            raise ValueError(
                f"grads[{name!r}]: expected factors of a product of shape {(<object>out).shape} "
                f"and dtype {out.dtype}, got {(<object>a).shape} {a.dtype} and "
                f"{(<object>b).shape} {b.dtype}"
            )
        return out

    cdef int add_states(self, fd_update *update, name, cnp.ndarray param) except -1:
        cdef dict states
        cdef Py_ssize_t k
        if len(self.state_names) == 0:
            return 0
        states = self.state.get(name)
        for k in range(len(self.state_names)):
            state_name = self.state_names[k]
            array = None if states is None else states.get(state_name)
            if array is None:
                # Not PyArray_ZEROS: of its pages the first read makes pages of zeros, and the first
                # write makes them anew.
                array = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(param), cnp.PyArray_DIMS(param),
                                          cnp.PyArray_TYPE(param), 0)
                memset(cnp.PyArray_DATA(array), 0, cnp.PyArray_NBYTES(array))
                self.new_states.append((name, state_name, array))
            elif not is_like(param, array):
                check_array(array, state_name, name)
                check_like(param, array, state_name, name)
            update.state[k] = cnp.PyArray_DATA(array)
            self.arrays.append(array)
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

    cdef int add_parts(self, fd_update *update, name, cnp.ndarray param, uint64_t num_rows,
                       uint64_t num_columns, grad) except -1:
        cdef fd_part *part
        cdef cnp.ndarray rows, columns, values
        cdef list parts
        given = getattr(grad, "parts", None)
        if given is None:
            raise TypeError(
                f"grads[{name!r}]: expected a NumPy array or a PartialGradient, "
                f"got {type(grad).__name__}"
            )
        if cnp.PyArray_NDIM(param) != 2 or tuple(grad.shape) != (<object>param).shape:
            raise ValueError(
                f"grads[{name!r}]: expected shape {(<object>param).shape}, "
                f"got a PartialGradient of shape {grad.shape}"
            )
        parts = list(given)    # a private list, whose length nobody else changes
        part = <fd_part *>calloc(max(len(parts), 1), sizeof(fd_part))
        if part == NULL:
            raise MemoryError
        update.parts = part
        update.num_parts = len(parts)
        for given_rows, given_columns, given_values in parts:
            values = np.ascontiguousarray(given_values)
            rows = checked_indices(given_rows, num_rows, name, "rows")
            columns = checked_indices(given_columns, num_columns, name, "columns")
            part.num_rows = cnp.PyArray_SIZE(rows)
            part.num_columns = cnp.PyArray_SIZE(columns)
            check_is_array(given_values, "grads", name)
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
            part.column_bits = bits_of(columns, num_columns)
            part.values = cnp.PyArray_DATA(values)
            self.arrays += (rows, values)
            part += 1
        return 0

    cdef int run_all(self) except -1:
        """Update all parameters; a gradient that is a product is multiplied just before."""
        cdef uint64_t i, first = 0
        for i in range(self.count):
            if self.products[i] is not None:
                if first < i:    # before the product, which may take the memory of the one before
                    self.run(first, i)
                (<ProductGradient>self.products[i]).multiply()
                first = i
        if first < self.count:
            self.run(first, self.count)
        return 0

    cdef int run(self, uint64_t first, uint64_t last, double *sums=NULL) except -1:
        """Run updates [first, last), or, with `sums`, compute each gradient row's sum of squares
        instead."""
        return run_updates(&self.updates[first], last - first, 3 + 2 * len(self.state_names), sums)

    cdef int clip_norms(self, double limit, bint together) except -1:
        """Set the scale of each update so that its gradient's norm, or that of all, is in limit."""
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
    uint64_t scratch    # bytes for each share
    char *memory
    char *aligned
    double *sums


cdef void update_share(int share, int shares, void *argument) noexcept nogil:
    """Computes the same part of the rows of each update."""
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


cdef int run_updates(const fd_update *updates, uint64_t count, int passes, double *sums) except -1:
    """Run updates, or compute sums, which read or write each element `passes` times."""
    cdef updating u = updating(updates=updates, count=count, scratch=0, memory=NULL, aligned=NULL,
                               sums=sums)
    cdef uint64_t i, n = 0
    cdef double bytes_moved = 0
    cdef int shares
    for i in range(count):
        n += updates[i].n
        bytes_moved += updates[i].n * (8.0 if updates[i].is_double else 4.0)
        u.scratch = max(u.scratch, fd_update_scratch(&updates[i]))
    shares = threads_for(bytes_moved * passes)
    u.memory = <char *>malloc(shares * u.scratch + 64)
    if u.memory == NULL:
        raise MemoryError
    u.aligned = u.memory + (64 - <uintptr_t>u.memory % 64)
    if n < GIL_RELEASE_PAYS:
        run_shares(update_share, crew(shares, FD_SPINNING), &u)
    else:
        with nogil:
            run_shares(update_share, crew(shares, FD_SPINNING), &u)
    free(u.memory)
    return 0


def update(params, grads, rules, dict state, str optimizer, dict constants, double decay=0,
           clipnorm=None, clipvalue=None, global_clipnorm=None):
    """Update all `params` once; `state` gets the arrays that it lacks.

    `constants` has those of the optimizer's formula by name, "rate" among them. Others are 0.
    """
    rules = {} if rules is None else rules
    for argument, given in ("params", params), ("grads", grads), ("rules", rules):
        if type(given) is not dict and not isinstance(given, Mapping):
            raise TypeError(f"{argument}: expected a dict, got {type(given).__name__}")
    cdef dict own_params = dict(params), own_grads = dict(grads)    # which nobody else changes
    cdef Updates updates = Updates.__new__(Updates)
    updates.take(own_params, own_grads, state)
    number, updates.state_names = OPTIMIZERS[optimizer]
    updates.optimizer = <fd_optimizer><int>number
    updates.step = fd_step(
        rate=constants["rate"], momentum=constants.get("momentum", 0),
        keep=constants.get("keep", 0), gain=constants.get("gain", 0),
        square_gain=constants.get("square_gain", 0), epsilon=constants.get("epsilon", 0),
        decay=decay, l1=0, l2=0, scale=1,
        limit=INFINITY if clipvalue is None else clipvalue,
    )
    updates.by_rows = clipnorm is not None or global_clipnorm is not None
    cdef PyObject *grad
    if len(own_grads) != len(own_params):
        raise other_names(params, grads)
    if not rules.keys() <= params.keys():
        raise ValueError(
            f"rules: expected names out of {', '.join(params)}, got {', '.join(rules)}"
        )
    for name, param in own_params.items():
        grad = PyDict_GetItemWithError(own_grads, name)
        if grad == NULL:
            raise other_names(params, grads)
        updates.add(name, param, <object>grad, rules.get(name))
    if clipnorm is not None:
        updates.clip_norms(clipnorm, together=False)
    elif global_clipnorm is not None:
        updates.clip_norms(global_clipnorm, together=True)
    for name, state_name, array in updates.new_states:
        state.setdefault(name, {})[state_name] = array
    updates.run_all()


cdef object other_names(params, grads):
    return ValueError(
        f"grads: expected one for each of {', '.join(params)}, got {', '.join(grads)}"
    )


def sum_of_squares(cnp.ndarray a):
    """Return the sum of the squares of all elements of float32 or float64, taken in float64.

    It is taken piece by piece, so it depends neither on threads nor on the instruction set.
    """
    cdef fd_update whole
    cdef cnp.ndarray sums
    cdef double *of_pieces
    cdef double total = 0
    cdef uint64_t i
    if not is_plain(a):
        a = np.array(a, (<object>a).dtype.newbyteorder("="), order="C")
    if cnp.PyArray_TYPE(a) not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64):
        raise TypeError(f"a: expected float32 or float64, got {a.dtype}")
    memset(&whole, 0, sizeof(whole))
    whole.kernels, whole.is_double = active_kernels(), cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64
    whole.step.scale, whole.step.limit = 1, INFINITY
    whole.d, whole.n, whole.columns = cnp.PyArray_DATA(a), cnp.PyArray_SIZE(a), PIECE
    sums = np.empty(fd_num_rows(&whole))
    of_pieces = <double *>cnp.PyArray_DATA(sums)
    run_updates(&whole, 1, 1, of_pieces)
    for i in range(fd_num_rows(&whole)):
        total += of_pieces[i]
    return total


# ---- parts of weights, and rows of tables -------------------------------------------------------

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
    fd_submatrix(p.kernels, p.is_double, p.matrix, p.width, p.rows, p.num_rows, first, last, p.bits,
                 p.columns, p.num_columns, p.values)


def submatrix(cnp.ndarray matrix, rows, columns, cnp.ndarray out):
    """Compute out = matrix[rows][:, columns]; None stands for all rows or columns.

    `matrix` and `out` are C-contiguous and apart, and have the same dtype, float32 or float64. The
    indices are intp and contiguous, columns ascend, and nobody writes to the indices meanwhile.
    """
    cdef picking p
    cdef uint64_t *bits = NULL
    cdef int shares
    check_picking(matrix, rows, columns, out)
    p = picking_of(matrix, rows, out)
    if columns is not None:
        p.columns = <const intptr_t *>cnp.PyArray_DATA(<cnp.ndarray>columns)
        p.bits = bits = bits_of(columns, p.width)
    shares = threads_for(p.num_rows * (p.width + p.num_columns) * (8.0 if p.is_double else 4.0))
    with nogil:
        run_shares(picking_share, crew(shares, FD_SPINNING), &p)
    free(bits)


cdef picking picking_of(cnp.ndarray matrix, rows, cnp.ndarray out):
    """Describe a submatrix of all columns."""
    cdef picking p = picking(
        kernels=active_kernels(), is_double=cnp.PyArray_TYPE(matrix) == cnp.NPY_FLOAT64,
        matrix=<const char *>cnp.PyArray_DATA(matrix), width=cnp.PyArray_DIM(matrix, 1), rows=NULL,
        num_rows=cnp.PyArray_DIM(out, 0), bits=NULL, columns=NULL,
        num_columns=cnp.PyArray_DIM(out, 1), values=<char *>cnp.PyArray_DATA(out),
    )
    if rows is not None:
        p.rows = <const intptr_t *>cnp.PyArray_DATA(<cnp.ndarray>rows)
    return p


# Bytes read and written by a helper before it looks whether there is other work: some us
cdef double OFFERED_AT_ONCE = 1 << 15


cdef void offered_share(int share, int shares, void *argument) noexcept nogil:
    # The last share is taken first. Rows are asked for in ascending order.
    picking_share(shares - 1 - share, shares, argument)


@cython.no_gc_clear    # a helper may still use the arrays
cdef class RowsAhead:
    """Rows that helpers copy while they wait for other work, see `rows_ahead`."""

    cdef cnp.ndarray matrix, rows, out
    cdef picking p
    cdef bint offered

    def finish(self):
        """Return `out`, which has the rows now."""
        with nogil:
            settle_shares(&self.p)
        return self.out

    def __dealloc__(self):
        if self.offered:
            settle_shares(&self.p)


def rows_ahead(cnp.ndarray matrix, cnp.ndarray rows, cnp.ndarray out):
    """Begin to compute ``submatrix(matrix, rows, None, out)`` with helpers that wait for other work.

    Until `RowsAhead.finish` nobody may change the matrix or use `out`.

    Returns
    -------
    RowsAhead or None
        None if no helper would do it: there is one thread, or little to copy, or others have asked
        for such copies.
    """
    cdef RowsAhead ahead
    cdef double size
    rows = rows.copy()    # nobody else can change this copy
    check_picking(matrix, rows, None, out)
    size = cnp.PyArray_NBYTES(out) * 2.0
    if threads_for(size) == 1:
        return None
    ahead = RowsAhead.__new__(RowsAhead)
    ahead.matrix, ahead.rows, ahead.out = matrix, rows, out
    ahead.p = picking_of(matrix, ahead.rows, out)
    ahead.offered = offer_shares(
        offered_share, <int>max(1.0, min(<double>ahead.p.num_rows, size / OFFERED_AT_ONCE)), &ahead.p
    )
    return ahead if ahead.offered else None


cdef int check_picking(cnp.ndarray matrix, rows, columns, cnp.ndarray out) except -1:
    cdef int type = cnp.PyArray_TYPE(matrix)
    cdef bint fits = (
        type in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) and type == cnp.PyArray_TYPE(out)
        and cnp.PyArray_NDIM(matrix) == 2 == cnp.PyArray_NDIM(out)
        and is_plain(matrix) and is_plain(out) and cnp.PyArray_ISWRITEABLE(out)
        and not do_meet(matrix, out)
    )
    if fits:
        fits = (
            cnp.PyArray_DIM(out, 0) == picked(rows, cnp.PyArray_DIM(matrix, 0), False)
            and cnp.PyArray_DIM(out, 1) == picked(columns, cnp.PyArray_DIM(matrix, 1), True)
        )
    if not fits:
        raise ValueError(
            "matrix: expected C-contiguous floats with these rows and columns, and room for them "
            f"elsewhere, got {matrix.dtype} {(<object>matrix).shape} for {out.dtype} "
            f"{(<object>out).shape}"
        )
    return 0


cdef intptr_t picked(indices, intptr_t length, bint ascending) noexcept:
    """Return how many are picked out of so many, or -1 if they are no indices in [0, length)."""
    cdef const intptr_t *index
    cdef intptr_t i, n
    cdef bint ok = True
    if indices is None:
        return length
    if not isinstance(indices, cnp.ndarray) or not are_indices(indices):
        return -1
    n = cnp.PyArray_SIZE(<cnp.ndarray>indices)
    if ascending:
        return n if ascend(indices, length) else -1
    index = <const intptr_t *>cnp.PyArray_DATA(<cnp.ndarray>indices)
    for i in range(n):
        ok = ok & (0 <= index[i] < length)
    return n if ok else -1

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, allow_none_for_extension_args=False
"""Losses of a batch with their gradients, in one pass each; activations; sums of samples.

losses.py and layers/activations.py have the formulas, kernels/softmax.h that of softmax's exponentials,
kernels/activations.h those of sigmoid and tanh.

Values are added up in double precision, so they do not depend on the instruction set. Each call
reads its arguments anew; see the top of `_core.pyx`.
"""

import numpy as np
cimport numpy as cnp
from libc.math cimport exp, expf, fabs, fabsf, log, log1p, log1pf, logf, sqrt
from libc.stdint cimport int64_t, intptr_t, uint64_t
from libc.string cimport memcpy, memset

from fastdrop.compiled._core cimport (
    FD_SIGMOID,
    FD_TANH,
    FD_TILE,
    active_kernels,
    crew,
    crew_for,
    fd_kernels,
    run_shares,
)
from fastdrop.compiled.arrays cimport do_meet, is_plain

cnp.import_array()

ctypedef fused real:
    float
    double

cdef enum:
    SQUARED
    ABSOLUTE
    HUBER
    SIGMOID
    SOFTMAX

cdef dict LOSSES = {
    "squared": SQUARED, "absolute": ABSOLUTE, "huber": HUBER, "sigmoid": SIGMOID,
    "softmax": SOFTMAX,
}


cdef inline real magnitude(real x) noexcept nogil:
    if real is float:
        return fabsf(x)
    else:
        return fabs(x)


cdef inline real exponential(real x) noexcept nogil:
    if real is float:
        return expf(x)
    else:
        return exp(x)


cdef inline real logarithm(real x) noexcept nogil:
    if real is float:
        return logf(x)
    else:
        return log(x)


cdef inline real logarithm_of_1_and(real x) noexcept nogil:
    if real is float:
        return log1pf(x)
    else:
        return log1p(x)


cdef inline real one(int kind, real output, real y, real delta, real *gradient) noexcept nogil:
    """Return the loss of one element, and its slope."""
    cdef real error = output - y, e, top
    if kind == SQUARED:
        gradient[0] = 2 * error
        return error * error
    if kind == ABSOLUTE:
        gradient[0] = error if error != error else <real>((error > 0) - (error < 0))
        return magnitude(error)
    if kind == HUBER:
        gradient[0] = -delta if error < -delta else delta if error > delta else error
        return gradient[0] * (error - gradient[0] / 2)
    # the cross-entropy of sigmoid(output), without overflow
    e = exponential(-magnitude(output))
    top = 1 if output >= 0 else e
    gradient[0] = top / (1 + e) - y
    top = 0 if output < 0 else output
    return top - output * y + logarithm_of_1_and(e)


cdef double elementwise(int kind, const real *outputs, const real *y, const real *weights,
                        uint64_t n, uint64_t columns, double scale, double delta,
                        real *gradient) noexcept nogil:
    """Return the sum of all losses times weight and scale, and its gradient."""
    cdef uint64_t i, j, k, lane, at = 0
    cdef real w = <real>scale, slope
    cdef double total = 0
    cdef double[8] lanes    # side by side, because one sum would wait for each addition
    for i in range(n):
        if weights != NULL:
            w = <real>(weights[i] * scale)
        for lane in range(8):
            lanes[lane] = 0
        j = 0
        while j < columns:
            k = min(<uint64_t>8, columns - j)
            for lane in range(k):
                lanes[lane] += one(kind, outputs[at], y[at], <real>delta, &slope)
                gradient[at] = slope * w
                at += 1
            j += k
        for lane in range(1, 8):
            lanes[0] += lanes[lane]
        total += lanes[0] * (<double>w if weights != NULL else scale)
    return total


# At most so many rows, and so many elements unless one row has more, get their exponentials
# together: they are still in the first cache when they are read again.
cdef enum:
    ROWS = 256
    ELEMENTS = 2048


cdef uint64_t rows_at_once(uint64_t classes) noexcept nogil:
    return max(<uint64_t>1, min(<uint64_t>ROWS, ELEMENTS // classes))


cdef void exponentials(const fd_kernels *kernels, const real *z, uint64_t rows, uint64_t classes,
                       real *tops, real *e) noexcept nogil:
    """Compute e = exp(z - top), where top is the largest of a row; put the tops into `tops`."""
    cdef uint64_t i, j, n = rows * classes, rest = n % 32
    cdef const real *row = z
    cdef int is_double = real is double
    cdef real[32] last
    cdef real top
    for i in range(rows):
        top = row[0]
        for j in range(1, classes):
            if row[j] > top:
                top = row[j]
        for j in range(classes):
            e[i * classes + j] = row[j] - top
        tops[i] = top
        row += classes
    kernels.softmax.exponentials[is_double](n - rest, 0, e)
    if rest:    # the kernel computes 32 at once
        memset(last, 0, sizeof(last))
        memcpy(last, e + n - rest, rest * sizeof(real))
        kernels.softmax.exponentials[is_double](32, 0, last)
        memcpy(e + n - rest, last, rest * sizeof(real))


cdef real sum_of(const real *e, uint64_t classes) noexcept nogil:
    cdef uint64_t j
    cdef real total = 0
    for j in range(classes):
        total += e[j]
    return total


cdef void probabilities(const fd_kernels *kernels, const real *z, uint64_t rows, uint64_t classes,
                        real *y) noexcept nogil:
    cdef uint64_t i, j, at_once = rows_at_once(classes)
    cdef real[ROWS] tops
    cdef real total
    for i in range(rows):
        if i % at_once == 0:
            exponentials(kernels, z, min(at_once, rows - i), classes, tops, y)
        total = sum_of(y, classes)
        for j in range(classes):
            y[j] /= total
        z += classes
        y += classes


cdef real of_label(const real *z, real top, uint64_t label, uint64_t classes,
                   real *gradient) noexcept nogil:
    """Return the cross-entropy of softmax(z), and turn exponentials into its gradient."""
    cdef uint64_t j
    cdef real total = sum_of(gradient, classes)
    for j in range(classes):
        gradient[j] /= total
    gradient[label] -= 1
    return logarithm(total) - (z[label] - top)


cdef real of_probabilities(const real *z, real top, const real *y, uint64_t classes,
                           real *gradient) noexcept nogil:
    cdef uint64_t j
    cdef real total = sum_of(gradient, classes), sum = 0, hit = 0
    for j in range(classes):
        sum += y[j]
        hit += y[j] * (z[j] - top)
    for j in range(classes):
        gradient[j] = gradient[j] * (sum / total) - y[j]
    return sum * logarithm(total) - hit


cdef uint64_t softmax(const fd_kernels *kernels, const real *z, const intptr_t *labels,
                      const real *y, const real *weights, uint64_t n, uint64_t classes,
                      double scale, real *gradient, real *losses, double *total) noexcept nogil:
    """Do what `elementwise` does, for rows with a label or with probabilities y. If `losses` are
    wanted, compute each row's loss. Return the index of the first label that is no class number, or
    n."""
    cdef uint64_t i, j, label, at_once = rows_at_once(classes)
    cdef real[ROWS] tops
    cdef real w = <real>scale, loss, top
    total[0] = 0
    for i in range(n):
        if i % at_once == 0:
            exponentials(kernels, z, min(at_once, n - i), classes, tops, gradient)
        top = tops[i % at_once]
        if labels != NULL:
            label = labels[i]    # read once, because other code may write to the labels
            if label >= classes:
                return i
            loss = of_label(z, top, label, classes, gradient)
        else:
            loss = of_probabilities(z, top, y, classes, gradient)
            y += classes
        if weights != NULL:
            w = <real>(weights[i] * scale)
        for j in range(classes):
            gradient[j] *= w
        total[0] += loss * (<double>w if weights != NULL else scale)
        if losses != NULL:
            losses[i] = loss
        z += classes
        gradient += classes
    return n


cdef cnp.ndarray plain(cnp.ndarray a):
    """Return the array, or a plain copy, so that sums do not depend on its layout."""
    if is_plain(a):
        return a
    return np.require(a, (<object>a).dtype.newbyteorder("="), ["C", "A"])


cdef bint fit(int kind, cnp.ndarray outputs, cnp.ndarray y, cnp.ndarray weights):
    """Tell whether `mean_loss` can read them as they lie."""
    cdef int ndim = cnp.PyArray_NDIM(outputs), type = cnp.PyArray_TYPE(outputs), d
    cdef bint labelled = kind == SOFTMAX and cnp.PyArray_NDIM(y) == ndim - 1
    if (ndim < 2 or type not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or not is_plain(outputs)
            or not is_plain(y) or cnp.PyArray_TYPE(y) != (cnp.NPY_INTP if labelled else type)
            or cnp.PyArray_NDIM(y) != ndim - labelled):
        return False
    for d in range(cnp.PyArray_NDIM(y)):
        if cnp.PyArray_DIM(y, d) != cnp.PyArray_DIM(outputs, d):
            return False
    if weights is None:
        return True
    return ((ndim == 2 or kind != SOFTMAX) and cnp.PyArray_NDIM(weights) == 1
            and cnp.PyArray_DIM(weights, 0) == cnp.PyArray_DIM(outputs, 0)
            and cnp.PyArray_TYPE(weights) == type and is_plain(weights))


def mean_loss(str name, cnp.ndarray outputs, cnp.ndarray y, weights, double delta):
    """Return a loss, averaged over all elements or, with softmax, over all rows, and its gradient.

    Parameters
    ----------
    name : str
        One of LOSSES; the last two are cross-entropies of logits.
    outputs : ndarray, (samples, ...)
        The outputs, or logits.
    y : ndarray
        Like `outputs`; for softmax also labels, intp, with one axis less.
    weights : ndarray or None
        Factors of the samples' losses, (samples,).
    delta : float
        Huber's.

    Returns
    -------
    tuple of float and ndarray, or None
        None if these arrays are not float32 or float64, of shapes that fit.

    Raises
    ------
    ValueError
        When a label is not a class number.
    """
    cdef int kind = LOSSES[name]
    outputs, y = plain(outputs), plain(y)
    if weights is not None:
        weights = plain(weights)
    if not fit(kind, outputs, y, weights) or cnp.PyArray_SIZE(outputs) == 0:
        return None
    cdef int ndim = cnp.PyArray_NDIM(outputs), type = cnp.PyArray_TYPE(outputs)
    cdef uint64_t size = cnp.PyArray_SIZE(outputs), wrong, rows = cnp.PyArray_DIM(outputs, 0)
    cdef uint64_t columns = size // rows
    cdef const fd_kernels *kernels = active_kernels()
    cdef const void *labels = NULL
    cdef const void *w = NULL if weights is None else cnp.PyArray_DATA(<cnp.ndarray>weights)
    cdef const void *z = cnp.PyArray_DATA(outputs)
    cdef const void *t = cnp.PyArray_DATA(y)
    cdef double total
    cdef cnp.ndarray gradient = cnp.PyArray_EMPTY(ndim, cnp.PyArray_DIMS(outputs), type, 0)
    cdef void *g = cnp.PyArray_DATA(gradient)
    if kind != SOFTMAX:
        with nogil:
            if type == cnp.NPY_FLOAT32:
                total = elementwise[float](kind, <const float *>z, <const float *>t,
                                           <const float *>w, rows, columns, 1 / <double>size, delta,
                                           <float *>g)
            else:
                total = elementwise[double](kind, <const double *>z, <const double *>t,
                                            <const double *>w, rows, columns, 1 / <double>size,
                                            delta, <double *>g)
        return total, gradient
    columns = cnp.PyArray_DIM(outputs, ndim - 1)
    rows = size // columns
    if cnp.PyArray_NDIM(y) < ndim:
        labels = t
    with nogil:
        if type == cnp.NPY_FLOAT32:
            wrong = softmax[float](kernels, <const float *>z, <const intptr_t *>labels,
                                   <const float *>t, <const float *>w, rows, columns,
                                   1 / <double>rows, <float *>g, NULL, &total)
        else:
            wrong = softmax[double](kernels, <const double *>z, <const intptr_t *>labels,
                                    <const double *>t, <const double *>w, rows, columns,
                                    1 / <double>rows, <double *>g, NULL, &total)
    if wrong < rows:
        raise no_class((<const intptr_t *>t)[wrong], columns)
    return total, gradient


cdef object no_class(intptr_t label, uint64_t classes):
    return ValueError(f"y: expected class numbers in [0, {classes}), got {label}")


def are_classes(cnp.ndarray y, tuple output_shape):
    """Tell whether they are class numbers for outputs of this shape, whose last axis has the classes.

    They have to be intp, as kernels read it, in [0, classes), with the other axes of the outputs.
    """
    cdef const intptr_t *labels
    cdef cnp.npy_intp i, n
    cdef intptr_t classes
    cdef bint fit = (cnp.PyArray_TYPE(y) == cnp.NPY_INTP and is_plain(y)
                     and cnp.PyArray_NDIM(y) == len(output_shape) and cnp.PyArray_NDIM(y) > 0)
    if fit:
        classes = output_shape[len(output_shape) - 1]
        for i in range(1, cnp.PyArray_NDIM(y)):
            fit = fit and cnp.PyArray_DIM(y, <int>i) == <cnp.npy_intp>output_shape[i - 1]
    if fit:
        labels, n = <const intptr_t *>cnp.PyArray_DATA(y), cnp.PyArray_SIZE(y)
        with nogil:
            for i in range(n):
                fit = fit & (0 <= labels[i]) & (labels[i] < classes)
    return fit


def count_hits(outputs, y):
    """Return in how many rows of outputs, (samples, classes), the largest is at the label, of intp.

    It counts as `numpy.argmax` does: the first of several that are the largest, or the first NaN.
    The result is None if these are not NumPy arrays of such shapes and types.
    """
    if type(outputs) is not cnp.ndarray or type(y) is not cnp.ndarray:
        return None
    cdef cnp.ndarray z = outputs, labels = y
    if (cnp.PyArray_NDIM(z) != 2 or cnp.PyArray_NDIM(labels) != 1 or cnp.PyArray_DIM(z, 1) == 0
            or not fit(SOFTMAX, z, labels, None)):
        return None
    cdef const void *data = cnp.PyArray_DATA(z)
    cdef const intptr_t *label = <const intptr_t *>cnp.PyArray_DATA(labels)
    cdef cnp.npy_intp n = cnp.PyArray_DIM(z, 0), classes = cnp.PyArray_DIM(z, 1), count
    with nogil:
        if cnp.PyArray_TYPE(z) == cnp.NPY_FLOAT32:
            count = hits[float](<const float *>data, label, n, classes)
        else:
            count = hits[double](<const double *>data, label, n, classes)
    return count


cdef cnp.npy_intp hits(const real *z, const intptr_t *labels, cnp.npy_intp n,
                       cnp.npy_intp classes) noexcept nogil:
    cdef cnp.npy_intp i, j, top, count = 0
    for i in range(n):
        top = 0
        for j in range(1, classes):
            if z[top] != z[top]:
                break
            if not z[j] <= z[top]:    # true for NaN as well
                top = j
        count += labels[i] == top
        z += classes
    return count


def are_finite(cnp.ndarray x):
    """Tell whether they are float32 or float64, as kernels read them, without NaN or infinity."""
    cdef int type = cnp.PyArray_TYPE(x)
    cdef const void *data = cnp.PyArray_DATA(x)
    cdef cnp.npy_intp n = cnp.PyArray_SIZE(x)
    cdef bint fit
    if type not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or not is_plain(x):
        return False
    with nogil:
        if type == cnp.NPY_FLOAT32:
            fit = finite[float](<const float *>data, n)
        else:
            fit = finite[double](<const double *>data, n)
    return fit


cdef bint finite(const real *x, cnp.npy_intp n) noexcept nogil:
    cdef real[8] sums    # so many, that compilers add them side by side
    cdef cnp.npy_intp i
    cdef int j
    for j in range(8):
        sums[j] = 0
    for i in range(n // 8):
        for j in range(8):
            sums[j] += x[j] - x[j]    # 0, or NaN if it is not finite
        x += 8
    for j in range(n % 8):
        sums[0] += x[j] - x[j]
    for j in range(1, 8):
        sums[0] += sums[j]
    return sums[0] == 0


def softmax_cross_entropy(cnp.ndarray logits, cnp.ndarray y):
    """Return -sum(y log(softmax(logits))) of each row, and the gradient of the sum over all rows.

    `logits` is C-contiguous, (n, classes), float32 or float64. `y` is C-contiguous, and has labels
    of intp, (n,), or is like `logits`. A row with NaN or infinity has a loss of NaN.
    """
    cdef cnp.npy_intp *dims = cnp.PyArray_DIMS(logits)
    cdef int type = cnp.PyArray_TYPE(logits)
    cdef cnp.ndarray losses, gradient
    cdef const fd_kernels *kernels = active_kernels()
    cdef const void *labels = NULL
    cdef const void *t = cnp.PyArray_DATA(y)
    cdef uint64_t n, classes, wrong
    cdef double total
    if (cnp.PyArray_NDIM(logits) != 2 or type not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64)
            or not is_plain(logits) or dims[1] == 0):
        raise ValueError(
            "outputs: expected C-contiguous float32 or float64 of shape (samples, classes), "
            f"got {logits.dtype} of shape {(<object>logits).shape}"
        )
    n, classes = dims[0], dims[1]
    if not fit(SOFTMAX, logits, y, None):
        raise ValueError(
            f"y: expected labels or probabilities for outputs of shape {(n, classes)}, "
            f"got shape {(<object>y).shape} of {y.dtype}"
        )
    losses = cnp.PyArray_EMPTY(1, dims, type, 0)
    gradient = cnp.PyArray_EMPTY(2, dims, type, 0)
    cdef void *l = cnp.PyArray_DATA(losses)
    cdef void *g = cnp.PyArray_DATA(gradient)
    if cnp.PyArray_NDIM(y) == 1:
        labels = t
    with nogil:
        if type == cnp.NPY_FLOAT32:
            wrong = softmax[float](kernels, <const float *>cnp.PyArray_DATA(logits),
                                   <const intptr_t *>labels, <const float *>t, NULL, n, classes, 1,
                                   <float *>g, <float *>l, &total)
        else:
            wrong = softmax[double](kernels, <const double *>cnp.PyArray_DATA(logits),
                                    <const intptr_t *>labels, <const double *>t, NULL, n, classes,
                                    1, <double *>g, <double *>l, &total)
    if wrong < n:
        raise no_class((<const intptr_t *>t)[wrong], classes)
    return losses, gradient


def softmax_of(cnp.ndarray z, cnp.ndarray out):
    """Compute out = softmax(z) over the last axis; out may be z itself.

    Returns
    -------
    bool
        False, and nothing is done, unless these are C-contiguous arrays of one shape with at least
        one axis, of float32 or float64.
    """
    cdef int d, ndim = cnp.PyArray_NDIM(z), type = cnp.PyArray_TYPE(z)
    cdef uint64_t classes, rows
    cdef const fd_kernels *kernels = active_kernels()
    cdef bint fits = (
        ndim > 0 and ndim == cnp.PyArray_NDIM(out) and type == cnp.PyArray_TYPE(out)
        and type in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) and is_plain(z) and is_plain(out)
        and cnp.PyArray_ISWRITEABLE(out)
        and (cnp.PyArray_DATA(z) == cnp.PyArray_DATA(out) or not do_meet(z, out))
    )
    if not fits or cnp.PyArray_SIZE(z) == 0:
        return False
    for d in range(ndim):
        if cnp.PyArray_DIM(z, d) != cnp.PyArray_DIM(out, d):
            return False
    classes = cnp.PyArray_DIM(z, ndim - 1)
    rows = cnp.PyArray_SIZE(z) // classes
    cdef const void *data = cnp.PyArray_DATA(z)
    cdef void *y = cnp.PyArray_DATA(out)
    with nogil:
        if type == cnp.NPY_FLOAT32:
            probabilities[float](kernels, <const float *>data, rows, classes, <float *>y)
        else:
            probabilities[double](kernels, <const double *>data, rows, classes, <double *>y)
    return True


# ---- activations of elements ---------------------------------------------------------------------

cdef dict ACTIVATIONS = {"sigmoid": FD_SIGMOID, "tanh": FD_TANH}

# Nanoseconds that one thread takes for an element of float32; float64 takes about twice as long
cdef double APPLYING = 1.5
cdef double GRADIENT = 0.1

# With fewer elements than this, releasing the GIL (about 30 ns) is not worth it.
cdef uint64_t GIL_RELEASE_PAYS = 1 << 12

cdef struct activating:
    void (*apply)(size_t n, const void *z, void *y) noexcept nogil
    void (*gradient)(size_t n, const void *dy, const void *y, void *dz) noexcept nogil    # or NULL
    const char *x    # z, or dy
    const char *y    # of a gradient
    char *out
    uint64_t n
    uint64_t itemsize


cdef void activating_share(int share, int shares, void *argument) noexcept nogil:
    cdef const activating *a = <const activating *>argument
    cdef uint64_t tiles = (a.n + <uint64_t>FD_TILE - 1) // <uint64_t>FD_TILE
    cdef uint64_t first = tiles * share // shares * FD_TILE
    cdef uint64_t n = min(tiles * (share + 1) // shares * FD_TILE, a.n) - first
    cdef uint64_t at = first * a.itemsize
    if a.gradient == NULL:
        a.apply(n, a.x + at, a.out + at)
    else:
        a.gradient(n, a.x + at, a.y + at, a.out + at)


cdef int activate(activating *a, double nanoseconds) except -1:
    """Compute all elements; one of float32 takes one thread so long."""
    cdef crew who = crew_for(a.n, a.n * nanoseconds * a.itemsize / 4, None)
    if who.threads == 1 and a.n < GIL_RELEASE_PAYS:
        activating_share(0, 1, a)
    else:
        with nogil:
            run_shares(activating_share, who, a)
    return 0


cdef bint are_alike(a, b):
    """Tell whether they are plain NumPy arrays of float32, or of float64, and of one shape."""
    if type(a) is not cnp.ndarray or type(b) is not cnp.ndarray:
        return False
    cdef cnp.ndarray x = a, y = b
    cdef int d, ndim = cnp.PyArray_NDIM(x), type_num = cnp.PyArray_TYPE(x)
    if (type_num not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or type_num != cnp.PyArray_TYPE(y)
            or ndim != cnp.PyArray_NDIM(y) or not is_plain(x) or not is_plain(y)):
        return False
    for d in range(ndim):
        if cnp.PyArray_DIM(x, d) != cnp.PyArray_DIM(y, d):
            return False
    return ndim > 0    # NumPy's functions return no arrays without axes


def activation_of(str name, z, out):
    """Return the activation of z by this name, in `out` if it is given.

    Parameters
    ----------
    name : {"sigmoid", "tanh"}
        The activation.
    z : ndarray
        The inputs.
    out : ndarray or None
        Array for the result; it may be z itself.

    Returns
    -------
    ndarray or None
        None, and nothing is written, unless these are C-contiguous arrays of one shape with at least
        one axis, of float32 or float64.
    """
    cdef int activation = ACTIVATIONS[name]
    if not are_alike(z, z if out is None else out):
        return None
    cdef cnp.ndarray x = z, y
    if out is None:
        y = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    else:
        y = out
        if (not cnp.PyArray_ISWRITEABLE(y)
                or cnp.PyArray_DATA(x) != cnp.PyArray_DATA(y) and do_meet(x, y)):
            return None
    cdef bint is_double = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT64
    cdef activating a = activating(
        apply=active_kernels().activations.apply[activation][is_double], gradient=NULL,
        x=<const char *>cnp.PyArray_DATA(x), y=NULL, out=<char *>cnp.PyArray_DATA(y),
        n=cnp.PyArray_SIZE(x), itemsize=8 if is_double else 4,
    )
    activate(&a, APPLYING)
    return y


def activation_gradient_of(str name, dy, y):
    """Return the gradient of what the activation by this name, whose output is y, was given.

    Parameters
    ----------
    name : {"sigmoid", "tanh"}
        The activation.
    dy : ndarray
        The gradient of the output.
    y : ndarray
        The output.

    Returns
    -------
    ndarray or None
        None unless these are C-contiguous arrays of one shape with at least one axis, of float32 or
        float64.
    """
    cdef int activation = ACTIVATIONS[name]
    if not are_alike(dy, y):
        return None
    cdef cnp.ndarray d = dy
    cdef cnp.ndarray dz = cnp.PyArray_EMPTY(
        cnp.PyArray_NDIM(d), cnp.PyArray_DIMS(d), cnp.PyArray_TYPE(d), 0)
    cdef bint is_double = cnp.PyArray_TYPE(d) == cnp.NPY_FLOAT64
    cdef activating a = activating(
        apply=NULL, gradient=active_kernels().activations.gradient[activation][is_double],
        x=<const char *>cnp.PyArray_DATA(d), y=<const char *>cnp.PyArray_DATA(<cnp.ndarray>y),
        out=<char *>cnp.PyArray_DATA(dz), n=cnp.PyArray_SIZE(d), itemsize=8 if is_double else 4,
    )
    activate(&a, GRADIENT)
    return dz


# ---- samples of a prediction, see uncertainty.py -------------------------------------------------

cdef void add_moments(const real *x, uint64_t samples, uint64_t n, bint anew, double *first,
                      double *total, double *squares) noexcept nogil:
    """Adds one sample after the other, so that their grouping changes no bit."""
    cdef uint64_t s, i
    cdef double d
    if anew and samples > 0:
        for i in range(n):
            first[i] = x[i]
    for s in range(samples):
        for i in range(n):
            d = x[s * n + i] - first[i]
            total[i] += d
            squares[i] += d * d


cdef void add_classes(const real *x, const real *terms, uint64_t samples, uint64_t places,
                      uint64_t classes, double *entropies, int64_t *votes) noexcept nogil:
    cdef uint64_t s, i, j, best
    cdef double sum
    for s in range(samples):
        for i in range(places):
            sum, best = 0, 0
            for j in range(classes):
                sum += terms[j]
                if x[j] > x[best]:
                    best = j
            entropies[i] -= sum
            votes[i * classes + best] += 1
            x += classes
            terms += classes


cdef void add_each(const real *x, const real *terms, uint64_t samples, uint64_t n,
                   double *entropies, int64_t *votes) noexcept nogil:
    cdef uint64_t s, i
    for s in range(samples):
        for i in range(n):
            entropies[i] -= terms[s * n + i]
            votes[i] += x[s * n + i] > 0.5


cdef bint is_like(cnp.ndarray a, cnp.npy_intp n, int type):
    return cnp.PyArray_SIZE(a) == n and cnp.PyArray_TYPE(a) == type and is_plain(a)


cdef cnp.npy_intp places_of(cnp.ndarray a) noexcept:
    """Return the product of the lengths of all axes but the first and the last."""
    cdef cnp.npy_intp places = 1
    cdef int d
    for d in range(1, cnp.PyArray_NDIM(a) - 1):
        places *= cnp.PyArray_DIM(a, d)
    return places


def add_samples(cnp.ndarray samples, terms, cnp.ndarray sums, entropies, votes, bint anew):
    """Add samples to a prediction's sums.

    Parameters
    ----------
    samples : ndarray of float32 or float64, (samples, ..., classes)
        The samples. The axes between are places, of which each has classes of its own.
    terms : ndarray like samples, or None
        Terms of the samples' entropies, each of which is -sum(terms).
    sums : ndarray of float64, (3, ..., classes)
        The first sample, and sums of the differences from it and of their squares.
    entropies : ndarray of float64, (...) or (..., classes)
        With `terms`: sums for each place, if classes exclude each other, or for each class.
    votes : ndarray of int64, (..., classes)
        With `terms`: votes for the likeliest class, or for each class above 1/2.
    anew : bool
        Whether nothing has been added to these sums yet.
    """
    cdef cnp.ndarray t, e, v
    cdef int type = cnp.PyArray_TYPE(samples)
    cdef cnp.npy_intp count, places, classes, n
    cdef bint fits = cnp.PyArray_NDIM(samples) > 1 and is_plain(samples) and (
        type in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64))
    if fits:
        count, places = cnp.PyArray_DIM(samples, 0), places_of(samples)
        classes = cnp.PyArray_DIM(samples, cnp.PyArray_NDIM(samples) - 1)
        n = places * classes
        fits = is_like(sums, 3 * n, cnp.NPY_FLOAT64) and cnp.PyArray_ISWRITEABLE(sums)
    if fits and terms is not None:
        t, e, v = terms, entropies, votes
        fits = (is_like(t, count * n, type) and is_like(v, n, cnp.NPY_INT64)
                and cnp.PyArray_SIZE(e) in (places, n)
                and is_like(e, cnp.PyArray_SIZE(e), cnp.NPY_FLOAT64)
                and cnp.PyArray_ISWRITEABLE(e) and cnp.PyArray_ISWRITEABLE(v))
    if not fits:
        raise ValueError("samples: expected C-contiguous floats, (samples, ..., classes), and "
                         "sums that go with them")
    if type == cnp.NPY_FLOAT32:
        add_all[float](samples, terms, sums, entropies, votes, anew, count, places, classes, NULL)
    else:
        add_all[double](samples, terms, sums, entropies, votes, anew, count, places, classes, NULL)


cdef int add_all(cnp.ndarray samples, terms, cnp.ndarray sums, entropies, votes, bint anew,
                 cnp.npy_intp count, cnp.npy_intp places, cnp.npy_intp classes,
                 const real *of_type) except -1:
    cdef const real *x = <const real *>cnp.PyArray_DATA(samples)
    cdef const real *t
    cdef double *s = <double *>cnp.PyArray_DATA(sums)
    cdef double *e
    cdef int64_t *v
    cdef cnp.npy_intp n = places * classes
    add_moments(x, count, n, anew, s, s + n, s + 2 * n)
    if terms is None:
        return 0
    t = <const real *>cnp.PyArray_DATA(<cnp.ndarray>terms)
    e = <double *>cnp.PyArray_DATA(<cnp.ndarray>entropies)
    v = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>votes)
    if cnp.PyArray_SIZE(<cnp.ndarray>entropies) == places and classes > 1:
        add_classes(x, t, count, places, classes, e, v)
    else:
        add_each(x, t, count, n, e, v)
    return 0


def statistics_of(cnp.ndarray sums, entropies, votes, cnp.npy_intp count):
    """Return what the sums of `add_samples` say after `count` samples, all in float64.

    Returns
    -------
    mean, std : ndarray, (..., classes)
        Mean and standard deviation of the samples.
    entropy, ratio : ndarray like entropies, or None
        The mean of the samples' entropies, and the share of the samples that do not vote for the
        class, or side of 1/2, with the most votes. They are None where `entropies` is.
    """
    cdef cnp.ndarray e, v, mean, std, entropy, ratio
    cdef int ndim = cnp.PyArray_NDIM(sums) - 1
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(sums) + 1
    cdef cnp.npy_intp n, places, classes
    cdef bint fits = (
        ndim > 0 and cnp.PyArray_DIM(sums, 0) == 3 and count > 0
        and is_like(sums, cnp.PyArray_SIZE(sums), cnp.NPY_FLOAT64))
    if fits:
        places, classes = places_of(sums), cnp.PyArray_DIM(sums, ndim)
        n = places * classes
    if fits and entropies is not None:
        e, v = entropies, votes
        fits = (is_like(v, n, cnp.NPY_INT64) and cnp.PyArray_SIZE(e) in (places, n)
                and is_like(e, cnp.PyArray_SIZE(e), cnp.NPY_FLOAT64))
    if not fits:
        raise ValueError("sums: expected those of add_samples, after at least one sample")
    mean = cnp.PyArray_EMPTY(ndim, shape, cnp.NPY_FLOAT64, 0)
    std = cnp.PyArray_EMPTY(ndim, shape, cnp.NPY_FLOAT64, 0)
    moments(<const double *>cnp.PyArray_DATA(sums), n, count, <double *>cnp.PyArray_DATA(mean),
            <double *>cnp.PyArray_DATA(std))
    if entropies is None:
        return mean, std, None, None
    entropy = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(e), cnp.PyArray_DIMS(e), cnp.NPY_FLOAT64, 0)
    ratio = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(e), cnp.PyArray_DIMS(e), cnp.NPY_FLOAT64, 0)
    uncertainties(<const double *>cnp.PyArray_DATA(e), <const int64_t *>cnp.PyArray_DATA(v),
                  cnp.PyArray_SIZE(e), classes, cnp.PyArray_SIZE(e) == places and classes != 1,
                  count, <double *>cnp.PyArray_DATA(entropy), <double *>cnp.PyArray_DATA(ratio))
    return mean, std, entropy, ratio


cdef void moments(const double *sums, uint64_t n, double count, double *mean,
                  double *std) noexcept nogil:
    cdef uint64_t i
    cdef double shift, variance
    for i in range(n):
        shift = sums[n + i] / count
        mean[i] = sums[i] + shift
        variance = sums[2 * n + i] / count - shift * shift
        std[i] = 0 if variance < 0 else sqrt(variance)


cdef void uncertainties(const double *sums, const int64_t *votes, uint64_t n, uint64_t classes,
                        bint exclusive, int64_t count, double *entropies,
                        double *ratios) noexcept nogil:
    """`exclusive`: classes exclude each other, else each of them has an opposite."""
    cdef uint64_t i, j
    cdef int64_t most
    for i in range(n):
        entropies[i] = sums[i] / count
        if exclusive:
            most = 0
            for j in range(classes):
                most = max(most, votes[i * classes + j])
        else:
            most = max(votes[i], count - votes[i])
        ratios[i] = 1 - <double>most / count

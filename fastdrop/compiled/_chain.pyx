# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, allow_none_for_extension_args=False
"""Runs of `Dense` layers with their activations and dropout: one call forward, another backward::

    forward     x --product--> z --bias, activation, dropout, in place--> y, the next link's x
    sample      the same for many samples at once: line by line with masks of their own
    backward    dy --dropout, activation, in place--> dz --product--> dx, the link's dy before
                dz.T --product with x--> weight's gradient; dz, columns added up --> bias's

kernels/ and `_train.matmul` compute each of these steps; this file only has their order. Each call
reads anew its arguments and the arrays that others can reach; see the top of `_core.pyx`.
"""

import numpy as np
cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from fastdrop.compiled import _train
from fastdrop.compiled._core cimport (
    bias_backward_memory, bias_memory, block_sums, cyclic_bytes, mask_memory, mask_rule,
)
from fastdrop.compiled._train cimport ProductGradient, enter_blas, leave_blas, multiply_by
from fastdrop.compiled.arrays cimport is_plain

cnp.import_array()

cdef mask_rule NOTHING_DROPPED = mask_rule(p=0, scale=1, seed=0, call=0, offset=0)


cdef class Link:
    """A `Dense`, its activation, and the `Dropout` after it; or only a dropout.

    Parameters
    ----------
    width : int
        Units, or features of a dropout alone.
    weight, bias : ndarray, optional
        float32 or float64, C-contiguous, (units, inputs) and (units,).
    names : tuple of str
        The names of the gradients of weight and bias.
    activation : {"linear", "relu"} or callable
        A callable is called with (z, z), and returns y and the function of the gradient.
    dropout : Dropout, optional
        An element-wise dropout, whose `p` is read in every batch.
    seed : int
        The seed of the dropout's key in the model.
    trains : bool
        Whether gradients of weight and bias are wanted.
    """

    cdef cnp.ndarray weight, transposed, bias, cyclic
    cdef cnp.npy_intp width, inputs
    cdef int type
    cdef bint relu, has_bias, trains
    cdef object weight_name, bias_name, activate, dropout    # activate: None where kernels do it
    cdef uint64_t seed
    # For batches with as many samples as the last one:
    cdef cnp.ndarray z, masked, gradient, dbias, partial
    # About the last batch:
    cdef cnp.ndarray x, y
    cdef object activation_gradient
    cdef mask_rule mask

    def __cinit__(self, cnp.npy_intp width, cnp.ndarray weight=None, cnp.ndarray bias=None,
                  tuple names=(None, None), activation="linear", dropout=None, uint64_t seed=0,
                  bint trains=False):
        self.width, self.weight, self.has_bias = width, weight, bias is not None
        self.weight_name, self.bias_name = names
        self.relu = isinstance(activation, str) and activation == "relu"
        self.activate = None if isinstance(activation, str) else activation
        self.dropout, self.seed, self.trains = dropout, seed, trains
        if weight is None:
            return
        self.type = cnp.PyArray_TYPE(weight)
        self.inputs = cnp.PyArray_DIM(weight, 1) if cnp.PyArray_NDIM(weight) == 2 else -1
        self.bias = np.zeros(max(0, width), weight.dtype) if bias is None else bias
        if not (is_matrix(weight, width, self.inputs, self.type)
                and self.type in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64)
                and is_vector(self.bias, width, self.type)):
            raise ValueError(
                f"weight, bias: expected arrays for {width} units, got {weight.dtype} "
                f"{(<object>weight).shape} and {self.bias.dtype} {(<object>self.bias).shape}"
            )
        self.transposed = cnp.PyArray_Transpose(weight, NULL)
        self.cyclic = np.empty(cyclic_bytes(width, self.type == cnp.NPY_FLOAT64), np.uint8)
        self.dbias = np.empty(width, weight.dtype)


cdef bint is_matrix(cnp.ndarray a, cnp.npy_intp rows, cnp.npy_intp columns, int type) noexcept:
    return (cnp.PyArray_NDIM(a) == 2 and cnp.PyArray_DIM(a, 0) == rows
            and cnp.PyArray_DIM(a, 1) == columns and cnp.PyArray_TYPE(a) == type and is_plain(a))


cdef bint is_vector(cnp.ndarray a, cnp.npy_intp length, int type) noexcept:
    return (cnp.PyArray_NDIM(a) == 1 and cnp.PyArray_DIM(a, 0) == length
            and cnp.PyArray_TYPE(a) == type and is_plain(a))


cdef class Chain:
    """Links, each of which takes the output of the one before.

    Parameters
    ----------
    links : list of Link
        The links.
    inputs : int
        Features of a sample.
    dtype : {float32, float64}
        The dtype of all arrays.
    buffers : callable
        ``buffers(name, *shape)`` returns an array of this dtype that belongs to the chain.
    matmul : callable
        `_train.matmul`, or a function that does the same.
    shared : callable, optional
        Like `buffers`, for weights' gradients that are left as products for the update; nothing may
        change the chain's input until then. Without it they are multiplied at once.
    rate_at : callable
        ``rate_at(p, step)`` returns a dropout's `p` in this step as a number.

    Attributes
    ----------
    grads : dict of str to ndarray or ProductGradient
        The gradients after a backward pass, by the links' names.
    calls_functions : bool
        Whether any activation is a function.
    """

    cdef list links
    cdef cnp.npy_intp inputs, samples
    cdef int type, first_trained
    cdef object dtype, buffers, matmul, shared, rate_at
    cdef bint ours    # whether `matmul` is ours
    cdef readonly dict grads
    cdef readonly bint calls_functions

    def __cinit__(self, list links, cnp.npy_intp inputs, dtype, buffers, matmul, shared, rate_at):
        cdef Link link
        cdef cnp.npy_intp width = inputs
        self.links, self.inputs, self.samples = list(links), inputs, -1
        self.dtype = np.dtype(dtype)
        self.type = self.dtype.num
        self.buffers, self.matmul, self.shared = buffers, matmul, shared
        self.rate_at, self.grads = rate_at, {}
        self.ours = matmul is _train.matmul
        self.first_trained = len(self.links)
        if self.type not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or not self.links:
            raise ValueError(f"links, dtype: expected links of float32 or float64, got {dtype}")
        for number, link in enumerate(self.links):
            if (link.weight is None and link.width != width) or (
                    link.weight is not None and (link.inputs, link.type) != (width, self.type)):
                raise ValueError(f"links: expected link {number} to take {width} of {self.dtype}")
            width = link.width
            self.calls_functions = self.calls_functions or link.activate is not None
            if link.trains and number < self.first_trained:
                self.first_trained = number

    def forward(self, cnp.ndarray x, bint training, uint64_t step, uint64_t row):
        """Return the outputs for x, (samples, inputs), whose first row is `row` of the batch."""
        cdef Link link
        cdef cnp.npy_intp n = cnp.PyArray_DIM(x, 0) if cnp.PyArray_NDIM(x) else -1
        for link in self.links:
            link.mask = NOTHING_DROPPED
            if training and link.dropout is not None:
                self.choose(link, step, row)
        if n != self.samples:
            self.make(n)
        if not is_matrix(x, n, self.inputs, self.type):
            x = self.fitting(x, "x", self.inputs)
        enter_blas(self.ours)
        try:
            for link in self.links:
                link.x = x
                if link.weight is not None:
                    x = self.computed(link, x)
                if drops(link) and (link.weight is None or link.activate is not None):
                    self.mask(link, x, link.masked)
                    x = link.masked
                link.y = x
        finally:
            leave_blas(self.ours)
        return (<object>x).view()    # a view, because others may assign another shape to it

    def sample(self, cnp.ndarray x, cnp.ndarray segments, uint64_t row, bint in_lines):
        """Return the outputs of lines, each with the masks of its own sample and row.

        `segments` is int64, (segments, 4), and covers the lines in their order. Each has the first
        line, the number of lines, the number of their first row, counted from `row`, and the number
        of their sample, which is the call of the key. A sample of -1 drops nothing. With
        `in_lines`, `x` has the lines. Otherwise it has the rows, of which the first link, a dropout
        alone, makes lines.
        """
        cdef Link link
        cdef cnp.npy_intp n
        segments = segments.copy()    # nobody else can change this copy
        n = self.lines_of(segments)
        cdef bint first = not in_lines
        cdef cnp.npy_intp rows = cnp.PyArray_DIM(x, 0) if cnp.PyArray_NDIM(x) else -1
        for link in self.links:
            link.mask = NOTHING_DROPPED
            if link.dropout is not None:
                self.choose(link, 0, 0)
        if n != self.samples:
            self.make(n)
        if not is_matrix(x, n if in_lines else rows, self.inputs, self.type):
            raise ValueError(f"x: expected {self.dtype} of {self.inputs} features, C-contiguous")
        if first and (<Link>self.links[0]).weight is not None:
            raise ValueError("in_lines: expected lines, for there is no dropout to make them")
        enter_blas(True)
        try:
            for link in self.links:
                if link.weight is not None:
                    x = self.computed_lines(link, x, segments, row)
                if first or (drops(link) and (link.weight is None or link.activate is not None)):
                    self.mask_lines(link, x, link.masked, segments, row, first)
                    x = link.masked
                first = False
        finally:
            leave_blas(True)
        return x

    def reseed(self, list seeds):
        """Give the dropouts' keys other seeds, in the order of the dropouts."""
        cdef Link link
        cdef list dropping = [link for link in self.links if link.dropout is not None]
        for link, seed in zip(dropping, seeds, strict=True):
            link.seed = seed

    def backward(self, dy, bint need_dx):
        """Return the gradient of the input, for that of the outputs of the last training pass.

        `dy` may be overwritten. Without `need_dx` the result has no meaning.
        """
        self.grads = {}
        enter_blas(self.ours)
        try:
            dy = self.gone_back(dy, need_dx)
        finally:
            leave_blas(self.ours)
        return dy.view()

    # ---- the parts of these methods --------------------------------------------------------------

    cdef object gone_back(self, dy, bint need_dx):
        cdef Link link
        cdef cnp.ndarray d
        cdef int number, last = 0 if need_dx else self.first_trained
        for number in range(len(self.links) - 1, last - 1, -1):
            link = self.links[number]
            d = self.fitting(dy, "dy", link.width)
            dy = d
            if link.weight is None:
                if drops(link):
                    self.mask(link, d, d)
                continue
            d = self.activation_passed(link, d)
            if link.trains:
                self.add_gradients(link, d)
            if need_dx or number > last:
                dy = self.buffer("dx", number, self.samples, link.inputs)
                multiply_by(self.matmul, d, link.weight, dy)
        return dy

    cdef int choose(self, Link link, uint64_t step, uint64_t row) except -1:
        """Choose the mask of this step."""
        p = link.dropout.p
        link.mask.p = p if type(p) is float else self.rate_at(p, step)
        link.mask.scale = 1 / (1 - link.mask.p) if link.mask.p < 1 else 0
        link.mask.seed, link.mask.call = link.seed, step
        link.mask.offset = row * <uint64_t>link.width
        return 0

    cdef cnp.ndarray computed(self, Link link, cnp.ndarray x):
        """Return the activation of x @ weight.T + bias, with dropout if kernels do both at once."""
        cdef cnp.ndarray z = link.z
        multiply_by(self.matmul, x, link.transposed, z)
        self.check(link, z)
        bias_memory(cnp.PyArray_DATA(z), cnp.PyArray_DATA(link.bias),
                    <char *>cnp.PyArray_DATA(link.cyclic), cnp.PyArray_SIZE(z), link.width,
                    self.type == cnp.NPY_FLOAT64, link.relu,
                    &link.mask if link.activate is None else &NOTHING_DROPPED)
        if link.activate is None:
            return z
        y, link.activation_gradient = link.activate(z, z)
        return self.fitting(y, "activation", link.width)

    cdef cnp.ndarray activation_passed(self, Link link, cnp.ndarray d):
        """Return the gradient of x @ weight.T + bias, and put its column sums into dbias."""
        cdef cnp.ndarray y = link.y, partial = link.partial
        if link.activate is not None:
            if drops(link):
                self.mask(link, d, d)
            d = self.fitting(link.activation_gradient(d), "activation", link.width)
        self.check(link, y)
        bias_backward_memory(cnp.PyArray_DATA(d), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(d),
                             self.type == cnp.NPY_FLOAT64, link.relu,
                             &link.mask if link.activate is None else &NOTHING_DROPPED,
                             partial, cnp.PyArray_DATA(link.dbias))
        return d

    cdef int add_gradients(self, Link link, cnp.ndarray d) except -1:
        d = cnp.PyArray_Transpose(d, NULL)
        if self.shared is None:
            multiply_by(self.matmul, d, link.x, link.gradient)
            self.grads[link.weight_name] = link.gradient
        else:
            self.grads[link.weight_name] = ProductGradient(d, link.x, link.gradient, self.matmul)
        if link.has_bias:
            self.grads[link.bias_name] = link.dbias
        return 0

    cdef int mask(self, Link link, cnp.ndarray a, cnp.ndarray out) except -1:
        self.check(link, a)
        self.check(link, out)
        mask_memory(cnp.PyArray_DATA(a), cnp.PyArray_DATA(out), cnp.PyArray_SIZE(a),
                    self.type == cnp.NPY_FLOAT64, &link.mask)
        return 0

    # ---- lines: see `sample` ---------------------------------------------------------------------

    cdef cnp.npy_intp lines_of(self, cnp.ndarray segments) except -1:
        """Return how many lines the segments cover; each begins where the one before ends."""
        cdef const int64_t *s = <const int64_t *>cnp.PyArray_DATA(segments)
        cdef cnp.npy_intp i, n = 0
        cdef bint fit = is_matrix(segments, cnp.PyArray_DIM(segments, 0), 4, cnp.NPY_INT64)
        if fit:
            for i in range(cnp.PyArray_DIM(segments, 0)):
                fit = fit and s[4 * i] == n and s[4 * i + 1] > 0 and s[4 * i + 2] >= 0
                n += s[4 * i + 1]
        if not fit:
            raise ValueError("segments: expected int64, (segments, 4), each behind the one before")
        return n

    cdef cnp.ndarray computed_lines(self, Link link, cnp.ndarray x, cnp.ndarray segments,
                                    uint64_t row):
        """Do what `computed` does, for lines."""
        cdef cnp.ndarray z = link.z
        cdef cnp.npy_intp i, size = cnp.PyArray_ITEMSIZE(z) * link.width
        cdef const int64_t *s = <const int64_t *>cnp.PyArray_DATA(segments)
        cdef bint here = drops(link) and link.activate is None
        cdef int64_t whole[4]
        cdef cnp.npy_intp count = cnp.PyArray_DIM(segments, 0)
        cdef mask_rule mask
        multiply_by(self.matmul, x, link.transposed, z)
        self.check(link, z)
        if not here:
            whole[0], whole[1], whole[2], whole[3] = 0, self.samples, 0, -1
            s, count = whole, 1
        for i in range(count):
            mask = mask_of(link, &s[4 * i], row)
            bias_memory(cnp.PyArray_BYTES(z) + s[4 * i] * size, cnp.PyArray_DATA(link.bias),
                        <char *>cnp.PyArray_DATA(link.cyclic), s[4 * i + 1] * link.width,
                        link.width, self.type == cnp.NPY_FLOAT64, link.relu, &mask)
        if link.activate is None:
            return z
        y, _ = link.activate(z, z)
        return self.fitting(y, "activation", link.width)

    cdef int mask_lines(self, Link link, cnp.ndarray x, cnp.ndarray out, cnp.ndarray segments,
                        uint64_t row, bint gather) except -1:
        """Do what `mask` does, for lines; `gather` makes lines of rows."""
        cdef const int64_t *s = <const int64_t *>cnp.PyArray_DATA(segments)
        cdef cnp.npy_intp i, source, size = cnp.PyArray_ITEMSIZE(out) * link.width
        cdef cnp.npy_intp rows = cnp.PyArray_DIM(x, 0)
        cdef mask_rule mask
        self.check(link, out)
        if not is_matrix(x, rows, link.width, self.type):
            self.check(link, x)
        for i in range(cnp.PyArray_DIM(segments, 0)):
            mask = mask_of(link, &s[4 * i], row)
            source = s[4 * i + 2] if gather else s[4 * i]
            if gather and s[4 * i + 3] < 0:
                memset(cnp.PyArray_BYTES(out) + s[4 * i] * size, 0, s[4 * i + 1] * size)
                continue
            if source + s[4 * i + 1] > rows:
                raise ValueError(f"segments: expected rows below {rows}")
            mask_memory(cnp.PyArray_BYTES(x) + source * size,
                        cnp.PyArray_BYTES(out) + s[4 * i] * size, s[4 * i + 1] * link.width,
                        self.type == cnp.NPY_FLOAT64, &mask)
        return 0

    # ---- arrays ----------------------------------------------------------------------------------

    cdef int make(self, cnp.npy_intp n) except -1:
        """Get arrays for batches of n samples."""
        cdef Link link
        self.samples = -1
        for number, link in enumerate(self.links):
            if link.weight is not None:
                link.z = self.buffer("z", number, n, link.width)
                link.partial = block_sums(n * link.width, link.width, self.type == cnp.NPY_FLOAT64)
                if link.trains and self.shared is None:
                    link.gradient = self.buffer("gradient", number, link.width, link.inputs)
                elif link.trains:
                    link.gradient = self.shared("gradient", link.width, link.inputs)
            if link.weight is None or (link.activate is not None and link.dropout is not None):
                link.masked = self.buffer("masked", number, n, link.width)
        self.samples = n
        return 0

    cdef cnp.ndarray buffer(self, name, number, cnp.npy_intp rows, cnp.npy_intp columns):
        cdef cnp.ndarray array = self.buffers((name, number), rows, columns)
        if not is_matrix(array, rows, columns, self.type) or not cnp.PyArray_ISWRITEABLE(array):
            raise ValueError(
                f"buffers: expected a writeable array of {self.dtype} and shape {(rows, columns)}"
            )
        return array

    cdef cnp.ndarray fitting(self, a, str name, cnp.npy_intp columns):
        """Return `a` as a writeable C-contiguous array of the chain's dtype, (samples, columns)."""
        cdef cnp.ndarray array = a
        if (cnp.PyArray_TYPE(array) != self.type or not is_plain(array)
                or not cnp.PyArray_ISWRITEABLE(array)):
            array = np.array(a, self.dtype, order="C")
        if not is_matrix(array, self.samples, columns, self.type):
            raise ValueError(
                f"{name}: expected shape {(self.samples, columns)}, got {(<object>a).shape}"
            )
        return array

    cdef int check(self, Link link, cnp.ndarray rows) except -1:
        """Check that these rows, and what belongs to the layer, still have their layouts."""
        cdef bint fit = is_matrix(rows, self.samples, link.width, self.type)
        if link.weight is not None:
            fit = fit and (is_vector(link.bias, link.width, self.type)
                           and is_vector(link.dbias, link.width, self.type))
        if not fit:
            raise ValueError(
                f"weights, activations: expected {self.dtype} for {self.samples} samples and "
                f"{link.width} units, got another layout, assigned in place"
            )
        return 0


cdef mask_rule mask_of(Link link, const int64_t *segment, uint64_t row) noexcept:
    """Return the mask of a segment, see `Chain.sample`."""
    cdef mask_rule mask = link.mask if segment[3] >= 0 else NOTHING_DROPPED
    if segment[3] >= 0:
        mask.call = segment[3]
        mask.offset = (row + <uint64_t>segment[2]) * <uint64_t>link.width
    return mask


cdef bint drops(Link link) noexcept:
    return link.mask.p != 0 or link.mask.scale != 1

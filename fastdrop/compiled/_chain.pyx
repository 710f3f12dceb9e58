# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, allow_none_for_extension_args=False
"""Runs of `Dense` layers with their activations and dropout: one call forward, another backward::

    forward     x --product--> z --bias, activation, dropout, in place--> y, the next link's x
    sample      the same for many samples at once: line by line with masks of their own
    backward    dy --dropout, activation, in place--> dz --product--> dx, the link's dy before
                dz.T --product with x--> weight's gradient; dz, columns added up --> bias's

If all rows of a batch share a link's mask, z has only the columns of kept units, and so has the next
link's x. Only the rows and columns of weights that they need take part in products::

    mask of link 1    1 0 0 1 1 0            x of link 2 holds 3 of 6 columns,
    mask of link 2    0 1 0 1                so 2 x 3 of its 4 x 6 weights take part

kernels/ and `_products.multiply` compute each of these steps; this file only has their order. Each
call reads anew its arguments and the arrays that others can reach; see the top of `_core.pyx`.
"""

import numpy as np
cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from fastdrop.compiled import _core, _train
from fastdrop.compiled._core cimport (
    bias_backward_memory, bias_memory, block_sums, cyclic_bytes, mask_memory, mask_rule,
)
from fastdrop.compiled._sparse cimport SparseRows
from fastdrop.compiled._products cimport multiply
from fastdrop.compiled._train cimport ProductGradient
from fastdrop.compiled.arrays cimport is_plain

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_View(cnp.ndarray a, void *dtype, void *cls)

cdef mask_rule NOTHING_DROPPED = mask_rule(p=0, scale=1, seed=0, call=0, offset=0)


cdef class Used:
    """What a link computes with: all of its layer, or the part that a shared mask leaves."""

    cdef cnp.ndarray weight, transposed, bias
    cdef cnp.ndarray z, masked, gradient, dbias, partial, dx
    cdef cnp.npy_intp inputs, outputs


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
        A dropout, whose `p` is read in every batch. It is element-wise, unless it is `shared`.
    seed : int
        The seed of the dropout's key in the model.
    trains : bool
        Whether gradients of weight and bias are wanted.
    shared : bool
        Whether all rows of a batch share the dropout's mask. Then a `Dense` follows.
    """

    cdef cnp.ndarray weight, cyclic
    cdef cnp.npy_intp width, inputs
    cdef int type
    cdef bint relu, has_bias, trains, shared
    cdef object weight_name, bias_name, activate, dropout    # activate: None where kernels do it
    cdef uint64_t seed
    cdef Used whole    # for batches with as many samples as the last one
    # About the last batch; kept columns of outputs and inputs are None if these are whole:
    cdef Used used
    cdef cnp.ndarray x, y, kept, columns
    cdef SparseRows rows    # in place of x
    cdef object activation_gradient
    cdef mask_rule mask

    def __cinit__(self, cnp.npy_intp width, cnp.ndarray weight=None, cnp.ndarray bias=None,
                  tuple names=(None, None), activation="linear", dropout=None, uint64_t seed=0,
                  bint trains=False, bint shared=False):
        self.shared = shared and dropout is not None
        self.width, self.weight, self.has_bias = width, weight, bias is not None
        self.weight_name, self.bias_name = names
        self.relu = isinstance(activation, str) and activation == "relu"
        self.activate = None if isinstance(activation, str) else activation
        self.dropout, self.seed, self.trains = dropout, seed, trains
        self.used = self.whole = Used()
        self.whole.inputs = self.whole.outputs = self.inputs = width
        if weight is None:
            return
        self.type = cnp.PyArray_TYPE(weight)
        self.inputs = cnp.PyArray_DIM(weight, 1) if cnp.PyArray_NDIM(weight) == 2 else -1
        bias = np.zeros(max(0, width), weight.dtype) if bias is None else bias
        if not (is_matrix(weight, width, self.inputs, self.type)
                and self.type in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64)
                and is_vector(bias, width, self.type)):
            raise ValueError(
                f"weight, bias: expected arrays for {width} units, got {weight.dtype} "
                f"{(<object>weight).shape} and {bias.dtype} {(<object>bias).shape}"
            )
        self.cyclic = np.empty(cyclic_bytes(width, self.type == cnp.NPY_FLOAT64), np.uint8)
        self.whole.inputs, self.whole.weight, self.whole.bias = self.inputs, weight, bias
        self.whole.transposed = cnp.PyArray_Transpose(weight, NULL)
        self.whole.dbias = np.empty(width, weight.dtype)


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
    shared : callable, optional
        Like `buffers`, for weights' gradients that are left as products for the update; nothing may
        change the chain's input until then. Without it they are multiplied at once.
    rate_at : callable
        ``rate_at(p, step)`` returns a dropout's `p` in this step as a number.
    in_parts : callable
        ``in_parts(shape, [(rows, columns, values)])`` returns a `PartialGradient`.

    Attributes
    ----------
    grads : dict of str to ndarray, PartialGradient or ProductGradient
        The gradients after a backward pass, by the links' names.
    calls_functions : bool
        Whether any activation is a function.
    takes_sparse : bool
        Whether `forward` also takes sparse rows: whether a `Dense` comes first, or second behind a
        dropout whose mask is element-wise.
    """

    cdef list links
    cdef cnp.npy_intp inputs, samples
    cdef int type, first_trained
    cdef object dtype, buffers, shared, rate_at, in_parts
    cdef readonly dict grads
    cdef readonly bint calls_functions, takes_sparse

    def __cinit__(self, list links, cnp.npy_intp inputs, dtype, buffers, shared, rate_at,
                  in_parts):
        cdef Link link
        cdef cnp.npy_intp width = inputs
        cdef bint whole = True    # whether the next link gets all columns
        self.links, self.inputs, self.samples = list(links), inputs, -1
        self.dtype = np.dtype(dtype)
        self.type = self.dtype.num
        self.buffers, self.shared = buffers, shared
        self.rate_at, self.in_parts, self.grads = rate_at, in_parts, {}
        self.first_trained = len(self.links)
        if self.type not in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64) or not self.links:
            raise ValueError(f"links, dtype: expected links of float32 or float64, got {dtype}")
        for number, link in enumerate(self.links):
            if (link.weight is None and link.width != width) or (
                    link.weight is not None and (link.inputs, link.type) != (width, self.type)):
                raise ValueError(f"links: expected link {number} to take {width} of {self.dtype}")
            if not whole and link.weight is None:
                raise ValueError(f"links: expected a Dense as link {number}, behind a shared mask")
            width, whole = link.width, not link.shared
            self.calls_functions = self.calls_functions or link.activate is not None
            if link.trains and number < self.first_trained:
                self.first_trained = number
        if not whole:
            raise ValueError("links: expected a Dense behind a shared mask, got no link")
        link = self.links[0]
        if link.weight is None and not link.shared and len(self.links) > 1:
            link = self.links[1]
        self.takes_sparse = link.weight is not None

    def forward(self, given, bint training, uint64_t step, uint64_t row):
        """Return the outputs for an array (samples, inputs) or `SparseRows`.

        `row` is the number of the first row in the batch.
        """
        cdef Link link
        cdef cnp.ndarray x = None, columns = None
        cdef SparseRows rows = given if type(given) is SparseRows else None
        cdef cnp.npy_intp n
        if rows is None:
            if not isinstance(given, cnp.ndarray):
                raise TypeError(f"x: expected an array or SparseRows, got {type(given).__name__}")
            x = given
            n = cnp.PyArray_DIM(x, 0) if cnp.PyArray_NDIM(x) else -1
        else:
            n = self.samples_of(rows)
        for link in self.links:
            link.mask, link.kept = NOTHING_DROPPED, None
            if training and link.dropout is not None:
                self.choose(link, step, row)
        if n != self.samples:
            self.make(n)
        if rows is None and not is_matrix(x, n, self.inputs, self.type):
            x = self.fitting(x, "x", self.inputs)
        for number, link in enumerate(self.links):
            link.x, link.rows, link.columns, link.used = x, rows, columns, link.whole
            if rows is not None and link.weight is None:
                rows = rows.masked(&link.mask) if drops(link) else rows
                continue
            if link.kept is not None or columns is not None:
                link.used = self.part(number, link)
            if link.weight is not None:
                x = self.computed(link, x, rows)
                rows = None
            elif link.kept is not None:
                _train.submatrix(x, None, link.kept, link.used.masked)
                x = link.used.masked
            if drops(link) and (link.weight is None or link.activate is not None):
                self.mask(link, x, link.used.masked)
                x = link.used.masked
            link.y, columns = x, link.kept
        return PyArray_View(x, NULL, NULL)    # a view, because others may assign another shape to it

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
        if any((<Link>link).shared for link in self.links):
            raise ValueError("links: expected element-wise dropout for lines, got shared masks")
        cdef bint first = not in_lines
        cdef cnp.npy_intp rows = cnp.PyArray_DIM(x, 0) if cnp.PyArray_NDIM(x) else -1
        for link in self.links:
            link.mask, link.kept, link.used = NOTHING_DROPPED, None, link.whole
            if link.dropout is not None:
                self.choose(link, 0, 0)
        if n != self.samples:
            self.make(n)
        if not is_matrix(x, n if in_lines else rows, self.inputs, self.type):
            raise ValueError(f"x: expected {self.dtype} of {self.inputs} features, C-contiguous")
        if first and (<Link>self.links[0]).weight is not None:
            raise ValueError("in_lines: expected lines, for there is no dropout to make them")
        for link in self.links:
            if link.weight is not None:
                x = self.computed_lines(link, x, segments, row)
            if first or (drops(link) and (link.weight is None or link.activate is not None)):
                self.mask_lines(link, x, link.used.masked, segments, row, first)
                x = link.used.masked
            first = False
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
        cdef Link link
        cdef cnp.ndarray d
        cdef int number, last = 0 if need_dx else self.first_trained
        self.grads = {}
        if need_dx and self.takes_sparse and (<Link>self.links[0]).rows is not None:
            raise ValueError("need_dx: expected False for sparse rows, which have no gradient")
        for number in range(len(self.links) - 1, last - 1, -1):
            link = self.links[number]
            d = self.fitting(dy, "dy", link.used.outputs)
            dy = d
            if link.weight is None:
                if drops(link):
                    self.mask(link, d, d)
                if link.kept is not None:
                    dy = self.buffer("dx", number, self.samples, link.width)
                    dy.fill(0)
                    dy[:, link.kept] = d
                continue
            d = self.activation_passed(link, d)
            if link.trains:
                self.add_gradients(link, d)
            if need_dx or number > last:
                if link.used.dx is None:
                    link.used.dx = self.buffer("dx", number, self.samples, link.used.inputs)
                dy = link.used.dx
                multiply(d, link.used.weight, dy)
        return dy.view() if need_dx else dy

    # ---- the parts of these methods --------------------------------------------------------------

    cdef int choose(self, Link link, uint64_t step, uint64_t row) except -1:
        """Choose the mask of this step."""
        p = link.dropout.p
        link.mask.p = p if type(p) is float else self.rate_at(p, step)
        link.mask.scale = 1 / (1 - link.mask.p) if link.mask.p < 1 else 0
        link.mask.seed, link.mask.call = link.seed, step
        link.mask.offset = row * <uint64_t>link.width
        if link.shared and link.mask.p != 0:
            kept = _core.make_mask(link.width, link.mask.p, link.seed, step, 0, False, None)
            link.kept = kept.nonzero()[0]
            link.mask.p = 0    # what is left is only scaled
        return 0

    cdef Used part(self, number, Link link):
        """Gather the part of a link that a shared mask, its own or that of its inputs, leaves."""
        cdef Used part = Used(), whole = link.whole
        cdef bint is_double = self.type == cnp.NPY_FLOAT64
        part.outputs = size_or(link.kept, link.width)
        part.inputs = size_or(link.columns, link.inputs)
        if link.weight is None or link.activate is not None:
            part.masked = self.buffer("masked", number, self.samples, part.outputs)
        if link.weight is None:
            return part
        part.weight = self.buffer("weight", number, part.outputs, part.inputs)
        _train.submatrix(link.weight, link.kept, link.columns, part.weight)
        part.transposed = cnp.PyArray_Transpose(part.weight, NULL)
        part.bias, part.dbias = whole.bias, whole.dbias
        if link.kept is not None:
            part.bias = (<object>whole.bias)[link.kept]
            part.dbias = np.empty_like(part.bias)
        part.z = self.buffer("z", number, self.samples, part.outputs)
        part.partial = block_sums(self.samples * part.outputs, part.outputs, is_double)
        if link.trains:
            part.gradient = self.buffer("gradient", number, part.outputs, part.inputs)
        return part

    cdef cnp.npy_intp samples_of(self, SparseRows rows) except -1:
        """Return the number of sparse rows, if they are an input of this chain."""
        if not (self.takes_sparse and rows.type == self.type and rows.features == self.inputs):
            raise ValueError(
                f"x: expected {self.inputs} features of {self.dtype} and, for sparse rows, a Dense "
                f"first, got sparse rows with {rows.features} features"
            )
        return rows.samples

    cdef cnp.ndarray computed(self, Link link, cnp.ndarray x, SparseRows rows):
        """Return the activation of x @ weight.T + bias, with dropout if kernels do both at once."""
        cdef Used used = link.used
        cdef cnp.ndarray z = used.z
        if rows is None:
            multiply(x, used.transposed, z)
        else:
            rows.multiply(used.weight, z)
        self.check(link, z)
        if cnp.PyArray_SIZE(z):
            bias_memory(cnp.PyArray_DATA(z), cnp.PyArray_DATA(used.bias),
                        <char *>cnp.PyArray_DATA(link.cyclic), cnp.PyArray_SIZE(z), used.outputs,
                        self.type == cnp.NPY_FLOAT64, link.relu,
                        &link.mask if link.activate is None else &NOTHING_DROPPED)
        if link.activate is None:
            return z
        y, link.activation_gradient = link.activate(z, z)
        return self.fitting(y, "activation", used.outputs)

    cdef cnp.ndarray activation_passed(self, Link link, cnp.ndarray d):
        """Return the gradient of x @ weight.T + bias, and put its column sums into dbias."""
        cdef Used used = link.used
        cdef cnp.ndarray y = link.y
        if link.activate is not None:
            if drops(link):
                self.mask(link, d, d)
            d = self.fitting(link.activation_gradient(d), "activation", used.outputs)
        self.check(link, y)
        if used.outputs:
            bias_backward_memory(cnp.PyArray_DATA(d), cnp.PyArray_DATA(y), cnp.PyArray_SIZE(d),
                                 self.type == cnp.NPY_FLOAT64, link.relu,
                                 &link.mask if link.activate is None else &NOTHING_DROPPED,
                                 used.partial, cnp.PyArray_DATA(used.dbias))
        return d

    cdef int add_gradients(self, Link link, cnp.ndarray d) except -1:
        cdef Used used = link.used
        d = cnp.PyArray_Transpose(d, NULL)
        product = ProductGradient(d, link.x if link.rows is None else link.rows, used.gradient)
        self.grads[link.weight_name] = product
        if used is not link.whole or self.shared is None:
            (<ProductGradient>product).multiply()
            self.grads[link.weight_name] = used.gradient
        if used is not link.whole:
            rows, columns = indices(link.kept, link.width), indices(link.columns, link.inputs)
            self.grads[link.weight_name] = self.in_parts(
                (link.width, link.inputs), [(rows, columns, used.gradient)]
            )
        if link.has_bias:
            self.grads[link.bias_name] = used.dbias
        if link.has_bias and link.kept is not None:
            self.grads[link.bias_name] = np.zeros(link.width, self.dtype)
            self.grads[link.bias_name][rows] = used.dbias
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
        cdef cnp.npy_intp count = cnp.PyArray_DIM(segments, 0) if cnp.PyArray_NDIM(segments) else 0
        cdef bint fit = is_matrix(segments, count, 4, cnp.NPY_INT64)
        if fit:
            for i in range(count):
                fit = fit and s[4 * i] == n and s[4 * i + 1] > 0 and s[4 * i + 2] >= 0
                n += s[4 * i + 1]
        if not fit:
            raise ValueError("segments: expected int64, (segments, 4), each behind the one before")
        return n

    cdef cnp.ndarray computed_lines(self, Link link, cnp.ndarray x, cnp.ndarray segments,
                                    uint64_t row):
        """Do what `computed` does, for lines."""
        cdef cnp.ndarray z = link.used.z
        cdef cnp.npy_intp i, size = cnp.PyArray_ITEMSIZE(z) * link.width
        cdef const int64_t *s = <const int64_t *>cnp.PyArray_DATA(segments)
        cdef bint here = drops(link) and link.activate is None
        cdef int64_t whole[4]
        cdef cnp.npy_intp count = cnp.PyArray_DIM(segments, 0)
        cdef mask_rule mask
        multiply(x, link.used.transposed, z)
        self.check(link, z)
        if not here:
            whole[0], whole[1], whole[2], whole[3] = 0, self.samples, 0, -1
            s, count = whole, 1
        for i in range(count):
            mask = mask_of(link, &s[4 * i], row)
            bias_memory(cnp.PyArray_BYTES(z) + s[4 * i] * size, cnp.PyArray_DATA(link.used.bias),
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
        cdef Used whole
        for number, link in enumerate(self.links):
            whole = link.whole
            whole.dx = None
            if link.weight is not None:
                whole.z = self.buffer("z", number, n, link.width)
                whole.partial = block_sums(n * link.width, link.width, self.type == cnp.NPY_FLOAT64)
                if link.trains and self.shared is None:
                    whole.gradient = self.buffer("gradient", number, link.width, link.inputs)
                elif link.trains:
                    whole.gradient = self.shared("gradient", link.width, link.inputs)
            if link.weight is None or (link.activate is not None and link.dropout is not None):
                whole.masked = self.buffer("masked", number, n, link.width)
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
        cdef Used used = link.used
        cdef bint fit = is_matrix(rows, self.samples, used.outputs, self.type)
        if link.weight is not None:
            fit = fit and (is_vector(used.bias, used.outputs, self.type)
                           and is_vector(used.dbias, used.outputs, self.type))
        if not fit:
            raise ValueError(
                f"weights, activations: expected {self.dtype} for {self.samples} samples and "
                f"{used.outputs} units, got another layout, assigned in place"
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


cdef cnp.npy_intp size_or(cnp.ndarray kept, cnp.npy_intp all_of_them) noexcept:
    return all_of_them if kept is None else cnp.PyArray_SIZE(kept)


cdef cnp.ndarray indices(cnp.ndarray kept, cnp.npy_intp all_of_them):
    """Return the indices of the kept units, in an array that others may change."""
    return np.arange(all_of_them) if kept is None else kept.copy()

"""Arrays in the form that compiled code needs: the checks that `_core` and `_train` share."""

cimport numpy as cnp


cdef inline bint is_plain(cnp.ndarray a) noexcept:
    """Tell whether a kernel can walk it: C-contiguous, aligned, native byte order."""
    cdef int flags = cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED
    return (cnp.PyArray_FLAGS(a) & flags) == flags and cnp.PyArray_ISNOTSWAPPED(a)


cdef inline bint do_meet(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Tell whether two plain arrays have memory in common."""
    cdef char *first_a = <char *>cnp.PyArray_DATA(a)
    cdef char *first_b = <char *>cnp.PyArray_DATA(b)
    return first_a < first_b + cnp.PyArray_NBYTES(b) and first_b < first_a + cnp.PyArray_NBYTES(a)


cdef inline str labelled(str name, key):
    """Return `name`, or `name[key]` if it is a mapping."""
    return name if key is None else f"{name}[{key!r}]"


cdef inline int check_is_array(array, str name, key=None) except -1:
    """Check that it is a NumPy array without masked values."""
    if type(array) is cnp.ndarray:
        return 0
    if not isinstance(array, cnp.ndarray):
        raise TypeError(
            f"{labelled(name, key)}: expected a NumPy array, got {type(array).__name__}"
        )
    from fastdrop._checks import check_unmasked
    check_unmasked(labelled(name, key), array)
    return 0


cdef inline int check_like(cnp.ndarray x, other, str name, key=None) except -1:
    """Check that `other` is an array like x in shape and, except for byte order, in dtype."""
    check_is_array(other, name, key)
    cdef cnp.ndarray o = other
    cdef int d, ndim = cnp.PyArray_NDIM(x)
    cdef bint fits = cnp.PyArray_NDIM(o) == ndim
    if fits:
        for d in range(ndim):
            fits = fits and cnp.PyArray_DIM(o, d) == cnp.PyArray_DIM(x, d)
    if not fits:
        raise ValueError(
            f"{labelled(name, key)}: expected shape {(<object>x).shape}, got {(<object>o).shape}"
        )
    if cnp.PyArray_TYPE(o) != cnp.PyArray_TYPE(x):
        raise TypeError(f"{labelled(name, key)}: expected dtype {x.dtype}, got {o.dtype}")
    return 0

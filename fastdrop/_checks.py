"""Checks of arguments. All messages have one form: the argument, what was expected, what came."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from operator import index
from typing import Any, SupportsIndex, TypeAlias, TypeGuard, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastdrop import _namesake
from fastdrop._messages import near_miss, one_line, shown

_namesake.require_ours()  # here, because everything that users import imports this file

Axes: TypeAlias = SupportsIndex | Iterable[SupportsIndex]
T = TypeVar("T")


def unsigned(value: SupportsIndex, name: str, bits: int = 64) -> int:
    """Return `value` as an unsigned integer of `bits` bits."""
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}") from None
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{name}: expected 0 <= {name} < 2**{bits}, got {shown(number)}")
    return number


def checked_p(p: float, argument: str = "p") -> float:
    """Return `p` as a float in [0, 1]."""
    try:
        if 0 <= p <= 1:  # this refuses NaN as well
            return float(p)
    except (TypeError, ValueError):
        raise TypeError(f"{argument}: expected a number, got {type(p).__name__}") from None
    raise ValueError(f"{argument}: expected a probability, 0 <= p <= 1, got {shown(p)}")


def checked_axes(axes: Axes, ndim: int) -> tuple[int, ...]:
    """Return each of the axes once, as a number in [0, ndim)."""
    try:
        given: tuple[SupportsIndex, ...] = tuple(axes)  # type: ignore[arg-type]
    except TypeError:
        given = (axes,)  # type: ignore[assignment]
    result = []
    for axis in given:
        try:
            number = index(axis)
        except TypeError:
            raise TypeError(f"shared_axes: expected integers, got {type(axis).__name__}") from None
        if not -ndim <= number < ndim:
            raise ValueError(f"shared_axes: expected axes of a {ndim}-d array, got {shown(number)}")
        result.append(number % ndim)
    if len(set(result)) < len(result):
        raise ValueError(f"shared_axes: expected each axis once, got {shown(given)}")
    return tuple(result)


def checked_shape(shape: SupportsIndex | Iterable[SupportsIndex]) -> tuple[int, ...]:
    """Return `shape` as a tuple of lengths; a single number becomes a tuple of one."""
    try:
        lengths = tuple(map(index, shape)) if isinstance(shape, Iterable) else (index(shape),)
    except TypeError:
        raise TypeError(f"shape: expected integers, got {shown(shape)}") from None
    if any(length < 0 for length in lengths) or math.prod(lengths) > 1 << 55:
        raise ValueError(
            f"shape: expected lengths of at least 0 with a product of at most 2**55, "
            f"got {shown(shape)}"
        )
    return lengths


# What NumPy raises for sequences of different lengths. Before 1.24 it is a warning.
_RAGGED = (ValueError, getattr(np, "VisibleDeprecationWarning", ValueError))


_SCALARS = (int, float, complex, str, bytes, np.generic)


def as_array(argument: str, value: ArrayLike) -> np.ndarray:
    """Return `value` as an array, or as it is if it is one; refuse what NumPy would cut down."""
    if type(value) is np.ndarray:
        return value
    check_complete(argument, value)
    try:
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # NumPy's message does not name the argument
        got = f"{type(value).__name__}: {' '.join(str(error).split()):.100}"
        if isinstance(value, list | tuple) and isinstance(error, _RAGGED):
            got = "sequences of different lengths"
        raise ValueError(f"{argument}: expected an array, got {got}") from None


def is_series(value: object) -> TypeGuard[Iterable[Any]]:
    """Tell whether `value` yields items in a meaningful order, unlike a dict, a set or a text."""
    return isinstance(value, Iterable) and not isinstance(value, Mapping | Set | str | bytes)


def as_numbers(argument: str, value: ArrayLike) -> np.ndarray:
    """Return `value` as an array of real numbers, of any type, even one of another library."""
    array = value if type(value) is np.ndarray else as_array(argument, value)
    dtype = array.dtype
    if dtype.kind not in "biuf" and (dtype.kind != "V" or dtype.type is np.void):
        raise ValueError(f"{argument}: expected an array of numbers, got {described(array)}")
    return array


def described(array: np.ndarray) -> str:
    """Return the array's dtype and shape, for messages."""
    return f"{'records' if array.dtype.names else array.dtype} {array.shape}"


def check_complete(argument: str, value: object) -> None:
    """Refuse an object, by its interface, of which NumPy would make an array without some part.

    Such objects have masked values (NumPy's, Astropy's), missing values or categories (pandas'), or
    are sparse matrices (SciPy's). They may also be items of a list.
    """
    if hasattr(value, "isna"):
        _check_table(argument, value)
    elif isinstance(value, Sequence) and not isinstance(value, memoryview | range):
        kinds = {kind for kind in set(map(type, value)) if not issubclass(kind, _SCALARS)}
        for item in value if kinds - {np.ndarray} else ():
            if type(item) in kinds:
                check_complete(argument, item)
    else:
        check_unmasked(argument, value)
        for method in ("toarray", "todense"):
            if hasattr(value, method):
                raise ValueError(
                    f"{argument}: expected a dense array, got {type(value).__name__}; "
                    f".{method}() makes one"
                )


def check_unmasked(argument: str, value: object) -> None:
    """Refuse an array, of NumPy or with its interface, that masks any of its values."""
    mask = getattr(value, "mask", None) if hasattr(value, "filled") else None
    if isinstance(mask, np.ndarray | np.bool_) and mask.dtype == bool and mask.any():
        raise ValueError(
            f"{argument}: expected no masked values, got {np.count_nonzero(mask)} of {mask.size}; "
            ".filled(value) replaces them"
        )


def _check_table(argument: str, table: Any) -> None:
    """Refuse categories and missing values of a pandas object. NaN of NumPy's dtypes is allowed."""
    columns = [table]
    if hasattr(table, "columns"):
        known = all(isinstance(dtype, np.dtype) for dtype in table.dtypes)
        columns = [] if known else [column for _, column in table.items()]
    for column in columns:
        if isinstance(column.dtype, np.dtype):
            continue
        if column.dtype.name == "category":
            raise ValueError(
                f"{argument}: expected numbers, got categories; .cat.codes gives their numbers"
            )
        missing = int(column.isna().sum())
        if missing:
            raise ValueError(
                f"{argument}: expected no missing values, got {missing} of {len(column)}; "
                ".fillna(value) replaces them"
            )


def check_finite(argument: str, array: np.ndarray, dtype: DTypeLike = np.float32) -> None:
    """Refuse numbers that are not finite, or not once they are cast to `dtype`; needs no memory."""
    if array.dtype.kind != "f" or not array.size:
        return
    if array.size < 1 << 12 and array.dtype == dtype and np.isfinite(array).all():
        return  # quick for small arrays
    limit = float(min(np.finfo(dtype).max, np.finfo(array.dtype).max))
    with np.errstate(invalid="ignore"):
        low, high = float(array.min()), float(array.max())  # NaN if there is a NaN
    if not (low >= -limit and high <= limit):
        raise ValueError(
            f"{argument}: expected finite numbers that {np.dtype(dtype)} holds, "
            "got NaN, infinity or more"
        )


def checked_stddev(stddev: float) -> float:
    """Return `stddev` as a float of at least 0."""
    try:
        ok = 0 <= stddev < math.inf  # this refuses NaN as well
    except (TypeError, ValueError):
        raise TypeError(f"stddev: expected a number, got {type(stddev).__name__}") from None
    if not ok:
        raise ValueError(f"stddev: expected a finite number of at least 0, got {shown(stddev)}")
    return float(stddev)


def check_number(
    argument: str, value: float, *, above_zero: bool = False, below: float = math.inf
) -> None:
    """Refuse `value` unless it is a number of at least 0, or above 0, and below `below`."""
    number = isinstance(value, int | float | np.integer | np.floating)
    if (
        not number
        or isinstance(value, bool)
        or not 0 <= value < below
        or (isinstance(value, int) and value > sys.float_info.max)
        or (above_zero and value == 0)
    ):
        expected = f"a finite number {'above 0' if above_zero else 'of at least 0'}"
        if below < math.inf:
            expected = f"a number in {'(' if above_zero else '['}0, {below:g})"
        raise ValueError(f"{argument}: expected {expected}, got {shown(value)}")


def checked_offset(offset: SupportsIndex, elements: int, bits: int = 55) -> int:
    """Return `offset` as an integer that leaves room for `elements` elements of 2**bits."""
    try:
        number = index(offset)
    except TypeError:
        raise TypeError(f"offset: expected an integer, got {type(offset).__name__}") from None
    if number < 0 or number + elements > 1 << bits:
        raise ValueError(
            f"offset: expected 0 <= offset and offset + elements <= 2**{bits}, got {shown(number)}"
        )
    return number


def mask_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the mask's own shape: `shape` with the shared axes set to 1."""
    return tuple(1 if axis in axes else length for axis, length in enumerate(shape))


def lookup(argument: str, name: object, table: Mapping[str, T]) -> T:
    """Return ``table[name]``. An unknown name raises a ValueError that tells the known names."""
    if not isinstance(name, str) or name not in table:
        names, got = ", ".join(sorted(table)), shown(name)
        meant = near_miss(name, table) if isinstance(name, str) else ""
        raise ValueError(one_line(f"{argument}: expected one of {names}, got {got}{meant}"))
    return table[name]


def is_count(value: object, least: int = 1) -> bool:
    """Tell whether `value` is a whole number of at least 1 or `least` (True and 2.0 are not)."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        return False
    return int(value) >= least


def check_count(argument: str, value: object, least: int = 1) -> None:
    """Refuse `value` unless it is a whole number of at least 1, or `least`."""
    checked_count(argument, value, least)


def checked_count(argument: str, value: Any, least: int = 1) -> int:
    """Return a whole number of at least 1, or `least`, as an int.

    NumPy's integers would overflow in products: np.uint8(200) * 2 is 144.
    """
    if not is_count(value, least):
        raise ValueError(
            f"{argument}: expected a whole number of at least {least}, got {shown(value)}"
        )
    return int(value)


_COMPARABLE = (str, int, float, np.number, np.bool_, type(None))  # an array has no truth value


def check_choice(argument: str, value: object, *choices: object) -> None:
    """Refuse `value` unless it is one of the choices, which are text, numbers or None."""
    if not isinstance(value, _COMPARABLE) or value not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"{argument}: expected {', '.join(others)} or {last}, got {shown(value)}")


def check_mapping(argument: str, value: object) -> None:
    """Refuse `value` unless it is a mapping, such as a dict."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{argument}: expected a dict, got {shown(value)}")


def check_keys(argument: str, value: object, keys: Sequence[str]) -> None:
    """Refuse `value` unless it is a mapping with exactly these keys."""
    if not isinstance(value, Mapping) or value.keys() != set(keys):
        got = f"one of {', '.join(map(str, value))}" if isinstance(value, Mapping) else shown(value)
        raise ValueError(one_line(f"{argument}: expected a dict of {', '.join(keys)}, got {got}"))


def check_flag(argument: str, value: object) -> None:
    """Refuse `value` unless it is True or False, or 1 or 0."""
    check_choice(argument, value, True, False)

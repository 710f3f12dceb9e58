"""From a table to what a network trains on, and what was done to each column on the way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fastdrop import _splits as splits
from fastdrop._checks import lookup
from fastdrop._messages import about, near_miss, one_line, shown
from fastdrop.layers import Array, Dense
from fastdrop.models import Sequential
from fastdrop.tables.encoding import EncodedRows, Encoding, NumberColumn, WordColumn
from fastdrop.tables.kinds import Words, check_one_kind, examined, floats, kind_of, read_as, words
from fastdrop.tables.leaks import gives_away
from fastdrop.tables.reading import MemorySource, Source, source_of
from fastdrop.tables.target import TASKS, Target, encoded, task_of
from fastdrop.training import files

__all__ = ["MISSING", "Prepared", "Roles", "prepare"]

MISSING = ("fill", "error")
MOST_JSON = files.HEADER // 2  # bytes; a file's header has more in it


@dataclass(frozen=True)
class Roles:
    """What columns are for, and what is wanted of them; see `TableModel.fit`."""

    target: str
    task: str | None = None
    weight: str | None = None
    ignore: Sequence[str] = ()
    group: str | None = None
    time: str | None = None
    missing: str = "fill"

    def __post_init__(self) -> None:
        if self.task is not None:
            lookup("task", self.task, dict(zip(TASKS, TASKS)))
        lookup("missing", self.missing, dict(zip(MISSING, MISSING)))
        if isinstance(self.ignore, str) or not all(isinstance(each, str) for each in self.ignore):
            raise ValueError(f"ignore: expected a list of names, got {shown(self.ignore)}")
        if self.group is not None and self.time is not None:
            raise ValueError("group, time: expected one of them, got both")
        given: dict[str, str] = {}
        for role, name in self.by_name():
            if not isinstance(name, str):
                raise TypeError(f"{role}: expected the name of a column, got {shown(name)}")
            if name in given:
                raise ValueError(
                    f"{role}: expected another column than that of {given[name]}, got {shown(name)}"
                )
            given[name] = role

    def facts(self) -> dict[str, Any]:
        """Return them for JSON."""
        return asdict(self) | {"ignore": list(self.ignore)}

    def by_name(self) -> Iterable[tuple[str, str]]:
        """Give each role with the name of its column."""
        one = {name: getattr(self, name) for name in ("target", "weight", "group", "time")}
        wanted = (role for role, name in one.items() if name is not None or role == "target")
        yield from ((role, one[role]) for role in wanted)
        yield from (("ignore", name) for name in dict.fromkeys(self.ignore))


@dataclass(frozen=True)
class Prepared:
    """What a network trains on.

    Attributes
    ----------
    name : str
        Of the table.
    encoding : Encoding
    target : Target
    x, x_val : EncodedRows
    y, y_val : ndarray
        Class numbers (rows,), or standardised numbers (rows, 1).
    weight, weight_val : ndarray or None
    roles : Roles
    lines : list of str
        What was done, for people.
    numbers_val : ndarray of int
        Which rows of the table those to validate on are, from 1 below the header.
    """

    name: str
    encoding: Encoding
    target: Target
    x: EncodedRows
    y: Array
    weight: Array | None
    x_val: EncodedRows
    y_val: Array
    weight_val: Array | None
    roles: Roles
    lines: list[str]
    numbers_val: Array

    def arrays(self) -> list[Array]:
        """Return all numbers that a network gets to see."""
        parts: list[Any] = [self.x.numbers, self.x.codes, self.y, self.weight]
        parts += [self.x_val.numbers, self.x_val.codes, self.y_val, self.weight_val]
        return [part for part in parts if part is not None]

    def begin(self, network: Sequential) -> None:
        """Build a network in which unseen words say nothing until a row to train on has some.

        Their places have weights of 0, which no gradient changes, rather than those of chance.
        """
        network.build((self.encoding.width,))
        first = next(layer for layer in network.layers if isinstance(layer, Dense))
        first.params["weight"][:, self.encoding.untrained()] = 0

    @property
    def validation(self) -> tuple[Any, ...]:
        """What `Sequential.fit` takes as ``validation_data``."""
        weight = () if self.weight_val is None else (self.weight_val,)
        return (self.x_val, self.y_val, *weight)


def prepare(table: Any, roles: Roles, seed: int = 0) -> Prepared:
    """Read a table and make of it what a network trains on.

    Parameters
    ----------
    table : path, "-", DataFrame, pyarrow.Table or mapping of str to array_like
    roles : Roles
    seed : int
        Of the split.

    Raises
    ------
    TypeError, ValueError, OSError
        When the table does not serve.
    """
    source = source_of(table)
    _check_columns(source, roles)
    rows = [source.read([*dict.fromkeys(roles.ignore)])]  # popped, so that nobody else keeps them
    try:
        return _Preparation(source.name, rows.pop(), roles, seed).prepared()
    except ValueError as error:
        if isinstance(source, MemorySource):
            raise
        raise ValueError(about(source.name, error)) from None


def _check_columns(source: Source, roles: Roles) -> None:
    names = source.names()
    if not names:
        raise ValueError(about(source.name, "expected columns, got none"))
    for role, name in roles.by_name():
        if name not in names:
            meant = near_miss(name, names)
            known = "" if meant else f", {one_line(', '.join(names), 60)}"
            raise ValueError(
                about(
                    source.name,
                    f"{role}: expected one of its columns{known}, got {shown(name)}{meant}",
                )
            )


class _Preparation:
    """The steps of `prepare`, each of which has its lines to tell."""

    def __init__(self, name: str, table: pa.Table, roles: Roles, seed: int) -> None:
        self.name, self.roles, self.seed = name, roles, seed
        self.lines: list[str] = []
        self.table = self._rows_with_target(table)
        self.rows: int = self.table.num_rows

    def prepared(self) -> Prepared:
        task, target_kind, target_values = self._task()
        training, validation = self._split()
        target, y = encoded(self.roles.target, target_kind, target_values, task, training)
        weight = self._weight(training)
        columns, values = self._columns(training, y)
        encoding = Encoding(columns, self.roles.missing)
        size = len(json.dumps(encoding.config()))
        if size > MOST_JSON:
            raise ValueError(
                f"expected columns whose words take at most {MOST_JSON} bytes in a file, "
                f"got {size}; ignore some of them"
            )
        every = encoding.rows(values, self.rows)

        def of(rows: Array, array: Array | None) -> Array | None:
            return None if array is None else array[rows]

        return Prepared(
            self.name,
            encoding,
            target,
            every.part(training),
            y[training],
            of(training, weight),
            every.part(validation),
            y[validation],
            of(validation, weight),
            self.roles,
            self.lines,
            self.numbers[validation],
        )

    def _rows_with_target(self, table: pa.Table) -> pa.Table:
        """Return the rows of which the target is known."""
        target = table.column(self.roles.target)
        kind = kind_of(self.roles.target, target.type)
        values = _values(self.roles.target, kind, target)
        known = values.codes >= 0 if isinstance(values, Words) else ~np.isnan(values)
        self.numbers = np.flatnonzero(known) + 1
        without = len(known) - len(self.numbers)
        if without and self.roles.missing == "error":
            raise ValueError(
                f"target: expected a value in every row of {shown(self.roles.target)}, as missing "
                f"is 'error', got {without} without"
            )
        if len(known) - without < 2:
            raise ValueError(
                f"expected a header and at least 2 rows with a value in "
                f"{shown(self.roles.target)}, got {len(known) - without}"
            )
        if without:
            self.lines.append(f"{without} rows without {shown(self.roles.target)} are left out")
            return table.filter(pa.array(known))
        return table

    def _task(self) -> tuple[str, str, Array | Words]:
        name = self.roles.target
        column = self.table.column(name)
        kind = kind_of(name, column.type)
        values = _values(name, kind, column, self.numbers)
        if isinstance(values, Words):
            check_one_kind(name, values)
            values = values.present()
        task, why = task_of(name, kind, values, self.roles.task)
        chosen = "as told" if self.roles.task else "by its kind"
        self.lines.append(f"target {shown(name)}: {task}, {chosen}: {why}")
        return task, kind, values

    def _split(self) -> splits.Rows:
        group, time = self.roles.group, self.roles.time
        if group is not None:
            column = self.table.column(group)
            kind = kind_of(group, column.type)
            values = _values(group, kind, column, self.numbers)
            codes = values.codes if isinstance(values, Words) else np.nan_to_num(values, nan=np.inf)
            how, rows = f"whole groups of {shown(group)}", splits.by_groups(codes, self.seed)
        elif time is not None:
            column = self.table.column(time)
            kind = kind_of(time, column.type)
            if kind == "words":
                raise ValueError(
                    f"time: expected dates such as 2020-12-31, or numbers, got words in "
                    f"{shown(time)}"
                )
            how = f"the latest by {shown(time)}"
            rows = splits.by_time(floats(time, column, self.numbers))
        else:
            how, rows = "chosen by the seed", splits.by_chance(self.rows, self.seed)
        self.lines.append(f"{len(rows[0])} rows to train on, {len(rows[1])} to validate on, {how}")
        return rows

    def _weight(self, training: Array) -> Array | None:
        name = self.roles.weight
        if name is None:
            return None
        column = self.table.column(name)
        if (kind := kind_of(name, column.type)) != "number":
            raise ValueError(f"weight: expected numbers, got {kind} in {shown(name)}")
        weight = floats(name, column, self.numbers)
        most = np.finfo(np.float32).max
        for wrong in (np.isnan(weight), weight < 0, weight > most):
            if wrong.any():
                got = weight[wrong.argmax()]
                raise ValueError(
                    f"weight: expected numbers of at least 0 that float32 holds in every row, "
                    f"got {'none' if np.isnan(got) else f'{got:g}'} in {shown(name)}"
                )
        if not weight[training].astype(np.float32).any():
            raise ValueError(
                f"weight: expected some above 0 among the rows to train on, got none in "
                f"{shown(name)}"
            )
        return weight.astype(np.float32)

    def _columns(
        self, training: Array, y: Array
    ) -> tuple[list[NumberColumn | WordColumn], dict[str, Array | Words]]:
        """Return the columns that are used, with their values."""
        roles = {name: role for role, name in self.roles.by_name()}
        columns: list[NumberColumn | WordColumn] = []
        used: dict[str, Array | Words] = {}
        for name in self.roles.ignore:
            self._tell(name, "left out, as told")
        for name in self.table.column_names:
            if name in roles:
                if roles[name] != "target":
                    self._tell(name, f"left out, as the {roles[name]}")
                continue
            read = self.table.column(name)
            kind = kind_of(name, read.type)
            values = _values(name, kind, read, self.numbers)
            self.table = self.table.drop_columns([name])  # no table beside its values
            found = examined(name, kind, values)
            column: NumberColumn | WordColumn | None = None
            if not found.left_out:
                column = (
                    WordColumn.fitted(name, values, training)
                    if isinstance(values, Words)
                    else NumberColumn.fitted(name, kind, values[training], read_as(kind, read.type))
                )
            if column is None:
                why = found.left_out or "constant in the rows to train on"
                self._tell(name, f"left out: {why}")
                continue
            notes = [found.note] if found.note else []
            if gives_away(values, y):
                notes.append(
                    f"it alone gives {shown(self.roles.target)} away; ignore it unless it is known "
                    "when you predict"
                )
            self._tell(name, "; ".join([f"{found.kind}, {column.done}", *notes]))
            columns.append(column)
            used[name] = values
        if not columns:
            raise ValueError("expected a column to learn from besides the target, got none")
        return columns, used

    def _tell(self, name: str, what: str) -> None:
        self.lines.append(f"  {one_line(name, 40)}: {what}")


def _values(
    name: str, kind: str, column: Any, rows: Sequence[int] | Array | None = None
) -> Array | Words:
    return words(column) if kind == "words" else floats(name, column, rows)

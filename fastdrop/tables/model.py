"""`TableModel`: a network with all that is done to a table before and after it."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, Self

import numpy as np
import pyarrow as pa

from fastdrop._checks import check_number, checked_count, checked_p, is_count, unsigned
from fastdrop._messages import about, near_miss, one_line, one_line_about, shown
from fastdrop._serialization import deserialize, serialize
from fastdrop._version import __version__
from fastdrop.callbacks import Callback, History
from fastdrop.layers import Array, Dense, Dropout, Input, Layer
from fastdrop.models import Sequential
from fastdrop.optimizers import Optimizer
from fastdrop.tables.encoding import EncodedRows, Encoding
from fastdrop.tables.prediction import Predictor
from fastdrop.tables.preparation import Prepared, Roles, prepare
from fastdrop.tables.reading import Source, source_of
from fastdrop.tables.target import Target
from fastdrop.training import files, saving

__all__ = ["TableModel"]

KIND = "table"
KEYS = ("encoding", "target", "noise", "lines", "settings", "trained", "network")


class TableModel:
    """A network for tables: from a CSV file or a DataFrame to a decision.

    docs/how-to/tables.md is about it.

    Columns of numbers are standardised, columns of words one-hot, what is missing is filled and
    flagged; what was done to each column is kept, and done again to the tables to predict.

    Parameters
    ----------
    hidden : sequence of int
        Sizes of the hidden layers.
    dropout : float
        Probability of dropping, behind every hidden layer.
    epochs, batch_size : int
    optimizer : str or Optimizer
        One of `fastdrop.optimizers`.
    seed : int
        Fixes weights, masks, the order of rows and which are set apart to validate on.

    Attributes
    ----------
    network : Sequential
        Once fitted; its inputs are what `encoding` makes of rows.
    encoding : Encoding
        What is done to the columns.
    target : Target
        What is predicted: its name, task and classes.
    lines : list of str
        What was done to the target, the rows and each column, for people.
    noise : float
        Of a regression: the root of the mean squared error among the rows to validate on, in the
        target's units.
    trained : dict
        How it was trained: versions, rows, columns' roles, the last figures.
    history : History or None
        What training reported; None of a model from a file.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop import TableModel
    >>> size = np.arange(200.0)
    >>> table = {"size": size, "town": ["Ulm", "Jena"] * 100, "price": 3 * size + 7}
    >>> model = TableModel(hidden=(32,), epochs=30).fit(table, "price", verbose=0)
    >>> model.predict({"town": ["Ulm"], "size": [100.0]}).shape
    (1,)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.2,
        *,
        epochs: int = 20,
        batch_size: int = 128,
        optimizer: str | Optimizer = "adam",
        seed: int = 0,
    ) -> None:
        if isinstance(hidden, str) or not (np.iterable(hidden) and all(map(is_count, hidden))):
            raise ValueError(f"hidden: expected a list of whole numbers, got {shown(hidden)}")
        self.hidden = tuple(int(units) for units in hidden)
        self.dropout = checked_p(dropout, "dropout")
        self.epochs = checked_count("epochs", epochs)
        self.batch_size = checked_count("batch_size", batch_size)
        self.optimizer = optimizer
        self.seed = unsigned(seed, "seed")
        self.history: History | None = None

    def __repr__(self) -> str:
        options = {name: value for name, value in self._settings().items() if name != "optimizer"}
        given = [f"{name}={value!r}" for name, value in options.items()]
        return f"TableModel({', '.join(given)}, optimizer={self.optimizer!r})"

    def fit(
        self,
        table: Any,
        target: str,
        *,
        task: str | None = None,
        weight: str | None = None,
        ignore: Sequence[str] = (),
        group: str | None = None,
        time: str | None = None,
        missing: str = "fill",
        verbose: str | int = "auto",
        callbacks: Callback | Iterable[Callback] | None = None,
    ) -> Self:
        """Read a table, and train a new network on four fifths of its rows.

        Parameters
        ----------
        table : path, "-", DataFrame, pyarrow.Table or mapping of str to array_like
            A path of CSV, TSV (gzipped, too) or Parquet; "-" is standard input.
        target : str
            The column to predict. Rows without it are left out.
        task : {"classification", "regression"}, optional
            By default what the target's kind says: words, flags and few whole numbers are classes.
        weight : str, optional
            A column of factors of the rows' losses, at least 0.
        ignore : sequence of str
            Columns to leave out.
        group : str, optional
            A column of which rows with equal values are all trained on or all validated on.
        time : str, optional
            A column by which the latest rows are those to validate on.
        missing : {"fill", "error"}
            Whether what is missing is filled or refused.
        verbose, callbacks
            As for `Sequential.fit`.

        Returns
        -------
        TableModel
            This one.

        Raises
        ------
        TypeError, ValueError, OSError
            When the table or an argument does not serve, before anything is trained.
        """
        roles = Roles(
            target,
            task,
            weight,
            tuple(ignore) if not isinstance(ignore, str) else ignore,
            group,
            time,
            missing,
        )
        prepared = prepare(table, roles, self.seed)
        network = Sequential(self._layers(prepared), seed=self.seed)
        optimizer = self.optimizer
        if isinstance(optimizer, Optimizer):  # each network has one of its own
            optimizer = deserialize("optimizer", serialize(optimizer), Optimizer)
        network.compile(optimizer, prepared.target.loss, [prepared.target.metric])
        prepared.begin(network)
        history = network.fit(
            prepared.x,
            prepared.y,
            self.batch_size,
            self.epochs,
            verbose,
            callbacks,
            validation_data=prepared.validation,
            sample_weight=prepared.weight,
        )
        self._take(prepared, network)
        self.history = history
        return self

    @classmethod
    def of(cls, prepared: Prepared, network: Sequential, **settings: Any) -> Self:
        """Return the model of a network that was trained on a prepared table.

        Parameters
        ----------
        prepared : Prepared
        network : Sequential
        **settings
            The constructor's arguments.
        """
        model = cls(**settings)
        model._take(prepared, network)
        return model

    def _layers(self, prepared: Prepared) -> list[Layer | Input]:
        layers: list[Layer | Input] = [Input((prepared.encoding.width,))]
        for units in self.hidden:
            layers.append(Dense(units, "relu"))
            if self.dropout:
                layers.append(Dropout(self.dropout))
        return [*layers, Dense(prepared.target.outputs, prepared.target.activation)]

    def _take(self, prepared: Prepared, network: Sequential) -> None:
        self.network, self.encoding, self.target = network, prepared.encoding, prepared.target
        self.lines = prepared.lines
        self.noise = _noise(network, prepared)
        self.trained = {
            "table": one_line(prepared.name),
            "rows": len(prepared.x),
            "validation rows": len(prepared.x_val),
            "epochs": network.epoch,
            "versions": {
                "fastdrop": __version__,
                "numpy": np.__version__,
                "pyarrow": pa.__version__,
                "python": platform.python_version(),
            },
        }

    def predict(self, table: Any) -> Array:
        """Return what is predicted of each row: a class, or a number in the target's units.

        Parameters
        ----------
        table : path, "-", DataFrame, pyarrow.Table or mapping of str to array_like
            With the columns that the model was trained on, in any order; others are left aside.

        Returns
        -------
        ndarray, (rows,)

        Raises
        ------
        RuntimeError
            When the model is not fitted.
        TypeError, ValueError, OSError
            When the table does not serve, such as for a column that is missing or of another kind.
        """
        outputs = self._outputs(table)
        if not self.target.classes:
            return self.target.numbers(outputs)
        return np.array(self.target.classes)[outputs.argmax(axis=1)]

    def predict_proba(self, table: Any) -> Array:
        """Return the probabilities of the classes, in the order of ``target.classes``.

        Parameters
        ----------
        table
            As for `predict`.

        Returns
        -------
        ndarray of float32, (rows, classes)

        Raises
        ------
        RuntimeError, TypeError, ValueError, OSError
            As for `predict`; also of a regression.
        """
        self._check_fitted()
        if not self.target.classes:
            raise ValueError("predict_proba: expected a classification, got a regression")
        return self._outputs(table)

    def predict_table(
        self, table: Any, *, mc: int | None = None, moments: bool = False, seed: int = 0
    ) -> pa.Table:
        """Return what is predicted of each row as a table of pyarrow.

        It has a column ``prediction``; of a classification one ``probability_<class>`` for each
        class, too. With `mc` or `moments` it has ``std``, the deviation over dropout masks, and
        ``low`` and ``high``, the ends of an interval of 95 %: of a regression's target, for which
        the error among the rows to validate on counts, too; or of the chosen class's probability.
        Then a classification also has ``entropy`` and ``mutual_information``, see
        `fastdrop.uncertainty.Prediction`.

        Parameters
        ----------
        table
            As for `predict`.
        mc : int, optional
            Of so many dropout masks, see `Sequential.predict_mc`.
        moments : bool
            See `Sequential.predict_moments`.
        seed : int
            Of the masks.

        Returns
        -------
        pyarrow.Table
            ``.to_pandas()`` makes a DataFrame of it.

        Raises
        ------
        RuntimeError, TypeError, ValueError, OSError
            As for `predict`; when the network has no dropout and uncertainty is asked for.
        """
        predictor = self.predictor(mc=mc, moments=moments, seed=seed)
        blocks = predictor.blocks(self.rows(source_of(table)))
        return pa.Table.from_batches(list(blocks), predictor.schema)

    def predictor(
        self, *, mc: int | None = None, moments: bool = False, seed: int = 0
    ) -> Predictor:
        """Return what makes the columns of `predict_table` block by block."""
        self._check_fitted()
        return Predictor(self.network, self.encoding, self.target, self.noise, mc, moments, seed)

    def rows(self, source: Source) -> Iterator[EncodedRows]:
        """Give the rows of a table as the network takes them, in blocks."""
        self.check_columns(source)
        before = 0
        for block in source.blocks(self.encoding.types):
            try:
                yield self.encoding.encoded(block, before)
                before += block.num_rows
            except ValueError as error:
                raise ValueError(about(source.name, error)) from None

    def check_columns(self, source: Source) -> list[str]:
        """Return the names of columns that the model does not use.

        Raises
        ------
        RuntimeError
            When the model is not fitted.
        ValueError
            When one is missing that it needs.
        """
        self._check_fitted()
        names = source.names()
        lacking = [name for name in self.encoding.types if name not in names]
        if lacking:
            meant = near_miss(lacking[0], names) if len(lacking) == 1 else ""
            raise ValueError(
                about(
                    source.name,
                    f"expected the columns that the model was trained on, got none of the name"
                    f"{'s' if len(lacking) > 1 else ''} {', '.join(map(shown, lacking))}{meant}",
                )
            )
        return [name for name in names if name not in self.encoding.types]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to one file, see `load`: what is done to the columns, the network.

        The file is of safetensors: arrays and JSON, no code. It appears under its name only when
        it is whole.

        Parameters
        ----------
        path : path
            Replaced if it exists.

        Raises
        ------
        RuntimeError
            When the model is not fitted.
        ValueError
            When weights that are not finite would replace finite ones.
        OSError
            When the file cannot be written.
        """
        self._check_fitted()
        network, arrays = saving.pack(self.network.network)
        config = {
            "encoding": self.encoding.config(),
            "target": self.target.config(),
            "noise": self.noise,
            "lines": self.lines,
            "settings": self._settings(),
            "trained": self.trained,
            "network": network,
        }
        files.write(path, KIND, config, arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a model that `save` wrote, or ``fastdrop train`` of a table.

        Nothing in the file is executed.

        Parameters
        ----------
        path : path

        Returns
        -------
        TableModel

        Raises
        ------
        ValueError
            When the file is damaged, no such file, or of a later version of the format. One line
            that names the file.
        OSError
            When it cannot be read.
        """
        config, arrays = files.read(path, (KIND,))
        with one_line_about(path):
            files.check_keys("config", config, KEYS)
            settings = dict(config["settings"])
            if isinstance(settings["optimizer"], dict):
                given = settings["optimizer"]
                settings["optimizer"] = deserialize("optimizer", given, Optimizer)
            model = cls(**settings)
            model.encoding = Encoding.from_config(config["encoding"])
            model.target = Target.from_config(config["target"])
            check_number("noise", config["noise"])
            model.noise = float(config["noise"])
            model.lines, model.trained = config["lines"], config["trained"]
            if not isinstance(model.lines, list) or not isinstance(model.trained, dict):
                raise ValueError("lines, trained: expected a list and a dict")
        network = model.network = Sequential.from_network(
            saving.unpack(path, config["network"], arrays)
        )
        with one_line_about(path):
            expected = (model.encoding.width,), (model.target.outputs,)
            if (network.input_shape, network.output_shape) != expected:
                raise ValueError(
                    f"expected a network from {expected[0]} to {expected[1]}, "
                    f"got one from {network.input_shape} to {network.output_shape}"
                )
        return model

    def _settings(self) -> dict[str, Any]:
        given = self.optimizer
        return {
            "hidden": list(self.hidden),
            "dropout": self.dropout,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "optimizer": given if isinstance(given, str) else serialize(given),
            "seed": self.seed,
        }

    def _outputs(self, table: Any) -> Array:
        """Return the network's outputs for all rows."""
        self._check_fitted()
        outputs = self.predictor().outputs(self.rows(source_of(table)))
        empty = np.zeros((0, self.target.outputs), np.float32)
        return np.concatenate([empty, *outputs])

    def _check_fitted(self) -> None:
        if not hasattr(self, "network"):
            raise RuntimeError("model: expected a fitted one; call fit, or TableModel.load")


def _noise(network: Sequential, prepared: Prepared) -> float:
    """Return the root of the mean squared error on the validation part, in the target's units."""
    if prepared.target.classes:
        return 0.0
    outputs = network.predict(prepared.x_val, verbose=0).astype(np.float64)
    errors = ((outputs - prepared.y_val) ** 2)[:, 0]
    weights = prepared.weight_val
    if weights is not None and not weights.any():
        weights = None
    return math.sqrt(float(np.average(errors, weights=weights))) * prepared.target.deviation

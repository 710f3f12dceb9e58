"""What the classifier and the regressor share: the course of `fit`, and a network's outputs.

`fit` follows scikit-learn's in everything: initial weights, the order of samples, the rules for
stopping. So with the same `random_state`, and without dropout, the results are the same up to
rounding.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from functools import lru_cache
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, Self, cast

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, check_random_state, check_scalar
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastdrop._messages import shown
from fastdrop._quiet import quiet
from fastdrop.compiled._losses import are_finite
from fastdrop.compiled._sparse import SparseRows
from fastdrop.compiled._train import are_batch
from fastdrop.layers import Array
from fastdrop.models import Sequential
from fastdrop.sklearn import files, solvers
from fastdrop.sklearn.networks import Design, first_weights, views
from fastdrop.sklearn.rows import Rows, chunks
from fastdrop.sklearn.solvers import Batches, Samples
from fastdrop.training.expected import check_values
from fastdrop.training.step import Step
from fastdrop.uncertainty import Prediction

__all__ = ["Perceptron"]

FLOATS = (np.float64, np.float32)
AT_LEAST_0 = Interval(Real, 0, None, closed="left")
ABOVE_0 = Interval(Real, 0, None, closed="neither")
SHARE = Interval(Real, 0, 1, closed="left")  # all of the samples would be too many
COUNT = Interval(Integral, 1, None, closed="left")


class Numbers(Interval):
    """An interval of numbers, to which False and True do not belong."""

    def is_satisfied_by(self, val: Any) -> bool:
        return not isinstance(val, bool) and bool(super().is_satisfied_by(val))


RATE = Numbers(Real, 0, 1, closed="left")


class Perceptron(BaseEstimator):
    """Base of both estimators, whose docstrings describe the parameters.

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        The network's own memory. If another array is assigned in place of one of these, it is
        copied when the network is used next.
    """

    coefs_: list[Array]
    intercepts_: list[Array]
    _optimizer: Any
    _last_batches: tuple[Any, Batches] | None = None  # those of partial_fit, and what they are for

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": ["array-like", COUNT],
        "activation": [StrOptions({"identity", "logistic", "tanh", "relu"})],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [AT_LEAST_0],
        "batch_size": [StrOptions({"auto"}), COUNT],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [ABOVE_0],
        "power_t": [AT_LEAST_0],
        "max_iter": [COUNT],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [AT_LEAST_0],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [SHARE],
        "beta_1": [SHARE],
        "beta_2": [SHARE],
        "epsilon": [ABOVE_0],
        "n_iter_no_change": [COUNT, Options(Real, {np.inf})],
        "max_fun": [COUNT],
        "dropout": [RATE, "array-like"],
        "input_dropout": [RATE],
        "shared_dropout": ["boolean"],
        "max_norm": [Numbers(Real, 0, None, closed="neither"), None],
        "batch_norm": ["boolean"],
        "dtype": [StrOptions({"float32", "float64"}), None],
    }

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return list(_parameter_names(cast(Any, cls), cls.__init__))

    # Methods that each subclass defines in its own way

    def _validated(
        self, X: Any, y: Any, classes: Any, incremental: bool, first: bool
    ) -> tuple[Any, Any]:
        """Check X and y, and return them; set what is known about y, such as its classes.

        `classes` is what a classifier's `partial_fit` was given.
        """
        raise NotImplementedError

    def _encoded(self, y: Any, dtype: np.dtype[Any]) -> Array:
        """Return y as a network's targets."""
        raise NotImplementedError

    def _outputs_and_activation(self, y: Any) -> tuple[int, str]:
        """Return the number of outputs, and scikit-learn's name for their activation."""
        raise NotImplementedError

    def _weights(self, y: Any, targets: Array, sample_weight: Array | None) -> Array | None:
        """Return the weights of the samples, or None."""
        return sample_weight

    def _stratified(self, targets: Array) -> Array | None:
        """Return labels whose shares the samples that are set aside must keep, or None."""
        return None

    def _score_of(self, outputs: Array, targets: Array, weights: Array | None) -> float:
        """Return the score of outputs for validation."""
        raise NotImplementedError

    # The course of fit

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, classes: Any = None
    ) -> Self:
        with self._unchanged_if_refused():
            samples, random = self._prepared(X, y, sample_weight, incremental, classes)
            split = self._split(samples, random)
        if self.solver == "lbfgs":
            self._fit_lbfgs(samples)
        else:
            self._fit_batches(samples, *split, random, incremental)
        if not all(np.isfinite(weight).all() for weight in self._model.get_weights()):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )
        return self

    @contextmanager
    def _unchanged_if_refused(self) -> Iterator[None]:
        """Give the estimator back the attributes that it had, if something raises an error.

        What these attributes hold must not be written into meanwhile.
        """
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _prepared(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, classes: Any
    ) -> tuple[Samples, Any]:
        """Check everything, make the network, and return what it is trained on, and by chance."""
        hidden = self._hidden()
        dropout = self._dropout(len(hidden))
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, y = self._validated(X, y, classes, incremental, first)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
            if not np.any(sample_weight):
                raise ValueError("Sample weights must contain at least one non-zero number.")
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        outputs, out_activation = self._outputs_and_activation(y)
        design = Design(
            units=(X.shape[1], *hidden, outputs),
            activation=self.activation,
            out_activation=out_activation,
            dropout=dropout,
            shared_dropout=bool(self.shared_dropout),
            max_norm=None if self.max_norm is None else float(self.max_norm),
            batch_norm=bool(self.batch_norm),
            dtype=self._dtype_for(X, first),
        )
        random = check_random_state(self.random_state)
        targets = self._encoded(y, np.dtype(design.dtype))
        with np.errstate(over="ignore"):  # the sum shows it
            weights = self._weights(y, targets, sample_weight)
            if weights is not None:
                weights = weights.astype(design.dtype, copy=False)
                total = weights.sum(dtype=np.float64)
        if weights is not None:
            if not (incremental or total):
                raise ValueError("Weights of classes and samples must leave one that is not 0.")
            if not np.isfinite(total):
                raise ValueError(
                    f"Weights of classes and samples are too large for {design.dtype}."
                )
        samples = Samples(Rows(X), targets, weights)
        if first:
            self._begin(design, random)
        else:
            self._go_on(design, random)
        return samples, random

    def _checked(self, X: Any, y: Any, first: bool, **checks: Any) -> tuple[Any, Any]:
        """Check X and y by themselves, and return them: X in a dtype to compute in."""
        passes = not first and y is not None and self._are_plain(X, y)
        if passes and (self.dtype is None or self.dtype == X.dtype.name):
            return X, y
        with quiet(over="ignore"):  # what is too large for the dtype is refused
            checked: tuple[Any, Any] = validate_data(
                self,
                X,
                y,
                accept_sparse="csr",
                multi_output=True,
                dtype=FLOATS if self.dtype is None else np.dtype(self.dtype),
                reset=first,
                **checks,
            )
        return checked

    def _are_plain(self, X: Any, y: Any = None) -> bool:
        """Tell whether these are ordinary arrays that all of scikit-learn's checks would pass.

        Those checks know many kinds of data, and take most of the time of a small network. This
        asks the same of the kind that most programs give, in a few us.
        """
        if "_model" not in vars(self) or "feature_names_in_" in vars(self):
            return False
        if not are_batch(X, y, self._model.dtype, self._design.units[:1]) or not are_finite(X):
            return False
        return y is None or (
            0 < y.ndim <= 2 and y.size > 0 and (y.dtype.kind in "biuU" or are_finite(y))
        )

    def _hidden(self) -> tuple[int, ...]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if np.any(np.array(sizes) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        if not all(isinstance(size, Integral) and not isinstance(size, bool) for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be integers, got {sizes}.")
        return tuple(int(size) for size in sizes)

    def _dropout(self, layers: int) -> tuple[float, ...]:
        """Return the probabilities of dropping for the input and for each hidden layer."""
        given = self.dropout
        listed = not isinstance(given, Mapping | Set) and getattr(given, "ndim", 1) == 1
        if not listed and not isinstance(given, Real):  # NumPy's numbers have no axes
            raise ValueError(f"dropout must be a number or a list of numbers, got {shown(given)}")
        rates = [given] * layers if isinstance(given, Real) else list(given)
        if len(rates) != layers:
            raise ValueError(
                f"dropout must be a number or have one for each of the {layers} hidden layers, "
                f"got {len(rates)}: {shown(given)}"
            )
        for p in rates:
            if not RATE.is_satisfied_by(p):
                raise ValueError(f"dropout must be in the range [0.0, 1.0), got {shown(p)}")
        rates = [self.input_dropout, *rates]
        if self.solver == "lbfgs":
            unfit = {
                "dropout": any(rates),
                "batch_norm": self.batch_norm,
                "max_norm": self.max_norm is not None,
            }
            for name in (name for name, used in unfit.items() if used):
                raise ValueError(
                    f"solver='lbfgs' needs a loss that is the same function in every iteration, "
                    f"got it with {name}. Use solver='adam' or solver='sgd'."
                )
        return tuple(float(p) for p in rates)

    def _dtype_for(self, X: Any, first: bool) -> str:
        if self.dtype is not None:
            return str(self.dtype)
        return str(X.dtype.name if first else self.coefs_[0].dtype.name)

    def _begin(self, design: Design, random: Any) -> None:
        """Forget what was learnt before, and start with new weights."""
        self._take(design, design.network(mask_seed(design, random)))
        first_weights(self._model, design.activation, random)
        self.n_iter_ = self.t_ = 0
        if self.solver != "lbfgs":
            self._begin_curves()

    def _begin_curves(self) -> None:
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_: Any = -np.inf if self.early_stopping else None
        self.best_loss_: Any = None if self.early_stopping else np.inf

    def _go_on(self, design: Design, random: Any) -> None:
        """Keep what was learnt, in a new network if parameters have changed."""
        if "_model" not in vars(self):  # the estimator was given weights, and never fitted
            given = self.coefs_, self.intercepts_
            self._take(design, design.network(mask_seed(design, random)))
            (self.coefs_, self.intercepts_), self.t_ = given, 0
        own = self._network()
        if self._design == design:
            return
        model = design.network(own.seed or mask_seed(design, random))
        shapes = [[w.shape for w in each.network.weights().values()] for each in (own, model)]
        if shapes[0] != shapes[1]:
            if design.units == self._design.units:
                raise ValueError(
                    "warm_start and partial_fit can only be used with the same batch_norm as in "
                    f"the previous call to fit. Previously got {self._design.batch_norm}, now "
                    f"{design.batch_norm}."
                )
            raise ValueError(
                "warm_start and partial_fit can only be used with layers of the same sizes as in "
                f"the previous call to fit. Previously got {self._design.units}, now "
                f"{design.units}."
            )
        model.set_weights(own.get_weights())
        model.network.step = own.network.step  # so that used masks are not used again
        if hasattr(self, "_optimizer"):
            names = dict(zip(own.params, model.params))  # there may be another layer before these
            self._optimizer = copy.copy(self._optimizer)
            self._optimizer.state = {
                names[name]: {part: a.astype(model.dtype) for part, a in arrays.items()}
                for name, arrays in self._optimizer.state.items()
            }
        self._take(design, model)

    def _take(self, design: Design, model: Sequential) -> None:
        self._design, self._model = design, model
        self.coefs_, self.intercepts_ = views(model)
        self._own = [*self.coefs_, *self.intercepts_]
        self.n_layers_, self.n_outputs_ = len(design.units), design.units[-1]
        self.out_activation_ = design.out_activation

    def _network(self) -> Sequential:
        """Return the network, with the weights that `coefs_` and `intercepts_` have now."""
        if "_model" not in vars(self):
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet: it was given weights, "
                "and takes them over in partial_fit."
            )
        given = [*self.coefs_, *self.intercepts_]
        own = self._own
        if len(given) != len(own) or any(a is not b for a, b in zip(given, own)):
            shapes = [np.shape(array) for array in given]
            if shapes != [array.shape for array in own]:
                raise ValueError(
                    f"coefs_, intercepts_: expected shapes {[a.shape for a in own]}, got {shapes}"
                )
            for mine, array in zip(own, given):
                if array is not mine:
                    mine[...] = array
            self._take(self._design, self._model)
        return self._model

    def _fit_lbfgs(self, samples: Samples) -> None:
        iterations = 0

        def after_iteration(loss: float) -> None:
            nonlocal iterations
            iterations += 1
            self.n_iter_, self.loss_ = iterations, loss
            if self.verbose:
                print(f"Iteration {iterations}, loss = {loss:.8f}")

        options = {"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol}
        try:
            self.loss_, result = solvers.lbfgs(
                self._model, samples, float(self.alpha), options, after_iteration
            )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
            return
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)

    def _fit_batches(
        self,
        samples: Samples,
        training: Array | None,
        validation: Samples | None,
        random: Any,
        incremental: bool,
    ) -> None:
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = self._new_optimizer()
        states = (a for state in self._optimizer.state.values() for a in state.values())
        if not all(array.flags.writeable for array in states):  # they are in a memory map
            self._optimizer = copy.deepcopy(self._optimizer)
        validated = getattr(self, "validation_scores_", None) is not None
        if not hasattr(self, "loss_curve_") or validated != bool(self.early_stopping):
            self._begin_curves()  # the old ones are of another solver or another rule for stopping
        count = samples.rows.samples if training is None else len(training)
        size = min(200, count)
        if self.batch_size != "auto":
            if self.batch_size > count:
                warnings.warn(
                    "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                    "clipped",
                    stacklevel=5,
                )
            size = min(int(self.batch_size), count)
        # A stream of small parts would spend a third of its time on preparing a step for each.
        made_for = (self._model, self._optimizer, float(self.alpha), count, size)
        last, self._last_batches = self._last_batches, None
        if incremental and last is not None and last[0] == made_for:
            batches = last[1]
            batches.take(samples)
        else:
            batches = Batches(self._model, self._optimizer, samples, float(self.alpha))
        self._best_weights = self._model.get_weights() if self.early_stopping else None
        order = training
        self.n_iter_ = 0
        try:
            while self.n_iter_ < self.max_iter:
                if self.shuffle:
                    mixed = random.permutation(count)
                    order = mixed if order is None else order[mixed]
                self.loss_ = batches.epoch(order, count, size)
                self.n_iter_ += 1
                self.t_ += count
                self.loss_curve_.append(self.loss_)
                if self.verbose:
                    print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
                self._count_no_improvement(validation)
                if self.solver == "sgd" and self.learning_rate == "invscaling":
                    rate = float(self.learning_rate_init) / (self.t_ + 1) ** float(self.power_t)
                    self._optimizer.learning_rate = rate
                if self._no_improvement_count > self.n_iter_no_change and self._ends():
                    break
                if incremental:
                    break
                if self.n_iter_ == self.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter:d}) reached and "
                        "the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=5,
                    )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        # A step holds on to rows in their own order, and to sparse ones.
        if incremental and size == count and self.shuffle and not samples.rows.thin:
            batches.let_go()
            self._last_batches = made_for, batches
        if self._best_weights is not None:
            self._model.set_weights(self._best_weights)
            self._best_weights = None

    def _new_optimizer(self) -> Any:
        rate = float(self.learning_rate_init)
        if self.solver == "sgd":
            return solvers.sgd(rate, float(self.momentum), bool(self.nesterovs_momentum))
        return solvers.adam(rate, float(self.beta_1), float(self.beta_2), float(self.epsilon))

    def _split(self, samples: Samples, random: Any) -> tuple[Array | None, Samples | None]:
        """Return which samples to train on, or None for all, and the samples to validate on."""
        if not self.early_stopping or self.solver == "lbfgs":
            return None, None
        training, validation = train_test_split(
            np.arange(samples.rows.samples),
            random_state=random,
            test_size=self.validation_fraction,
            stratify=self._stratified(samples.targets),
        )
        if len(validation) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        weights = samples.weights
        if weights is not None and not (weights[training].any() and weights[validation].any()):
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return training, samples.some(validation)

    def _count_no_improvement(self, validation: Samples | None) -> None:
        tol = float(self.tol)
        if validation is None:
            loss, best = self.loss_curve_[-1], self.best_loss_
            if loss < best:
                self.best_loss_ = loss
            if any(self._design.dropout):
                *before, loss = self._mean_losses()
                best = min(before, default=np.inf)
            improved = not loss > best - tol
        else:
            outputs = self._outputs(validation.rows)
            score = self._score_of(outputs, validation.targets, validation.weights)
            assert self.validation_scores_ is not None
            self.validation_scores_.append(score)
            if self.verbose:
                print(f"Validation score: {score:f}")
            improved = not score < self.best_validation_score_ + tol
            if score > self.best_validation_score_:
                self.best_validation_score_ = score
                self._best_weights = self._model.get_weights()
        self._no_improvement_count = 0 if improved else self._no_improvement_count + 1

    def _mean_losses(self) -> list[float]:
        """Return, for each epoch, the mean loss of the last `n_iter_no_change` ones.

        With dropout the loss of one epoch says little: which units are kept moves it by more than
        an epoch still learns, and the smallest loss of all was partly luck.
        """
        sums = np.cumsum([0.0, *self.loss_curve_])
        last = np.arange(1, len(sums))
        first = np.maximum(last - float(max(1, self.n_iter_no_change)), 0).astype(int)
        means: list[float] = ((sums[last] - sums[first]) / (last - first)).tolist()
        return means

    def _ends(self) -> bool:
        """Tell whether training ends because nothing improves; if not, the rate may be reduced."""
        what = "Validation score" if self.early_stopping else "Training loss"
        text = (
            f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
            "consecutive epochs."
        )
        ends = True
        if self.solver != "sgd" or self.learning_rate != "adaptive":
            text += " Stopping."
        elif self._optimizer.learning_rate <= 1e-6:
            text += " Learning rate too small. Stopping."
        else:
            self._optimizer.learning_rate /= 5
            self._no_improvement_count = 0
            text += f" Setting learning rate to {self._optimizer.learning_rate:f}"
            ends = False
        if self.verbose:
            print(text)
        return ends

    # Outputs

    def _rows_for(self, X: Any) -> Rows:
        """Check X, and return its rows."""
        if self._are_plain(X):
            return Rows(X)
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        if X.dtype.kind in "mM":  # the number that is a date depends on the array's unit
            raise ValueError(f"X must be numbers, got an array of {X.dtype}.")
        return Rows(X)

    def _outputs(self, rows: Rows) -> Array:
        """Return the network's outputs, after the last activation."""
        outputs = np.concatenate([*self._parts_of_outputs(rows)])
        return np.exp(outputs, out=outputs) if self.out_activation_ == "exp" else outputs

    def _parts_of_outputs(self, rows: Rows) -> Iterator[Array]:
        model = self._network()
        if rows.thin:
            step = Step(model.network)
            step.follow()
            if step.takes_sparse():
                for sparse in _sparse(rows, model.dtype):
                    yield step.predict(sparse).copy()
                return
        for dense in _dense(rows, model.dtype):
            yield model(dense)

    def _prediction(self, rows: Rows, mc_samples: int | None = None) -> Prediction:
        """Return outputs with their uncertainty, by sampling or, without `mc_samples`, by moments.

        The samples depend on the network's seed, so every call gives the same result.
        """
        if not any(self._design.dropout):
            raise ValueError(
                "uncertainty comes from dropout, and this estimator was fitted without any: "
                "expected dropout or input_dropout above 0"
            )
        model = self._network()
        batches = _dense(rows, model.dtype)
        if mc_samples is None:
            return model.predict_moments(batches)
        if isinstance(mc_samples, bool):
            raise TypeError("mc_samples must be an instance of int, not bool.")
        samples = check_scalar(mc_samples, "mc_samples", Integral, min_val=1)
        return model.predict_mc(batches, int(samples), seed=model.seed, verbose=0)

    # Pickles and copies, which hold each weight once

    def __getstate__(self) -> dict[str, Any]:
        if "_model" in vars(self):
            self._network()
        state = dict(super().__getstate__())
        state.pop("_last_batches", None)
        if "_model" in state:
            for name in ("coefs_", "intercepts_", "_own"):
                del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_model" in vars(self):
            self._model.build()  # with its own arrays in place of memory maps
            self._take(self._design, self._model)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _check_solver(self) -> bool:
        if self.solver not in ("sgd", "adam"):
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. "
                f"{self.solver} is not stochastic."
            )
        return True

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted estimator to a file, see `fastdrop.sklearn.load`.

        The file is in the safetensors format: arrays and JSON, no code. It holds parameters,
        weights, classes, names of features, and what `partial_fit` needs to go on. It appears under
        its name only when it is complete.

        Parameters
        ----------
        path : path
            The file, which is replaced if it exists.

        Raises
        ------
        NotFittedError
            When there is nothing to save.
        ValueError
            When a parameter does not fit its description, or when the estimator holds something
            that a file cannot hold, such as labels that are neither numbers nor text.
        OSError
            When the file cannot be written.
        """
        check_is_fitted(self)
        self._validate_params()  # `load` would refuse what it refuses
        files.save(self, self._network(), path)


def _dense(rows: Rows, dtype: np.dtype[Any]) -> Iterator[Array]:
    """Yield all rows, some at a time, as dense arrays."""
    for some in chunks(rows):
        yield _in_dtype(rows.take(some), dtype)


def _sparse(rows: Rows, dtype: np.dtype[Any]) -> Iterator[SparseRows]:
    """Do what `_dense` does, for rows that stay sparse."""
    X = _in_dtype(rows.X, dtype)
    check_values("x", X.data, dtype)
    rows = Rows(X)
    for some in chunks(rows, sparse=True):
        yield rows.take_sparse(some)


def _in_dtype(X: Any, dtype: np.dtype[Any]) -> Any:
    """Return an array in this dtype. Numbers that are too large for it are refused."""
    if X.dtype != dtype:
        with quiet(over="ignore", invalid="ignore"):
            X = X.astype(dtype)
            assert_all_finite(X, input_name="X")
    return X


def mask_seed(design: Design, random: Any) -> int:
    """Return a seed for masks, drawn from a copy, so that dropout changes no other numbers.

    Where there are no masks it is 0, because a copy takes as long as some batches.
    """
    return int(copy.deepcopy(random).randint(1 << 31)) if any(design.dropout) else 0


@lru_cache
def _parameter_names(cls: Any, init: Any) -> tuple[str, ...]:
    """Return the names of the parameters of `cls`, whose `__init__` is `init`, in order.

    scikit-learn asks for them often. To find them takes most of the time of `clone`.
    """
    return tuple(BaseEstimator._get_param_names.__func__(cls))

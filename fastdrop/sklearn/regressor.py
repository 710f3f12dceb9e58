"""The regressor: its parameters, and how it treats targets."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d

from fastdrop.layers import Array
from fastdrop.sklearn.perceptron import Perceptron

__all__ = ["MLPRegressor"]


class MLPRegressor(RegressorMixin, Perceptron):
    """A multi-layer perceptron with dropout, as a regressor [1]_.

    Parameters, attributes and results are those of `sklearn.neural_network.MLPRegressor`, which has
    no dropout.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default="squared_error"
        Half the squared error, or half the Poisson deviance of ``exp`` of the last layer. The
        latter is for targets of at least 0.
    hidden_layer_sizes : int or array-like of int, default=(100,)
        Units of each hidden layer. An empty list makes a linear model.
    activation : {"identity", "logistic", "tanh", "relu"}, default="relu"
        Activation of the hidden layers.
    solver : {"lbfgs", "sgd", "adam"}, default="adam"
        "lbfgs" is SciPy's L-BFGS-B. It needs a loss that is the same function in every iteration,
        so it refuses `dropout`, `input_dropout`, `batch_norm` and `max_norm`.
    alpha : float, default=0.0001
        ``alpha / 2`` times the sum of the squared weights, divided by the sum of the sample weights
        of a batch, is added to the loss.
    batch_size : int or "auto", default="auto"
        Samples in a batch; "auto" is ``min(200, samples)``.
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        How the learning rate of "sgd" changes: it is constant, or is
        ``learning_rate_init / t ** power_t``, or is divided by 5 whenever two epochs did not
        improve by `tol`.
    learning_rate_init : float, default=0.001
        First learning rate of "sgd" and "adam".
    power_t : float, default=0.5
        Exponent of ``learning_rate="invscaling"``.
    max_iter : int, default=200
        The most epochs or, with "lbfgs", iterations.
    shuffle : bool, default=True
        Whether each epoch takes the samples in another order.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, masks, the order of samples and the split for validation.
    tol : float, default=1e-4
        Training ends when the loss, or the score with `early_stopping`, has not improved by so much
        for `n_iter_no_change` epochs. With dropout, whose loss has noise, that is the mean loss of
        so many epochs. With "lbfgs" it is SciPy's ``gtol``.
    verbose : bool, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether `fit` starts from the weights that exist already.
    momentum : float, default=0.9
        Momentum of "sgd", in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether "sgd" uses Nesterov's momentum.
    early_stopping : bool, default=False
        Whether to set samples aside, to end when the score for them does not improve, and to keep
        the weights with the best score.
    validation_fraction : float, default=0.1
        Share of the samples that is set aside.
    beta_1, beta_2, epsilon : float, default=0.9, 0.999, 1e-8
        Constants of "adam".
    n_iter_no_change : int, default=10
        See `tol`.
    max_fun : int, default=15000
        The most evaluations of the loss with "lbfgs".
    dropout : float or array-like of float, default=0.0
        Probability of dropping a hidden unit, in [0, 1): one for all layers, or one for each.
    input_dropout : float, default=0.0
        Probability of dropping a feature.
    shared_dropout : bool, default=False
        Whether all samples of a batch share one mask. Then only kept units are multiplied, which
        takes a fraction of the time in large layers, but needs a smaller `dropout`
        (docs/explanation/shared_masks.md).
    max_norm : float or None, default=None
        After each update, the weights into a hidden unit are scaled down to this Euclidean norm
        where theirs is larger.
    batch_norm : bool, default=False
        Whether there is batch normalisation before each hidden activation.
    dtype : {"float32", "float64"} or None, default=None
        The type to compute in. By default it is the type of `X`, or float64 if `X` has no floats.

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        Weights (inputs, units) and biases of each layer. The network computes with whatever is
        written into these arrays or assigned to these attributes.
    loss_, best_loss_, loss_curve_ : float, float or None, list of float
        The mean loss of the last epoch, the smallest one, and that of each epoch, with "sgd" and
        "adam". With `early_stopping`, `best_loss_` is None. With dropout, these are losses of
        thinned networks.
    validation_scores_, best_validation_score_ : list of float or None, float or None
        R^2 after each epoch, and the best one, with `early_stopping`.
    n_iter_, t_ : int
        The number of epochs, and of samples seen.
    n_features_in_, feature_names_in_ : int, ndarray of str
        The number of features, and their names if they have any.
    n_layers_, n_outputs_, out_activation_ : int, int, str
        The number of layers with the input, the number of outputs, and the last activation.

    References
    ----------
    .. [1] Srivastava et al. 2014, Dropout: a simple way to prevent neural networks from
       overfitting, JMLR 15:1929.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from fastdrop.sklearn import MLPRegressor
    >>> X, y = make_regression(200, 10, random_state=0)
    >>> net = MLPRegressor(solver="lbfgs", random_state=0, max_iter=500)
    >>> net.fit(X[:150], y[:150]).predict(X[150:]).shape
    (50,)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Perceptron._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int | float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        input_dropout: float = 0.0,
        shared_dropout: bool = False,
        max_norm: float | None = None,
        batch_norm: bool = False,
        dtype: str | None = None,
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.shared_dropout = shared_dropout
        self.max_norm = max_norm
        self.batch_norm = batch_norm
        self.dtype = dtype

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like or sparse matrix, (samples, features)
            Finite numbers. Of a sparse matrix, only the rows of a batch become dense.
        y : array-like, (samples,) or (samples, outputs)
            Numbers; with ``loss="poisson"`` at least 0.
        sample_weight : array-like, (samples,), optional
            Factors of the samples' losses, at least 0.

        Returns
        -------
        MLPRegressor
            The estimator itself. Ctrl-C ends training, and the estimator keeps the weights that it
            has reached.

        Raises
        ------
        ValueError
            When an argument does not fit its description, which changes nothing in the estimator,
            or when the weights are no longer finite.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    @available_if(lambda self: self._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one more epoch.

        The optimiser is that of the last `fit`, or of the first `partial_fit`: later values of
        `solver`, `learning_rate_init` and the optimiser's other parameters change nothing.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        MLPRegressor
            The estimator itself.

        Raises
        ------
        ValueError
            As for `fit`.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Return what the network predicts, with its standard deviation if asked for.

        Parameters
        ----------
        X : array-like or sparse matrix, (samples, features)
            Finite numbers.
        return_std : bool
            Whether to return the standard deviation of the predictions under dropout, too. It tells
            how uncertain the network is, without the noise of the targets, and is computed without
            sampling, see `fastdrop.Sequential.predict_moments`.

        Returns
        -------
        y : ndarray, (samples,) or (samples, outputs)
            The prediction.
        std : ndarray, (samples,) or (samples, outputs), only if return_std
            The standard deviation of the prediction.

        Raises
        ------
        ValueError
            When X does not fit, or, with `return_std`, when the estimator was fitted without
            dropout.
        """
        rows = self._rows_for(X)
        outputs = self._outputs(rows)
        if not return_std:
            return _column_or_table(outputs)
        moments = self._prediction(rows)
        std = moments.std
        if self.out_activation_ == "exp":  # the moments of a variate whose logarithm is normal
            variance = std**2
            std = np.exp(moments.mean + variance / 2) * np.sqrt(np.expm1(variance))
        return _column_or_table(outputs), _column_or_table(std.astype(self._model.dtype))

    def _validated(
        self, X: Any, y: Any, classes: Any, incremental: bool, first: bool
    ) -> tuple[Any, Any]:
        X, y = self._checked(X, y, first, y_numeric=True)
        if y.dtype.kind not in "biuf":
            raise ValueError(f"y must be numbers, got an array of {y.dtype}.")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if issparse(y):
            y = y.toarray()
        if self.loss == "poisson" and y.min() < 0:
            raise ValueError(
                f"Some value(s) of y are out of the valid range of the loss {self.loss!r}: "
                f"expected at least 0, got {y.min()}."
            )
        return X, y

    def _encoded(self, y: Any, dtype: np.dtype[Any]) -> Array:
        with np.errstate(over="ignore"):
            targets = np.ascontiguousarray(y.reshape(len(y), -1), dtype)
        if not np.isfinite(targets).all():
            raise ValueError(f"Input y contains infinity or a value too large for {dtype!r}.")
        return targets

    def _outputs_and_activation(self, y: Any) -> tuple[int, str]:
        outputs = 1 if y.ndim == 1 else y.shape[1]
        return outputs, "exp" if self.loss == "poisson" else "identity"

    def _score_of(self, outputs: Array, targets: Array, weights: Array | None) -> float:
        if not np.isfinite(outputs).all():
            return float("nan")
        return float(r2_score(targets, outputs, sample_weight=weights))


def _column_or_table(outputs: Array) -> Array:
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs

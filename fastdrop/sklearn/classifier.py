"""The classifier: its parameters, and how it treats labels."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d

from fastdrop.layers import Array
from fastdrop.sklearn.perceptron import Perceptron
from fastdrop.sklearn.targets import Labels

__all__ = ["MLPClassifier"]


class MLPClassifier(ClassifierMixin, Perceptron):
    """A multi-layer perceptron with dropout, as a classifier [1]_.

    Parameters, attributes and results are those of `sklearn.neural_network.MLPClassifier`, which
    has no dropout. The classifier minimises the cross-entropy. If samples have several labels, it
    minimises the sum of the labels' cross-entropies.

    Parameters
    ----------
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
    class_weight : dict, list of dict, "balanced" or None, default=None
        Factors of the classes' samples in the loss. "balanced" makes all classes count alike. If
        samples have several labels, it is a list of one dict for each label.
    dtype : {"float32", "float64"} or None, default=None
        The type to compute in. By default it is the type of `X`, or float64 if `X` has no floats.

    Attributes
    ----------
    classes_ : ndarray
        The classes, sorted.
    coefs_, intercepts_ : list of ndarray
        Weights (inputs, units) and biases of each layer. The network computes with whatever is
        written into these arrays or assigned to these attributes.
    loss_, best_loss_, loss_curve_ : float, float or None, list of float
        The mean loss of the last epoch, the smallest one, and that of each epoch, with "sgd" and
        "adam". With `early_stopping`, `best_loss_` is None. With dropout, these are losses of
        thinned networks.
    validation_scores_, best_validation_score_ : list of float or None, float or None
        The accuracy after each epoch, and the best one, with `early_stopping`.
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
    >>> from sklearn.datasets import load_digits
    >>> from fastdrop.sklearn import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = MLPClassifier((64, 64), dropout=0.2, learning_rate_init=0.01, tol=0.01)
    >>> net.fit(X[:1500] / 16, y[:1500]).score(X[1500:] / 16, y[1500:]) > 0.8
    True
    """

    loss: ClassVar[str] = "log_loss"  # an attribute in scikit-learn, too, and no parameter

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Perceptron._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    def __init__(
        self,
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
        class_weight: Any = None,
        dtype: str | None = None,
    ) -> None:
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
        self.class_weight = class_weight
        self.dtype = dtype

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like or sparse matrix, (samples, features)
            Finite numbers. Of a sparse matrix, only the rows of a batch become dense.
        y : array-like, (samples,) or (samples, labels)
            Classes, or a column of 0 and 1 for each label.
        sample_weight : array-like, (samples,), optional
            Factors of the samples' losses, at least 0.

        Returns
        -------
        MLPClassifier
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
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one more epoch.

        The optimiser is that of the last `fit`, or of the first `partial_fit`: later values of
        `solver`, `learning_rate_init` and the optimiser's other parameters change nothing.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array-like, optional
            All classes that will ever occur. The first call needs them.

        Returns
        -------
        MLPClassifier
            The estimator itself.

        Raises
        ------
        ValueError
            As for `fit`.
        """
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each sample, or all labels that are probable.

        Parameters
        ----------
        X : array-like or sparse matrix, (samples, features)
            Finite numbers.

        Returns
        -------
        ndarray, (samples,) or (samples, labels)
            Classes. If samples have several labels, a label is 1 if it is more probable than not.
        """
        outputs = self._outputs(self._rows_for(X))
        return self._labels.decoded(outputs)

    def predict_proba(self, X: Any, mc_samples: int | None = None) -> Array:
        """Return the probability of each class, in the order of `classes_`.

        Parameters
        ----------
        X : array-like or sparse matrix, (samples, features)
            Finite numbers.
        mc_samples : int, optional
            How many outputs to average, each with other dropout masks, which are the same in every
            call. By default there is one output, without dropout.

        Returns
        -------
        ndarray, (samples, classes)
            The probabilities.

        Raises
        ------
        ValueError
            When there is no dropout to sample, or X does not fit.
        """
        rows = self._rows_for(X)
        if mc_samples is None:
            return self._labels.probabilities(self._outputs(rows))
        mean = self._prediction(rows, mc_samples).mean
        return self._labels.probabilities(mean.astype(self._model.dtype))

    def predict_entropy(self, X: Any, mc_samples: int | None = None) -> Array:
        """Return the entropy of the classes under dropout, in nats: how uncertain they are.

        Parameters
        ----------
        X : array-like or sparse matrix, (samples, features)
            Finite numbers.
        mc_samples : int, optional
            How many outputs to average, each with other dropout masks. By default the average over
            all masks is computed without sampling, see `fastdrop.Sequential.predict_moments`.

        Returns
        -------
        ndarray, (samples,) or (samples, labels)
            The entropies; the latter shape if samples have several labels.

        Raises
        ------
        ValueError
            When the estimator was fitted without dropout, or X does not fit.
        """
        entropy = self._prediction(self._rows_for(X), mc_samples).entropy
        if len(self.classes_) == 1:
            entropy = np.zeros_like(entropy)
        return entropy[:, 0] if self._labels.kind == "binary" else entropy

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`.

        Parameters
        ----------
        X : array-like or sparse matrix, (samples, features)
            Finite numbers.

        Returns
        -------
        ndarray, (samples, classes)
            The logarithms, which may be -inf.
        """
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):  # the logarithm of 0
            return np.log(probabilities, out=probabilities)

    def _validated(
        self, X: Any, y: Any, classes: Any, incremental: bool, first: bool
    ) -> tuple[Any, Any]:
        if incremental and _check_partial_fit_first_call(self, classes):
            multilabel = type_of_target(y).startswith("multilabel")
            self._labels = Labels(y if multilabel else classes)
        X, y = self._checked(X, y, first)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._labels = Labels(y)
            self.classes_ = self._labels.classes
            return X, y
        known = not self.warm_start and self._labels.know(y)
        present = self.classes_ if known else unique_labels(y)
        if self.warm_start:
            if set(present) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous "
                    f"call to fit. Previously got {self.classes_}, `y` has {present}"
                )
        elif not known and len(np.setdiff1d(present, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {present}."
            )
        if incremental and "balanced" in _listed(self.class_weight):
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit. In order to "
                "use 'balanced' weights, use compute_class_weight('balanced', classes=classes, "
                "y=y). Pass the resulting weights as the class_weight parameter."
            )
        return X, y

    def _encoded(self, y: Any, dtype: np.dtype[Any]) -> Array:
        return self._labels.encoded(y, dtype)

    def _outputs_and_activation(self, y: Any) -> tuple[int, str]:
        return self._labels.outputs, self._labels.out_activation

    def _weights(self, y: Any, targets: Array, sample_weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return sample_weight
        return self._labels.weights(self.class_weight, y, targets, sample_weight)

    def _stratified(self, targets: Array) -> Array | None:
        return targets.astype(bool) if self._labels.kind == "binary" else None

    def _score_of(self, outputs: Array, targets: Array, weights: Array | None) -> float:
        chosen = self._labels.chosen(outputs)
        right = targets.astype(np.intp).reshape(chosen.shape)
        return float(accuracy_score(right, chosen, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _listed(class_weight: Any) -> list[Any]:
    return class_weight if isinstance(class_weight, list) else [class_weight]

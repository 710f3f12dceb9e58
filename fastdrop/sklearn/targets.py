"""Labels of classes as a network's targets, and a network's outputs as labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from fastdrop._messages import shown
from fastdrop.layers import Array

__all__ = ["Labels"]


class Labels:
    """The labels of a classifier.

    Parameters
    ----------
    y : array_like
        Labels in which every class occurs, or the classes.

    Attributes
    ----------
    classes : ndarray
        The classes, sorted, or the numbers of the labels if samples have several.
    kind : {"binary", "multiclass", "multilabel-indicator"}
        scikit-learn's kind of target. It is also "binary" where there is only one class.

    Raises
    ------
    ValueError
        When `y` are not labels. The message is scikit-learn's.
    """

    def __init__(self, y: Any) -> None:
        self._binarizer = LabelBinarizer().fit(y)
        self.classes: Array = self._binarizer.classes_
        self.kind: str = self._binarizer.y_type_

    def facts(self) -> dict[str, Any]:
        """Return what `from_facts` needs to make equal labels."""
        return {
            "kind": self.kind,
            "classes": self.classes,
            "sparse": bool(self._binarizer.sparse_input_),
        }

    @classmethod
    def from_facts(cls, kind: str, classes: Array, sparse: bool) -> Labels:
        """Return the labels whose `facts` these are."""
        y: Any = classes
        if kind == "multilabel-indicator":
            y = np.eye(len(classes), dtype=np.intp)
        labels = cls(csr_array(y) if sparse else y)
        if labels.kind != kind:
            raise ValueError(f"labels: expected those of {labels.kind}, got {shown(kind)}")
        return labels

    @property
    def outputs(self) -> int:
        """The number of a network's outputs."""
        return 1 if self.kind == "binary" else len(self.classes)

    @property
    def out_activation(self) -> str:
        """The network's last activation, by scikit-learn's name."""
        return "softmax" if self.kind == "multiclass" else "logistic"

    def know(self, y: Array) -> bool:
        """Tell whether these are labels of the classes' type that are all among the classes.

        If not, they may still be: this is a quick test, before a thorough one.
        """
        classes = self.classes
        if self.kind == "multilabel-indicator" or y.ndim != 1 or y.dtype != classes.dtype:
            return False
        if y.dtype.kind not in "biuU":
            return False
        found = classes.take(np.searchsorted(classes, y), mode="clip")
        return bool((found == y).all())

    def encoded(self, y: Any, dtype: Any) -> Array:
        """Return targets: class numbers (samples,), or numbers 0 and 1 (samples, outputs).

        Labels that are not among the classes are not noticed.
        """
        if self.kind == "multilabel-indicator":
            # as bool, because indicators may also be 1 and 2
            return np.asarray(self._binarizer.transform(y), bool).astype(dtype)
        if getattr(y, "ndim", 1) != 1:
            raise ValueError("The object was not fitted with multilabel input.")
        numbers = np.searchsorted(self.classes, y).astype(np.intp, copy=False)
        return numbers if self.kind == "multiclass" else numbers[:, np.newaxis].astype(dtype)

    def chosen(self, outputs: Array) -> Array:
        """Return what a network's outputs choose: class numbers, or flags of labels."""
        if self.kind == "multiclass":
            return outputs.argmax(axis=1)
        chosen = (outputs > 0.5).astype(np.intp)
        if self.kind != "binary":
            return chosen
        return np.minimum(chosen[:, 0], len(self.classes) - 1)

    def decoded(self, outputs: Array) -> Any:
        """Return labels, of the type in which they were given."""
        if self.kind == "multilabel-indicator":
            return self._binarizer.inverse_transform(outputs)
        return self.classes[self.chosen(outputs)]

    def probabilities(self, outputs: Array) -> Array:
        """Return the probabilities that the outputs are, with a column for each class."""
        if len(self.classes) == 1:
            return np.ones_like(outputs)
        if self.kind == "binary":
            return np.hstack([1 - outputs, outputs])
        return outputs

    def weights(self, class_weight: Any, y: Any, targets: Array, own: Array | None) -> Array:
        """Return the weights of samples: those of their classes times their own.

        Parameters
        ----------
        class_weight : dict, list of dict, or "balanced"
            As in scikit-learn; a list where samples have several labels.
        y, targets : array_like, ndarray
            The labels as they were given, and encoded.
        own : ndarray, (samples,), or None
            The samples' own weights.

        Returns
        -------
        ndarray, (samples,)
            The weights.
        """
        if self.kind == "multilabel-indicator":
            weights = compute_sample_weight(class_weight, y)
        elif isinstance(class_weight, list):
            raise ValueError(
                "class_weight can only be a list where samples have several labels, got "
                f"{shown(class_weight)}"
            )
        else:
            codes = targets.astype(np.intp).ravel()
            if isinstance(class_weight, str):  # "balanced", in which samples count by their weights
                sums = np.bincount(codes, own, minlength=len(self.classes))
                of_class = sums.sum() / (len(sums) * np.where(sums, sums, 1))
            else:
                of_class = compute_class_weight(class_weight, classes=self.classes, y=y)
            weights = of_class[codes]
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(
                f"class_weight must have finite numbers of at least 0, got {shown(class_weight)}"
            )
        return np.asarray(weights if own is None else weights * own)

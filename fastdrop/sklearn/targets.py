"""Labels of classes as a network's targets, and its outputs as labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from fastdrop.layers import Array

__all__ = ["Labels"]


class Labels:
    """The labels of a classifier.

    Parameters
    ----------
    y : array_like
        Labels, among which each class is; or the classes.

    Attributes
    ----------
    classes : ndarray
        Sorted; of several labels a sample, their numbers.
    kind : {"binary", "multiclass", "multilabel-indicator"}
        "binary" also where there is one class only.

    Raises
    ------
    ValueError
        When `y` are no labels; scikit-learn's words.
    """

    def __init__(self, y: Any) -> None:
        self._binarizer = LabelBinarizer().fit(y)
        self.classes: Array = self._binarizer.classes_
        self.kind: str = self._binarizer.y_type_

    def facts(self) -> dict[str, Any]:
        """Return what `from_facts` makes equal labels of."""
        return {
            "kind": self.kind,
            "classes": self.classes,
            "sparse": bool(self._binarizer.sparse_input_),
        }

    @classmethod
    def from_facts(cls, kind: str, classes: Array, sparse: bool) -> Labels:
        """Return the labels that `facts` was called of."""
        y: Any = classes
        if kind == "multilabel-indicator":
            y = np.eye(len(classes), dtype=np.intp)
        labels = cls(csr_array(y) if sparse else y)
        if labels.kind != kind:
            raise ValueError(f"labels: expected those of {labels.kind}, got {kind!r}")
        return labels

    @property
    def outputs(self) -> int:
        """How many a network has."""
        return 1 if self.kind == "binary" else len(self.classes)

    @property
    def out_activation(self) -> str:
        """The network's last activation, as scikit-learn names it."""
        return "softmax" if self.kind == "multiclass" else "logistic"

    def encoded(self, y: Any, dtype: Any) -> Array:
        """Return targets: class numbers (samples,), or numbers 0 and 1 (samples, outputs)."""
        if self.kind == "multiclass":
            return np.searchsorted(self.classes, y).astype(np.intp, copy=False)
        return np.asarray(self._binarizer.transform(y), dtype)

    def chosen(self, outputs: Array) -> Array:
        """Return what a network's outputs choose: numbers of classes, or flags of labels."""
        if self.kind == "multiclass":
            return outputs.argmax(axis=1)
        chosen = (outputs > 0.5).astype(np.intp)
        if self.kind != "binary":
            return chosen
        return np.minimum(chosen[:, 0], len(self.classes) - 1)

    def decoded(self, outputs: Array) -> Any:
        """Return labels, of the type that they were given in."""
        if self.kind == "multiclass":
            return self.classes[outputs.argmax(axis=1)]
        return self._binarizer.inverse_transform(
            outputs[:, 0] if self.kind == "binary" else outputs
        )

    def probabilities(self, outputs: Array) -> Array:
        """Return a column for each class of the probabilities that outputs are."""
        if len(self.classes) == 1:
            return np.ones_like(outputs)
        if self.kind == "binary":
            return np.hstack([1 - outputs, outputs])
        return outputs

    def weights(self, class_weight: Any, y: Any, targets: Array, own: Array | None) -> Array:
        """Return samples' weights: their classes', times their own.

        Parameters
        ----------
        class_weight : dict, list of dict, or "balanced"
            As scikit-learn has it; a list where samples have several labels.
        y, targets : array_like, ndarray
            The labels, as they were given and encoded.
        own : ndarray, (samples,), or None
        """
        if self.kind == "multilabel-indicator":
            weights = compute_sample_weight(class_weight, y)
        else:
            codes = targets.astype(np.intp).ravel()
            if isinstance(class_weight, str):  # balanced; samples count by their weights
                sums = np.bincount(codes, own, minlength=len(self.classes))
                of_class = sums.sum() / (len(sums) * np.where(sums, sums, 1))
            else:
                of_class = compute_class_weight(class_weight, classes=self.classes, y=y)
            weights = of_class[codes]
        return np.asarray(weights if own is None else weights * own)

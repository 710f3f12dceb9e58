"""Reading estimators from files."""

from __future__ import annotations

from os import PathLike

from fastdrop.sklearn import files
from fastdrop.sklearn.classifier import MLPClassifier
from fastdrop.sklearn.regressor import MLPRegressor

__all__ = ["load"]


def load(path: str | PathLike[str]) -> MLPClassifier | MLPRegressor:
    """Read an estimator that `save` wrote.

    Nothing in the file is executed.

    Parameters
    ----------
    path : path

    Returns
    -------
    MLPClassifier or MLPRegressor
        Fitted; `partial_fit`, and `fit` with ``warm_start``, go on as the saved one would have.

    Raises
    ------
    ValueError
        When the file is damaged, no such file, or of a later version of the format. One line that
        names the file.
    OSError
        When it cannot be read.
    """
    return files.load(path, {cls.__name__: cls for cls in (MLPClassifier, MLPRegressor)})

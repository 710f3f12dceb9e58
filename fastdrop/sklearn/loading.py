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
        The file.

    Returns
    -------
    MLPClassifier or MLPRegressor
        The fitted estimator. `partial_fit`, and `fit` with ``warm_start``, go on as they would have
        with the estimator that was saved.

    Raises
    ------
    ValueError
        When the file is damaged, is not such a file, or has a later version of the format. The
        message is one line that names the file.
    OSError
        When the file cannot be read.
    """
    return files.load(path, {cls.__name__: cls for cls in (MLPClassifier, MLPRegressor)})

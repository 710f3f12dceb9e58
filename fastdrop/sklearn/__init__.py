"""scikit-learn's perceptrons, with dropout: ``from fastdrop.sklearn import MLPClassifier``.

The estimators have the parameters and attributes of scikit-learn's, and compute the same faster.
`load` reads the files that their `save` writes. docs/reference/sklearn.md has the details.
"""

_NEEDED = (1, 6)

try:
    import sklearn as _sklearn
except ImportError as error:
    raise ImportError(
        f"fastdrop.sklearn needs scikit-learn: pip install 'fastdrop-nn[sklearn]' ({error})"
    ) from None
if tuple(map(int, _sklearn.__version__.split(".")[:2])) < _NEEDED:
    raise ImportError(
        f"fastdrop.sklearn needs scikit-learn {'.'.join(map(str, _NEEDED))} or later, "
        f"got {_sklearn.__version__}: pip install 'fastdrop-nn[sklearn]'"
    )

from fastdrop.sklearn.classifier import MLPClassifier
from fastdrop.sklearn.loading import load
from fastdrop.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "load"]

import numpy as np
import pytest

from fastdrop.metrics import METRICS

OUTPUTS = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
ONE_HOT = np.eye(2)[[1, 0, 1, 1]]  # the third is wrong
COLUMN = np.array([[0.9], [0.2], [0.4], [0.6]])

CASES = {
    "class numbers": ("accuracy", OUTPUTS, np.array([1, 0, 1, 1]), False, 0.75),
    "one-hot": ("accuracy", OUTPUTS, ONE_HOT, False, 0.75),
    "binary": ("accuracy", COLUMN, np.array([[1], [0], [1], [1]]), False, 0.75),
    "binary logits": ("accuracy", COLUMN - 0.5, np.array([[1], [0], [1], [1]]), True, 0.75),
    "multi-label": ("binary_accuracy", OUTPUTS, ONE_HOT, False, 0.75),
    "sequences": ("accuracy", OUTPUTS.reshape(2, 2, 2), np.array([[1, 0], [1, 1]]), False, 0.75),
    "by name": ("sparse_categorical_accuracy", OUTPUTS, np.array([1, 1, 1, 1]), False, 0.5),
    "by name, one-hot": ("categorical_accuracy", OUTPUTS, ONE_HOT, False, 0.75),
}


@pytest.mark.parametrize(
    ("name", "outputs", "y", "from_logits", "expected"), CASES.values(), ids=list(CASES)
)
def test_share_of_right_answers(name, outputs, y, from_logits, expected):
    assert METRICS[name](outputs, y, from_logits) == expected

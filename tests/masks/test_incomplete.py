"""Every array that comes in is complete, or refused: masks."""

import numpy as np
import pytest
from incomplete import COMPLETE, INCOMPLETE, NO_NUMBERS, masked

import fastdrop
from fastdrop import Key
from fastdrop.functional import masked_scale

KEY = {"key": Key(1)}
X = np.linspace(1, 2, 8, dtype=np.float32).reshape(4, 2)
IMAGES = X.reshape(1, 2, 2, 2)

# argument: what takes it, and whether it takes array_likes or arrays alone
ARGUMENTS = {
    "dropout, x": (lambda x: fastdrop.dropout(x, **KEY), True),
    "dropout at inference, x": (lambda x: fastdrop.dropout(x, training=False), True),
    "dropout of nothing, x": (lambda x: fastdrop.dropout(x, 0, return_mask=True)[0], True),
    "dropout, out": (lambda out: fastdrop.dropout(X, out=out, **KEY), False),
    "dropout of nothing, out": (lambda out: fastdrop.dropout(X, 0, out=out), False),
    "masked_scale, x": (lambda x: masked_scale(x, 0.5, 3.0, **KEY), True),
    "apply_mask, x": (lambda x: fastdrop.apply_mask(x, np.ones((4, 2), bool), 0.5), True),
    "apply_mask, mask": (lambda mask: fastdrop.apply_mask(X, mask.astype(bool), 0.5), False),
    "apply_mask, out": (lambda out: fastdrop.apply_mask(X, X > 0, 0.5, out=out), False),
    "dropout_add, x": (lambda x: fastdrop.dropout_add(x, X, **KEY), True),
    "dropout_add, residual": (lambda residual: fastdrop.dropout_add(X, residual, **KEY), False),
    "dropout_add, out": (lambda out: fastdrop.dropout_add(X, X, out=out, **KEY), False),
    "bias_act_dropout, x": (lambda x: fastdrop.bias_act_dropout(x, X[0], "relu", **KEY), True),
    "bias_act_dropout, bias": (
        lambda bias: fastdrop.bias_act_dropout(X.T.copy(), bias[:, 0], None, **KEY),
        False,
    ),
    "bias_act_dropout_backward, dy": (
        lambda dy: fastdrop.bias_act_dropout_backward(dy, X, "relu")[0],
        True,
    ),
    "bias_act_dropout_backward, y": (
        lambda y: fastdrop.bias_act_dropout_backward(X, y, "relu")[0],
        False,
    ),
    "softmax_dropout, scores": (lambda scores: fastdrop.softmax_dropout(scores, **KEY), True),
    "softmax_dropout, mask": (lambda mask: fastdrop.softmax_dropout(X, mask=mask, **KEY), False),
    "softmax_dropout, out": (lambda out: fastdrop.softmax_dropout(X, out=out, **KEY), False),
    "softmax_dropout_backward, dy": (
        lambda dy: fastdrop.softmax_dropout_backward(dy, X, **KEY),
        True,
    ),
    "softmax_dropout_backward, scores": (
        lambda scores: fastdrop.softmax_dropout_backward(X, scores, **KEY),
        False,
    ),
    "alpha_dropout, x": (lambda x: fastdrop.alpha_dropout(x, **KEY), True),
    "alpha_dropout of nothing, x": (lambda x: fastdrop.alpha_dropout(x, 0, **KEY), True),
    "alpha_dropout_backward, dy": (lambda dy: fastdrop.alpha_dropout_backward(dy, **KEY), True),
    "alpha_dropout_backward of nothing, dy": (
        lambda dy: fastdrop.alpha_dropout_backward(dy, 0, **KEY),
        True,
    ),
    "feature_alpha_dropout, x": (lambda x: fastdrop.feature_alpha_dropout(x, **KEY), True),
    "drop_path, x": (lambda x: fastdrop.drop_path(x, **KEY), True),
    "drop_block2d, out": (
        lambda out: fastdrop.drop_block2d(
            IMAGES, block_size=1, out=out.reshape(IMAGES.shape), **KEY
        ),
        False,
    ),
    "gaussian_dropout, x": (lambda x: fastdrop.gaussian_dropout(x, **KEY), True),
    "gaussian_dropout of nothing, x": (lambda x: fastdrop.gaussian_dropout(x, 0, **KEY), True),
    "gaussian_noise, x": (lambda x: fastdrop.gaussian_noise(x, 1.0, **KEY), True),
    "gaussian_noise of nothing, x": (lambda x: fastdrop.gaussian_noise(x, 0, **KEY), True),
    "gaussian_noise, out": (lambda out: fastdrop.gaussian_noise(X, 1.0, out=out, **KEY), False),
    "zoneout, x": (lambda x: fastdrop.zoneout(x, X, **KEY), True),
    "zoneout, previous": (lambda previous: fastdrop.zoneout(X, previous, **KEY), False),
    "zoneout_backward, dy": (lambda dy: fastdrop.zoneout_backward(dy, **KEY)[0], True),
}
ARRAY_LIKE = {name: call for name, (call, array_like) in ARGUMENTS.items() if array_like}


@pytest.mark.parametrize("call", ARGUMENTS)
def test_masked_values_are_refused_before_anything_is_written(call):
    function, _ = ARGUMENTS[call]
    argument = masked(X)
    before = argument.data.copy()
    name = call.rpartition(" ")[2]
    with pytest.raises(ValueError, match=rf"^{name}: expected no masked values.*\.filled") as error:
        function(argument)
    assert len(str(error.value)) <= 200
    np.testing.assert_array_equal(argument.data, before)


@pytest.mark.parametrize("kind", ["masks nothing", "mask of nothing"])
@pytest.mark.parametrize("call", ARGUMENTS)
def test_arrays_that_mask_nothing_are_arrays(call, kind):
    function, _ = ARGUMENTS[call]
    np.testing.assert_array_equal(function(COMPLETE[kind](X.copy())), function(X.copy()))


@pytest.mark.parametrize("kind", INCOMPLETE)
@pytest.mark.parametrize("call", ARRAY_LIKE)
def test_incomplete_array_likes_are_refused(call, kind):
    name = call.rpartition(" ")[2]
    with pytest.raises(ValueError, match=f"^{name}: .*{INCOMPLETE[kind][1]}") as error:
        ARRAY_LIKE[call](INCOMPLETE[kind][0](X))
    assert len(str(error.value)) <= 200
    assert str(error.value).isprintable()


@pytest.mark.parametrize("kind", COMPLETE)
@pytest.mark.parametrize("call", ARRAY_LIKE)
def test_complete_array_likes_are_taken(call, kind):
    np.testing.assert_array_equal(ARRAY_LIKE[call](COMPLETE[kind](X.copy())), ARRAY_LIKE[call](X))


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("call", ARRAY_LIKE)
def test_what_are_no_numbers_is_refused(call, kind):
    with pytest.raises((TypeError, ValueError)) as error:
        ARRAY_LIKE[call](NO_NUMBERS[kind](X))
    assert len(str(error.value)) <= 200


def test_drop_block_of_masked_images():
    with pytest.raises(ValueError, match=r"^x: expected no masked values, got 1 of 8; \.filled"):
        fastdrop.drop_block2d(masked(IMAGES), block_size=1, **KEY)


@pytest.mark.parametrize("make", ["csr_matrix", "coo_array", "dia_matrix"])
def test_scipys_matrices(make):
    sparse = pytest.importorskip("scipy.sparse")
    matrix = getattr(sparse, make)(X)
    for given in (matrix, [matrix, matrix]):
        with pytest.raises(ValueError, match=rf"^x: .* got {make}; \.toarray\(\)"):
            fastdrop.dropout(given, **KEY)


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X)
    np.testing.assert_array_equal(fastdrop.dropout(frame, **KEY), fastdrop.dropout(X, **KEY))
    for column, message in {
        "Float64": r"no missing values, got 1 of 4; \.fillna",
        "Int32": r"no missing values, got 1 of 4; \.fillna",
        "category": r"got categories; \.cat\.codes",
    }.items():
        series = pandas.Series([None, 1, 2, 3], dtype=column)
        for given in (series, series.array, series.to_frame(), frame.assign(a=series)):
            with pytest.raises(ValueError, match=f"^x: .*{message}"):
                fastdrop.dropout(given, **KEY)

"""Arrays without elements: every operation, whichever axis is 0 long and whichever are shared."""

from functools import partial
from itertools import chain, combinations

import numpy as np
import pytest
from dtypes import ALL as DTYPES

import fastdrop as fd
from fastdrop import Key, layers
from fastdrop.functional import masked_scale
from fastdrop.layers import Batch

KEY = Key(3, 4)
SHAPES = [
    *((0,), (0, 0), (4, 0), (0, 5), (0, 3000)),
    *((4, 64, 0), (4, 0, 64), (0, 4, 64), (0, 64, 0), (4, 0, 0)),
    *((2, 3, 0, 512), (2, 0, 7, 7), (0, 3, 7, 7), (2, 3, 7, 0), (0, 2, 3, 4, 5), (2, 3, 4, 5, 0)),
]


def subsets(ndim):
    return chain.from_iterable(combinations(range(ndim), n) for n in range(ndim + 1))


def mask_of(x, p, shared_axes, packed):
    return fd.dropout_mask(x.shape, p, key=KEY, shared_axes=shared_axes, packed=packed)


# Those that take shared axes: of x, p, axes, out.
SHARED = {
    "dropout": lambda x, p, axes, out: fd.dropout(x, p, key=KEY, shared_axes=axes, out=out),
    "dropout with mask": lambda x, p, axes, out: fd.dropout(
        x, p, key=KEY, shared_axes=axes, out=out, return_mask=True
    )[0],
    "dropout at inference": lambda x, p, axes, out: fd.dropout(
        x, p, shared_axes=axes, out=out, training=False, return_mask=True
    )[0],
    "masked_scale": lambda x, p, axes, out: masked_scale(
        x, p, 3.0, key=KEY, shared_axes=axes, out=out
    ),
    "apply_mask, bool": lambda x, p, axes, out: fd.apply_mask(
        x, mask_of(x, p, axes, False), p, shared_axes=axes, out=out
    ),
    "apply_mask, bool, by its shape": lambda x, p, axes, out: fd.apply_mask(
        x, mask_of(x, p, axes, False), p, out=out
    ),
    "apply_mask, packed": lambda x, p, axes, out: fd.apply_mask(
        x, mask_of(x, p, axes, True), p, shared_axes=axes, out=out
    ),
    "dropout_add": lambda x, p, axes, out: fd.dropout_add(
        x, x.copy(), p, key=KEY, shared_axes=axes, out=out
    ),
    "alpha_dropout": lambda x, p, axes, out: fd.alpha_dropout(
        x, p, key=KEY, shared_axes=axes, out=out
    ),
    "alpha_dropout_backward": lambda x, p, axes, out: fd.alpha_dropout_backward(
        x, p, key=KEY, shared_axes=axes, out=out
    ),
    **{
        f"bias_act_dropout, {activation}": lambda x, p, axes, out, activation=activation: (
            fd.bias_act_dropout(
                x, np.ones(x.shape[-1], x.dtype), activation, p, key=KEY, shared_axes=axes, out=out
            )
        )
        for activation in (None, "relu")
    },
}

# Those that do not: of x, p, out.
PLAIN = {
    "feature_alpha_dropout": partial(fd.feature_alpha_dropout, key=KEY),
    "drop_path, row": partial(fd.drop_path, key=KEY),
    "drop_path, batch": partial(fd.drop_path, key=KEY, mode="batch"),
    "gaussian_dropout": lambda x, p, out: fd.gaussian_dropout(x, p / 2, key=KEY, out=out),
    "gaussian_noise": partial(fd.gaussian_noise, key=KEY),
    "zoneout": lambda x, p, out: fd.zoneout(x, x.copy(), p, key=KEY, out=out),
    "zoneout_backward": lambda x, p, out: fd.zoneout_backward(x, p, key=KEY)[1],
}


def results(operation, x, *options):
    """What comes of x with each kind of `out`."""
    yield operation(x, *options, out=None)
    for out in (np.empty_like(x), x, np.empty(x.shape[::-1], x.dtype).T):
        assert operation(x, *options, out=out) is out
        yield out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SHARED)
def test_with_shared_axes(isa, name, shape):
    for dtype in DTYPES:
        for axes in subsets(len(shape)):
            for p in (0.0, 0.5, 1.0):
                x = np.empty(shape, dtype)
                for y in results(SHARED[name], x, p, axes):
                    assert (y.shape, y.dtype) == (shape, dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PLAIN)
def test_without_shared_axes(isa, name, shape):
    if len(shape) < 2 and name == "feature_alpha_dropout":
        pytest.skip("it takes two axes or more")
    for dtype in DTYPES:
        for p in (0.0, 0.5, 1.0):
            x = np.empty(shape, dtype)
            outs = [None] if name == "zoneout_backward" else [None, np.empty_like(x), x]
            for out in outs:
                y = PLAIN[name](x, p, out=out)
                assert (y.shape, y.dtype) == (shape, dtype)


@pytest.mark.parametrize("threads", [None, 1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks(isa, shape, threads):
    for axes in subsets(len(shape)):
        own = tuple(1 if axis in axes else length for axis, length in enumerate(shape))
        whole = fd.dropout_mask(shape, 0.5, key=KEY, shared_axes=axes)
        assert (whole.shape, whole.dtype) == (own, bool)
        packed = fd.dropout_mask(shape, 0.5, key=KEY, shared_axes=axes, packed=True)
        np.testing.assert_array_equal(packed, np.packbits(whole, bitorder="little"))
        x = np.empty(shape, np.float32)
        _, mask = fd.dropout(
            x, 0.5, key=KEY, shared_axes=axes, return_mask=True, num_threads=threads
        )
        np.testing.assert_array_equal(mask, packed)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_of_bias_act_dropout(isa, shape, activation):
    for dtype in DTYPES:
        for axes in subsets(len(shape)):
            x = np.empty(shape, dtype)
            for out in (None, np.empty_like(x), x):
                dx, dbias = fd.bias_act_dropout_backward(
                    x, x, activation, 0.5, key=KEY, shared_axes=axes, out=out
                )
                assert (dx.shape, dx.dtype) == (shape, dtype)
                np.testing.assert_array_equal(dbias, np.zeros(shape[-1:], dtype))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 9), (0, 0, 8, 8), (0, 1 << 20, 7, 7)])
def test_drop_block(isa, shape, threads):
    for dtype in DTYPES:
        x = np.empty(shape, dtype)
        for out in (None, np.empty_like(x), x):
            y = fd.drop_block2d(x, 0.3, key=KEY, out=out, num_threads=threads)
            assert (y.shape, y.dtype) == (shape, dtype)
    for height, width in ((0, 8), (8, 0)):
        with pytest.raises(ValueError, match="block_size: expected at most 0"):
            fd.drop_block2d(np.empty((2, 3, height, width)), 0.3, key=KEY)


LAYERS = [
    *(layers.Dropout(0.5, shared_axes=axes) for axes in [*subsets(3)][1:]),
    *(layers.Dropout(0.5), layers.Dropout(0.5, shared_axes=0, groups=3)),
    *(layers.AlphaDropout(0.5), layers.FeatureAlphaDropout(0.5)),
    *(layers.GaussianDropout(0.5), layers.GaussianNoise(1.0)),
    *(layers.DropPath(0.5), layers.Dropout1d(0.5), layers.LockedDropout(0.5)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.name} {vars(layer)}"[:60])
@pytest.mark.parametrize("shape", [(0, 5, 7), (4, 0, 7), (4, 5, 0), (0, 64, 0)], ids=str)
def test_layers(layer, shape):
    x = np.empty(shape, np.float32)
    for batch in (Batch(True, KEY), Batch(False), Batch(True)):
        y, backward = layer.forward(x, batch)
        assert y.shape == backward(np.empty_like(y)).shape == shape


@pytest.mark.parametrize("layer", [layers.Dropout2d(0.5), layers.DropBlock2d(0.5, 1)])
@pytest.mark.parametrize("shape", [(0, 3, 7, 7), (4, 0, 7, 7)], ids=str)
def test_layers_of_maps(layer, shape):
    y, backward = layer.forward(np.empty(shape, np.float32), Batch(True, KEY))
    assert y.shape == backward(np.empty_like(y)).shape == shape

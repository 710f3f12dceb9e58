"""Blocks of a training step against the layers one by one."""

import numpy as np
import pytest

from fastdrop import layers, optimizers
from fastdrop.compiled._train import submatrix
from fastdrop.layers import Activation, Batch, Dense, Dropout, Layer, PartialGradient, ReLU
from fastdrop.layers.base import build_all, shapes_between
from fastdrop.layers.schedules import Linear
from fastdrop.models import Sequential
from fastdrop.random import Key, uniform
from fastdrop.training.block import Part, whole
from fastdrop.training.blocks import LayerBlock, make_blocks
from fastdrop.training.chains import ChainBlock


def shared(p=0.5, groups=1):
    return Dropout(p, shared_axes=(0,), groups=groups)


class Doubled(Activation):
    def forward(self, x, batch):
        y, backward = super().forward(x, batch)
        return 2 * y, lambda dy: backward(2 * dy)


class DoubledDense(Dense):
    def forward(self, x, batch):
        y, backward = super().forward(x, batch)
        return 2 * y, lambda dy, need_dx=True: backward(2 * dy, need_dx)


class HalvedDropout(Dropout):
    def forward(self, x, batch):
        y, backward = super().forward(x, batch)
        return y / 2, lambda dy: backward(dy / 2)


# layers, and how many blocks they should make
ELEMENTWISE = {
    "dense": ([Dense(4)], 1),
    "relu, dropout": ([Dense(9, "relu"), Dropout(0.3), Dense(4)], 1),
    "linear, dropout": ([Dense(9), Dropout(0.3), Dense(4)], 1),
    "relu apart": ([Dense(9), ReLU(), Dropout(0.3), Dense(4)], 1),
    "activation apart": ([Dense(9), Activation("relu"), Dense(4)], 1),
    "no bias": ([Dense(9, "relu", use_bias=False), Dropout(0.3), Dense(4, use_bias=False)], 1),
    "softmax inside": ([Dense(9, "softmax"), Dropout(0.3), Dense(4)], 1),
    "softmax apart": ([Dense(9), layers.Softmax(), Dense(4), layers.Softmax()], 1),
    "normalised": ([Dense(9), layers.BatchNormalization(), ReLU(), Dropout(0.3), Dense(4)], 4),
    **{
        name: ([Dense(9, name), Dropout(0.3), Dense(8, name), Dense(4, name)], 1)
        for name in layers.ACTIVATIONS
        if name != "softmax"
    },
    "tanh apart": ([Dense(9), Activation("tanh"), Dropout(0.3), Dense(4)], 1),
    "one's own": ([Dense(9), Doubled("tanh"), Dropout(0.3), Dense(4)], 3),
    "a dense of one's own": (
        [Dense(8, "relu"), DoubledDense(9, "relu"), Dropout(0.3), Dense(4)],
        3,
    ),
    "a dropout of one's own": ([Dense(9, "relu"), HalvedDropout(0.3), Dense(4)], 3),
    "one's own last": ([Dense(9, "relu"), Dropout(0.3), DoubledDense(4)], 2),
    "dropout first": ([Dropout(0.2), Dense(9, "relu"), Dropout(0.3), Dense(4)], 1),
    "dropout last": ([Dense(9, "relu"), Dropout(0.3)], 1),
    "two dropouts": ([Dense(9, "relu"), Dropout(0.3), Dropout(0.2), Dense(4)], 1),
    "p = 0": ([Dense(9, "relu"), Dropout(0), Dense(4)], 1),
    "p = 1": ([Dense(9, "relu"), Dropout(1), Dense(4)], 1),
    "schedule": ([Dense(9, "relu"), Dropout(Linear(0.1, 0.7, 6)), Dense(4)], 1),
    "vanilla": ([Dense(9, "relu"), Dropout(0.3, mode="vanilla"), Dense(4)], 3),
    "other layers": ([Dense(9, "relu"), layers.AlphaDropout(0.3), Dense(4, "sigmoid")], 3),
    "nothing to learn": ([Dropout(0.3), ReLU()], 2),
    "shared, not before a dense": ([Dense(9, "relu"), shared(), ReLU()], 3),
}
SHARED = {
    "one mask": ([Dense(9, "relu"), shared(), Dense(4)], 1),
    "two layers": ([Dense(9, "relu"), shared(), Dense(8, "relu"), shared(0.3), Dense(4)], 1),
    **{
        f"{name} alone": ([Dense(9, name), shared(), Dense(8, name), shared(0.3), Dense(4)], 1)
        for name in layers.ACTIVATIONS
        if name != "softmax"
    },
    "element-wise between": (
        [Dense(9, "relu"), shared(), Dense(8, "tanh"), Dropout(0.3), Dense(7), shared(), Dense(4)],
        1,
    ),
    **{
        name: ([Dense(9, name), shared(), Dense(8, name), shared(groups=2), Dense(4)], 3)
        for name in layers.ACTIVATIONS
        if name != "softmax"
    },
    "softmax": ([Dense(9, "softmax"), shared(), Dense(4)], 1),
    "no bias": ([Dense(9, use_bias=False), shared(), Dense(4)], 1),
    "inputs": ([shared(0.3), Dense(9, "relu"), shared(), Dense(4)], 1),
    "inputs of a second dense": ([Dense(7, "softmax"), shared(0.3), Dense(9, "relu")], 1),
    "groups": ([Dense(9, "relu"), shared(groups=2), Dense(4)], 2),
    "groups of two kinds": (
        [
            shared(groups=3),
            Dense(9, "relu"),
            shared(groups=2),
            Dense(8, "relu"),
            shared(groups=4),
            Dense(4),
        ],
        4,
    ),
    "groups, then element-wise": (
        [Dense(9, "relu"), shared(groups=2), Dense(8, "relu"), Dropout(0.3), Dense(4)],
        3,
    ),
    "all dropped": ([Dense(9, "relu"), shared(1), Dense(4)], 1),
    "none dropped": ([Dense(9, "relu"), shared(0), Dense(4)], 1),
    "schedule": ([Dense(9, "relu"), shared(Linear(0, 0.7, 6)), Dense(4)], 1),
}
ROWS, FEATURES, SEED = 7, 5, 11


def built(stack, dtype):
    model = Sequential(stack, seed=SEED)
    build_all(model.layers, (FEATURES,), model.seed, model.dtype)
    for number, layer in enumerate(model.layers):
        for name, param in layer.params.items():
            noise = uniform(Key(number), param.shape) - 0.5  # biases too
            layer.params[name] = (param + noise).astype(dtype)
    return model.layers, shapes_between(model.layers, (FEATURES,))


def run(blocks, x, batch):
    """Return outputs and, in training, the gradients of inputs and parameters for one of theirs."""
    parts = [Part(0, len(x), None, x)]
    for block in blocks:
        parts = block.forward(parts, batch)
    y = whole(parts).copy()
    if not batch.training:
        return y, None, {}
    parts = [Part(0, len(x), None, np.cos(np.arange(y.size)).reshape(y.shape).astype(y.dtype))]
    for block in reversed(blocks):
        parts = block.backward(parts, need_dx=True)
    grads = {name: g for block in blocks for name, g in block.grads.items()}
    dense = {n: g.dense() if isinstance(g, PartialGradient) else g for n, g in grads.items()}
    return y, whole(parts), dense


def one_by_one(stack):
    seeds = [Key(SEED).fold_in(number).seed for number in range(len(stack))]
    return [LayerBlock(n, layer, seeds[n], logits=False) for n, layer in enumerate(stack)]


def batches(training):
    """Batches of several sizes and places, one after the other in the same buffers."""
    for step, (row, n, rows) in enumerate(
        [(0, ROWS, ROWS), (2, 3, ROWS), (0, 1, 1), (0, ROWS, ROWS)]
    ):
        x = (uniform(Key(99), (rows, FEATURES)) * 2 - 1)[row : row + n]
        yield x, Batch(training, Key(SEED, step), row, rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("stack", "count"), ELEMENTWISE.values(), ids=list(ELEMENTWISE))
def test_blocks_give_the_layers_bits(stack, count, training, dtype):
    stack, shapes = built(stack, dtype)
    blocks = make_blocks(stack, shapes, SEED, False, dtype)
    assert len(blocks) == count
    for x, batch in batches(training):
        x = x.astype(dtype)
        y, dx, grads = run(blocks, x, batch)
        expected_y, expected_dx, expected_grads = run(one_by_one(stack), x, batch)
        np.testing.assert_array_equal(y, expected_y)
        if training:
            np.testing.assert_array_equal(dx, expected_dx)
        assert grads.keys() == expected_grads.keys()
        for name, g in grads.items():
            # the sums of a bias's gradient run in another order
            rounding = 0 if "w" in name else 1e-5
            np.testing.assert_allclose(g, expected_grads[name], rounding, rounding)


@pytest.mark.parametrize("in_chains", [True, False])
@pytest.mark.parametrize(("stack", "count"), SHARED.values(), ids=list(SHARED))
def test_leaving_out_what_is_dropped_changes_nothing_but_rounding(stack, count, in_chains):
    stack, shapes = built(stack, np.float64)
    blocks = make_blocks(stack, shapes, SEED, False, np.float64, in_chains=in_chains)
    assert len(blocks) == count or not in_chains
    for x, batch in [*batches(True), *batches(False), *batches(True)]:
        training = batch.training
        y, dx, grads = run(blocks, x, batch)
        expected_y, expected_dx, expected_grads = run(one_by_one(stack), x, batch)
        np.testing.assert_allclose(y, expected_y, rtol=1e-12, atol=1e-13)
        if training:
            np.testing.assert_allclose(dx, expected_dx, rtol=1e-12, atol=1e-13)
        assert grads.keys() == expected_grads.keys()
        for name, g in grads.items():
            np.testing.assert_allclose(g, expected_grads[name], rtol=1e-12, atol=1e-13)


def test_only_kept_units_are_multiplied():
    stack, shapes = built(
        [Dense(100, "relu"), shared(), Dense(50, "relu"), shared(), Dense(4)], np.float32
    )
    blocks = make_blocks(stack, shapes, SEED, False, np.float32)
    run(blocks, np.ones((3, FEATURES), np.float32), Batch(True, Key(SEED), 0, 3))
    ((rows, columns, values),) = blocks[0].grads["2.weight"].parts
    assert values.shape == (len(rows), len(columns))
    assert 15 < len(rows) < 35
    assert 35 < len(columns) < 65


def test_the_last_layer_may_stop_before_its_activation():
    stack, shapes = built([Dense(4, "softmax")], np.float32)
    (block,) = make_blocks(stack, shapes, SEED, True, np.float32)
    assert isinstance(block, ChainBlock)
    x = np.ones((3, FEATURES), np.float32)
    logits, _ = stack[0].forward_logits(x)
    (part,) = block.forward([Part(0, 3, None, x)], Batch(True, Key(SEED), 0, 3))
    np.testing.assert_array_equal(part.values, logits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 15, 16, 64, 67, 200])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_submatrix(isa, dtype, columns, share):
    matrix = uniform(Key(1), (9, columns)).astype(dtype)
    chosen = np.flatnonzero(uniform(Key(2), (columns,)) < share)
    for rows in (None, np.array([0, 2, 3, 8])):
        expected = (matrix if rows is None else matrix[rows])[:, chosen]
        memory = np.full(expected.size + 70, 5, dtype)  # nothing is written behind its end
        submatrix(matrix, rows, chosen, memory[: expected.size].reshape(expected.shape))
        np.testing.assert_array_equal(memory[: expected.size], expected.ravel())
        assert (memory[expected.size :] == 5).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 30, 3000])
def test_rows_in_any_order(isa, dtype, width):
    matrix = uniform(Key(1), (40, width)).astype(dtype)
    for rows in (np.random.default_rng(0).permutation(40), np.array([39, 0, 39] * 10)):
        out = np.empty((len(rows), width), dtype)
        submatrix(matrix, rows, None, out)
        np.testing.assert_array_equal(out, matrix[rows])


class Untidy(Layer):
    """Doubles its input, and keeps notes in its outputs while going back."""

    def forward(self, x, batch):
        y = 2 * x

        def backward(dy, need_dx=True):
            dx = 2 * dy
            y[...] = np.nan
            return dx

        return y, backward


STACKS = {
    "dense": lambda: [layers.Dense(9, "relu"), layers.Dense(7, "tanh")],
    "dropout": lambda: [
        layers.Dropout(0.2),
        layers.Dense(9, "relu"),
        layers.Dropout(0.5),
        layers.Dense(7),
        layers.Dropout(0.5, shared_axes=(0,)),
    ],
    "shared": lambda: [
        layers.Dense(9, "relu"),
        layers.Dropout(0.5, shared_axes=(0,), groups=2),
        layers.Dense(7, "relu", max_norm=1.0),
    ],
    "others between": lambda: [layers.Dense(9), layers.BatchNormalization(), Untidy()],
    "others before what drops nothing": lambda: [
        layers.Dense(9),
        Untidy(),
        layers.Dropout(0.0, shared_axes=(0,)),
    ],
    "frozen": lambda: [layers.Dense(9), layers.Dense(7, name="frozen"), layers.Dense(8)],
}


@pytest.mark.parametrize("stack", STACKS)
def test_gradients_that_the_update_multiplies_are_the_same(stack):
    """A norm that is never reached keeps them from being left to the update."""
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    trained = []
    for clip in ({}, {"clipnorm": 1e30}):
        model = Sequential(
            [layers.Input((6,)), *STACKS[stack](), layers.Dense(3, "softmax")], seed=1
        )
        model.compile(optimizers.Adam(0.1, **clip), "sparse_categorical_crossentropy")
        for layer in model.layers:
            layer.trainable = layer.name != "frozen"
        model.fit(x, np.arange(20) % 3, 8, 3, verbose=0)
        trained.append(model.get_weights())
    for one, other in zip(*trained, strict=True):
        assert np.isfinite(one).all()
        assert one.tobytes() == other.tobytes()


def test_an_update_of_ones_own_gets_arrays():
    model = Sequential([layers.Input((6,)), layers.Dense(5), layers.Dense(3)], seed=1)
    model.compile(optimizers.SGD(0.1), "mse")
    update, seen = model.optimizer.update, []

    def spy(params, grads, rules):
        seen.extend(type(gradient) for gradient in grads.values())
        update(params, grads, rules)

    model.train_on_batch(np.ones((4, 6)), np.ones((4, 3)))
    model.optimizer.update = spy
    model.train_on_batch(np.ones((4, 6)), np.ones((4, 3)))
    assert seen == [np.ndarray] * 4


def test_what_numpy_says_of_floating_point_does_not_stop_a_step_halfway():
    model = Sequential([layers.Input((6,)), layers.Dense(5), layers.Dense(3)], seed=1)
    model.compile(optimizers.Adam(), "mse")
    with np.errstate(all="raise"):
        model.train_on_batch(np.full((4, 6), 1e-30), np.full((4, 3), 1e-30))
    assert model.optimizer.iterations == 1

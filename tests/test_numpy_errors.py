"""Programs that set numpy.seterr(all="raise"): harmless underflow raises nothing in code of ours.

Everything is computed twice, with NumPy told to ignore all and to raise all, and has to give the
same bits; what the caller has set, and its filters of warnings, are there afterwards, and in the
caller's own code that ours calls meanwhile.
"""

import inspect
import itertools
import warnings
from functools import partial

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import Key, callbacks, initializers, layers, learning_rates, losses, metrics
from fastdrop import optimizers as opt
from fastdrop.layers import ACTIVATIONS, Batch, Layer, schedules, sigmoid, softmax
from fastdrop.models import Sequential
from fastdrop.random import permutation, uniform

KEY = Key(3)
DTYPES = [np.float32, np.float64]


def numbers(shape, dtype=np.float32, seed=0, largest=3):
    """Of both signs and all magnitudes, from those too small for the dtype's normal numbers on."""
    rng = np.random.default_rng(seed)
    smallest = np.log10(float(np.finfo(dtype).tiny)) - 3
    with np.errstate(all="ignore"):
        values = 10 ** rng.uniform(smallest, largest, shape)
        values[..., ::3] = 10 ** rng.uniform(largest - 1, largest, values[..., ::3].shape)
        return (values * rng.choice([-1, 1], shape)).astype(dtype)


def shares(z):
    """Outputs that look like probabilities."""
    with np.errstate(all="ignore"):
        return np.abs(z) / np.abs(z).max(axis=1, keepdims=True)


def flat(result):
    """The bits of arrays and numbers, wherever they are in a result."""
    if isinstance(result, dict):
        return [bits for value in result.values() for bits in flat(value)]
    if isinstance(result, list | tuple):
        return [bits for value in result for bits in flat(value)]
    if callable(result):
        return []
    return [np.asarray(result).tobytes()]


def check(compute):
    """The same with all ignored and with all raised, and nothing else changed."""
    with np.errstate(all="ignore"):
        expected = flat(compute())
    before = np.geterr()
    try:
        np.seterr(all="raise")
        filters = list(warnings.filters)
        result = flat(compute())
        assert set(np.geterr().values()) == {"raise"}
        assert warnings.filters == filters
    finally:
        np.seterr(**before)
    assert result == expected


def test_the_numbers_underflow():
    """Or nothing here would fail."""
    for dtype in DTYPES:
        x = numbers((40, 6), dtype)
        with np.errstate(all="raise"), pytest.raises(FloatingPointError, match="underflow"):
            np.exp(-np.abs(x))
        with np.errstate(all="raise"), pytest.raises(FloatingPointError, match="underflow"):
            np.square(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype):
    def compute():
        y, backward = ACTIVATIONS[name](numbers((40, 6), dtype), None)
        return y, backward(numbers((40, 6), dtype, 1))

    check(compute)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [sigmoid, softmax])
def test_functions_of_activations(function, dtype):
    check(lambda: function(numbers((40, 6), dtype)))


def normal_layers():
    """One of every class, made anew; all but two take (samples, 6)."""
    return [
        *(layers.Dense(5, name, l1=1e-30, l2=1e-30) for name in ACTIVATIONS),
        layers.Dense(5, "gelu", kernel_initializer=initializers.RandomNormal(0, 1e-40)),
        *(layers.Activation(name) for name in ACTIVATIONS),
        *(layers.ReLU(), layers.Softmax(), layers.Flatten(), Layer()),
        *(layers.LayerNormalization(), layers.BatchNormalization()),
        *(layers.Dropout(0.3), layers.Dropout(0.3, mode="vanilla")),
        *(layers.Dropout(0.3, shared_axes=0, groups=2), layers.Dropout(schedules.Linear(0, 1, 9))),
        *(layers.AlphaDropout(0.3), layers.FeatureAlphaDropout(0.3)),
        *(layers.GaussianDropout(0.3), layers.GaussianNoise(1e-30)),
        *(layers.DropPath(0.3), layers.WeightDropout(0.3), layers.EmbeddingDropout(0.3)),
        *(layers.Zoneout(0.3), layers.DropConnect(5, 0.3, "tanh", l2=1e-30)),
        *(layers.ConcreteDropout(5, 0.3, "sigmoid"), layers.ConcreteDropout(5, 1e-12)),
        layers.Residual(
            [layers.LayerNormalization(), layers.Dense(5, "silu"), layers.Dense(6, l1=1e-30)]
        ),
    ]


def other_layers():
    return [
        *((layer, (8, 5, 6)) for layer in (layers.LockedDropout(0.3), layers.Dropout1d(0.3))),
        *((layer, (8, 3, 4, 6)) for layer in (layers.Dropout2d(0.3), layers.DropBlock2d(0.3, 2))),
        (layers.Dropout3d(0.3), (8, 3, 4, 5, 6)),
    ]


MADE = [*((layer, (40, 6)) for layer in normal_layers()), *other_layers()]
LAYERS = dict(zip((f"{n} {layer.name}" for n, (layer, _) in enumerate(MADE)), itertools.count()))


def test_no_layer_is_left_out():
    ours = {c for c in vars(layers).values() if inspect.isclass(c) and issubclass(c, Layer)}
    assert ours == {type(layer) for layer, _ in MADE}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype):
    def compute():
        made = [*((layer, (40, 6)) for layer in normal_layers()), *other_layers()]
        layer, shape = made[LAYERS[name]]
        x, found = numbers(shape, dtype), []
        layer.build(shape[1:], KEY)
        found.append(layer.get_weights())
        shapes = [w.shape for w in layer.get_weights()]
        layer.set_weights([numbers(s, np.float64, 2, 1) for s in shapes])
        if isinstance(layer, layers.BatchNormalization):
            layer.state["moving_variance"][...] = 1
        for batch in (Batch(True, KEY), Batch(False, KEY), Batch(True, KEY, 0, 80)):
            for forward in (layer.forward, layer.forward_logits):
                y, backward = forward(x, batch)
                found += [y, backward(numbers(y.shape, y.dtype, 1)), dict(layer.grads)]
        return [*found, layer(x), layer.penalty(), layer.get_weights()]

    check(compute)


LOSSES = [
    *(cls() for cls in dict.fromkeys(losses.LOSSES.values())),
    losses.Huber(1e-20),
    losses.BinaryCrossentropy(label_smoothing=1e-30),
    losses.CategoricalCrossentropy(label_smoothing=1e-30),
]


def test_no_loss_is_left_out():
    ours = {c for c in vars(losses).values() if inspect.isclass(c) and issubclass(c, losses.Loss)}
    assert ours - {losses.Loss} == {type(loss) for loss in LOSSES}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_losses(loss, dtype):
    def compute():
        z, found = numbers((40, 6), dtype), []
        outputs = shares(z)
        if isinstance(loss, losses.SparseCategoricalCrossentropy):
            y = loss.targets(np.arange(40) % 6, (6,), dtype=dtype)
        else:
            given = np.minimum(np.abs(numbers((40, 6), np.float64, 1)), 1)
            y = loss.targets(given, (6,), dtype=dtype)
        for weights in (None, np.abs(numbers(40, dtype, 2))):
            found.append(loss(outputs, y, sample_weight=weights))
            if loss.folds:
                found.append(loss(z, y, True, weights))
        return found

    check(compute)


def metric_of(name):
    made = metrics.get(name)
    sparse = "sparse" in name
    y = np.arange(40) % 6 if sparse else (np.abs(numbers((40, 6), seed=1)) > 1).astype(np.float32)
    return made, y


@pytest.mark.parametrize("name", metrics.METRICS)
def test_metrics(name):
    def compute():
        found = []
        for activation in (None, "softmax", "sigmoid"):
            for weights in (None, np.abs(numbers(40, np.float64, 2, -300))):
                made, y = metric_of(name)
                z = numbers((40, 6))
                outputs = shares(z)
                for _ in range(3):
                    made.update(outputs if activation is None else z, y, activation, weights)
                found.append(made.result())
        return found

    check(compute)


NAMES = list(initializers.INITIALIZERS)
TINY = [
    *(initializers.RandomNormal(0, 1e-320), initializers.TruncatedNormal(1e-300, 1e-310)),
    *(initializers.RandomUniform(-1e-320, 1e-320), initializers.Constant(1e-300)),
]


@pytest.mark.parametrize("initializer", [*NAMES, *TINY])
def test_initializers(initializer):
    check(lambda: initializers.get(initializer)((30, 20), KEY))


def rates():
    of = np.float32
    yield from (learning_rates.ExponentialDecay(of(1e-3), 1, of(1e-3), stairs) for stairs in (0, 1))
    yield learning_rates.InverseTimeDecay(of(1e-38), 1, of(1e3))
    yield learning_rates.PiecewiseConstantDecay([np.int64(9)], [of(1e-38), of(1e-45)])
    yield learning_rates.CosineDecay(of(1e-38), 9, of(1e-9), of(1e-44), 4)
    yield learning_rates.PolynomialDecay(of(1e-38), 9, of(1e-45), of(50))
    p = schedules
    yield from (p.Constant(of(1e-45)), p.Linear(of(1e-45), 0, 9), p.Cosine(of(1e-45), 0, 9))
    yield from (p.Early(of(1e-45), 9), p.Late(of(1e-45), 9))


def test_schedules():
    check(lambda: [[rate(step) for step in (0, 1, 5, 8, 9, 10**6)] for rate in rates()])


OPTIMIZERS = {
    f"{name} {options}": partial(cls, **options)
    for (name, cls), options in itertools.product(
        opt.OPTIMIZERS.items(),
        [
            {},
            {"learning_rate": np.float32(1e-38)},
            {"learning_rate": learning_rates.ExponentialDecay(1e-30, 1, 1e-30)},
            {"clipnorm": 1e-30},
            {"clipvalue": 1e-30},
            {"global_clipnorm": 1e-30},
            {"weight_decay": 1e-40},
        ],
    )
}
OPTIMIZERS |= {
    "momentum": partial(opt.SGD, momentum=0.9),
    "nesterov": partial(opt.SGD, momentum=0.9, nesterov=True),
    "centered": partial(opt.RMSprop, centered=True, momentum=1e-30),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    def compute():
        optimizer = OPTIMIZERS[name]()
        params = {"w": numbers((30, 20)), "b": numbers(30, np.float64)}
        rules = {"w": layers.WeightRule(1e-40, 1e-40, 1e-30)}
        for seed in range(5):
            grads = {"w": numbers((30, 20), seed=seed), "b": numbers(30, np.float64, seed)}
            optimizer.update(params, grads, rules)
        return params, optimizer.state

    check(compute)


class Watching(callbacks.Callback):
    """Sees in every hook what the caller has set."""

    def __init__(self):
        super().__init__()
        self.seen = []
        for name in dir(callbacks.Callback):
            if name.startswith("on_"):
                setattr(self, name, self.look)

    def look(self, *arguments):
        self.seen.append(set(np.geterr().values()))


def trained(activation, loss, optimizer, dtype="float32", confident=50, **options):
    """All that comes of a model that is sure of itself, on small numbers and with small weights."""
    classes = 1 if activation == "sigmoid" else 3
    y = np.arange(60) % max(2, classes)
    if "sparse" not in loss and classes > 1:
        y = np.eye(classes)[y]
    x = numbers((60, 6), np.float64, largest=1)
    stack = [layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(8, "tanh", l2=1e-30)]
    stack += [layers.Dense(8), layers.BatchNormalization(), layers.Dense(classes, activation)]
    model = Sequential(stack, seed=1, dtype=dtype)
    model.compile(optimizer, loss, ["accuracy", loss], weighted_metrics=["accuracy"])
    model.predict(x[:2], verbose=0)  # which builds it
    with np.errstate(all="ignore"):
        model.set_weights([w * confident for w in model.get_weights()])
    watching = Watching()
    slower = callbacks.ReduceLROnPlateau("loss", np.float32(1e-30), 0, min_delta=99)
    history = model.fit(
        *(x, y, 16, 2),
        verbose=0,
        validation_split=0.2,
        sample_weight=np.abs(numbers(60, np.float32, 3, -20)),
        callbacks=[watching, slower],
        **options,
    )
    assert all(states in ({"raise"}, {"ignore"}) for states in watching.seen)
    return [
        history.history,
        model.get_weights(),
        model.evaluate(x, y, verbose=0),
        model.predict(x, 16, verbose=0),
        model.predict(x, verbose=0),
        model.predict_on_batch(x),
        model(x, training=True),
        model.train_on_batch(x, y),
        model.test_on_batch(x, y),
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_models_of_each_activation(activation):
    loss = {"softmax": "sparse_categorical_crossentropy", "sigmoid": "binary_crossentropy"}
    for confident in (50, 1e-30):
        check(
            partial(trained, activation, loss.get(activation, "mse"), "adam", "float32", confident)
        )
    check(partial(trained, activation, loss.get(activation, "mse"), "sgd", "float64", 1e-150))


@pytest.mark.parametrize("loss", dict.fromkeys(losses.LOSSES))
def test_models_of_each_loss(loss):
    check(partial(trained, "softmax", loss, "rmsprop", class_weight={0: 1e-30, 2: 1e-38}))


@pytest.mark.parametrize("optimizer", opt.OPTIMIZERS)
def test_models_of_each_optimizer(optimizer):
    check(partial(trained, "softmax", "categorical_crossentropy", optimizer))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("loss", ["mse", "categorical_crossentropy"])
def test_what_is_not_finite_is_refused_as_ever(loss, wrong):
    """With the message that names it."""
    x, y = np.ones((9, 4)), np.eye(3)[np.zeros(9, int)]
    model = Sequential([layers.Dense(3, "softmax")], seed=1)
    model.compile("adam", loss)
    bad_x, bad_y = x.copy(), y.copy()
    bad_x[3, 2] = bad_y[3, 2] = wrong
    with np.errstate(all="raise"):
        for call in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=r"^x: expected finite numbers"):
                call(bad_x, y, verbose=0)
            with pytest.raises(ValueError, match=r"^y: expected"):
                call(x, bad_y, verbose=0)
            with pytest.raises(ValueError, match=r"^sample_weight: expected"):
                call(x, y, sample_weight=np.full(9, wrong), verbose=0)
        with pytest.raises(ValueError, match=r"^x: expected finite numbers"):
            model.predict(bad_x, verbose=0)


def test_a_loss_that_is_not_finite_is_told_as_ever():
    x, y = np.ones((40, 4), np.float32), np.ones((40, 2))
    model = Sequential([layers.Dense(5, "relu"), layers.Dense(2)], seed=1)
    model.compile(opt.SGD(1e20), "mse", ["mae"])
    with np.errstate(all="raise"), pytest.raises(ValueError, match=r"^loss: expected a finite one"):
        model.fit(x, y, 10, 9, verbose=0)


def operations(x):
    """The functions of arrays and keys."""
    y, bias = numbers(x.shape, x.dtype, 1, 1), numbers(x.shape[-1], x.dtype, 2, 1)
    maps = x.reshape(2, 2, 10, -1)
    yield fd.dropout(x, 0.3, key=KEY, return_mask=True)
    yield fd.dropout(x[:, ::-1], 0.3, key=KEY, shared_axes=0)
    yield fd.dropout(x, training=False)
    yield fd.apply_mask(x, fd.dropout_mask(x.shape, 0.3, key=KEY), 0.3)
    yield fd.dropout_add(x, y, 0.3, key=KEY)
    for activation in (None, "relu"):
        z = fd.bias_act_dropout(x, bias, activation, 0.3, key=KEY)
        yield z, fd.bias_act_dropout_backward(y, z, activation, 0.3, key=KEY)
    for mask in (None, x < y, numbers(x.shape, np.float64, 3, 300)):  # also of more than x's type
        yield fd.softmax_dropout(x, 0.3, key=KEY, mask=mask)
        yield fd.softmax_dropout_backward(y, x, 0.3, key=KEY, mask=mask, causal=True)
    yield fd.alpha_dropout(x, 0.3, key=KEY), fd.alpha_dropout_backward(x, 0.3, key=KEY)
    yield fd.feature_alpha_dropout(x, 0.3, key=KEY)
    yield fd.drop_path(x, 0.3, key=KEY)
    yield fd.drop_block2d(maps, 0.3, 3, key=KEY)
    yield fd.gaussian_dropout(x, 0.3, key=KEY)
    yield fd.gaussian_noise(x, 1e-30, key=KEY)
    yield fd.zoneout(x, y, 0.3, key=KEY), fd.zoneout_backward(x, 0.3, key=KEY)
    yield uniform(KEY, (50,)), permutation(KEY, 50)


@pytest.mark.parametrize("dtype", [np.float16, *DTYPES])
def test_functions(dtype):
    check(lambda: list(operations(numbers((40, 10), dtype, 0, 1))))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_pytorch(dtype):
    torch = pytest.importorskip("torch")
    from fastdrop.torch import functional

    def compute():
        torch.manual_seed(0)
        x = torch.from_numpy(numbers((4, 2, 8, 8), np.float64, 0, 1)).to(getattr(torch, dtype))
        x.requires_grad_()
        found = []
        for function in (
            functional.dropout,
            functional.alpha_dropout,
            functional.feature_alpha_dropout,
            functional.gaussian_dropout,
            functional.drop_path,
            functional.dropout2d,
            lambda x: functional.drop_block2d(x, 0.3, 3),
            lambda x: functional.dropout_add(x, x),
            lambda x: functional.bias_act_dropout(x, x[0, 0, 0].detach(), "relu"),
        ):
            y = function(x)
            (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
            found += [y.detach().double().numpy(), dx.double().numpy()]
        return found

    check(compute)

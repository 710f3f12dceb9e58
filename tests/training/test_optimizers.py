"""Each optimiser, bit for bit against its formula in NumPy, and against Keras where it is there."""

import inspect
import json
import math
import platform
from types import MappingProxyType

import numpy as np
import pytest
from dtypes import assert_same

import fastdrop
from fastdrop import learning_rates, optimizers
from fastdrop.compiled._products import matmul
from fastdrop.compiled._train import ProductGradient, sum_of_squares
from fastdrop.layers.base import PartialGradient, WeightRule
from fastdrop.optimizers import SGD, Adam, AdamW, RMSprop

# ---- the twin: one operation after the other, in the parameter's dtype --------------------------


def square_sum(x):
    """In float64, as 16 sums of every 16th element, added in pairs."""
    x = x.ravel().astype(np.float64)
    sums = np.zeros(16)
    for start in range(0, len(x), 16):
        part = x[start : start + 16]
        sums[: len(part)] += part * part
    while len(sums) > 1:
        sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
    return sums[0]


def scale_within(limit, squares):
    norm = math.sqrt(squares)
    return limit / norm if norm > limit else 1.0


def gradient_squares(g):
    """Row by row; a vector in pieces of 2048."""
    rows = g if g.ndim > 1 else np.split(g, range(2048, len(g), 2048))
    return sum(square_sum(row) for row in rows)


def sgd(o, t, rate, w, g, s):
    f = w.dtype.type
    if not o.momentum:
        return w - g * f(rate)
    s["velocity"] = s["velocity"] * f(o.momentum) - g * f(rate)
    if o.nesterov:
        return w + (s["velocity"] * f(o.momentum) - g * f(rate))
    return w + s["velocity"]


def adam(o, t, rate, w, g, s):
    f = w.dtype.type
    alpha = rate * math.sqrt(1 - o.beta_2**t) / (1 - o.beta_1**t)
    s["m"] = s["m"] + (g - s["m"]) * f(1 - o.beta_1)
    s["v"] = s["v"] + (g * g - s["v"]) * f(1 - o.beta_2)
    return w - s["m"] * f(alpha) / (np.sqrt(s["v"]) + f(o.epsilon))


def rmsprop(o, t, rate, w, g, s):
    f = w.dtype.type
    square = s["velocity"] = s["velocity"] * f(o.rho) + g * g * f(1 - o.rho)
    if o.centered:
        mean = s["average_gradient"] = s["average_gradient"] * f(o.rho) + g * f(1 - o.rho)
        square = np.maximum(square - mean * mean, f(0))
    change = f(rate) * g / np.sqrt(square + f(o.epsilon))
    if o.momentum:
        change = s["momentum"] = s["momentum"] * f(o.momentum) + change
    return w - change


FORMULAS = {SGD: sgd, Adam: adam, AdamW: adam, RMSprop: rmsprop}


class Zeros(dict):
    def __missing__(self, key):
        return 0


def twin(optimizer, params, grads, rules, states, t):
    """Return the updated parameters; `states` changes."""
    gradients = {}
    for name, w in params.items():
        rule, f = rules.get(name, WeightRule()), w.dtype.type
        g = grads[name].dense() if isinstance(grads[name], PartialGradient) else grads[name]
        g = (g + f(2 * rule.l2) * w) + f(rule.l1) * np.sign(w)
        if optimizer.clipvalue:
            g = np.clip(g, -f(optimizer.clipvalue), f(optimizer.clipvalue))
        gradients[name] = g
    squares = {name: gradient_squares(g) for name, g in gradients.items()}
    result = {}
    for name, w in params.items():
        f, scale = w.dtype.type, 1.0
        if optimizer.clipnorm:
            scale = scale_within(optimizer.clipnorm, squares[name])
        if optimizer.global_clipnorm:
            scale = scale_within(optimizer.global_clipnorm, sum(squares.values()))
        rate = optimizer.learning_rate
        s = states.setdefault(name, Zeros())
        if optimizer.weight_decay:
            w = w - w * f(rate * optimizer.weight_decay)
        w = FORMULAS[type(optimizer)](optimizer, t, rate, w, gradients[name] * f(scale), s)
        max_norm = rules.get(name, WeightRule()).max_norm
        if max_norm is not None:
            w = np.stack([row * f(scale_within(max_norm, square_sum(row))) for row in w])
        result[name] = w
    return result


# ---- cases --------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda **clip: SGD(0.5, **clip),
    "momentum": lambda **clip: SGD(0.1, momentum=0.9, **clip),
    "nesterov": lambda **clip: SGD(0.1, momentum=0.9, nesterov=True, **clip),
    "sgd, decay": lambda **clip: SGD(0.5, weight_decay=0.1, **clip),
    "nesterov, decay": lambda **clip: SGD(0.1, 0.9, True, weight_decay=0.2, **clip),
    "adam": lambda **clip: Adam(**clip),
    "adam, decay": lambda **clip: Adam(0.1, weight_decay=0.1, **clip),
    "adam, all": lambda **clip: Adam(0.1, 0.5, 0.6, 1e-3, **clip),
    "adamw": lambda **clip: AdamW(0.1, 0.2, **clip),
    "rmsprop": lambda **clip: RMSprop(**clip),
    "rmsprop, momentum": lambda **clip: RMSprop(0.1, 0.7, 0.5, 1e-3, **clip),
    "rmsprop, decay": lambda **clip: RMSprop(0.1, momentum=0.5, weight_decay=0.1, **clip),
    "rmsprop, centered": lambda **clip: RMSprop(centered=True, **clip),
    "rmsprop, all": lambda **clip: RMSprop(0.1, 0.7, 0.5, 1e-3, centered=True, **clip),
}
RULES = {
    "plain": {},
    "l1": {"w": WeightRule(l1=0.3)},
    "l2": {"w": WeightRule(l2=0.2), "b": WeightRule(l2=0.1)},
    "max_norm": {"w": WeightRule(max_norm=2.0)},
    "all": {"w": WeightRule(0.1, 0.2, 2.0), "b": WeightRule(0.1)},
}
CLIPS = [{}, {"clipnorm": 0.7}, {"clipvalue": 0.2}, {"global_clipnorm": 0.9}]
DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]


def random_params(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=shape), "b": rng.normal(size=shape[0])}
    params["w"].flat[::7] = 0  # where the sign is 0
    params["w"][0] *= 1e-3  # a row of a small norm
    return {name: array.astype(dtype) for name, array in params.items()}


def random_grads(shape, dtype, partial, seed):
    rng = np.random.default_rng(seed)
    grads = {"w": rng.normal(size=shape), "b": rng.normal(size=shape[0])}
    grads = {name: array.astype(dtype) for name, array in grads.items()}
    if partial:
        parts = []
        for share in (0.5, 0.0, 0.3):
            kept = (np.flatnonzero(rng.random(length) < share) for length in shape)
            rows, columns = kept
            values = rng.normal(size=(len(rows), len(columns))).astype(dtype)
            parts.append((rows, columns, values))
        grads["w"] = PartialGradient(shape, parts)
    return grads


def trained(optimizer, shape, dtype, partial, rules, steps=3):
    params = random_params(shape, dtype)
    for step in range(steps):
        optimizer.update(params, random_grads(shape, dtype, partial, step), rules)
    return params


# ---- updates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("partial", [False, True], ids=["dense", "partial"])
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_equal_the_twin_bit_for_bit(isa, name, rules, partial):
    for dtype in DTYPES:
        for shape in ((5, 300), (9, 17), (3, 1)):
            optimizer = OPTIMIZERS[name]()
            params, states = random_params(shape, dtype), {}
            for step in range(3):
                grads = random_grads(shape, dtype, partial, step)
                expected = twin(optimizer, params, grads, RULES[rules], states, step + 1)
                optimizer.update(params, grads, RULES[rules])
                for key in params:
                    assert_same(params[key], expected[key])
            for key, state in optimizer.state.items():
                assert state.keys() == states[key].keys()
                for kind in state:
                    assert_same(state[kind], states[key][kind])
            assert optimizer.iterations == 3


@pytest.mark.parametrize("clip", CLIPS[1:], ids=[next(iter(clip)) for clip in CLIPS[1:]])
@pytest.mark.parametrize("partial", [False, True], ids=["dense", "partial"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_clipping_comes_after_the_penalties(isa, name, partial, clip):
    for dtype in DTYPES:
        optimizer, shape = OPTIMIZERS[name](**clip), (40, 70)
        params, states = random_params(shape, dtype), {}
        for step in range(2):
            grads = random_grads(shape, dtype, partial, step)
            expected = twin(optimizer, params, grads, RULES["all"], states, step + 1)
            optimizer.update(params, grads, RULES["all"])
            for key in params:
                assert_same(params[key], expected[key])


def test_a_gradient_within_its_norm_is_left_alone():
    for clip in ({"clipnorm": 1e3}, {"global_clipnorm": 1e3}, {"clipvalue": 1e3}):
        assert_same(
            trained(Adam(**clip), (9, 17), np.float32, False, None)["w"],
            trained(Adam(), (9, 17), np.float32, False, None)["w"],
        )


@pytest.mark.parametrize("clip", CLIPS, ids=[next(iter(clip), "none") for clip in CLIPS])
@pytest.mark.parametrize("rules", ["plain", "all"])
def test_threads_and_parts_do_not_matter(rules, clip):
    shape = (700, 1500)  # more than one thread's worth
    before, results = fastdrop.get_num_threads(), []
    for dtype in DTYPES:
        results.clear()
        grads = [random_grads(shape, dtype, True, step) for step in range(2)]
        dense = [g | {"w": g["w"].dense()} for g in grads]
        for threads in (1, 2, 3):
            fastdrop.set_num_threads(threads)
            optimizer = Adam(0.1, **clip)
            params = random_params(shape, dtype)
            for g in dense if threads == 2 else grads:
                optimizer.update(params, g, RULES[rules])
            results.append((params["w"], params["b"], optimizer.state["w"]["v"]))
        fastdrop.set_num_threads(before)
        for other in results[1:]:
            for a, b in zip(results[0], other):
                assert_same(a, b)


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64", "aarch64", "arm64"),
    reason="numbers below the normal ones are 0 on x86 and ARM only",
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_states_leave_no_numbers_below_the_normal_ones(isa, name, dtype):
    shape, tiny = (40, 70), np.finfo(dtype).tiny
    optimizer, params = OPTIMIZERS[name](), random_params(shape, dtype)
    grads = random_grads(shape, dtype, False, 0)
    grads["w"] *= tiny * 1e10
    grads["b"] *= tiny**0.5  # whose squares are such numbers
    optimizer.update(params, grads)
    zeros = {key: np.zeros_like(g) for key, g in grads.items()}
    for _ in range(400):  # 0.9 to the power 400 is 5e-19: they pass through all such numbers
        optimizer.update(params, zeros)
        for states in optimizer.state.values():
            for array in states.values():
                assert not ((array != 0) & (abs(array) < tiny)).any()


def test_numbers_below_the_normal_ones_stay_what_they_are_elsewhere():
    tiny = np.finfo(np.float32).tiny
    threads = fastdrop.get_num_threads()
    fastdrop.set_num_threads(2)
    params, small = {"w": np.ones(1 << 20, np.float32)}, np.full(1 << 20, tiny / 4)
    Adam().update(params, {"w": np.full(1 << 20, tiny, np.float32)})
    dropped = fastdrop.dropout(small, 0.5, key=fastdrop.Key(1), num_threads=2)
    fastdrop.set_num_threads(threads)
    assert set(np.unique(dropped)) == {0.0, tiny / 2}
    assert np.float32(tiny) / np.float32(4) != 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (50, 100), (300, 301)])
def test_sums_of_squares_have_the_same_bits_everywhere(isa, shape, dtype):
    """Piece after piece of 2048 elements, whoever computes them."""
    x = np.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    flat = x.ravel()
    expected = sum(square_sum(flat[at : at + 2048]) for at in range(0, x.size, 2048))
    before = fastdrop.get_num_threads()
    for threads in (1, 3):
        fastdrop.set_num_threads(threads)
        assert sum_of_squares(x) == expected
    fastdrop.set_num_threads(before)
    twice = np.repeat(x[..., np.newaxis], 2, axis=-1)
    assert sum_of_squares(twice[..., 1]) == expected


def products(memory, dtype, seed):
    """Gradients of two matrices and a vector; the matrices' are products in the same memory."""
    rng = np.random.default_rng(seed)
    factors = {
        name: (rng.normal(size=(rows, 8)).astype(dtype), rng.normal(size=(8, 30)).astype(dtype))
        for name, rows in (("w", 20), ("v", 11))
    }
    grads = {
        name: ProductGradient(a, b, memory[: len(a) * 30].reshape(-1, 30))
        for name, (a, b) in factors.items()
    }
    bias = rng.normal(size=20).astype(dtype)
    dense = {name: matmul(a, b) for name, (a, b) in factors.items()}
    return grads | {"b": bias}, dense | {"b": bias}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_that_are_products_share_their_memory(name):
    for dtype in DTYPES:
        shapes, memory = {"w": (20, 30), "b": (20,), "v": (11, 30)}, np.empty(600, dtype)
        params = {
            key: np.linspace(-1, 1, math.prod(shape), dtype=dtype).reshape(shape)
            for key, shape in shapes.items()
        }
        plain, rules = (
            {key: w.copy() for key, w in params.items()},
            {"v": WeightRule(0.1, 0.2, 1.0)},
        )
        one, other = OPTIMIZERS[name](), OPTIMIZERS[name]()
        for step in range(3):
            grads, dense = products(memory, dtype, step)
            one.update(params, grads, rules)
            other.update(plain, dense, rules)
        for key in params:
            assert_same(params[key], plain[key])


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
def test_products_are_refused_where_norms_are_clipped(clip):
    grads, _ = products(np.empty(600, np.float32), np.float32, 0)
    params = {"w": np.ones((20, 30), np.float32)}
    with pytest.raises(TypeError, match=r"grads\['w'\]: expected an array where norms are clipped"):
        Adam(**{clip: 1.0}).update(params, {"w": grads["w"]})
    assert (params["w"] == 1).all()


BAD_PRODUCTS = {
    "shape": lambda a, b, out: (a[:, 1:], b, out),
    "shape of out": lambda a, b, out: (a, b[:, 1:], out),
    "dtype": lambda a, b, out: (a.astype(np.float64), b, out),
    "order": lambda a, b, out: (a, b, np.asfortranarray(out)),
}


@pytest.mark.parametrize("bad", BAD_PRODUCTS)
def test_products_that_do_not_fit_change_nothing(bad):
    grads, _ = products(np.empty(600, np.float32), np.float32, 0)
    params = {"v": np.ones((11, 30), np.float32), "w": np.ones((20, 30), np.float32)}
    product = grads["w"]
    a, b, out = product.a, product.b, product.out
    wrong = ProductGradient(*BAD_PRODUCTS[bad](a, b, out))
    optimizer = Adam()
    with pytest.raises(ValueError, match=r"grads\['w'\]: expected"):
        optimizer.update(params, {"v": grads["v"], "w": wrong})
    assert not optimizer.state
    for w in params.values():
        assert (w == 1).all()


def test_gradients_are_left_alone_and_may_have_any_layout():
    for layout in (np.ascontiguousarray, np.asfortranarray, lambda a: a[::-1][::-1]):
        params, plain = random_params((4, 6), np.float32), random_params((4, 6), np.float32)
        grads = random_grads((4, 6), np.float32, False, 0)
        kept = grads["w"].copy()
        Adam().update(plain, grads)
        grads["w"] = layout(grads["w"])
        Adam().update(params, grads)
        assert_same(params["w"], plain["w"])
        assert_same(np.ascontiguousarray(grads["w"]), kept)


def test_arrays_of_any_shape_and_any_place_in_memory():
    for shape in ((), (1,), (0,), (5000,), (0, 3), (3, 0), (2, 3, 5)):
        for shift in (0, 1, 3):
            memory = np.linspace(-1, 1, math.prod(shape) + shift, dtype=np.float32)
            w = memory[shift:].reshape(shape)
            expected = w - np.float32(0.1) * w
            SGD(0.1).update({"w": w}, {"w": w.copy()})
            assert_same(w, expected)


def test_max_norm_of_a_tensor_takes_all_but_the_first_axis_as_a_row():
    w = np.ones((2, 3, 5), np.float64)
    SGD().update({"w": w}, {"w": np.zeros_like(w)}, {"w": WeightRule(max_norm=1.0)})
    np.testing.assert_allclose((w**2).sum(axis=(1, 2)), 1)


def test_a_gradient_without_parts_is_zero():
    for parts in ([], [(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros((0, 0), "f"))]):
        params, dense = random_params((4, 70), np.float32), random_params((4, 70), np.float32)
        grads = {"w": np.zeros((4, 70), np.float32), "b": np.ones(4, np.float32)}
        optimizer, other = SGD(momentum=0.5, global_clipnorm=1.0), SGD(momentum=0.5, clipnorm=1.0)
        other.clipnorm, other.global_clipnorm = None, 1.0
        for _ in range(2):
            optimizer.update(params, grads | {"w": PartialGradient((4, 70), parts)}, RULES["l2"])
            other.update(dense, grads, RULES["l2"])
        assert_same(params["w"], dense["w"])


def test_the_centred_variance_never_falls_below_zero():
    w, g = np.zeros(64, np.float32), np.full(64, 1e4, np.float32)
    optimizer = RMSprop(centered=True)
    for _ in range(300):  # the mean square and the squared mean differ by rounding alone
        optimizer.update({"w": w}, {"w": g})
    assert np.isfinite(w).all()


# ---- Keras --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", CLIPS, ids=[next(iter(clip), "none") for clip in CLIPS])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_equal_those_of_keras(name, clip):
    keras = pytest.importorskip("keras")
    own = OPTIMIZERS[name](**clip)
    theirs = getattr(keras.optimizers, type(own).__name__)(**own.get_config())
    params = random_params((6, 40), np.float32)
    variables = [keras.Variable(array) for array in params.values()]
    for step in range(5):
        grads = random_grads((6, 40), np.float32, False, step)
        theirs.apply([keras.ops.convert_to_tensor(g) for g in grads.values()], variables)
        own.update(params, grads)
    for array, variable in zip(params.values(), variables):
        # Keras takes 1 - beta_2**t in float32: 1e-4 of a step of 0.1
        np.testing.assert_allclose(array, np.asarray(variable), rtol=2e-5, atol=1e-5)


SCHEDULES = [
    learning_rates.ExponentialDecay(0.1, 10, 0.5),
    learning_rates.ExponentialDecay(0.1, 10, 0.5, staircase=True),
    learning_rates.InverseTimeDecay(0.1, 10, 0.5),
    learning_rates.InverseTimeDecay(0.1, 10, 0.5, staircase=True),
    learning_rates.PiecewiseConstantDecay([5], [0.1, 0.2]),
    learning_rates.PiecewiseConstantDecay([5, 9, 20], [0.1, 0.2, 0.0, 0.4]),
    learning_rates.CosineDecay(0.1, 20),
    learning_rates.CosineDecay(0.1, 20, alpha=0.3),
    learning_rates.CosineDecay(0.0, 20, alpha=0.3, warmup_target=0.2, warmup_steps=7),
    learning_rates.CosineDecay(0.1, 20, warmup_target=0.2),
    learning_rates.PolynomialDecay(0.1, 10),
    learning_rates.PolynomialDecay(0.1, 10, end_learning_rate=0.01, power=2.0, cycle=True),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_equal_those_of_keras(schedule):
    keras = pytest.importorskip("keras")
    kind = getattr(keras.optimizers.schedules, type(schedule).__name__)
    theirs = kind(**schedule.get_config())
    for step in range(45):
        expected = float(theirs(keras.ops.convert_to_tensor(step)))
        assert schedule(step) == pytest.approx(expected, rel=1e-5, abs=1e-8)


# ---- configurations and states ------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [0.25, *SCHEDULES], ids=repr)
def test_a_config_with_its_schedule_survives_json(schedule):
    config = json.loads(json.dumps(Adam(schedule, clipnorm=2).get_config()))
    assert Adam.from_config(config).learning_rate == schedule


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_configs_make_equal_optimizers(name, clip):
    optimizer = OPTIMIZERS[name](**clip)
    config = json.loads(json.dumps(optimizer.get_config()))
    other = type(optimizer).from_config(config)
    assert other.get_config() == optimizer.get_config()
    assert_same(*(trained(o, (9, 17), np.float32, False, None)["w"] for o in (optimizer, other)))


def test_numpy_scalars_become_json():
    optimizer = AdamW(np.float32(0.1), *[np.float32(0.5)] * 4, clipnorm=np.float64(1))
    assert json.loads(json.dumps(optimizer.get_config())) == optimizer.get_config()


def test_an_arbitrary_callable_has_no_config():
    with pytest.raises(ValueError, match="learning_rate: expected a number or one of fastdrop"):
        SGD(lambda step: 0.1).get_config()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_restoring_state_and_iterations_goes_on_bit_for_bit(name):
    shape = (9, 17)
    whole, first, second = (OPTIMIZERS[name]() for _ in range(3))
    expected = trained(whole, shape, np.float32, False, None, steps=4)
    params = trained(first, shape, np.float32, False, None, steps=2)
    second.iterations = first.iterations
    second.state = {
        key: {kind: array.copy() for kind, array in state.items()}
        for key, state in first.state.items()
    }
    for step in (2, 3):
        second.update(params, random_grads(shape, np.float32, False, step))
    assert_same(params["w"], expected["w"])


def test_lookup():
    assert type(optimizers.get("Adam")) is Adam
    assert type(optimizers.get("rmsprop")) is RMSprop
    assert type(optimizers.get("ADAMW")) is AdamW
    own = SGD()
    assert optimizers.get(own) is own
    for name in ("lbfgs", None, 3):
        with pytest.raises(
            ValueError, match="optimizer: expected one of adam, adamw, rmsprop, sgd"
        ):
            optimizers.get(name)


# ---- bad input ----------------------------------------------------------------------------------

BAD_ARGUMENTS = {
    "rate NaN": (lambda: Adam(math.nan), "learning_rate: expected .* got nan"),
    "rate text": (lambda: Adam("fast"), "learning_rate: expected .* got 'fast'"),
    "rate None": (lambda: Adam(None), "learning_rate: expected .* got None"),
    "rate config": (
        lambda: Adam({"class_name": "Cos", "config": {}}),
        "learning_rate: expected one of Cosine",
    ),
    "no rate config": (
        lambda: Adam({"class_name": "CosineDecay"}),
        "learning_rate: expected a dict",
    ),
    "rate assigned": (lambda: setattr(SGD(), "learning_rate", -1), "learning_rate: expected"),
    "momentum": (lambda: SGD(momentum=1), "momentum: expected"),
    "momentum text": (lambda: RMSprop(momentum="a"), "momentum: expected .*0, 1.* got 'a'"),
    "momentum None": (lambda: SGD(momentum=None), "momentum: expected .* got None"),
    "beta_1": (lambda: Adam(beta_1=-0.1), "beta_1: expected"),
    "beta_2": (lambda: Adam(beta_2=1.0), "beta_2: expected"),
    "epsilon": (lambda: Adam(epsilon=0), "epsilon: expected"),
    "weight_decay": (lambda: AdamW(weight_decay=-1), "weight_decay: expected"),
    "weight_decay of SGD": (lambda: SGD(weight_decay="a"), "weight_decay: expected .*'a'"),
    "rho": (lambda: RMSprop(rho=1), "rho: expected"),
    "clipnorm": (lambda: SGD(clipnorm=0), "clipnorm: expected"),
    "clipvalue": (lambda: SGD(clipvalue=-1), "clipvalue: expected"),
    "two clips": (lambda: Adam(clipnorm=1, global_clipnorm=1), "expected at most one of them"),
    "decay_steps": (lambda: learning_rates.CosineDecay(0.1, 0), "decay_steps: expected"),
    "initial": (lambda: learning_rates.PolynomialDecay(-0.1, 1), "initial_learning_rate: exp"),
    "decay_rate": (lambda: learning_rates.ExponentialDecay(1, 1, math.nan), "decay_rate: exp"),
    "warm-up": (lambda: learning_rates.CosineDecay(1, 1, warmup_steps=-1), "warmup_steps: exp"),
    "boundaries": (
        lambda: learning_rates.PiecewiseConstantDecay([2, 1], [1, 2, 3]),
        "boundaries: expected ascending",
    ),
    "no boundaries": (
        lambda: learning_rates.PiecewiseConstantDecay(None, [1]),
        "boundaries: expected a list of numbers, got None",
    ),
    "no values": (lambda: learning_rates.PiecewiseConstantDecay([1], 2), "values: expected a list"),
    "values": (lambda: learning_rates.PiecewiseConstantDecay([2], [1]), "values: expected 2"),
}


@pytest.mark.parametrize(("call", "message"), BAD_ARGUMENTS.values(), ids=list(BAD_ARGUMENTS))
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Of each attribute: an optimiser, and values that it cannot have
BAD_ASSIGNMENTS = {
    "clipnorm": (Adam(), [0, -1, "a", math.nan, [1]]),
    "clipvalue": (RMSprop(), [0, "a", True]),
    "global_clipnorm": (SGD(), [0, "a", {}]),
    "weight_decay": (AdamW(), [-1, "a", [0.1]]),
    "learning_rate": (SGD(), [-1, "a", None]),
    "momentum": (SGD(), [1, -0.1, "a", None]),
    "nesterov": (SGD(momentum=0.5), ["no", None, 2, []]),
    "beta_1": (Adam(), [1, "a", None]),
    "beta_2": (AdamW(), [1, math.inf]),
    "epsilon": (RMSprop(), [0, None]),
    "rho": (RMSprop(), [1, "a"]),
    "centered": (RMSprop(), ["no", 0.5]),
    "iterations": (Adam(), [-1, 1.5, "1", None, True, 1 << 63, 10**400, 10**5000]),
    "state": (SGD(), [None, [], "w", 3]),
}


@pytest.mark.parametrize("name", BAD_ASSIGNMENTS)
def test_what_cannot_be_assigned(name):
    optimizer, values = BAD_ASSIGNMENTS[name]
    before = getattr(optimizer, name)
    for value in values:
        with pytest.raises((ValueError, TypeError), match=f"{name}: expected "):
            setattr(optimizer, name, value)
        assert getattr(optimizer, name) == before
        if name in inspect.signature(type(optimizer)).parameters:
            with pytest.raises((ValueError, TypeError), match=f"{name}: expected "):
                type(optimizer)(**{name: value})


def test_a_second_clip_is_not_assigned():
    optimizer = SGD(clipnorm=1.0)
    with pytest.raises(ValueError, match=r"expected at most one of them, got 1\.0, 2\.0, None"):
        optimizer.clipvalue = 2
    optimizer.clipnorm, optimizer.clipvalue = None, 2
    assert (optimizer.clipnorm, optimizer.clipvalue) == (None, 2.0)


def test_states_of_another_mapping():
    optimizer, w = SGD(momentum=0.5), full()
    optimizer.state = MappingProxyType({"w": {"velocity": full()}})
    optimizer.update({"w": w}, {"w": full()})
    assert (optimizer.state["w"]["velocity"] != 1).all()


def full(shape=(3, 4), dtype="f", **layout):
    return np.ones(shape, dtype, **layout)


def part(rows=(0, 2), columns=(1, 3), shape=(3, 4), values=None, index=np.intp):
    values = full((len(rows), len(columns))) if values is None else values
    rows, columns = np.array(rows, index), np.array(columns, index)
    return PartialGradient(shape, [(rows, columns, values)])


# what replaces the parameter, its gradient, its rule, its state
BAD_UPDATES = {
    "half": ({"param": full(dtype=np.float16)}, TypeError, r"params\['w'\]: .*got float16"),
    "integers": ({"param": full(dtype=int)}, TypeError, r"params\['w'\]: expected float32"),
    "a list": ({"param": [1.0]}, TypeError, r"params\['w'\]: expected a NumPy array, got list"),
    "columns first": ({"param": full(order="F")}, ValueError, r"params\['w'\]: .*C-contiguous"),
    "other byte order": ({"param": full(dtype=">f4")}, ValueError, r"params\['w'\]: .*byte order"),
    "gradient's shape": (
        {"grad": full((4, 3))},
        ValueError,
        r"grads\['w'\]: expected shape \(3, 4",
    ),
    "gradient's axes": ({"grad": full(12)}, ValueError, r"grads\['w'\]: expected shape"),
    "gradient's dtype": (
        {"grad": full(dtype="d")},
        TypeError,
        r"grads\['w'\]: expected dtype float3",
    ),
    "no gradient": (
        {"grad": None},
        TypeError,
        r"grads\['w'\]: expected a NumPy array or a Partial",
    ),
    "part's shape": ({"grad": part(shape=(3, 5))}, ValueError, r"grads\['w'\]: expected shape"),
    "rows too far": ({"grad": part(rows=(0, 3))}, ValueError, r"grads\['w'\]: expected rows"),
    "rows below 0": ({"grad": part(rows=(-1, 2))}, ValueError, r"grads\['w'\]: expected rows"),
    "columns too far": ({"grad": part(columns=(0, 4))}, ValueError, "expected columns"),
    "not ascending": ({"grad": part(columns=(3, 1))}, ValueError, "expected columns"),
    "twice": ({"grad": part(columns=(1, 1))}, ValueError, "expected columns"),
    "indices' dtype": ({"grad": part(index=np.int8)}, ValueError, "expected rows .* intp"),
    "values' shape": ({"grad": part(values=full((2, 3)))}, ValueError, r"values of shape \(2, 2\)"),
    "values' dtype": ({"grad": part(values=full((2, 2), "d"))}, TypeError, "dtype float32"),
    "l1": ({"rule": WeightRule(l1=-1)}, ValueError, r"rules\['w'\]: expected finite l1"),
    "l2": ({"rule": WeightRule(l2=math.nan)}, ValueError, r"rules\['w'\]: expected finite l1"),
    "max_norm": ({"rule": WeightRule(max_norm=0.0)}, ValueError, r"rules\['w'\]: .*max_norm"),
    "vector": (
        {"param": full(3), "grad": full(3), "rule": WeightRule(max_norm=1.0)},
        ValueError,
        r"rules\['w'\]: expected a matrix for max_norm",
    ),
    "state's shape": ({"state": full((4, 3))}, ValueError, r"velocity\['w'\]: expected shape"),
    "state's dtype": ({"state": full(dtype="d")}, TypeError, r"velocity\['w'\]: expected dtype"),
}


@pytest.mark.parametrize(("bad", "error", "message"), BAD_UPDATES.values(), ids=list(BAD_UPDATES))
def test_a_bad_update_changes_nothing(bad, error, message):
    optimizer, good = SGD(momentum=0.5), full()
    if "state" in bad:
        optimizer.state = {"w": {"velocity": bad["state"]}}
    before = {name: dict(state) for name, state in optimizer.state.items()}
    params = {"good": good, "w": bad.get("param", full())}
    grads = {"good": full(), "w": bad.get("grad", full())}
    with pytest.raises(error, match=message):
        optimizer.update(params, grads, {"w": bad.get("rule", WeightRule())})
    assert (good == 1).all()
    assert optimizer.state == before
    assert optimizer.iterations == 0


def test_names_must_fit():
    params = {"w": full()}
    with pytest.raises(ValueError, match="grads: expected one for each of w, got b"):
        SGD().update(params, {"b": full()})
    with pytest.raises(ValueError, match="rules: expected names out of w, got b"):
        SGD().update(params, {"w": full()}, {"b": WeightRule()})


def test_a_read_only_parameter_is_refused():
    w = full()
    w.flags.writeable = False
    with pytest.raises(ValueError, match=r"params\['w'\]: expected a writeable"):
        SGD().update({"w": w}, {"w": full()})

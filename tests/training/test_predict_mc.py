"""Samples with dropout on: what they are, that nothing but seed, sample and row changes them."""

import mpi_samples
import numpy as np
import pytest
from launching import finish, mpiexec, needs_mpi

import fastdrop
from fastdrop import Key, Sequential
from fastdrop.layers import (
    Activation,
    AlphaDropout,
    Batch,
    BatchNormalization,
    ConcreteDropout,
    Dense,
    DropBlock2d,
    DropConnect,
    Dropout,
    DropPath,
    FeatureAlphaDropout,
    Flatten,
    GaussianDropout,
    GaussianNoise,
    Input,
    Layer,
    LayerNormalization,
    LockedDropout,
    Residual,
)
from fastdrop.layers.schedules import Linear
from fastdrop.training.sampling import SAMPLINGS, lines_of
from fastdrop.uncertainty import Prediction

SEED = 7


class Flip(Layer):
    """Random, and of a user's own."""

    is_random = True

    def forward(self, x, batch):
        if not batch.training:
            return x, lambda dy: dy
        mask = fastdrop.dropout_mask(x.shape, 0.3, key=self.key_of(batch), offset=batch.offset(x))
        sign = np.where(mask, 1, -1).astype(x.dtype)
        return x * sign, lambda dy: dy * sign


class NotInferring(Layer):
    """Of a user's own, and no member of the family: has to infer."""

    def forward(self, x, batch):
        assert not batch.training
        return x * 2, lambda dy: dy * 2


def vector(*layers, outputs=3, activation="softmax"):
    return [Input((6,)), *layers, Dense(outputs, activation)]


def images(*layers):
    return [Input((3, 4, 4)), *layers, Flatten(), Dense(3, "softmax")]


MODELS = {  # by name: layers
    "mlp": lambda: vector(Dense(20, "relu"), Dropout(0.5), Dense(9, "tanh"), Dropout(0.2)),
    "dropout first": lambda: vector(Dropout(0.1), Dense(20, "relu"), Dropout(0.3)),
    "dropout twice": lambda: vector(Dense(20, "relu"), Dropout(0.1), Dropout(0.3)),
    "dropout last": lambda: [Input((6,)), Dense(4), Dropout(0.4)],
    "dropout alone": lambda: [Input((6,)), Dropout(0.4)],
    "regression": lambda: vector(Dropout(0.3), Dense(5), outputs=1, activation=None),
    "sigmoid": lambda: vector(Dense(5, "relu"), Dropout(0.3), outputs=2, activation="sigmoid"),
    "nothing dropped": lambda: vector(Dense(5, "relu"), Dropout(0.0)),
    "all dropped": lambda: vector(Dense(5, "relu"), Dropout(1.0)),
    "schedule": lambda: vector(Dropout(Linear(0.0, 0.8, 10)), Dense(5), Dropout(0.1)),
    "vanilla": lambda: vector(Dense(5), Dropout(0.3, mode="vanilla")),
    "no bias": lambda: vector(Dropout(0.3), Dense(8, use_bias=False)),
    "normalised": lambda: vector(
        Dense(20), BatchNormalization(), Activation("relu"), Dropout(0.5), Dense(9),
        BatchNormalization(), LayerNormalization(), Activation("relu"), Dropout(0.5),
    ),
    "residual": lambda: vector(
        Dense(8), Residual([BatchNormalization(), Dense(8, "relu"), Dropout(0.5), Dense(8)]),
        Dropout(0.1),
    ),
    "residual inside": lambda: vector(Residual([Dense(6), Residual([Dropout(0.4), DropPath()])])),
    "shared": lambda: vector(
        Dropout(0.2, shared_axes=0), Dense(20, "relu"), Dropout(0.5, shared_axes=(0,)), Dense(9),
        Dropout(0.5),
    ),
    "groups": lambda: vector(Dense(20, "relu"), Dropout(0.5, shared_axes=(0,), groups=3)),
    "channels": lambda: images(Dropout1dOfImages(), Dropout(0.2)),
    "blocks": lambda: images(DropBlock2d(0.3, 2), FeatureAlphaDropout(0.2)),
    "sequences": lambda: [
        Input((5, 6)), Dense(8, "relu"), LockedDropout(0.5), Dropout(0.1), Dense(3, "softmax")
    ],
    "gaussian": lambda: vector(GaussianNoise(0.5), Dense(9, "relu"), GaussianDropout(0.5)),
    "alpha": lambda: vector(Dense(9, "selu"), AlphaDropout(0.3)),
    "weights": lambda: vector(DropConnect(9, 0.5, "relu")),
    "concrete": lambda: vector(ConcreteDropout(9, 0.3, "relu")),
    "of one's own": lambda: vector(NotInferring(), Flip(), Dense(5), NotInferring(), Dropout(0.2)),
}  # fmt: skip
SHARABLE = [
    *("mlp", "dropout first", "dropout twice", "dropout last", "dropout alone", "schedule"),
    *("vanilla", "normalised", "residual", "residual inside", "shared", "groups", "sequences"),
    *("alpha", "weights", "channels", "regression", "nothing dropped", "all dropped"),
]


def Dropout1dOfImages():  # noqa: N802
    return fastdrop.layers.Dropout2d(0.4)


def made(name, dtype="float32"):
    model = Sequential(MODELS[name](), seed=1, dtype=dtype)
    rng = np.random.default_rng(0)
    for name, w in model.network.weights().items():  # biases and averages, too
        w += 0.3 * rng.standard_normal(w.shape)
        if name.endswith("variance"):
            np.abs(w, out=w)
    model.network.step = 4  # of the schedule
    return model


def rows_for(model, rows, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, *model.input_shape), np.float32)


def by_hand(model, x, samples, consistent=False):
    """The same samples, layer by layer."""
    base = Key(Key(SEED).fold_in(SAMPLINGS).seed)

    def called(layers, key, a, s):
        for number, layer in enumerate(layers):
            a = one(layer, key.fold_in(number), a, s)
        return a

    def one(layer, key, a, s):
        if isinstance(layer, Residual):
            return a + called(layer.layers, Key(key.seed, s), a, s)
        p = getattr(layer, "p", None)
        if callable(p):
            layer.p = p(model.step)
        batch = Batch(training=layer.is_random, key=Key(key.seed, s), row=0, rows=len(a))
        if consistent and layer.is_random and not isinstance(layer, DropConnect):
            first, _ = layer.forward(np.ones_like(a[:1]), batch)
            y = a * first if not isinstance(layer, AlphaDropout) else None
            if y is None:
                (zero, _), (one_, _) = (
                    layer.forward(np.full_like(a[:1], value), batch) for value in (0, 1)
                )
                y = a * (one_ - zero) + zero
        else:
            y, _ = layer.forward(a, batch)
        if callable(p):
            layer.p = p
        return y

    return np.stack([called(model.layers, base, x, s) for s in range(samples)])


def predict(model, x, samples=20, **options):
    return model.predict_mc(x, samples, **{"seed": SEED, "verbose": 0, **options})


def assert_same(a, b):
    for name in ("mean", "std", "quantiles", "samples", "_expected_entropy", "_variation_ratio"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_array_equal(one, other, name)


@pytest.mark.parametrize(("rows", "dtype"), [(1, "float32"), (150, "float32"), (37, "float64")])
@pytest.mark.parametrize("name", MODELS)
def test_samples_are_what_layers_say_one_by_one(name, rows, dtype):
    model = made(name, dtype)
    before = [w.copy() for w in model.get_weights()]
    x = rows_for(model, rows).astype(dtype)
    got = predict(model, x, 3, return_samples=True)
    expected = by_hand(model, x, 3)
    assert got.samples.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(got.samples, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got.mean, expected.mean(axis=0), rtol=tolerance, atol=tolerance)
    for w, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(w, old)


@pytest.mark.parametrize("name", SHARABLE)
def test_consistent_samples_are_draws_of_a_network(name):
    model = made(name)
    x = rows_for(model, 140)
    got = predict(model, x, 4, consistent=True, return_samples=True)
    expected = by_hand(model, x, 4, consistent=True)
    np.testing.assert_allclose(got.samples, expected, rtol=2e-5, atol=2e-5)
    if name not in ("nothing dropped", "all dropped"):
        same = predict(model, np.repeat(x[:1], 140, axis=0), 4, consistent=True)
        np.testing.assert_allclose(
            same.std, np.broadcast_to(same.std[0], same.std.shape), rtol=1e-4, atol=1e-6
        )
        assert same.std.max() > 0


@pytest.mark.parametrize("consistent", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_but_seed_sample_and_row_changes_a_bit(name, consistent):
    if consistent and name not in SHARABLE:
        pytest.skip("its layers cannot share masks")
    model = made(name)
    x = rows_for(model, 200)
    options = {"consistent": consistent, "return_samples": True}
    whole = predict(model, x, 20, **options)
    for size in (7, 128):
        assert_same(predict(model, x, 20, batch_size=size, **options), whole)
    np.testing.assert_array_equal(predict(model, x, 5, **options).samples, whole.samples[:5])
    assert_same(predict(made(name), x, 20, **options), whole)  # another model, nothing before
    model.predict_mc(x[:3], 2, verbose=0)
    model.predict(x, verbose=0)
    assert_same(predict(model, x, 20, **options), whole)
    if name != "groups" or consistent:  # whose masks depend on the number of rows
        for rows in (1, 50, 129):
            few = predict(model, x[:rows], 20, **options)
            np.testing.assert_array_equal(few.samples, whole.samples[:, :rows])
        batches = [x[:3], x[3:131], x[131:]]
        assert_same(predict(model, batches_of(batches), 20, **options), whole)
    changed = x.copy()
    changed[1:] = 3  # a row's neighbours
    few = predict(model, changed, 20, **options)
    np.testing.assert_array_equal(few.samples[:, 0], whole.samples[:, 0])


def batches_of(parts):
    return [(part,) for part in parts]


@pytest.mark.parametrize("name", ["mlp", "residual", "shared"])
@pytest.mark.parametrize("isa", fastdrop.available_isas())
def test_threads_and_instruction_sets_change_no_bit(name, isa):
    model = made(name)
    wide = Sequential(
        [Dense(300, "relu", input_shape=(200,)), Dropout(0.5), Dense(257, "relu"), Dropout(0.1),
         Dense(10, "softmax")], seed=1,
    )  # fmt: skip
    threads = fastdrop.get_num_threads()
    whole = [(m, x, predict(m, x, 20)) for m in (model, wide) for x in [rows_for(m, 300)]]
    try:
        with fastdrop.use_isa(isa):
            for count in (1, 2, 3):
                fastdrop.set_num_threads(count)
                for m, x, expected in whole:
                    assert_same(predict(m, x, 20), expected)
    finally:
        fastdrop.set_num_threads(threads)


def test_limits_of_all_libraries_threads_change_no_bit():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    residual = Residual([Dense(300), Dropout(0.2)])
    layers = [Dense(300, "relu", input_shape=(200,)), Dropout(0.5), residual, Dense(10, "softmax")]
    model = Sequential(layers, seed=1)
    x = rows_for(model, 300)
    results = []
    for threads in (1, 2, 4):
        with threadpoolctl.threadpool_limits(threads):
            results.append(predict(model, x, 5))
    for other in results[1:]:
        assert_same(other, results[0])


def test_statistics_are_numpys():
    model = made("mlp")
    x = rows_for(model, 30)
    got = predict(model, x, 50, return_samples=True, quantiles=[0.05, 0.5])
    exact = got.samples.astype(np.float64)
    np.testing.assert_allclose(got.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(got.std, exact.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(got.quantiles, np.quantile(got.samples, [0.05, 0.5], axis=0))
    entropies = -(exact * np.log(exact)).sum(axis=-1)
    np.testing.assert_allclose(got.expected_entropy, entropies.mean(axis=0), rtol=1e-6)
    assert isinstance(got, Prediction)
    assert got.samples.shape == (50, 30, 3)
    assert got.quantiles.shape == (2, 30, 3)
    assert predict(model, x, 50).samples is None


def test_samples_agree_with_dropouts_law():
    x = np.linspace(1, 2, 8, dtype=np.float32)[np.newaxis]
    model = Sequential([Input((8,)), Dropout(0.25)], seed=1)
    got = predict(model, x, 40_000)
    np.testing.assert_allclose(got.mean, x, rtol=0.02)
    np.testing.assert_allclose(got.std, x * np.sqrt(0.25 / 0.75), rtol=0.02)


def test_without_a_seed_every_call_draws_anew_and_the_model_decides():
    x = rows_for(made("mlp"), 5)
    results = []
    for _ in range(2):
        model = made("mlp")
        results.append([model.predict_mc(x, 5, verbose=0).mean for _ in range(2)])
    assert (results[0][0] != results[0][1]).any()
    np.testing.assert_array_equal(results[0], results[1])
    assert (predict(made("mlp"), x, seed=8).mean != predict(made("mlp"), x).mean).any()


@pytest.mark.parametrize("name", ["mlp", "schedule", "residual"])
def test_what_changes_between_calls_counts(name):
    model = made(name)
    x = rows_for(model, 5)
    before = predict(model, x)
    model.network.step = 9
    assert (predict(model, x).mean != before.mean).any() == (name == "schedule")
    next(layer for outer in model.layers for layer in outer.flattened() if layer.is_random).p = 0.9
    changed = predict(model, x)
    assert (changed.mean != before.mean).any()
    model.set_weights([w * 1.1 for w in model.get_weights()])
    assert (predict(model, x).mean != changed.mean).any()
    model.pop()
    assert predict(model, x).mean.shape != before.mean.shape


def test_training_goes_on_as_if_nothing_had_been_predicted():
    results = []
    for sampled in (False, True):
        model = made("mlp")
        model.compile("sgd", "sparse_categorical_crossentropy")
        x, y = rows_for(model, 40), np.arange(40) % 3
        for _ in range(2):
            model.fit(x, y, verbose=0)
            if sampled:
                predict(model, x)
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_disk_s_array_and_other_dtypes(tmp_path):
    model = made("mlp")
    x = rows_for(model, 70)
    np.save(tmp_path / "x.npy", x)
    whole = predict(model, x)
    assert_same(predict(model, np.load(tmp_path / "x.npy", mmap_mode="r"), batch_size=32), whole)
    assert_same(predict(model, x.astype(np.float64)), whole)
    assert_same(predict(model, x.tolist()), whole)
    assert_same(predict(model, np.asfortranarray(x)), whole)


def test_memory_for_quantiles_is_bounded(monkeypatch):
    from fastdrop import uncertainty

    model = made("mlp")
    x = rows_for(model, 150)
    whole = predict(model, x, 50, quantiles=[0.1, 0.9])
    monkeypatch.setattr(uncertainty, "KEPT_BYTES", 50 * 3 * 4 * 7)  # of seven rows
    assert_same(predict(model, x, 50, quantiles=[0.1, 0.9]), whole)


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize(
    ("start", "stop", "first", "last"),
    [(0, 1, 0, 100), (5, 9, 3, 131), (0, 300, 2, 3), (100, 140, 0, 4), (128, 256, 5, 7)],
)
def test_every_sample_of_every_row_has_its_own_line(start, stop, first, last, by_rows):
    last = min(last, first + 128) if by_rows else last
    lines = lines_of(start, stop, first, last, by_rows)
    assert len(np.unique(lines.places)) == lines.places.size
    row, sample = np.arange(start, stop), np.arange(first, last)[:, np.newaxis]
    np.testing.assert_array_equal(lines.places % 128, (row + sample) % 128)
    owner = {}
    for line, count, source, of in lines.segments:
        for i in range(count):
            owner[line + i] = (of, start + source + i)
    assert sorted(owner) == [*range(len(owner))]
    assert len(owner) % 128 == 0
    for (s, r), line in np.ndenumerate(lines.places):
        assert owner.pop(line) == (first + s, start + r)
    assert all(of == -1 for of, _ in owner.values())


def bad_rows():
    x = rows_for(made("mlp"), 4)
    x[2, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("mlp", {"samples": 0}, "samples: expected a whole number of at least 1, got 0"),
        ("mlp", {"samples": 2.5}, "samples: expected a whole number"),
        ("mlp", {"batch_size": 0}, "batch_size: expected a whole number"),
        ("mlp", {"quantiles": [0.5, 1.5]}, r"quantiles: expected numbers in \[0, 1\]"),
        ("mlp", {"consistent": "yes"}, "consistent: expected True or False"),
        ("mlp", {"return_samples": 3}, "return_samples: expected True or False"),
        ("mlp", {"return_samples": np.array([True])}, "return_samples: expected True or False"),
        ("mlp", {"consistent": np.array([True, False])}, "consistent: expected True or False"),
        ("mlp", {"verbose": 7}, "verbose: expected"),
        ("mlp", {"seed": -1}, "seed: expected 0 <= seed"),
        ("mlp", {"x": bad_rows()}, "x: expected finite numbers"),
        ("mlp", {"x": bad_rows()[:, :3]}, "x: expected shape"),
        ("mlp", {"x": bad_rows()[:0]}, "x: expected a non-empty array"),
        ("gaussian", {"consistent": True}, "consistent: .* got 'gaussiannoise', a GaussianNoise"),
        ("blocks", {"consistent": True}, "consistent: .* a DropBlock2d"),
        ("concrete", {"consistent": True}, "consistent: .* a ConcreteDropout"),
        ("of one's own", {"consistent": True}, "consistent: .* a Flip"),
        ("groups", {"x": [(rows_for(made("mlp"), 4),)]}, "x: expected an array"),
    ],
)  # fmt: skip
def test_bad_arguments(name, change, words):
    model = made(name)
    arguments = {"x": rows_for(model, 4), "seed": SEED, "verbose": 0, **change}
    with pytest.raises(ValueError, match=words) as raised:
        model.predict_mc(**arguments)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) <= 200


def test_counts_may_be_numpys():
    model = made("mlp")
    x = rows_for(model, 5)
    few, many = np.int8(2), np.uint8(200)  # whose products with other counts overflow
    got = model.predict_mc(x, many, seed=SEED)
    expected = model.predict_mc(x, 200, seed=SEED)
    np.testing.assert_array_equal(got.std, expected.std)
    got = model.predict_mc(x, many, seed=SEED, batch_size=few, verbose=0)
    np.testing.assert_array_equal(got.std, expected.std)
    model.compile(loss="mse")
    y = np.zeros((5, 3))
    given = {"validation_data": (x, y), "validation_batch_size": few, "verbose": 0}
    model.fit(x, y, batch_size=few, epochs=few, **given)
    model.fit(x, y, steps_per_epoch=few, epochs=np.uint8(3), initial_epoch=few, verbose=0)
    assert model.predict(x, batch_size=few, verbose=0).shape == (5, 3)
    assert np.isfinite(model.evaluate(x, y, batch_size=few, verbose=0))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([Input((4,)), Dense(3)], "model: expected a layer of the dropout family.*got none"),
        ([Input((4,)), Residual([Dense(4)])], "model: expected a layer of the dropout family"),
        ([Dense(3), Dropout(0.5)], "model: expected a built one"),
        ([], "model: expected a built one"),
    ],
)
def test_models_that_have_no_samples(layers, words):
    with pytest.raises(ValueError, match=words):
        Sequential(layers, seed=1).predict_mc(np.zeros((2, 4), np.float32), verbose=0)


def test_a_container_of_ones_own_cannot_hold_both_kinds():
    class Both(Layer):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.inner = [BatchNormalization(), Dropout(0.5)]

        def flattened(self):
            yield self
            yield from self.inner

    model = Sequential([Input((4,)), Both(), Dense(2)], seed=1)
    with pytest.raises(ValueError, match="expected no BatchNormalization in it beside dropout"):
        model.predict_mc(np.zeros((2, 4), np.float32), verbose=0)


@pytest.mark.parametrize(
    ("rows", "samples", "verbose", "shown"),
    [
        (4, 5, "auto", False),  # over before anybody has read it
        (4, 5, 1, True),
        (2000, 40, "auto", True),
        (2000, 40, 0, False),
    ],
)
def test_a_progress_bar_is_shown_where_it_can_be_read(rows, samples, verbose, shown, capsys):
    model = made("mlp")
    model.predict_mc(rows_for(model, rows), samples, verbose=verbose)
    assert ("predict_mc" in capsys.readouterr().err) == shown


@pytest.mark.parametrize(
    ("rows", "verbose", "shown"),
    [(4, "auto", False), (4, 1, True), (2000, "auto", True), (2000, 0, False)],
)
def test_predict_shows_a_bar_for_several_batches(rows, verbose, shown, capsys):
    model = made("mlp")
    x = rows_for(model, rows)
    outputs = model.predict(x, verbose=verbose)
    assert ("predict" in capsys.readouterr().err) == shown
    np.testing.assert_allclose(outputs, model(x), rtol=1e-5)


@needs_mpi
@pytest.mark.parametrize("ranks", [1, 3])
def test_every_rank_has_the_prediction_of_one_process(tmp_path, ranks):
    alone = mpi_samples.predictions(None)
    status, _, error = finish(mpiexec(ranks, mpi_samples.__file__, tmp_path))
    assert status == 0, error
    for rank in range(ranks):
        with np.load(tmp_path / f"{rank}.npz") as found:
            assert found.files == [*alone]
            for name, figure in alone.items():
                np.testing.assert_array_equal(found[name], figure, name)

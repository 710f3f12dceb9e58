"""predict_mc: each sample is what its masks say, however many are computed at once."""

import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn
from torch.nn import functional as F  # noqa: N812

import fastdrop
import fastdrop.torch as fnn
from fastdrop import Key
from fastdrop.torch import monte_carlo

SAMPLES = 7


class Forward(nn.Module):
    """A module that is a function of itself and x."""

    def __init__(self, forward, **children):
        super().__init__()
        self.function = forward
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x):
        return self.function(self, x)


class Functional(nn.Module):
    """As PyTorch's first example of MNIST has it: functions, and the module's own mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(self.first(self.norm(x)))
        x = F.dropout(x, 0.5, training=self.training)
        return self.last(F.dropout(x, p=0.1, training=self.training))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = 0.3

    def forward(self, x):
        p = self.p if self.training else 0.0
        return F.scaled_dot_product_attention(x, x, x, dropout_p=p)


class OwnDropout(nn.Module):
    """Somebody's, with random numbers of PyTorch's."""

    def forward(self, x):
        return x * torch.bernoulli(torch.full_like(x, 0.5)) * 2 if self.training else x


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.4))
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(x + self.branch(x))


class RememberedSize(nn.Module):
    """Takes the number of rows before there is dropout."""

    def __init__(self):
        super().__init__()
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x):
        rows = x.shape[0]
        return self.last(self.drop(x).view(rows, -1))


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.bias = nn.Linear(6, 6, bias=False), nn.Parameter(torch.rand(6))
        self.dropout = 0.5

    def forward(self, x):
        h = fnn.functional.bias_act_dropout(self.first(x), self.bias, "relu", 0.5, self.training)
        return fnn.functional.dropout_add(h, x, 0.3, self.training)


class MixesRows(nn.Module):
    """What is random in a row reaches the others: not to be computed with more rows."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.drop(x)
        return x - x.mean(0)


class First(nn.Module):
    """An RNN's outputs without its state."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def mlp(*dropouts):
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), dropouts[0], nn.Linear(16, 16), nn.ReLU(),
        *dropouts[1:], nn.Linear(16, 3),
    )  # fmt: skip


def images(*layers):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *layers, nn.Flatten(), nn.Linear(144, 3))


ROWS, SEQUENCES, IMAGES = (5, 6), (5, 4, 6), (5, 1, 8, 8)
encoder = nn.TransformerEncoderLayer
# x's shape; how the module is built; whether several samples are computed at once
CASES = {
    "layers": (ROWS, lambda: mlp(nn.Dropout(0.5), nn.Dropout(0.1)), True),
    "fastdrop's layers": (ROWS, lambda: mlp(fnn.Dropout(0.5), fnn.Dropout(0.1)), True),
    "one row": ((1, 6), lambda: mlp(nn.Dropout(0.5), nn.Dropout(0.1)), True),
    "in place": (ROWS, lambda: mlp(nn.Dropout(0.5, inplace=True), nn.Dropout(0.1, True)), True),
    "of the inputs": (ROWS, lambda: nn.Sequential(nn.Dropout(0.5, True), nn.Linear(6, 3)), True),
    "alpha": (ROWS, lambda: mlp(nn.AlphaDropout(0.3), nn.FeatureAlphaDropout(0.3)), True),
    "gaussian": (ROWS, lambda: mlp(fnn.GaussianDropout(0.3)), True),
    "DropPath": (ROWS, lambda: mlp(fnn.DropPath(0.3), fnn.DropPath(0.5, "batch")), True),
    "p = 1": (ROWS, lambda: mlp(nn.Dropout(1.0), nn.Dropout(0.5)), True),
    "a generator": (ROWS, lambda: mlp(fnn.Dropout(0.5, generator=torch.Generator())), True),
    "saved masks": (ROWS, lambda: mlp(fnn.Dropout(0.5, save_mask=True)), True),
    "functions": (ROWS, Functional, True),
    "functions inside": (ROWS, lambda: nn.Sequential(Functional(), nn.Dropout(0.2)), True),
    "fused": (ROWS, Fused, True),
    "residual": (ROWS, Residual, True),
    "its number of rows": (ROWS, RememberedSize, True),
    "rows are mixed": (ROWS, MixesRows, False),
    "bernoulli": (ROWS, lambda: mlp(OwnDropout()), False),
    "both": (ROWS, lambda: mlp(OwnDropout(), nn.Dropout(0.5)), False),
    "channels": (IMAGES, lambda: images(nn.Dropout2d(0.5)), True),
    "DropBlock2d": (IMAGES, lambda: images(fnn.DropBlock2d(0.3, 3)), True),
    "channels last": (
        IMAGES,
        lambda: images(nn.Dropout2d(0.5), nn.Dropout(0.1)).to(memory_format=torch.channels_last),
        True,
    ),
    "MultiheadAttention": (
        SEQUENCES,
        lambda: Forward(
            lambda m, x: m.attention(x, x, x)[0],
            attention=nn.MultiheadAttention(6, 2, 0.3, batch_first=True),
        ),
        True,
    ),
    "attention": (SEQUENCES, Attention, True),
    "encoder": (SEQUENCES, lambda: encoder(6, 2, 16, 0.2, batch_first=True), True),
    "encoder, sequence first": (SEQUENCES, lambda: encoder(6, 2, 16, 0.2), False),
    "two encoders": (
        SEQUENCES,
        lambda: nn.TransformerEncoder(encoder(6, 2, 16, 0.2, batch_first=True), 2),
        True,
    ),
    "LSTM": (SEQUENCES, lambda: First(nn.LSTM(6, 6, 2, dropout=0.5, batch_first=True)), False),
    "GRU, sequence first": (SEQUENCES, lambda: First(nn.GRU(6, 6, 2, dropout=0.5)), False),
    "TorchScript": (ROWS, lambda: torch.jit.script(mlp(nn.Dropout(0.5))), True),
    "TorchScript's channels": (
        IMAGES,
        lambda: torch.jit.script(images(nn.Dropout2d(0.5), nn.FeatureAlphaDropout(0.1))),
        True,
    ),
    "TorchScript's functions": (ROWS, lambda: torch.jit.script(Functional()), True),
    "compiled": (ROWS, lambda: torch.compile(mlp(nn.Dropout(0.5)), backend="eager"), True),
    "no tensor on the way": (
        SEQUENCES,
        lambda: nn.Sequential(
            nn.LSTM(6, 6), Forward(lambda m, x: m.drop(x[0]), drop=nn.Dropout(0.5))
        ),
        True,
    ),
    "double": (ROWS, lambda: mlp(nn.Dropout(0.5)).double(), True),
    "bfloat16": (ROWS, lambda: mlp(nn.Dropout(0.5)).bfloat16(), True),
    "words": ((5, 4), lambda: nn.Sequential(nn.Embedding(9, 6), nn.Dropout(0.5)), True),
}  # fmt: skip


def case(name):
    shape, build, _ = CASES[name]
    torch.manual_seed(0)
    module = build().eval()
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    x = torch.randint(9, shape) if name == "words" else torch.randn(shape).to(dtype)
    return module, x


def tolerance(module):
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    return 20 * torch.finfo(dtype).eps


@pytest.fixture
def passes(monkeypatch):
    """How many samples each pass had."""
    found = []
    run = monte_carlo._Passes._pass

    def counted(self, group, x):
        y = run(self, group, x)
        found.append(len(group.bases))
        return y

    monkeypatch.setattr(monte_carlo._Passes, "_pass", counted)
    return found


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors gain nothing by threads, and wait for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def one_by_one(monkeypatch):
    monkeypatch.setattr(monte_carlo, "CACHED", 1)
    monkeypatch.setattr(monte_carlo, "MOST", 1)


@pytest.mark.filterwarnings("ignore:.*TorchScript.*", "ignore:.*torch.jit.*")
@pytest.mark.parametrize("name", CASES)
def test_samples_are_the_same_alone(name, monkeypatch, passes):
    module, x = case(name)
    before, kept = [m.training for m in module.modules()], x.clone()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    many = fnn.predict_mc(module, x, SAMPLES, seed=3, return_samples=True)
    assert (passes[-1] > 1) is CASES[name][2]
    more = fnn.predict_mc(module, x, SAMPLES + 4, seed=3, return_samples=True)
    one_by_one(monkeypatch)
    alone = fnn.predict_mc(module, x, SAMPLES, seed=3, return_samples=True)
    assert passes[-SAMPLES:] == [1] * SAMPLES
    spread = np.abs(alone.samples).max()
    for other in (many.samples, more.samples[:SAMPLES]):
        np.testing.assert_allclose(other, alone.samples, atol=tolerance(module) * spread)
    assert len({sample.tobytes() for sample in alone.samples}) > SAMPLES // 2
    np.testing.assert_allclose(many.mean, alone.samples.astype(float).mean(0), atol=1e-5 * spread)
    np.testing.assert_allclose(many.std, alone.samples.astype(float).std(0), atol=1e-2 * spread)
    assert torch.equal(x, kept)
    assert [m.training for m in module.modules()] == before
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.filterwarnings("ignore:.*TorchScript.*", "ignore:.*torch.jit.*")
@pytest.mark.parametrize(
    "name", [n for n in CASES if "sequence" not in n and n != "rows are mixed"]
)
def test_batches_of_rows_change_nothing(name):
    module, x = case(name)
    if name in ("bernoulli", "both", "LSTM", "no tensor on the way"):
        pytest.skip("its masks do not count rows")
    whole = fnn.predict_mc(module, x, SAMPLES, seed=3, return_samples=True)
    parts = fnn.predict_mc(module, x, SAMPLES, seed=3, return_samples=True, batch_size=2)
    spread = np.abs(whole.samples).max()
    np.testing.assert_allclose(parts.samples, whole.samples, atol=tolerance(module) * spread)


@pytest.mark.parametrize("build", [nn.Dropout, fnn.Dropout])
def test_masks_are_those_of_numpy(build):
    """A twin in NumPy: masks by the contract, products in float64."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), build(0.5), nn.Linear(16, 8), build(0.1))
    x = torch.randn(5, 6)
    found = fnn.predict_mc(net, x, SAMPLES, seed=11, return_samples=True)
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in net.parameters())
    h = np.maximum(x.double().numpy() @ w1.T + b1, 0)
    for s, sample in enumerate(found.samples):
        base = Key(11).fold_in(s).seed
        keys = [Key((base + call) % 2**63) for call in range(2)]
        y = fastdrop.dropout(h, 0.5, key=keys[0]) @ w2.T + b2
        np.testing.assert_allclose(sample, fastdrop.dropout(y, 0.1, key=keys[1]), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["layers", "functions", "encoder", "LSTM", "residual", "attention"]
)
def test_moments_are_those_of_the_usual_loop(name):
    module, x = case(name)
    found = fnn.predict_mc(module, x, 500, seed=1)
    for inner in module.modules():  # what the usual loop would have to do
        if not isinstance(inner, nn.BatchNorm1d):
            inner.training = True
    torch.manual_seed(1)
    with torch.no_grad():
        samples = torch.stack([module(x) for _ in range(500)]).double().numpy()
    error = found.std / np.sqrt(500)
    assert (found.std > 0).all()
    assert (np.abs(found.mean - samples.mean(0)) < 6 * np.sqrt(2) * error).all()
    np.testing.assert_allclose(found.std, samples.std(0), rtol=0.3)


@pytest.mark.parametrize("activation", ["linear", "softmax", "sigmoid"])
def test_activations(activation):
    module, x = case("layers")
    raw = fnn.predict_mc(module, x, 50, seed=1, return_samples=True).samples
    found = fnn.predict_mc(
        module, x, 50, seed=1, activation=activation, quantiles=[0.1, 0.9], return_samples=True
    )
    expected = {
        "linear": lambda z: z,
        "softmax": lambda z: torch.softmax(torch.from_numpy(z), -1).numpy(),
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    }[activation](raw)
    np.testing.assert_allclose(found.samples, expected, atol=1e-6)
    np.testing.assert_allclose(found.quantiles, np.quantile(expected, [0.1, 0.9], 0), atol=1e-6)
    assert found.activation == activation
    if activation == "softmax":
        p = expected.mean(0).astype(float)
        np.testing.assert_allclose(found.entropy, -(p * np.log(p)).sum(-1), atol=1e-5)
        assert (found.mutual_information > 0).all()


def test_outputs_without_axes_of_their_own():
    module, x = case("layers")
    scores = fnn.predict_mc(Forward(lambda m, x: m.net(x)[:, 0], net=module), x, 20, seed=1)
    assert scores.mean.shape == (5,)
    np.testing.assert_allclose(scores.mean, fnn.predict_mc(module, x, 20, seed=1).mean[:, 0], 1e-5)
    total = fnn.predict_mc(Forward(lambda m, x: m.net(x).sum(), net=module), x, 20, seed=1)
    assert total.mean.shape == (1,)
    classes = fnn.predict_mc(Forward(lambda m, x: m.net(x).argmax(1), net=module), x, 20, seed=1)
    assert ((classes.mean >= 0) & (classes.mean <= 2)).all()


def test_seeds():
    module, x = case("both")

    def run(seed=None):
        return fnn.predict_mc(module, x, SAMPLES, seed=seed).mean

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, other = run(1), run(2)
    np.testing.assert_array_equal(run(1), first)
    assert (first != other).any()
    assert torch.equal(torch.get_rng_state(), state)
    unseeded, next_one = run(), run()
    assert (unseeded != next_one).any()
    torch.manual_seed(5)
    np.testing.assert_array_equal(run(), unseeded)
    torch.manual_seed(5)
    torch.empty((), dtype=torch.int64).random_()
    expected = torch.rand(3)
    torch.manual_seed(5)
    run()
    assert torch.equal(torch.rand(3), expected)


def modes(module):
    return [(m.training, type(m), m.__dict__.get("__module__")) for m in module.modules()]


@pytest.mark.parametrize("name", ["layers", "functions", "encoder"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
@pytest.mark.parametrize("when", [1, 2, 4])
def test_modes_come_back(name, error, when, monkeypatch):
    module, x = case(name)
    one_by_one(monkeypatch)
    for i, inner in enumerate(module.modules()):
        inner.training = i % 3 == 0
    before, state = modes(module), torch.get_rng_state()
    calls = []

    def stop(*_):
        calls.append(None)
        if len(calls) == when:
            raise error("stop")

    hook = module.register_forward_hook(stop)
    with pytest.raises(error):
        fnn.predict_mc(module, x, SAMPLES, seed=1)
    hook.remove()
    assert modes(module) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    fnn.predict_mc(module, x, SAMPLES, seed=1)
    assert modes(module) == before


def test_modes_come_back_when_that_is_interrupted(monkeypatch):
    module, x = case("layers")
    before = modes(module)
    change, calls = monte_carlo._change, []

    def interrupted(*arguments):
        change(*arguments)
        calls.append(None)
        if len(calls) == len(before) + 3:  # the third that is restored
            raise KeyboardInterrupt

    monkeypatch.setattr(monte_carlo, "_change", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fnn.predict_mc(module, x, SAMPLES)
    assert modes(module) == before


def test_only_dropout_trains():
    """Children of a module that calls functions keep eval mode, and PyTorch's fast path is off."""
    net = nn.Sequential(Functional(), nn.Dropout(0.0))
    seen = {}
    for name, inner in net.named_modules():

        def hook(inner, *_, name=name):
            seen[name] = inner.training

        inner.register_forward_hook(hook)
    fnn.predict_mc(net.train(), torch.randn(5, 6), 3)
    assert seen == {
        "": False, "0": True, "0.norm": False, "0.first": False, "0.last": False, "1": False,
    }  # fmt: skip


def test_other_threads_keep_pytorchs_dropout():
    module, x = case("functions")
    ones = torch.ones(1000)

    def stock():
        return F.dropout(ones, 0.5)

    torch.manual_seed(1)
    expected, found = stock(), []

    def elsewhere(*_):
        def drop():
            torch.manual_seed(1)
            found.append(stock())

        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()

    module.register_forward_hook(elsewhere)
    fnn.predict_mc(module, x, 2)
    assert found
    assert all(torch.equal(y, expected) for y in found)
    torch.manual_seed(1)
    assert torch.equal(stock(), expected)


@pytest.mark.parametrize("enabled", [False, True])
def test_beside_enable(enabled):
    module, x = case("functions")
    expected = fnn.predict_mc(module, x, SAMPLES, seed=1).mean
    ones = torch.ones(1000)
    torch.manual_seed(1)
    stock = F.dropout(ones, 0.5)
    if enabled:
        with fnn.enable():
            np.testing.assert_array_equal(fnn.predict_mc(module, x, SAMPLES, seed=1).mean, expected)
            torch.manual_seed(1)
            assert not torch.equal(F.dropout(ones, 0.5), stock)
    torch.manual_seed(1)
    assert torch.equal(F.dropout(ones, 0.5), stock)


@pytest.mark.parametrize("name", ["in place", "of the inputs", "functions", "encoder"])
def test_in_inference_mode(name):
    module, x = case(name)
    expected = fnn.predict_mc(module, x, SAMPLES, seed=1, return_samples=True).samples
    kept = []
    hook = module.register_forward_hook(lambda m, x, y: kept.append(y))
    with torch.inference_mode():
        found = fnn.predict_mc(module, x + 0, SAMPLES, seed=1, return_samples=True).samples
    hook.remove()
    np.testing.assert_array_equal(found, expected)
    assert not any(y.is_inference() or y.requires_grad for y in kept)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


def test_noise_before_dropout_is_a_samples_own():
    """What is random in eval mode, too, is not computed once for all, and follows the seed."""
    module, x = case("layers")
    module = nn.Sequential(Noise(), module)
    found = [fnn.predict_mc(module, x, SAMPLES, seed=1, return_samples=True).samples]
    torch.rand(3)
    found.append(fnn.predict_mc(module, x, SAMPLES, seed=1, return_samples=True).samples)
    np.testing.assert_array_equal(*found)
    kept = nn.Sequential(Noise(), nn.Linear(6, 3), nn.Dropout(1e-9))
    samples = fnn.predict_mc(kept, x, SAMPLES, seed=1, return_samples=True).samples
    assert (samples.std(0) > 0).all()


def test_hooks_of_containers_run():
    module, x = case("layers")
    plain = fnn.predict_mc(module, x, SAMPLES, seed=1).mean
    module.register_forward_hook(lambda m, x, y: y + 1)
    found = fnn.predict_mc(module, x, SAMPLES, seed=1).mean
    np.testing.assert_allclose(found, plain + 1, atol=1e-5)


def test_layers_before_dropout_run_once(passes):
    module, x = case("layers")
    calls = []
    module[0].register_forward_hook(lambda *_: calls.append(None))
    fnn.predict_mc(module, x, 100)
    assert len(calls) == 1
    assert len(passes) == 2


class Both(nn.Module):
    def forward(self, x):
        x = F.batch_norm(x, torch.zeros(6), torch.ones(6), training=self.training)
        return F.dropout(x, training=self.training)


class Never(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return x


X = torch.ones(5, 6)
NET = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))


@pytest.mark.parametrize(
    ("error", "message", "module", "x", "options"),
    [
        (ValueError, "samples: expected a whole number of at least 1, got 0", NET, X, [0]),
        (ValueError, "samples: expected a whole number", NET, X, [2.0]),
        (ValueError, "batch_size: expected a whole number", NET, X, {"batch_size": 0}),
        (ValueError, "module: expected dropout with p above 0", nn.Linear(6, 3), X, {}),
        (ValueError, "module: expected dropout with p above 0", nn.Dropout(0.0), X, {}),
        (ValueError, "a pass without anything random", Never(), X, {}),
        (ValueError, "one mode switches both", nn.Sequential(Both()), X, {}),
        (TypeError, "module: expected a torch.nn.Module, got function", F.relu, X, {}),
        (TypeError, "x: expected a torch.Tensor, got ndarray", NET, np.ones((5, 6)), {}),
        (ValueError, "x: expected finite numbers, got NaN", NET, X * torch.nan, {}),
        (ValueError, "x: expected finite numbers, got NaN", NET, X / 0, {}),
        (ValueError, "return_samples: expected True or False", NET, X, {"return_samples": "no"}),
        (ValueError, "x: expected a dense tensor", NET, X.to_sparse(), {}),
        (
            TypeError,
            "module: expected it to return a tensor of .*, got torch.float32, torch.sparse",
            Forward(lambda m, x: m.net(x).to_sparse(), net=NET), X, {},
        ),
        (ValueError, "x: expected some rows", NET, X[:0], {}),
        (ValueError, "x: expected some rows", NET, torch.tensor(1.0), {}),
        (ValueError, "x: expected a tensor on the CPU, got one on meta", NET, X.to("meta"), {}),
        (ValueError, "seed: expected 0 <= seed < 2", NET, X, {"seed": -1}),
        (TypeError, "seed: expected an integer", NET, X, {"seed": 1.5}),
        (ValueError, r"quantiles: expected numbers in \[0, 1\]", NET, X, {"quantiles": [1.5]}),
        (ValueError, "activation: expected one of linear, sigmoid", NET, X, {"activation": "tanh"}),
        (
            ValueError,
            "activation: expected logits for 'softmax', got probabilities",
            nn.Sequential(NET, nn.Softmax(-1)), X, {"activation": "softmax"},
        ),
        (
            ValueError,
            "activation: expected 'linear' or 'sigmoid' for an output without an axis of classes",
            nn.Sequential(NET, nn.Linear(3, 1), nn.Flatten(0)), X, {"activation": "softmax"},
        ),
        (
            ValueError,
            "batch_size: expected None",
            Forward(lambda m, x: m.net(x).sum(0), net=NET), X, {"batch_size": 2},
        ),
        (
            TypeError,
            "module: expected it to return a tensor of real numbers, got tuple",
            nn.LSTM(6, 6, 2, dropout=0.5), X, {},
        ),
        (
            TypeError,
            "module: expected it to return a tensor of real numbers, got torch.complex64",
            Forward(lambda m, x: m.net(x) * 1j, net=NET), X, {},
        ),
    ],
)  # fmt: skip
def test_bad_input(error, message, module, x, options):
    state = torch.get_rng_state()
    arguments, names = (options, {}) if isinstance(options, list) else ([], options)
    with pytest.raises(error, match=message) as raised:
        fnn.predict_mc(module, x, *arguments, **{"seed": 1} | names)
    assert len(str(raised.value)) <= 200
    assert "\n" not in str(raised.value)
    assert torch.equal(torch.get_rng_state(), state)


def test_counts_may_be_numpys():
    few, many = np.int8(2), np.uint8(200)  # whose products with other counts overflow
    got = fnn.predict_mc(NET, X, many, seed=1, batch_size=few)
    np.testing.assert_allclose(got.std, fnn.predict_mc(NET, X, 200, seed=1).std, rtol=1e-5)


def test_errors_of_the_module_are_its_own():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fnn.predict_mc(NET, torch.ones(5, 7))

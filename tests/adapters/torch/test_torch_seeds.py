"""Which calls draw a seed, and from which generator."""

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn

import fastdrop
import fastdrop.torch as fnn

functional = fnn.functional
own = nn.functional

pytestmark = pytest.mark.filterwarnings("ignore:dropout[23]d")


def attention(x, p, training):
    with fnn.enable():
        return own.scaled_dot_product_attention(x, x, x, dropout_p=p if training else 0.0)


def own_attention(x, p, training):
    return own.scaled_dot_product_attention(x, x, x, dropout_p=p if training else 0.0)


TORCHS = (
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
)
# Ours and PyTorch's own, or None
FUNCTIONS = {
    **{name: (getattr(functional, name), getattr(own, name)) for name in TORCHS},
    "drop_path": (functional.drop_path, None),
    "drop_path of the batch": (
        lambda x, p, t, **g: functional.drop_path(x, p, t, "batch", **g),
        None,
    ),
    "gaussian_dropout": (functional.gaussian_dropout, None),
    "drop_block2d": (lambda x, p, t, **g: functional.drop_block2d(x, p, 2, t, **g), None),
    "dropout_add": (lambda x, p, t, **g: functional.dropout_add(x, x, p, t, **g), None),
    "bias_act_dropout": (
        lambda x, p, t, **g: functional.bias_act_dropout(
            x, torch.ones(9, device=x.device), "relu", p, t, **g
        ),
        None,
    ),
    "attention": (attention, own_attention),
}
WITH_GENERATOR = sorted(set(FUNCTIONS) - {"attention"})
LAYERS = [name for name in fnn.__all__ if name[0].isupper()]


def example(name):
    axes = {"dropout1d": 3, "Dropout1d": 3, "dropout3d": 5, "Dropout3d": 5}.get(name, 4)
    return torch.ones((3, 8, 9, 9, 9)[:axes])


def draws(function, *arguments, **options):
    """Does a call change the state of PyTorch's default generator?"""
    before = torch.get_rng_state()
    function(*arguments, **options)
    return not torch.equal(before, torch.get_rng_state())


def with_probabilities(names):
    """Each with what may be its p; Gaussian noise of p = 1 would have no finite variance."""
    return [
        (name, p) for name in names for p in (0, 0.0, 0.5, 1, 1.0) if p < 1 or "aussian" not in name
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "p"), with_probabilities(FUNCTIONS))
def test_functions_draw_where_something_is_random(name, p, training):
    ours, theirs = FUNCTIONS[name]
    # blocks leave gaps at p = 1
    expected = training and (0 < p < 1 or (name == "drop_block2d" and p == 1))
    x = example(name)
    assert draws(ours, x, p, training) == expected
    assert draws(ours, x.clone().requires_grad_(), p, training) == expected
    assert draws(ours, x[:0], p, training) is False
    if theirs:
        assert draws(theirs, x, p, training) == expected
    if name in WITH_GENERATOR:
        generator = torch.Generator().manual_seed(0)
        state = generator.get_state()
        assert not draws(ours, x, p, training, generator=generator)
        assert torch.equal(state, generator.get_state()) != expected


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "p"), with_probabilities(LAYERS))
def test_layers_draw_where_something_is_random(name, p, training):
    options = {"block_size": 2} if name == "DropBlock2d" else {}
    expected = training and (0 < p < 1 or (name == "DropBlock2d" and p == 1))
    assert draws(getattr(fnn, name)(p, **options).train(training), example(name)) == expected
    if hasattr(nn, name):
        for inplace in (True, False):
            for module in (nn, fnn):
                layer = getattr(module, name)(p, inplace).train(training)
                assert draws(layer, example(name)) == expected


def test_saved_masks_of_what_is_all_dropped():
    layer = fnn.Dropout(1.0, save_mask=True)
    x = torch.tensor([1.0, float("inf"), float("nan")], requires_grad=True)
    assert not draws(layer, x)
    y = layer(x)
    assert torch.equal(y, torch.zeros(3))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.zeros(3))


def test_transforms_draw_nothing_where_all_is_dropped():
    def function(x):
        return functional.dropout(x, 1.0)

    x = torch.ones(4, 5)
    mapped = torch.func.vmap(function)  # an error if anything is random
    assert not draws(mapped, x)
    assert torch.equal(mapped(x), torch.zeros(4, 5))
    gradient = torch.func.grad(lambda x: function(x).sum())
    assert not draws(gradient, x)
    assert torch.equal(gradient(x), torch.zeros(4, 5))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # PyTorch's compiler uses what Python has deprecated
def test_compiled_draws_nothing_where_all_is_dropped():
    compiled = torch.compile(nn.Sequential(fnn.Dropout(1.0)), fullgraph=True, backend="aot_eager")
    x = torch.ones(4, 5)
    compiled(x)
    assert not draws(compiled, x)
    assert torch.equal(compiled(x), torch.zeros(4, 5))


# ---- inputs without a batch ----------------------------------------------------------------------

# What each function takes, and the axis of channels in it: PyTorch's dropout2d and
# feature_alpha_dropout have a batch in front, always.
CHANNELS = [
    ("dropout1d", (64, 4), 0),
    ("dropout1d", (4, 64, 4), 1),
    ("dropout2d", (4, 64), 1),
    ("dropout2d", (4, 64, 5), 1),
    ("dropout2d", (4, 64, 5, 3), 1),
    ("dropout2d", (4, 64, 5, 3, 2), 1),
    ("dropout3d", (64,), 0),
    ("dropout3d", (64, 4), 0),
    ("dropout3d", (64, 4, 3), 0),
    ("dropout3d", (64, 4, 3, 2), 0),
    ("dropout3d", (4, 64, 4, 3, 2), 1),
    ("dropout3d", (64, 4, 3, 2, 2, 2), 0),
    ("feature_alpha_dropout", (4, 64), 1),
    ("feature_alpha_dropout", (4, 64, 5), 1),
    ("feature_alpha_dropout", (4, 64, 5, 3), 1),
    ("feature_alpha_dropout", (4, 64, 5, 3, 2), 1),
]
LAYER_OF = {
    "dropout1d": "Dropout1d",
    "dropout2d": "Dropout2d",
    "dropout3d": "Dropout3d",
    "feature_alpha_dropout": "FeatureAlphaDropout",
}
IDS = [f"{name}-{len(shape)}" for name, shape, _ in CHANNELS]


def next_key(generator=None):
    """The key of the next call, without drawing it."""
    generator = generator or torch.default_generator
    state = generator.get_state()
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    generator.set_state(state)
    return fastdrop.Key(seed)


def normal(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("name", "shape", "channels"), CHANNELS, ids=IDS)
def test_masks_of_channels(name, shape, channels, transposed, inplace):
    x = normal(shape)
    if transposed:
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    order = sorted(range(x.dim()), key=lambda axis: -x.stride(axis))
    shared = [order.index(axis) for axis in range(channels + 1, x.dim())]
    function = fastdrop.alpha_dropout if "alpha" in name else fastdrop.dropout
    generator = torch.Generator().manual_seed(5)
    expected = function(x.permute(order).numpy(), 0.5, key=next_key(generator), shared_axes=shared)
    y = getattr(functional, name)(x, 0.5, True, inplace, generator=generator)
    assert y.permute(order).contiguous().numpy().tobytes() == expected.tobytes()
    assert (y is x) == inplace


@pytest.mark.parametrize(
    ("name", "shape"),
    [("dropout1d", (64, 4))] + [("dropout3d", (64, 4, 3, 2)[:axes]) for axes in (1, 2, 3, 4)],
)
def test_a_batch_of_one_has_the_same_mask(name, shape):
    x = torch.ones(shape)
    batch = x.reshape(1, *shape, *[1] * ({"dropout1d": 2, "dropout3d": 4}[name] - len(shape)))
    results = []
    for view in (x, batch):
        torch.manual_seed(3)
        results.append(getattr(functional, name)(view, 0.5))
    assert torch.equal(results[0], results[1].reshape(shape))


@pytest.mark.parametrize(("name", "shape", "channels"), CHANNELS, ids=IDS)
def test_layers_of_channels_have_their_generator(name, shape, channels):
    x = normal(shape).requires_grad_()

    def layer():
        return getattr(fnn, LAYER_OF[name])(0.5, generator=torch.Generator().manual_seed(1))

    assert not draws(layer(), x)
    y = layer()(x)
    assert torch.equal(y, layer()(x))
    one = layer()
    assert not torch.equal(one(x), one(x))
    (dx,) = torch.autograd.grad(y.sum(), x)
    kept = (dx != 0).movedim(channels, -1).reshape(-1, shape[channels])
    batched = kept.reshape(*(shape[:channels] or (1,)), -1, shape[channels])
    assert torch.equal(batched.amin(1), batched.amax(1))  # channels are dropped as a whole
    assert 0.2 < batched.float().mean() < 0.8


PATHS = ["drop_path", "drop_path of the batch"]
# A tensor whose memory kernels cannot use, and which functions use a generator all the same
NOT_PLAIN = {
    "negative view": (
        lambda x: torch.imag(torch.complex(x, -x).conj()),
        ["gaussian_dropout", "bias_act_dropout", *PATHS],
    ),
    "subclass": (
        lambda x: x.as_subclass(type("Subclass", (torch.Tensor,), {})),
        ["gaussian_dropout", *PATHS],
    ),
    "meta": (lambda x: x.to("meta"), []),
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
@pytest.mark.parametrize("name", WITH_GENERATOR)
def test_generators_are_used_or_refused(name, kind):
    make, used = NOT_PLAIN[kind]
    function, x = FUNCTIONS[name][0], make(example(name))
    if name in used:
        assert not draws(function, x, 0.5, True, generator=torch.Generator())
        y, again, *others = (
            function(x, 0.5, True, generator=torch.Generator().manual_seed(seed))
            for seed in (1, 1, *range(2, 12))
        )
        assert torch.equal(y, again)
        assert not all(torch.equal(y, other) for other in others)
    elif (name, kind) != ("gaussian_dropout", "meta"):  # whose noise has no values
        with pytest.raises((TypeError, ValueError), match=r"(generator|input): expected"):
            function(x, 0.5, True, generator=torch.Generator())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in LAYERS if hasattr(nn, name)])
def test_torchscript_refuses_generators(name):
    layer = getattr(fnn, name)(generator=torch.Generator())
    for model in (layer, nn.Sequential(nn.Identity(), layer)):
        with pytest.raises(ValueError, match="generator: expected None in TorchScript"):
            torch.jit.script(model)
    layer.generator = None
    torch.jit.script(layer)


@pytest.mark.parametrize("name", WITH_GENERATOR)
def test_generators_in_transforms(name):
    x = example(name)[None]
    function = FUNCTIONS[name][0]

    def mapped(seed):
        generator = torch.Generator().manual_seed(seed)
        call = torch.func.vmap(
            lambda x: function(x, 0.5, True, generator=generator), randomness="different"
        )
        return call(x)

    assert not draws(mapped, 0)
    assert torch.equal(mapped(0), mapped(0))
    assert any(not torch.equal(mapped(0), mapped(seed)) for seed in range(1, 20))

"""fastdrop.torch's gradients of every kind, and torch.func's transforms."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, grad_and_value, jacfwd, jacrev, vjp, vmap

import fastdrop.torch as fnn

functional = fnn.functional

# PyTorch's own, of its forward-mode gradients
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def normal(*shape):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape)).requires_grad_()


def repeatable(function):
    """The function, with the same masks whenever it is called."""

    def call(*arguments):
        torch.manual_seed(3)
        return function(*arguments)

    return call


UNARY = {
    "dropout": lambda x: functional.dropout(x, 0.3),
    "saved mask": lambda x: functional.dropout(x, 0.3, save_mask=True),
    "p = 1": lambda x: functional.dropout(x, 1.0),
    "channels": lambda x: functional.dropout2d(x, 0.3),
    "channels last": lambda x: functional.dropout2d(
        x.contiguous(memory_format=torch.channels_last), 0.3
    ),
    "alpha": lambda x: functional.alpha_dropout(x, 0.3, True),
    "feature alpha": lambda x: functional.feature_alpha_dropout(x, 0.3, True),
    "gaussian": lambda x: functional.gaussian_dropout(x, 0.3),
    "blocks": lambda x: functional.drop_block2d(x, 0.3, 2),
    "path": lambda x: functional.drop_path(x, 0.3),
    "permuted": lambda x: functional.dropout(x.permute(2, 0, 3, 1), 0.3),
    "sliced": lambda x: functional.dropout(x[:, ::2, 1:], 0.3),
    "in place": lambda x: functional.dropout(x * 1, 0.3, inplace=True),
    "in place, sliced": lambda x: functional.dropout((x * 1)[:, :, 1:], 0.3, inplace=True),
}


@pytest.mark.parametrize("name", UNARY)
def test_gradients(name):
    function, x = repeatable(UNARY[name]), normal(2, 3, 4, 2)
    assert gradcheck(function, x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, x, check_batched_grad=True)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_gradients_of_bias_act_dropout(activation):
    x, bias = normal(4, 2, 5), normal(5)
    function = repeatable(lambda x, bias: functional.bias_act_dropout(x, bias, activation, 0.3))
    assert gradcheck(function, (x, bias), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, (x, bias))


def test_gradients_of_dropout_add():
    x, residual = normal(4, 5), normal(5, 4)
    function = repeatable(lambda x, r: functional.dropout_add(x, r.T, 0.3))
    assert gradcheck(function, (x, residual), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, (x, residual))


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_that_are_not_asked_for(fused):
    x, bias = torch.ones(3, 4), torch.ones(4, requires_grad=True)
    if fused:
        y = functional.bias_act_dropout(x, bias, "relu", 0.5)
    else:
        y = functional.dropout_add(x, bias.expand(3, 4).contiguous(), 0.5)
    y.sum().backward()
    expected = y.sum(0).detach() / 2 if fused else torch.full((4,), 3.0)
    torch.testing.assert_close(bias.grad, expected)


def test_no_graph_no_function():
    x = torch.ones(5, requires_grad=True)
    with torch.no_grad():
        assert functional.dropout(x, 0.5).grad_fn is None
    assert functional.dropout(x.detach(), 0.5).grad_fn is None


def test_vmap_randomness():
    def drop(x):
        return functional.dropout(x, 0.5)

    def with_a_constant(factor):
        return functional.dropout(torch.ones(64), 0.5) * factor

    x = torch.ones(5, 64)
    for function, argument in [(drop, x), (with_a_constant, torch.ones(5))]:
        with pytest.raises(RuntimeError, match="random operation while in randomness error mode"):
            vmap(function)(argument)
        same = vmap(function, randomness="same")(argument)
        assert (same == same[0]).all()
        different = vmap(function, randomness="different")(argument)
        assert len({row.numpy().tobytes() for row in different}) == 5
        for y in (same, different):
            assert set(y.unique().tolist()) == {0, 2}


def test_vmap_along_other_axes_and_nested():
    x = torch.ones(5, 6, 64)
    y = vmap(lambda x: functional.dropout(x, 0.5), 1, 1, randomness="same")(x)
    assert y.shape == x.shape
    assert (y == y[:, :1]).all()
    inner = vmap(lambda x: functional.dropout(x, 0.5), randomness="different")
    y = vmap(inner, randomness="different")(x)
    assert len({row.numpy().tobytes() for row in y.reshape(30, 64)}) == 30


def test_gradients_under_vmap():
    x = torch.ones(5, 64)

    def loss(x):
        return functional.dropout(x, 0.5).square().sum() / 2

    for randomness in ("same", "different"):
        gradient, value = vmap(grad_and_value(loss), randomness=randomness)(x)
        torch.testing.assert_close(gradient.sum(1), 2 * value)  # 4 and 2 a kept element
    gradient = grad(lambda x: vmap(loss, randomness="different")(x).sum())(x)
    assert set(gradient.unique().tolist()) == {0, 4}


def test_one_model_for_many_samples():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), fnn.Dropout(0.5), torch.nn.Linear(8, 1))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    gradient = vmap(
        grad(lambda parameters, x: functional_call(model, parameters, (x,)).sum()),
        (None, 0),
        randomness="different",
    )(parameters, torch.ones(6, 4))
    assert gradient["0.weight"].shape == (6, 8, 4)
    assert len({row.numpy().tobytes() for row in gradient["0.bias"] != 0}) > 1


def test_jacobians():
    def drop(x):
        return functional.dropout(x, 0.5)

    x = torch.ones(9)
    for jacobian in (jacrev(drop), jacfwd(drop, randomness="same")):
        torch.manual_seed(0)
        diagonal = torch.diag(jacobian(x))
        torch.manual_seed(0)
        assert torch.equal(diagonal, drop(x))
    torch.manual_seed(0)
    y, pull = vjp(drop, x)
    assert torch.equal(pull(torch.ones(9))[0], y)
    jacobians = vmap(jacrev(drop), randomness="different")(torch.ones(4, 9))
    rows = torch.diagonal(jacobians, dim1=1, dim2=2)
    assert len({row.numpy().tobytes() for row in rows}) > 1
    assert torch.equal(jacobians.sum(2), rows)
    torch.manual_seed(0)
    jacobian = torch.autograd.functional.jacobian(drop, x, vectorize=True)
    torch.manual_seed(0)
    assert torch.equal(torch.diag(jacobian), drop(x))


def test_eager_and_transformed_masks_are_the_same():
    x = torch.ones(64)
    torch.manual_seed(0)
    y = functional.dropout(x, 0.5)
    torch.manual_seed(0)
    gradient = grad(lambda x: functional.dropout(x, 0.5).sum())(x)
    assert torch.equal(y, gradient)


def test_saved_tensor_hooks_and_freed_graphs():
    x = torch.ones(5, requires_grad=True)
    y = functional.bias_act_dropout(x, x, "relu", 0.5)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        functional.dropout(x, 0.5)
        assert not packed  # the mask is made again

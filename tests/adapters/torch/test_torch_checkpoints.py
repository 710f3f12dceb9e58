"""Activation checkpointing while enable holds, begins or ends: the same dropout twice."""

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import fastdrop.torch as fnn

F = nn.functional


def seeded(function, *arguments):
    torch.manual_seed(3)
    return function(*arguments)


class Again(torch.autograd.Function):
    """Checkpointing as people write it themselves."""

    @staticmethod
    def forward(ctx, function, x):
        ctx.function, ctx.state = function, torch.get_rng_state()
        ctx.save_for_backward(x)
        with torch.no_grad():
            return function(x)

    @staticmethod
    def backward(ctx, dy):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.random.fork_rng(), torch.enable_grad():
            torch.set_rng_state(ctx.state)
            y = ctx.function(x)
        torch.autograd.backward(y, dy)
        return None, x.grad


CHECKPOINTS = {
    "reentrant": lambda f, x: checkpoint(f, x, use_reentrant=True),
    "not reentrant": lambda f, x: checkpoint(f, x, use_reentrant=False),
    "nested": lambda f, x: checkpoint(
        lambda x: checkpoint(f, x * 2, use_reentrant=False) + F.dropout(x, 0.2),
        x,
        use_reentrant=False,
    ),
    "nested, reentrant": lambda f, x: checkpoint(
        lambda x: checkpoint(f, x * 2, use_reentrant=True) + F.dropout(x, 0.2),
        x,
        use_reentrant=True,
    ),
    "self-made": Again.apply,
}


def step(how, forward, backward, mode=nullcontext):
    """Loss and gradients of a step whose forward and backward pass enable holds for, or not."""
    torch.manual_seed(0)
    linear = nn.Linear(32, 32)
    x = torch.rand(8, 32, requires_grad=True)

    def block(x):
        y = F.dropout(linear(F.dropout(x, 0.4)).relu() * 1, 0.3, inplace=True)
        return y * F.alpha_dropout(x, 0.2, True) + F.dropout(x, 1.0)

    with fnn.enable() if forward else nullcontext():
        if how in CHECKPOINTS:
            loss = CHECKPOINTS[how](block, x).square().sum()
        elif "nested" in how:
            loss = (block(x * 2) + F.dropout(x, 0.2)).square().sum()
        else:
            loss = block(x).square().sum()
    with fnn.enable() if backward else nullcontext(), mode():
        loss.backward()
    return loss, x.grad, linear.weight.grad


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("how", CHECKPOINTS)
def test_checkpointing_wherever_the_block_ends(how, forward, backward):
    def flops():
        return FlopCounterMode(display=False)

    plain = "plain, nested" if "nested" in how else "plain"
    for mode in (nullcontext, flops):
        expected = step(plain, forward, forward)
        found = step(how, forward, backward, mode)
        for a, b in zip(expected, found):
            if a is not None and b is not None:
                torch.testing.assert_close(a, b)


def test_checkpointing_from_one_seed_in_turns():
    for forward in (True, False, True, False):
        for how in ("reentrant", "not reentrant"):
            for a, b in zip(step("plain", forward, forward), step(how, forward, forward)):
                torch.testing.assert_close(a, b)


@pytest.mark.parametrize("how", ["reentrant", "not reentrant", "self-made"])
@pytest.mark.parametrize("forward", [(True, False), (False, True), (True, False, True)])
@pytest.mark.parametrize("backward", [False, True])
def test_checkpoints_of_one_seed_that_live_at_once(how, forward, backward):
    """Who dropped is known by the checkpoint, not by the state of the generator alone."""
    weights = torch.eye(32, requires_grad=True)

    def block(x):
        return F.dropout(F.dropout(x @ weights, 0.4).relu() * 1, 0.3, inplace=True)

    for order in (1, -1):
        losses, expected = [], []
        for on in forward:
            with fnn.enable() if on else nullcontext():
                x = torch.rand(8, 32).requires_grad_()
                loss = seeded(block, x).square().sum()
                expected.append(torch.autograd.grad(loss, x)[0])
                losses.append((seeded(CHECKPOINTS[how], block, x).square().sum(), x))
        for (loss, x), dx in list(zip(losses, expected))[::order]:
            with fnn.enable() if backward else nullcontext():
                loss.backward()
            torch.testing.assert_close(x.grad, dx)

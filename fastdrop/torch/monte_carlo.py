"""`predict_mc`: what many passes with other masks say of a module's uncertainty.

A sample is a pass. Several of them are computed in one where that gives the same: with the rows of
x repeated, or, better, with tensors that have one sample until the first dropout, so that what lies
before it is computed once. Whether it gives the same is not guessed but seen: the first sample is
computed alone, too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from fastdrop._checks import check_count, lookup, unsigned
from fastdrop.random import Key
from fastdrop.torch import modules
from fastdrop.torch.convert import OURS
from fastdrop.torch.enable import registered
from fastdrop.torch.keys import draw_plain_seed, drawing
from fastdrop.torch.report import drops, names_called
from fastdrop.torch.samples import Group
from fastdrop.uncertainty import Accumulator, Prediction, checked_quantiles

__all__ = ["predict_mc"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda y: y,
    "softmax": lambda y: torch.softmax(y, -1),
    "sigmoid": torch.sigmoid,
}
# Of the tensors that are dropped: a group has as many samples as stay in the cache, and some more
# where that saves computing again what lies before the first dropout.
CACHED, MOST, SOME = 1 << 20, 1 << 24, 8
_LAYERS = {*OURS, *(getattr(modules, name) for name in modules.__all__)}  # drop, and nothing else
_NORMS = {"batch_norm", "instance_norm"}


def predict_mc(
    module: nn.Module,
    x: Tensor,
    samples: int = 100,
    *,
    batch_size: int | None = None,
    seed: int | None = None,
    activation: str = "linear",
    quantiles: ArrayLike | None = None,
    return_samples: bool = False,
) -> Prediction:
    """Return mean, standard deviation and more of a module's outputs under other dropout masks.

    Dropout is on, by fastdrop's kernels, all else is as in eval(); no gradients are recorded.
    Afterwards, and after an error or Ctrl-C, every module has its mode again.

    Parameters
    ----------
    module : torch.nn.Module
        Returns a tensor. Dropout may be layers of any kind (torch.nn's, this package's, others'
        with "drop" in their class's name), what PyTorch does in C++ (LSTM), or functions, as in
        ``F.dropout(x, training=self.training)``: then the module that calls them is in training
        mode, and none of its children for that.
    x : Tensor, (rows, ...)
        On the CPU. Floats are finite.
    samples : int
    batch_size : int, optional
        Rows that are computed at once; by default all of them. The first axis of x and of the
        output must be rows that do not know of each other.
    seed : int, optional
        0 <= seed < 2**64. By default drawn from PyTorch's default generator, which then goes on as
        after one draw; with a seed it stays as it is.
    activation : {"linear", "softmax", "sigmoid"}
        What each output still goes through: "softmax" (over the last axis) or "sigmoid" where the
        module gives logits, as PyTorch's losses want them. The result then has entropies.
    quantiles : array-like, optional
        In [0, 1]. With them all samples are kept until the end of a batch.
    return_samples : bool
        Whether the result has the samples, too.

    Returns
    -------
    Prediction
        Of NumPy arrays; without `quantiles` and `return_samples` no memory grows with `samples`.

    Raises
    ------
    TypeError
        When module or x is something else, or the module's output is no tensor.
    ValueError
        When samples is below 1, nothing in the module drops, x is empty or not finite, another
        argument does not fit its description, or one mode switches dropout and batch
        normalisation: a module that calls both as functions.
    RuntimeError
        Where dropout is functions, as `enable`.

    Notes
    -----
    Sample s depends on the seed, on s, on the module and x, but not on how many samples there are
    or are computed at once, to the rounding of products. Where the rows are the first axis of each
    tensor that is dropped, it does not depend on `batch_size` either, as masks count rows from x's
    first. Random numbers of others, as ``torch.rand`` in a forward, come from PyTorch's default
    generator, which is seeded for each sample and batch; then samples are computed one by one.

    Modes are the module's: no other thread should use it meanwhile.

    References
    ----------
    Gal and Ghahramani 2016, Dropout as a Bayesian approximation: representing model uncertainty in
    deep learning, ICML.

    Examples
    --------
    >>> import torch
    >>> import fastdrop.torch as fnn
    >>> from torch.nn import Dropout, Linear, Sequential
    >>> net = Sequential(Linear(4, 8), Dropout(0.5), Linear(8, 3))
    >>> prediction = fnn.predict_mc(net, torch.rand(5, 4), 100, seed=1, activation="softmax")
    >>> prediction.mean.shape, prediction.mutual_information.shape
    ((5, 3), (5,))
    """
    check_count("samples", samples)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    lookup("activation", activation, ACTIVATIONS)
    wanted = checked_quantiles(quantiles)
    _check_x(x)
    droppers = _droppers(module)
    key = Key(draw_plain_seed(None, 0) if seed is None else unsigned(seed, "seed"))
    step = len(x) if batch_size is None else int(batch_size)
    found = []
    # not in inference mode: what a module keeps of a pass would be good for nothing elsewhere
    with torch.inference_mode(False), torch.no_grad(), _sampling(module, droppers):
        x = x.clone() if x.is_inference() else x
        for row in range(0, len(x), step):
            part = x[row : row + step]
            accumulator = None
            for raw in _Passes(module, droppers, part, row, key, samples):
                outputs = _activated(raw, activation)
                if accumulator is None:
                    shape = tuple(outputs.shape[1:])
                    if step < len(x) and shape[:1] != (len(part),):
                        raise ValueError(
                            f"batch_size: expected None, as the module makes an output of shape "
                            f"{shape} of {len(part)} rows, got {batch_size}"
                        )
                    accumulator = Accumulator(
                        shape[0], shape[1:], activation, wanted, return_samples
                    )
                accumulator.add(outputs.numpy())
            assert accumulator is not None
            found.append(accumulator.prediction())
    return Prediction.concatenate(found)


class _Passes:
    """Iterates over outputs, (some samples, *output), in the order of the samples."""

    def __init__(
        self,
        module: nn.Module,
        droppers: set[nn.Module],
        x: Tensor,
        row: int,
        key: Key,
        samples: int,
    ) -> None:
        self._row, self._rows, self._key, self._samples = row, len(x), key, samples
        steps = list(_steps(module, droppers))
        random = next(i for i, step in enumerate(steps) if droppers & set(step.modules()))
        y, state = x.clone() if random else x, torch.default_generator.get_state()
        for step in steps[:random]:
            y = step(y)
        if isinstance(y, Tensor) and torch.equal(state, torch.default_generator.get_state()):
            self._x, self._steps = y, steps[random:]
        else:  # no tensor, as layers take that are made for it; or random in eval mode, too
            self._x, self._steps = x, [module]
        self._begins_with_dropout = type(self._steps[0]) in _LAYERS
        self._changes_x = False

    def __iter__(self) -> Iterator[Tensor]:
        first = self._group([0])
        alone = self._first(first)
        yield alone[None]
        done, size, spread = 1, 1, False
        if first.largest and alone.dim():
            for spread in (True, False):
                size = self._size(
                    max(first.largest, alone.numel(), 0 if spread else self._x.numel())
                )
                # the first sample comes last, where it shows what a pass does to samples
                outputs = self._try([*range(1, size), 0], spread) if size > 1 else None
                if outputs is not None and _same(outputs[-1], alone):
                    yield outputs[:-1]
                    done = size
                    break
                size = 1
        while done < self._samples:
            numbers = range(done, min(done + size, self._samples))
            yield self._together(numbers, spread) if size > 1 else self._one(done)
            done += len(numbers)

    def _size(self, elements: int) -> int:
        """How many samples to compute at once, of tensors of so many elements each."""
        some = 1 if self._begins_with_dropout else min(SOME, MOST // elements)
        return min(self._samples, max(CACHED // elements, some, 1))

    def _group(self, numbers: Sequence[int], spread: bool = False) -> Group:
        bases = [self._key.fold_in(number).seed for number in numbers]
        return Group(bases, self._row, self._rows, spread)

    def _first(self, group: Group) -> Tensor:
        """Compute a sample alone, and see what the module does."""
        x = self._x.clone()
        version = x._version
        y = self._pass(group, x)
        self._changes_x = x._version != version
        state = torch.default_generator.get_state()
        self._seed(group)
        if not group.calls and torch.equal(state, torch.default_generator.get_state()):
            raise ValueError(
                "module: expected dropout in its forward pass, got a pass without anything random"
            )
        return y

    def _one(self, number: int) -> Tensor:
        return self._pass(self._group([number]), self._x)[None]

    def _together(self, numbers: Sequence[int], spread: bool) -> Tensor:
        k = len(numbers)
        x = self._x if spread else self._x.repeat(k, *[1] * (self._x.dim() - 1))
        y = self._pass(self._group(numbers, spread), x)
        return y.reshape(k, y.shape[0] // k, *y.shape[1:])

    def _try(self, numbers: Sequence[int], spread: bool) -> Tensor | None:
        """`_together`, or None where the module does not take so many rows."""
        with warnings.catch_warnings(action="ignore"):  # of shapes that it does not expect
            try:
                return self._together(numbers, spread)
            except Exception:
                return None

    def _pass(self, group: Group, x: Tensor) -> Tensor:
        if self._changes_x and x is self._x:
            x = x.clone()
        self._seed(group)
        y = x
        with drawing(group):
            for step in self._steps:
                y = step(y)
        if not isinstance(y, Tensor) or y.is_complex():
            got = f"{y.dtype} of" if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"module: expected it to return a tensor of real numbers, got {got}; "
                "a module around it can pick one"
            )
        return y.detach()

    def _seed(self, group: Group) -> None:
        """Let what else is random depend on the sample and the batch, too."""
        torch.default_generator.manual_seed((group.bases[0] + self._row) % 2**63)


def _steps(module: nn.Module, droppers: set[nn.Module]) -> Iterator[nn.Module]:
    """Take a Sequential apart, and the one in it that drops first: what is before drops nothing."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    if type(module) is not nn.Sequential or any(hooks) or module._compiled_call_impl:
        yield module
        return
    first = True
    for child in module:
        if first and droppers & set(child.modules()):
            first = False
            yield from _steps(child, droppers)
        else:
            yield child


def _same(y: Tensor, expected: Tensor) -> bool:
    """Are these the same output, but for the rounding of products?"""
    if y.shape != expected.shape or y.dtype != expected.dtype:
        return False
    if not y.is_floating_point():
        return torch.equal(y, expected)
    finite = expected[torch.isfinite(expected)]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    tolerance = size * math.sqrt(torch.finfo(y.dtype).eps)
    return torch.allclose(y, expected, rtol=0, atol=tolerance, equal_nan=True)


def _activated(outputs: Tensor, activation: str) -> Tensor:
    """Return outputs as an accumulator takes them."""
    if outputs.dtype not in (torch.float32, torch.float64):
        outputs = outputs.float() if outputs.is_floating_point() else outputs.double()
    if outputs.dim() == 1:  # one number, as a row
        outputs = outputs[:, None]
    if activation == "softmax":
        if outputs.dim() < 3:
            raise ValueError(
                "activation: expected 'linear' or 'sigmoid' for an output without an axis of "
                f"classes, of shape {tuple(outputs.shape[1:])}, got 'softmax'"
            )
        sums = outputs.sum(-1)
        if bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            raise ValueError(
                "activation: expected logits for 'softmax', got probabilities that add up to 1; "
                "their logarithms are logits"
            )
    return ACTIVATIONS[activation](outputs)


def _check_x(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
    if x.device.type != "cpu":
        raise ValueError(f"x: expected a tensor on the CPU, got one on {x.device}")
    if not x.dim() or not x.numel():
        raise ValueError(f"x: expected some rows, shape (rows, ...), got {tuple(x.shape)}")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise ValueError("x: expected finite numbers, got NaN or infinity")


def _droppers(module: nn.Module) -> set[nn.Module]:
    """Return the modules that have to be in training mode."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    found: set[nn.Module] = {inner for inner in module.modules() if drops(inner)}
    if not found:
        raise ValueError(
            f"module: expected dropout with p above 0, got {type(module).__name__} without any"
        )
    for name, inner in module.named_modules():
        calls = inner in found and type(inner) not in _LAYERS
        if calls and names_called(inner) & _NORMS:
            raise ValueError(
                f"module: expected one that calls dropout and batch_norm apart, got {name!r}, "
                f"{type(inner).__name__}, where one mode switches both; nn.Dropout is a way out"
            )
        # in eval mode it would take PyTorch's fast path, which leaves out its children's dropout
        if isinstance(inner, nn.TransformerEncoderLayer) and found & set(inner.modules()):
            found.add(inner)
    return found


@contextmanager
def _sampling(module: nn.Module, droppers: set[nn.Module]) -> Iterator[None]:
    """Let these modules drop, by our kernels, and all others infer; restore all at the end.

    torch.nn's layers have our class meanwhile, which costs nothing. Where there is more than
    layers, kernels are registered in PyTorch's dispatcher, and so they are for compiled modules,
    which would be compiled again for another class.
    """
    before = [(inner, inner.training, type(inner)) for inner in module.modules()]
    compiled = any(
        "_orig_mod" in inner._modules or inner._compiled_call_impl is not None
        for inner, *_ in before
    )
    classes = {} if compiled else OURS
    ours = _LAYERS - (OURS.keys() - classes.keys())
    state = torch.default_generator.get_state()
    with nullcontext() if all(type(inner) in ours for inner in droppers) else registered():
        try:
            for inner, _, kind in before:
                _change(inner, inner in droppers, classes.get(kind, kind))
            yield
        finally:
            torch.default_generator.set_state(state)
            try:
                _restore(before)
            finally:  # once more, where Ctrl-C came into the first
                _restore(before)


def _restore(before: list[tuple[nn.Module, bool, type[nn.Module]]]) -> None:
    for inner, training, kind in before:
        _change(inner, training, kind)


def _change(module: nn.Module, training: bool, kind: type[nn.Module]) -> None:
    """Set mode and class, where they are others."""
    if module.training is not training:
        module.training = training  # train() would reach the children, too
    if type(module) is not kind:
        module.__class__ = kind
        modules.mark(module)

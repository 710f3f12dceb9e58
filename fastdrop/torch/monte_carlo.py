"""`predict_mc`: what many passes with other masks tell about a module's uncertainty.

A sample is a pass. Several samples are computed in one pass where that gives the same result:
either with the rows of x repeated, or, better, with tensors that have one sample until the first
dropout, so that everything before it is computed once. Whether the result is the same is not
guessed: the first sample is also computed alone, and compared.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from fastdrop._checks import check_flag, checked_count, lookup, unsigned
from fastdrop._messages import shown
from fastdrop._quiet import quiet
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
# Limits for the tensors that are dropped. A group has as many samples as fit into the cache, and
# some more where that avoids computing again what lies before the first dropout.
CACHED, MOST, SOME = 1 << 20, 1 << 24, 8
_LAYERS = {*OURS, *(getattr(modules, name) for name in modules.__all__)}  # these only drop
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
    """Return mean, standard deviation and more of a module's outputs under many dropout masks.

    Dropout is active and uses fastdrop's kernels. Everything else is as in eval(), and no gradients
    are recorded. Afterwards every module has its mode again, even after an error or Ctrl-C.

    Parameters
    ----------
    module : torch.nn.Module
        A module that returns a tensor. Its dropout may be layers of any kind (torch.nn's, this
        package's, or others with "drop" in the name of their class), what PyTorch does in C++
        (LSTM), or functions, as in ``F.dropout(x, training=self.training)``. A module that calls
        functions is put into training mode for that, without its children.
    x : Tensor, (rows, ...)
        A tensor on the CPU. Floats have to be finite.
    samples : int
        The number of samples, at least 1.
    batch_size : int, optional
        How many rows to compute at once; by default all of them. If given, the first axis of x and
        of the output must be rows that do not depend on each other.
    seed : int, optional
        0 <= seed < 2**64. By default the seed is drawn from PyTorch's default generator, which is
        afterwards as after one draw. If a seed is given, that generator stays as it is.
    activation : {"linear", "softmax", "sigmoid"}
        The activation that the outputs still need: "softmax" (over the last axis) or "sigmoid" if
        the module returns logits, as for PyTorch's losses. Then the result has entropies.
    quantiles : array-like, optional
        Numbers in [0, 1]. With quantiles, all samples are kept until the end of a batch.
    return_samples : bool
        Whether the result holds the samples as well.

    Returns
    -------
    Prediction
        A prediction of NumPy arrays. Without `quantiles` and `return_samples` the memory needed
        does not grow with `samples`.

    Raises
    ------
    TypeError
        When module or x is something else, or the module's output is not a tensor.
    ValueError
        When samples is below 1, when nothing in the module drops, when x is empty or not finite,
        when another argument does not fit its description, or when one mode switches both dropout
        and batch normalisation, in a module that calls both as functions.
    RuntimeError
        As for `enable`, where dropout is more than layers.

    Notes
    -----
    Sample s depends on the seed, on s, on the module and on x. Up to the rounding of products, it
    does not depend on how many samples there are, or are computed at once. If the rows are the
    first axis of every tensor that is dropped, it does not depend on `batch_size` either, because
    masks count rows from the first row of x. Other random numbers, such as those of ``torch.rand``
    in a forward, come from PyTorch's default generator, which is seeded for each sample and batch.
    Samples are then computed one by one.

    The modes are changed on the module itself, so no other thread should use it meanwhile.

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
    samples = checked_count("samples", samples)
    if batch_size is not None:
        batch_size = checked_count("batch_size", batch_size)
    lookup("activation", activation, ACTIVATIONS)
    wanted = checked_quantiles(quantiles)
    check_flag("return_samples", return_samples)
    _check_x(x)
    droppers = _droppers(module)
    key = Key(draw_plain_seed(None, 0) if seed is None else unsigned(seed, "seed"))
    step = len(x) if batch_size is None else batch_size
    found = []
    # Not in inference mode: tensors that a module keeps from a pass would be unusable elsewhere.
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
                            f"batch_size: expected None, because the module returns shape {shape} "
                            f"for {len(part)} rows, got {batch_size}"
                        )
                    accumulator = Accumulator(
                        shape[0], shape[1:], activation, wanted, return_samples
                    )
                with quiet(over="ignore", invalid="ignore"):
                    accumulator.add(outputs.numpy())
            assert accumulator is not None
            found.append(accumulator.prediction())
    return Prediction.concatenate(found)


class _Passes:
    """Iterates over outputs of shape (some samples, ...), in the order of the samples."""

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
        else:  # x is no tensor, for layers made for such an x; or something is random in eval mode
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
                # the first sample is the last row here, to show what a pass does to samples
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
        """Return how many samples to compute at once, for tensors of `elements` elements each."""
        some = 1 if self._begins_with_dropout else min(SOME, MOST // elements)
        return min(self._samples, max(CACHED // elements, some, 1))

    def _group(self, numbers: Sequence[int], spread: bool = False) -> Group:
        bases = [self._key.fold_in(number).seed for number in numbers]
        return Group(bases, self._row, self._rows, spread)

    def _first(self, group: Group) -> Tensor:
        """Compute a sample alone, and observe what the module does."""
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
        """Return the result of `_together`, or None if the module does not take so many rows."""
        with warnings.catch_warnings(action="ignore"):  # about shapes that it does not expect
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
        if not isinstance(y, Tensor) or y.is_complex() or y.layout is not torch.strided:
            got = f"{y.dtype}, {y.layout}" if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"module: expected it to return a tensor of real numbers, got {got}; "
                "wrap it in a module that returns one"
            )
        return y.detach()

    def _seed(self, group: Group) -> None:
        """Make everything else that is random depend on the sample and the batch, too."""
        torch.default_generator.manual_seed((group.bases[0] + self._row) % 2**63)


def _steps(module: nn.Module, droppers: set[nn.Module]) -> Iterator[nn.Module]:
    """Yield the steps of nested Sequentials, as far as that separates what comes before dropout."""
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
    """Tell whether two outputs are the same, up to the rounding of products."""
    if y.shape != expected.shape or y.dtype != expected.dtype:
        return False
    if not y.is_floating_point():
        return torch.equal(y, expected)
    finite = expected[torch.isfinite(expected)]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    tolerance = size * math.sqrt(torch.finfo(y.dtype).eps)
    return torch.allclose(y, expected, rtol=0, atol=tolerance, equal_nan=True)


def _activated(outputs: Tensor, activation: str) -> Tensor:
    """Return outputs in the form that an accumulator takes."""
    if outputs.dtype not in (torch.float32, torch.float64):
        outputs = outputs.float() if outputs.is_floating_point() else outputs.double()
    if outputs.dim() == 1:  # one number for each sample, as a row
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
    if x.layout is not torch.strided:
        raise ValueError(f"x: expected a dense tensor, got {x.layout}; x.to_dense() makes one")
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
                f"module: expected dropout and batch_norm called by different modules, "
                f"got {shown(name)}"
                f" ({type(inner).__name__}), where one mode switches both; use nn.Dropout"
            )
        # In eval mode it would take PyTorch's fast path, which omits the dropout of its children.
        if isinstance(inner, nn.TransformerEncoderLayer) and found & set(inner.modules()):
            found.add(inner)
    return found


@contextmanager
def _sampling(module: nn.Module, droppers: set[nn.Module]) -> Iterator[None]:
    """Make these modules drop, with our kernels, and all others infer; restore all at the end.

    Layers of torch.nn get our class meanwhile, which costs nothing. If there is dropout that is
    not in layers, kernels are registered in PyTorch's dispatcher. That is also done for compiled
    modules, which would be compiled again for another class.
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
            finally:  # a second time, in case Ctrl-C interrupted the first
                _restore(before)


def _restore(before: list[tuple[nn.Module, bool, type[nn.Module]]]) -> None:
    for inner, training, kind in before:
        _change(inner, training, kind)


def _change(module: nn.Module, training: bool, kind: type[nn.Module]) -> None:
    """Set mode and class where they differ."""
    if module.training is not training:
        module.training = training  # train() would change the children as well
    if type(module) is not kind:
        module.__class__ = kind
        modules.mark(module)

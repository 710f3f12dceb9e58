"""One update of a weight matrix, compared with a copy of as many bytes and PyTorch's fused Adam.

pytest benchmarks/bench_optimizers.py              everything
pytest benchmarks/bench_optimizers.py -k "adam"    a part
"""

import numpy as np
import pytest

import fastdrop
from fastdrop.layers.base import PartialGradient, WeightRule
from fastdrop.optimizers import SGD, Adam, AdamW, RMSprop

SHAPES = {"10x256": (10, 256), "256x784": (256, 784), "1024x1024": (1024, 1024)}


def half(grad):
    """Return the gradient of half of the rows and columns."""
    rows, columns = (np.arange(0, length, 2) for length in grad.shape)
    return PartialGradient(grad.shape, [(rows, columns, grad[np.ix_(rows, columns)])])


def fastdrop_side(optimizer, rule=None, gradient=lambda grad: grad):
    def prepare(w, grad):
        rules = None if rule is None else {"w": rule}
        own, given = optimizer(), {"w": gradient(grad)}
        return lambda: own.update({"w": w}, given, rules)

    return prepare


def copy_side(w, grad):
    """Read and write as many bytes as Adam: 7 arrays."""
    x = np.ones(w.size * 7 // 2, w.dtype)
    y = np.empty_like(x)
    return lambda: np.copyto(y, x)


def torch_side(w, grad):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(fastdrop.get_num_threads())
    param = torch.nn.Parameter(torch.from_numpy(w))
    param.grad = torch.from_numpy(grad)
    return torch.optim.Adam([param], fused=True).step


SIDES = {
    "copy": copy_side,
    "torch adam": torch_side,
    "adam": fastdrop_side(Adam),
    "adam, l2 and max_norm": fastdrop_side(Adam, WeightRule(l2=1e-4, max_norm=3.0)),
    "adam, partial": fastdrop_side(Adam, gradient=half),
    "adam, clipnorm": fastdrop_side(lambda: Adam(clipnorm=1.0)),
    "adamw": fastdrop_side(AdamW),
    "sgd": fastdrop_side(SGD),
    "momentum": fastdrop_side(lambda: SGD(momentum=0.9)),
    "rmsprop": fastdrop_side(RMSprop),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", SHAPES)
def bench(benchmark, shape, side, threads):
    benchmark.group = f"{shape}, {threads} threads"
    rng = np.random.default_rng(0)
    w = rng.standard_normal(SHAPES[shape], np.float32)
    before = fastdrop.get_num_threads()
    fastdrop.set_num_threads(threads)
    try:
        benchmark(SIDES[side](w, w * np.float32(0.01)))
    finally:
        fastdrop.set_num_threads(before)

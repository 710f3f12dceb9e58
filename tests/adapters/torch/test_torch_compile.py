"""fastdrop.torch under torch.compile, dispatch modes and TorchScript."""

import contextlib
import os
import subprocess
import sys

import pytest
from places import EXAMPLES

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch.library import opcheck

import fastdrop.torch as fnn

functional = fnn.functional

# PyTorch's own compiler uses what Python and PyTorch have deprecated
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.slow]


def several(x):
    a, b = functional.dropout(x, 0.5), functional.dropout(x, 0.5)
    c = functional.dropout2d(a + b, 0.5)
    d = functional.alpha_dropout(x, 0.3, True)
    e = functional.bias_act_dropout(x, x[0, 0, 0], "relu", 0.3)
    return a, b, c, d, functional.dropout_add(e, x, 0.1), functional.drop_path(x, 0.2)


def results(function, x):
    torch.manual_seed(0)
    ys = function(x)
    return [*ys, *torch.autograd.grad(sum(y.square().sum() for y in ys), x)]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_as_eager(backend):
    compiled = torch.compile(several, fullgraph=True, backend=backend)
    for shape in [(4, 6, 5, 5), (7, 3, 5, 5)]:
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = torch.ones(shape).contiguous(memory_format=memory_format).requires_grad_()
            ours, eager = results(compiled, x), results(several, x)
            for a, b in zip(ours, eager):
                torch.testing.assert_close(a, b)
                assert a.stride() == b.stride()
            assert not torch.equal(ours[0], ours[1])  # equal calls, different masks


def test_inductor():
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64), fnn.Dropout(0.5), torch.nn.Linear(64, 64), fnn.Dropout(0.5, True)
    )
    compiled = torch.compile(model, fullgraph=True)
    x = torch.ones(8, 64, requires_grad=True)
    try:
        first = results(lambda x: [compiled(x)], x)
    except torch._inductor.exc.InductorError as error:  # no compiler that it likes
        pytest.skip(f"inductor does not work here: {error}")
    for a, b in zip(first, results(lambda x: [compiled(x)], x)):
        assert torch.equal(a, b)
    assert not torch.equal(compiled(x), first[0])
    assert 0.3 < (first[0] == 0).float().mean() < 0.7
    model.eval()
    torch.testing.assert_close(compiled(x), model(x))


def test_compiled_autograd():
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), fnn.Dropout(0.5))

    def gradient(x, seed):
        torch.manual_seed(seed)
        model(x).sum().backward()
        return x.grad

    compiled = torch.compile(gradient, backend="aot_eager")
    for seed in range(3):
        xs = [torch.ones(8, 64, requires_grad=True) for _ in range(2)]
        with torch._dynamo.config.patch(compiled_autograd=True):
            found = compiled(xs[0], seed)
        torch.testing.assert_close(found, gradient(xs[1], seed))


def test_generators_break_the_graph():
    layer = fnn.Dropout(generator=torch.Generator().manual_seed(0))
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(layer, fullgraph=True, backend="eager")(torch.ones(3))
    x = torch.ones(64)
    y = torch.compile(layer, backend="eager")(x)
    assert torch.equal(y, fnn.Dropout(generator=torch.Generator().manual_seed(0))(x))


@pytest.mark.parametrize(
    "rule",
    [
        ("scale", 0.5, [1], [], 0),
        ("scale", 0.5, [], [1, 0], 0),
        ("alpha", 0.5, [], [], 0),
        ("gaussian", 0.5, [], [], 0),
    ],
)
def test_operator(rule):
    x = torch.randn(4, 5, requires_grad=True)
    found = opcheck(torch.ops.fastdrop.masked.default, (x, torch.tensor(5), *rule))
    assert set(found.values()) == {"SUCCESS"}


def test_export():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), fnn.Dropout())
    program = torch.export.export(model, (torch.ones(2, 4),))
    assert "dropout" in str(program.graph)
    model.eval()
    x = torch.ones(2, 4)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


def test_dispatch_modes_see_it():
    seen = []

    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            seen.append(str(function))
            return function(*arguments, **(options or {}))

    x = torch.ones(64)
    torch.manual_seed(0)
    with Mode():
        y = functional.dropout(x, 0.5)
    torch.manual_seed(0)
    assert torch.equal(y, functional.dropout(x, 0.5))
    assert "fastdrop.masked.default" in seen


@pytest.mark.parametrize(
    "name",
    ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"],
)
def test_torchscript_drops_by_pytorch(name):
    x = torch.ones({"Dropout1d": (2, 3, 4), "Dropout3d": (2, 3, 4, 4, 4)}.get(name, (2, 3, 4, 4)))
    ours, theirs = (getattr(module, name)(0.5) for module in (fnn, torch.nn))
    torch.manual_seed(0)
    y = torch.jit.script(ours)(x)
    torch.manual_seed(0)
    assert torch.equal(y, theirs(x))
    traced = torch.jit.trace(ours, x, check_trace=False)
    assert "dropout" in str(traced.graph)


@pytest.mark.skipif(not EXAMPLES.exists(), reason="not in a checkout")
def test_benchmark(tmp_path):
    compiled(lambda x: x + 1, torch.ones(3))  # or skip
    script = EXAMPLES.parent / "benchmarks" / "torch_compile.py"
    options = ["--powers", "12", "--rounds", "1", "--out", str(tmp_path)]
    found = subprocess.run(
        [sys.executable, str(script), *options], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    table = (tmp_path / "torch_compile.md").read_text()
    assert table in found.stdout
    rows = table.splitlines()[-2:]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| block", "0.1", "2^12"],
        ["| attention", "0.1", "2^12"],
    ]
    assert all(float(us) > 0 for row in rows for us in row.split("|")[4:6])


# ---- while enable holds --------------------------------------------------------------------------

LARGE = 1 << 18  # elements: more than Inductor is quicker with


def dropped(x):
    own = torch.nn.functional
    y = own.dropout(x, 0.5)
    z = own.dropout(x * 1, 0.5, inplace=True)
    return y, z, own.alpha_dropout(x, 0.3, True), own.dropout2d(x, 0.5)


def compiled(function, x, **options):
    """A function compiled by Inductor; skips where there is no compiler that it likes."""
    torch._dynamo.reset()
    result = torch.compile(function, fullgraph=True, **options)
    try:
        result(x)
    except torch._inductor.exc.InductorError as error:
        pytest.skip(f"inductor does not work here: {error}")
    return result


@pytest.fixture
def operators(monkeypatch):
    """Seeds of all calls of fastdrop's operator."""
    from fastdrop.torch import operators

    calls = []
    apply = operators.apply
    monkeypatch.setattr(
        operators, "apply", lambda x, seed, *a: calls.append(seed) or apply(x, seed, *a)
    )
    return calls


@pytest.mark.parametrize("dynamic", [False, True])
def test_inductor_while_enabled(dynamic, operators):
    with fnn.enable():
        x = torch.ones(4, LARGE // 64, 4, 4, requires_grad=True)
        function = compiled(dropped, x, dynamic=dynamic)
        operators.clear()
        for shape in (x.shape, (8, LARGE // 64, 4, 4)):
            x = torch.ones(shape, requires_grad=True)
            first, second = results(function, x), results(function, x)
            assert all(map(torch.equal, first, second))
            y, z, _, channels, dx = first
            assert not torch.equal(y, z)
            assert 0.45 < (y == 0).float().mean() < 0.55
            assert set(channels.sum((2, 3)).unique().tolist()) == {0, 32}
            torch.manual_seed(0)
            (dy,) = torch.autograd.grad(function(x)[0].sum(), x)
            assert torch.equal(dy, y)
        assert len(set(operators)) >= 4
    assert dx.shape == x.shape


def test_small_tensors_and_other_compilers_are_pytorchs(operators):
    with fnn.enable():
        x = torch.ones(4, 4, 8, 8, requires_grad=True)
        function = compiled(dropped, x)
        results(function, x)
        x = torch.ones(4, LARGE // 64, 4, 4, requires_grad=True)
        for backend in ("eager", "aot_eager"):
            torch._dynamo.reset()
            y, z, *_ = results(torch.compile(dropped, fullgraph=True, backend=backend), x)
            assert not torch.equal(y, z)
    assert not operators


CACHED = f"""
import contextlib, sys, torch
import fastdrop.torch as fnn
from fastdrop.torch import operators
calls, apply = [], operators.apply
operators.apply = lambda *a: calls.append(1) or apply(*a)
def drop(x):
    return torch.nn.functional.dropout(x, 0.5)
def is_ours():
    torch._dynamo.reset()
    calls.clear()
    torch.compile(drop)(torch.ones({LARGE}, requires_grad=True)).sum().backward()
    return bool(calls)
for on in map(int, sys.argv[1]):
    with fnn.enable() if on else contextlib.nullcontext():
        print(is_ours() == on)
if sys.argv[1] == "01":
    fnn.enable()
    with fnn.disable():
        print(not is_ours())
        with fnn.enable():
            print(is_ours())
    print(is_ours())
    fnn.disable()
    print(not is_ours())
"""


def test_caches_on_disk_know_who_drops(tmp_path):
    compiled(lambda x: x + 1, torch.ones(3))  # or skip
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    # later processes find what the first has written; who compiles first does not decide for all
    for turns in ("101", "01", "10"):
        found = subprocess.run(
            [sys.executable, "-c", CACHED, turns], env=environment, capture_output=True, text=True
        )
        assert set(found.stdout.split()) == {"True"}, (turns, found.stdout, found.stderr)
        assert len(found.stdout.split()) >= len(turns)


def test_checkpointing_compiled(operators):
    def block(x):
        return torch.nn.functional.dropout(x.sin(), 0.5).cos()

    def function(x):
        return torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)

    with fnn.enable():
        x = torch.rand(LARGE, requires_grad=True)
        y = compiled(function, x)(x)
        (dx,) = torch.autograd.grad(y.sum(), x)
        kept = y != 1  # cos(0)
        expected = torch.where(kept, -(2 * x.sin()).sin() * 2 * x.cos(), 0)
        torch.testing.assert_close(dx, expected, rtol=1e-4, atol=2e-3)  # cos(small) is 1, too
    assert operators


def test_what_c_calls_behind_a_graph_break_is_not_compiled():
    model = torch.nn.LSTM(8, 8, 2, dropout=0.5)
    x, seen = torch.ones(3, 2, 8), []

    def broken(x):
        y = model(x)[0]
        torch._dynamo.graph_break()
        return y * 2

    def backend(graph, inputs):
        seen.append(graph)
        return graph

    counts = []
    for context in (contextlib.nullcontext, fnn.enable):
        torch._dynamo.reset()
        seen.clear()
        with context():
            torch.manual_seed(0)
            y = torch.compile(broken, backend=backend)(x)
            torch.manual_seed(0)
            assert torch.equal(y, broken(x))
        counts.append(len(seen))
    assert counts[0] == counts[1]


def test_graphs_of_exports_and_tracers_are_stock():
    from torch.fx.experimental.proxy_tensor import make_fx

    class Model(torch.nn.Module):
        def forward(self, x):
            y = dropped(x)
            return sum(y) + torch.nn.functional.dropout(x, 0.3, False)

    def graphs(x):
        program = torch.export.export(Model(), (x,))
        traced = torch.jit.trace(Model(), (x,), check_trace=False)
        return [
            str(program.graph),
            str(program.run_decompositions().graph),
            make_fx(Model())(x).code,
            make_fx(Model(), tracing_mode="symbolic")(x).code,
            [node.kind() for node in traced.inlined_graph.nodes()],
        ]

    x = torch.ones(4, 32, 32, 32)
    expected = graphs(x)
    with fnn.enable():
        assert graphs(x) == expected

"""PyTorch's tools while `enable` holds: scripts, profilers, quantisation, exports, workers."""

import multiprocessing
import os
import subprocess
import sys
import warnings
from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn

import fastdrop.torch as fnn

F = nn.functional


@pytest.fixture(autouse=True)
def pytorchs_afterwards():
    yield
    fnn.disable()


def is_on():
    return "_Elements" in str(F.dropout(torch.ones(3, requires_grad=True)).grad_fn)


def seeded(function, *arguments):
    torch.manual_seed(3)
    return function(*arguments)


def model(p=0.5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 8)).train()


def test_scripts():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = torch.jit.script(nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5)))
        x = torch.ones(8, 64)
        with fnn.enable():
            for _ in range(4):  # its executor changes its mind after a few
                y = scripted(x)
                (dx,) = torch.autograd.grad(y.sum(), scripted[0].bias)
                torch.testing.assert_close(dx, (y != 0).sum(0) * 2.0)


def test_profiler():
    """It counts what it counts otherwise, and sees who drops."""
    counts = []
    for context in (nullcontext, fnn.enable):
        net, x = model(), torch.ones(8, 64)
        with context(), torch.profiler.profile() as profile:
            net(x).sum().backward()
        counts.append({event.key: event.count for event in profile.key_averages()})
    assert all(found["aten::dropout"] == 1 and found["aten::linear"] == 2 for found in counts)
    assert "_ElementsBackward" not in counts[0]
    assert counts[1]["_ElementsBackward"] == 1


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:Please use quant_min", "ignore:torch.quantize"
)
def test_quantisation_aware_training():
    quantisation = pytest.importorskip("torch.ao.quantization")
    fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
    x, graphs, dropped = torch.ones(8, 64), [], []
    for context in (nullcontext, fnn.enable):
        with context():
            mapping = quantisation.get_default_qat_qconfig_mapping()
            prepared = fx.prepare_qat_fx(model(), mapping, (x,))
            prepared(x).sum().backward()
            prepared.apply(quantisation.disable_observer)
            dropped.append(seeded(prepared, x))
            assert torch.equal(seeded(prepared, x), dropped[-1])
            graphs.append(fx.convert_fx(prepared.eval()))
            assert torch.equal(graphs[-1](x), graphs[-1](x))
    assert graphs[0].code == graphs[1].code
    assert not torch.equal(*dropped)


def test_features_of_a_traced_model():
    """As torchvision's create_feature_extractor does it: a graph that ends at some node."""
    net, x, graphs = model(), torch.ones(8, 64), []
    for context in (nullcontext, fnn.enable):
        with context():
            traced = torch.fx.symbolic_trace(net)
            node = next(n for n in traced.graph.nodes if n.target == "2")
            output = next(n for n in traced.graph.nodes if n.op == "output")
            output.args = (node,)
            traced.graph.eliminate_dead_code()
            traced.recompile()
            graphs.append(traced)
    assert graphs[0].code == graphs[1].code
    with fnn.enable():
        y = seeded(graphs[1], x)
        assert torch.equal(y, seeded(fnn.functional.dropout, net[:2](x), 0.5))
        assert torch.equal(graphs[1].eval()(x), net[:2](x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("training", [False, True])
def test_onnx(training, tmp_path):
    pytest.importorskip("onnx", reason="needs onnx")
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
    files = []
    for name, context in (("stock", nullcontext), ("enable", fnn.enable)):
        with context():
            path = tmp_path / name
            torch.onnx.export(
                model(), (torch.ones(8, 64),), path, dynamo=False, training=mode, verbose=False
            )
            files.append(path.read_bytes())
    assert files[0] == files[1]
    assert (b"Dropout" in files[0]) == training


# ---- processes -----------------------------------------------------------------------------------


def _in_a_child(queue, x):
    """Without operations of PyTorch's on two threads: these do not survive a fork."""
    with fnn.enable():
        queue.put((is_on(), float(F.dropout(x, 0.5).numpy().mean())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("on", [False, True])
def test_forked_workers(on):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    with fnn.enable() if on else nullcontext():
        x = torch.ones(1 << 21)
        F.dropout(x, 0.5)  # threads, before the fork
        child = context.Process(target=_in_a_child, args=(queue, x))
        child.start()
        child.join(60)
    assert child.exitcode == 0
    found, mean = queue.get()
    assert found
    assert 0.99 < mean < 1.01


class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return F.dropout(torch.ones(64), 0.5)


def _enable_in_a_worker(worker):
    fnn.enable()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_data_loader_workers(method):
    """Who is forked goes on as its parent; who is not says `enable`, or has FASTDROP_TORCH=1."""

    def load(start=None):
        loader = torch.utils.data.DataLoader(
            Samples(), num_workers=2, multiprocessing_context=method, worker_init_fn=start
        )
        return torch.cat(list(loader))

    stock = seeded(load)
    with fnn.enable():
        first = seeded(load, _enable_in_a_worker)
        plain = seeded(load)
    assert torch.equal(plain, first if method == "fork" else stock)
    assert not torch.equal(first, stock)
    assert len({row.numpy().tobytes() for row in first}) == 8


THREADS = """
import os, torch
import fastdrop.torch as fnn
torch.set_num_threads(2)
x = torch.rand(1 << 22, requires_grad=True)
x.exp().sum().backward()
before = len(os.listdir("/proc/self/task"))
with fnn.enable():
    for _ in range(3):
        y = torch.nn.functional.dropout(x, 0.1)
        y.backward(y)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are not counted here")
def test_kernels_run_on_the_threads_of_pytorch():
    """Which are awake, and would keep others from the cores."""
    found = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    assert found.stdout == "0\n", found.stderr

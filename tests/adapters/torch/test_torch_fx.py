"""torch.fx and what is built on it: layers stay whole, so that eval() reaches them."""

import copy
import io
import pickle

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch import nn

import fastdrop.torch as fnn

SHAPES = {"Dropout1d": (2, 8, 4), "Dropout3d": (2, 8, 4, 4, 4)}  # of the others: (2, 8, 4, 4)
OURS_TOO = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]
OURS_ALONE = ["DropPath", "GaussianDropout", "DropBlock2d"]
ALL = [*OURS_TOO, *OURS_ALONE]


def make(name, *arguments):
    return getattr(fnn, name)(*arguments or ((0.5, 3) if name == "DropBlock2d" else (0.5,)))


def example(name):
    return torch.ones(SHAPES.get(name, (2, 8, 4, 4)))


def copied_through_torch_save(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def as_of_an_earlier_version(layer):
    """A pickle from before layers told torch.fx anything."""
    constructor, arguments, state = layer.__reduce_ex__(2)[:3]
    old = constructor(*arguments)
    old.__setstate__({name: value for name, value in state.items() if name[:2] != "__"})
    return old


MADE = {
    "as made": lambda layer: layer,
    "copied": copy.copy,
    "deep copy": copy.deepcopy,
    "pickled": lambda layer: pickle.loads(pickle.dumps(layer)),
    "torch.save": copied_through_torch_save,
    "earlier version": as_of_an_earlier_version,
}


def is_dropped_in_eval(traced, x):
    """Does anything change, in any of ten calls? (All do so with a probability above 1/2.)"""
    traced.eval()
    return any(not torch.equal(traced(x), x) for _ in range(10))


@pytest.mark.parametrize("way", MADE)
@pytest.mark.parametrize("name", ALL)
def test_layers_are_leaves(name, way):
    model = nn.Sequential(nn.ModuleDict({"inner": MADE[way](make(name))})["inner"])
    traced = torch.fx.symbolic_trace(model)
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
    x = example(name)
    assert any(not torch.equal(traced(x), x) for _ in range(50))
    assert not is_dropped_in_eval(traced, x)
    again = torch.fx.symbolic_trace(pickle.loads(pickle.dumps(traced)).train())
    assert not is_dropped_in_eval(again, x)


@pytest.mark.parametrize("name", OURS_TOO)
def test_converted_and_reverted_layers_are_leaves(name):
    model = nn.Sequential(nn.Sequential(getattr(nn, name)(0.5)), nn.Identity())
    before = set(vars(model[0][0]))
    for change in (fnn.convert, fnn.revert):
        assert change(model) == ["0.0"]
        for training in (True, False):
            traced = torch.fx.symbolic_trace(model.train(training))
            assert [node.op for node in traced.graph.nodes].count("call_module") == 2
            assert not is_dropped_in_eval(traced, example(name))
    assert set(vars(model[0][0])) == before


def test_a_traced_model_can_be_converted():
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Dropout(0.5)).train())
    assert fnn.convert(traced) == ["0"]
    assert not is_dropped_in_eval(torch.fx.symbolic_trace(traced), example("Dropout"))


# What is built on torch.fx uses what PyTorch has deprecated.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", [nn.Dropout, fnn.Dropout])
def test_remove_dropout(kind):
    from torch.fx.experimental.optimization import remove_dropout

    model = nn.Sequential(nn.Linear(64, 64), nn.Sequential(kind(0.5)), nn.Linear(64, 64)).train()
    fnn.convert(model)
    removed = remove_dropout(model)
    assert not any(isinstance(module, nn.Dropout) for module in removed.modules())
    assert [node.target for node in removed.graph.nodes] == ["input", "0", "2", "output"]
    x = torch.ones(4, 64)
    assert torch.equal(removed(x), removed(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Please use quant_min")
@pytest.mark.parametrize("qat", [False, True])
def test_quantisation(qat):
    quantisation = pytest.importorskip("torch.ao.quantization")
    fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
    model = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), nn.Linear(64, 8)).train()
    fnn.convert(model)
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    if qat:
        mapping = quantisation.get_default_qat_qconfig_mapping()
        prepared = fx.prepare_qat_fx(model, mapping, (x,))
        prepared(x)
        prepared.apply(quantisation.disable_observer)
        assert not torch.equal(prepared(x), prepared(x))
    else:
        mapping = quantisation.get_default_qconfig_mapping()
        prepared = fx.prepare_fx(model.eval(), mapping, (x,))
    prepared.eval()
    assert torch.equal(prepared(x), prepared(x))


@pytest.mark.parametrize("name", OURS_TOO)
def test_subclasses_are_traced_as_torchs(name):
    """Whose forward may be their own: torch.fx traces what it does."""
    graphs = []
    for module in (nn, fnn):

        class Same(getattr(module, name)):
            pass

        class Twice(getattr(module, name)):
            def forward(self, input):
                return super().forward(input) * 2

        model = nn.Sequential(Same(0.25), Twice(0.25).eval())
        nodes = torch.fx.symbolic_trace(model).graph.nodes
        graphs.append([(node.op, node.target, node.kwargs) for node in nodes])
    assert graphs[0] == graphs[1]


@pytest.mark.parametrize("name", OURS_ALONE)
def test_subclasses_of_relatives_are_traced(name):
    class Twice(getattr(fnn, name)):
        def forward(self, input):
            return super().forward(input) * 2

    x = example(name)
    layer = Twice(0.5, 3) if name == "DropBlock2d" else Twice(0.5)
    for training in (True, False):
        traced = torch.fx.symbolic_trace(nn.Sequential(layer.train(training)))
        results = []
        for function in (traced, layer):
            torch.manual_seed(0)
            results.append(function(x))
        assert torch.equal(*results)


@pytest.mark.parametrize(
    "name",
    ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"],
)
def test_functions_are_traced_as_torchs(name):
    class Model(nn.Module):
        def forward(self, x):
            return getattr(nn.functional, name)(x, 0.25, self.training)

    graphs = [torch.fx.symbolic_trace(Model())]
    with fnn.enable():
        graphs.append(torch.fx.symbolic_trace(Model()))
    nodes = [[(node.op, node.name, node.kwargs) for node in g.graph.nodes] for g in graphs]
    assert nodes[0] == nodes[1]
    x = torch.ones({"dropout1d": (2, 8, 4), "dropout3d": (2, 8, 4, 4, 4)}.get(name, (2, 8, 4, 4)))
    torch.manual_seed(0)
    with fnn.enable():
        y = graphs[1](x)
    torch.manual_seed(0)
    assert torch.equal(y, getattr(fnn.functional, name)(x, 0.25, True))

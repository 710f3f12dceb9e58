"""fastdrop.torch under DistributedDataParallel: two ranks on this machine, with gloo."""

import copy
from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

import torch.distributed as dist
from torch import nn

import fastdrop.torch as fnn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available(), reason="PyTorch is built without distributed"),
]

RANKS = 2
SEEDS = [(7, 7), (7, 8)]  # of each rank in each step: equal, different
KINDS = ["torch.nn", "fastdrop.torch", "enable"]


def make_model(kind):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 4), nn.Dropout(0.1)
    )
    if kind == "fastdrop.torch":
        assert fnn.convert(model) == ["2", "4"]
    return model


def context(kind):
    return fnn.enable() if kind == "enable" else nullcontext()


def mask_and_gradients(model, dropout, seed, rank):
    """What a dropout layer keeps in a step on a rank's batch, and all gradients."""
    kept = []
    hook = dropout.register_forward_hook(lambda module, inputs, y: kept.append(y.detach() != 0))
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(rank))
    torch.manual_seed(seed)
    model.zero_grad()
    model(x).square().sum().backward()
    hook.remove()
    return kept[0], [p.grad.clone() for p in model.parameters()]


def train(rank, folder):
    """One rank: two steps with each library's dropout; what came out, to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=RANKS)
    found = {}
    try:
        for kind in KINDS:
            model = make_model(kind)
            with torch.no_grad():  # DDP gives all ranks the first's parameters and buffers
                for tensor in (*model.parameters(), model[1].running_mean):
                    tensor.add_(rank)
            parallel = nn.parallel.DistributedDataParallel(model)
            with context(kind):
                steps = [
                    mask_and_gradients(parallel, model[2], seeds[rank], rank) for seeds in SEEDS
                ]
            found[kind] = *zip(*steps), model.state_dict()
    finally:
        dist.destroy_process_group()
    torch.save(found, f"{folder}/{rank}")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """(masks of the steps, gradients of the steps, final state) by library, for each rank."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(train, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / str(rank)) for rank in range(RANKS)]


@pytest.mark.parametrize("kind", KINDS)
def test_masks_follow_each_ranks_seed(ranks, kind):
    (masks, _, _), (others, _, _) = (found[kind] for found in ranks)
    assert torch.equal(masks[0], others[0])
    assert not torch.equal(masks[1], others[1])


@pytest.mark.parametrize("kind", KINDS)
def test_as_in_one_process(ranks, kind):
    """Gradients are the mean of the ranks', buffers the first's, and then each rank's own."""
    model = make_model(kind)
    for step, seeds in enumerate(SEEDS):
        models = [copy.deepcopy(model) for _ in range(RANKS)]
        gradients = []
        for rank, alone in enumerate(models):
            with context(kind):
                mask, own = mask_and_gradients(alone, alone[2], seeds[rank], rank)
            assert torch.equal(mask, ranks[rank][kind][0][step])
            gradients.append(own)
        for a, b, *means in zip(*gradients, *(found[kind][1][step] for found in ranks)):
            assert torch.equal(*means)
            torch.testing.assert_close((a + b) / 2, means[0])
        model = models[0]
    for alone, found in zip(models, ranks):
        torch.testing.assert_close(found[kind][2], alone.state_dict())


def test_whose_masks_they_are(ranks):
    stock, converted, enabled = (ranks[0][kind][0] for kind in KINDS)
    for a, b, c in zip(stock, converted, enabled):
        assert torch.equal(b, c)
        assert not torch.equal(a, b)

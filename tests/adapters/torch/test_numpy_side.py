"""PyTorch's tensors, loaders and workers beside functions of NumPy's arrays and the trainer."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")

from torch.utils.data import DataLoader, Dataset, IterableDataset

import fastdrop
from fastdrop import Generator, Key, layers
from fastdrop.models import Sequential
from fastdrop.random import default_generator

X = np.linspace(1, 2, 8, dtype=np.float32).reshape(4, 2)


def test_tensors_that_numpy_reads_are_arrays():
    tensor = torch.from_numpy(X.copy())
    key = Key(1)
    for given in (tensor, list(tensor)):
        np.testing.assert_array_equal(
            fastdrop.dropout(given, key=key), fastdrop.dropout(X, key=key)
        )


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda x: x.requires_grad_(), "detach"),
        (lambda x: x.bfloat16(), "BFloat16"),
        (lambda x: x.to("meta"), "meta"),
        (lambda x: x.to_sparse(), "to_dense"),
    ],
)
def test_other_tensors_are_refused(change, hint):
    tensor = change(torch.from_numpy(X.copy()))
    model = Sequential([layers.Dense(1, input_shape=(2,))])
    model.compile("sgd", "mse")
    for given in (tensor, [tensor, tensor]):
        for call in (
            lambda given=given: fastdrop.dropout(given, key=Key(1)),
            lambda given=given: model.fit(given, np.ones(4), verbose=0),
            lambda given=given: model.predict(given, verbose=0),
        ):
            with pytest.raises(ValueError, match=f"^x: expected an array, got .*{hint}") as error:
                call()
            assert len(str(error.value)) <= 200


class Draws(Dataset):
    """What is drawn in a worker, as numbers."""

    def __init__(self):
        self.generator = Generator()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        seeds = self.generator.next_key().seed, default_generator.next_key().seed, Sequential().seed
        return torch.tensor([seed >> 1 for seed in seeds])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_of_a_loader_draw_apart():
    before = default_generator.__getstate__()
    default_generator.__setstate__(Generator().__getstate__())
    try:
        draws = Draws()
        first, second = DataLoader(draws, 2, num_workers=2, multiprocessing_context="fork")
        apart = first[0] != second[0]
        own = (draws.generator.seed >> 1) != first[:, 0]
        assert apart.all()
        assert own.all()
        fastdrop.seed(3)
        first, second = DataLoader(draws, 2, num_workers=2, multiprocessing_context="fork")
        assert (first[0] != second[0]).tolist() == [True, False, False]
    finally:
        default_generator.__setstate__(before)


class Stream(IterableDataset):
    def __iter__(self):
        return ((torch.from_numpy(x), torch.ones(1)) for x in np.tile(X, (4, 1)))


@pytest.mark.parametrize("known", [False, True])
def test_a_loader_of_a_stream(known):
    class Known(Stream):
        def __len__(self):
            return 16

    def trained(x):
        model = Sequential([layers.Dense(1, input_shape=(2,))], seed=0)
        model.compile("sgd", "mse")
        figures = model.fit(x, epochs=2, verbose=0, validation_data=x, validation_steps=3).history
        return figures, model.predict(x, verbose=0).tolist()

    batches = [(X, np.ones((4, 1)))] * 4
    assert trained(DataLoader(Known() if known else Stream(), 4)) == trained(batches)

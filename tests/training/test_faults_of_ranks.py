"""Training over MPI when something is wrong on one rank: none goes on, and none waits for ever."""

import json
import os
import re
from types import SimpleNamespace

import mpi_faults
import pytest
from launching import finish, mpiexec, needs_mpi

pytestmark = needs_mpi
SECONDS = 30  # each ends before; most within one
# that each fault is tried: tools/mpi-faults, which tries all of them on two and on three ranks
TIMES = int(os.environ.get("FASTDROP_FAULTS", "1"))


# Errors that one rank has for itself

EVERYWHERE = list(mpi_faults.failures(SimpleNamespace(rank=1), 1))
ON_RANK_0 = [
    kind for kind in mpi_faults.failures(SimpleNamespace(rank=0), 0) if kind not in EVERYWHERE
]
QUICK = {
    "RuntimeError in a callback",
    "SystemExit without a fault in a callback",
    "on_train_end",
    "data",
    "evaluate in a callback that goes on",
}


def kinds():
    """Each kind on two ranks; on three, where two ranks wait, the quick ones, or all of them."""
    for kind in [*EVERYWHERE, *ON_RANK_0]:
        for ranks in (2, 3) if kind in QUICK or TIMES > 1 else (2,):
            marks = () if kind in QUICK and ranks == 2 else pytest.mark.slow
            yield pytest.param(kind, ranks, marks=marks, id=f"{kind}, {ranks}")


@pytest.mark.parametrize(("kind", "ranks"), list(kinds()))
def test_no_rank_runs_on_behind_an_error(tmp_path, kind, ranks):
    for time in range(TIMES):
        rank = 0 if kind in ON_RANK_0 else (time - 1) % ranks
        way = (["-m", "mpi4py"], [])[time % 2]  # those of docs/how-to/mpi.md and many scripts
        program = mpiexec(ranks, *way, mpi_faults.__file__, kind, rank)
        status, out, error = finish(program, SECONDS)
        assert status == mpi_faults.STATUS.get(kind, 1), error
        assert "has left" not in out
        if kind != "closed streams":
            assert f"rank {rank} has failed, and ends all ranks" in error
            assert re.search(
                "boom|SystemExit: |UnprintableError|every_rank = True|y: expected", error
            )


@pytest.mark.parametrize("kind", ["RuntimeError in a callback", "data"])
def test_errors_of_a_single_rank_are_raised(kind):
    status, out, error = finish(mpiexec(1, mpi_faults.__file__, kind, 0), SECONDS)
    assert status == 1
    assert out == "rank 0 has left\n"
    assert error.splitlines()[-1] == "RuntimeError: boom"


# Ranks that differ

EQUAL = "expected the same on every rank, got"
TOLD = {
    "fewer batches": "samples of batch 4 of epoch 1: {equal} 16 on rank 0 and no batch on",
    "more batches": "samples of batch 5 of epoch 1: {equal} no batch on rank 0 and 16 on",
    "no batch in the second epoch": "x: expected batches in epoch 2, got none",
    "fewer batches in the second epoch": "samples of batch 2 of epoch 2: {equal} 16",
    "a batch of fewer rows": "samples of batch 3 of epoch 1: {equal} 16 on rank 0 and 15 on",
    "a batch of more rows": "samples of batch 3 of epoch 1: {equal} 16 on rank 0 and 64 on",
    "other rows": "x.checksum of batch 1 of epoch 1: {equal}",
    "other rows in the third batch": "x.checksum of batch 3 of epoch 1: {equal}",
    "one number": "x.checksum of batch 3 of epoch 1: {equal}",
    "a float's last bit": "x.checksum of batch 3 of epoch 1: {equal}",
    "other labels": "y.checksum of batch 3 of epoch 1: {equal}",
    "another dtype": "x.dtype of batch 3 of epoch 1: {equal} float32 on rank 0 and float64 on",
    "another dtype of labels": "y.dtype of batch 3 of epoch 1: {equal} int64 on rank 0 and uint8",
    "another shape": "x, batch 3 of epoch 1: expected shape (samples, 4), got (16, 3)",
    "labels of another shape": "x, batch 3 of epoch 1: expected (x, y) with a label for each",
    "no finite number": "x, batch 3 of epoch 1: expected finite numbers",
    "weights on one rank": "sample_weight.shape.0 of batch 1 of epoch 1: {equal} None on rank 0",
    "other weights": "sample_weight.checksum of batch 1 of epoch 1: {equal}",
    "shards": "x.checksum of batch 1 of epoch 1: {equal}",
    "shards of batches": " of batch 1 of epoch 1: {equal}",
    "validation, fewer batches": "samples of batch 4 of validation, epoch 1: {equal} 16",
    "validation, no batch in the second epoch": "validation_data: expected batches in validation, "
    "epoch 2, got none",
    "validation, other rows": "x.checksum of batch 3 of validation, epoch 1: {equal}",
    "validation, another shape": "validation_data, batch 3 of validation, epoch 1: expected shape",
    "validation, samples": "validation data.x.shape.0: {equal} 64 on rank 0 and 63 on rank {odd}",
    "validation, labels": "validation data.y.checksum of some samples: {equal}",
    "evaluate, fewer batches": "samples of batch 4 of this call: {equal} 16 on rank 0 and no batch",
    "evaluate, other rows": "x.checksum of batch 3 of this call: {equal}",
    "evaluate, a shape": "x, batch 3 of this call: expected shape (samples, 4), got (16, 3)",
    "a generator that ends early": "x: expected 3 batches in epoch 3, got 2",
    "steps_per_epoch": "training data.steps: {equal} 4 on rank 0 and 3 on rank {odd}",
    "array, samples": "training data.x.shape.0: {equal} 64 on rank 0 and 63 on rank {odd}",
    "array, order": "training data.x.checksum of some samples: {equal}",
    "array, labels": "training data.y.checksum of some samples: {equal}",
    "array, one number": "training data.x.checksum of some samples: {equal}",
    "array, one of many numbers": "training data.x.checksum of some samples: {equal}",
    "array, columns": "training data.x.checksum of some samples: {equal}",
    "array, dtype": "training data.x.dtype: {equal} float32 on rank 0 and float64 on rank {odd}",
    "array, weights": "training data.sample_weight.checksum of some samples: {equal}",
    "array, weights on one rank": "training data.sample_weight.shape.0: {equal} None on rank 0 and",
    "array, shards": "training data.x.",
    "array, shards on disk": "training data.x.",
    "array, another on disk": "training data.x.checksum of some samples: {equal}",
    "array, its validation": "training data.x.shape.0: {equal} 32 on rank 0 and 48 on rank {odd}",
    "array and batches": "training data.",
    "evaluate, array": "data.x.checksum of some samples: {equal}",
    "evaluate, labels": "data.y.checksum of some samples: {equal}",
    "rank 0 changes p, on_train_batch_end": "model.layers.1.config.p: {equal} 0.1 on rank 0",
    "rank 0 changes p, on_epoch_begin": "model.layers.1.config.p: {equal} 0.1 on rank 0 and 0.5 on",
    "rank 0 changes trainable, on_train_batch_end": "model.layers.0.config.trainable: {equal}",
    "rank 0 changes trainable, on_epoch_begin": "model.layers.0.config.trainable: {equal} False on",
    "fit and evaluate": "comm: expected all ranks at the same place, got rank 0 at the start",
}


@pytest.mark.parametrize(
    "ranks", [1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4))]
)
def test_ranks_that_differ_are_told(tmp_path, ranks):
    program = mpiexec(ranks, mpi_faults.__file__, "uneven", tmp_path, TIMES)
    status, _, error = finish(program, SECONDS * TIMES)
    assert status == 0, error
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks)]
    assert set(told[0]) == set(TOLD)
    if ranks == 1:  # which cannot differ
        return
    for kind, message in TOLD.items():
        for time in range(TIMES):
            odd = mpi_faults.odd(time, ranks)
            if odd > 0:
                expected = message.format(equal=EQUAL, odd=odd)
            else:  # the others differ from rank 0
                expected = message.partition("{equal}")[0]
            for rank in range(ranks):
                name, _, text = told[rank][kind][time].partition(": ")
                assert name == ("RankError" if text.startswith("rank ") else "ValueError")
                assert expected in text
                assert len(text) <= 200 + len("rank 1: ")
                assert text.isprintable()

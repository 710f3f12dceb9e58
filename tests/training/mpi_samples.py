"""Predictions that are the same in one process and on each rank: `python mpi_samples.py folder`."""

import sys
from pathlib import Path

import numpy as np

from fastdrop.layers import BatchNormalization, Dense, Dropout, GaussianDropout, Residual
from fastdrop.models import Sequential

X = np.random.default_rng(0).normal(size=(203, 6)).astype(np.float32)
CASES = {  # by name: layers behind the first, and options
    "mlp": ([Dropout(0.5), Dense(9, "relu"), Dropout(0.2)], {}),
    "small batches": ([Dropout(0.5)], {"batch_size": 2}),
    "quantiles": ([Dropout(0.5)], {"quantiles": [0.1, 0.9], "return_samples": True}),
    "residual": ([Residual([BatchNormalization(), Dense(20), Dropout(0.3)])], {}),
    "gaussian": ([GaussianDropout(0.3)], {"batch_size": 70}),
    "consistent": ([Dropout(0.5), Dense(9), Dropout(0.2)], {"consistent": True}),
    "no seed": ([Dropout(0.5)], {"seed": None}),
}


def predictions(comm):
    found = {}
    for name, (layers, options) in CASES.items():
        stack = [Dense(20, "relu", input_shape=(6,)), *layers, Dense(3, "softmax")]
        model = Sequential(stack, seed=1)
        given = {"seed": 5, "verbose": 0, "comm": comm, **options}
        prediction = model.predict_mc(X, 20, **given)
        for figure in ("mean", "std", "mutual_information", "variation_ratio"):
            found[f"{name}/{figure}"] = getattr(prediction, figure)
        if prediction.samples is not None:
            found[f"{name}/samples"], found[f"{name}/quantiles"] = (
                prediction.samples,
                prediction.quantiles,
            )
    return found


if __name__ == "__main__":
    from mpi4py import MPI

    np.savez(Path(sys.argv[1]) / f"{MPI.COMM_WORLD.rank}.npz", **predictions(MPI.COMM_WORLD))

"""What the examples for PyTorch share: train twice, with torch.nn's dropout and fastdrop's."""

import argparse
import statistics
import time

import torch

import fastdrop.torch as fnn


def arguments(description, steps):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=steps, help="training steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and masks (%(default)s)")
    return parser.parse_args()


def train(model, x, y, steps, batch_size=128):
    """Train; return the seconds of each step. Targets are classes, on the last axis but one."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    order = torch.Generator().manual_seed(0)
    times = []
    for _ in range(steps):
        rows = torch.randint(len(x), (batch_size,), generator=order)
        start = time.perf_counter()
        optimizer.zero_grad()
        logits = model(x[rows])
        torch.nn.functional.cross_entropy(logits.flatten(0, -2), y[rows].flatten()).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return times


def accuracy(model, x, y):
    model.eval()
    with torch.inference_mode():
        return (model(x).argmax(-1) == y).float().mean().item()


def compare(build, data, steps, seed):
    """Train what `build` returns with each dropout, from the same weights; print a table."""
    x_train, y_train, x_test, y_test = data
    print(f"{steps} steps        ms per step   test accuracy")
    for name in ("torch.nn", "fastdrop.torch"):
        torch.manual_seed(seed)
        model = build()
        if name == "fastdrop.torch":
            fnn.convert(model)
        times = train(model, x_train, y_train, steps)
        ms = statistics.median(times) * 1e3
        print(f"{name:16} {ms:10.2f} {accuracy(model, x_test, y_test):15.4f}")


def digits():
    """Images (n, 8, 8) in [0, 1] and their classes, the last 400 for testing."""
    from fastdrop.datasets import load_digits

    images, labels = map(torch.from_numpy, load_digits())
    x, y = images.float() / 16, labels.long()
    return x[:-400], y[:-400], x[-400:], y[-400:]

"""A small GPT-2 that learns digits by heart: python examples/torch_transformers.py

The model comes from the transformers library (pip install 'fastdrop-nn[examples]'), made from its
configuration. It is trained with PyTorch's dropout and with fastdrop's, a step in turn. It takes
one line, fastdrop.torch.enable(). No layer changes, and all dropout is reached, even attention's.
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import transformers

import fastdrop.torch as fnn
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder
from fastdrop.datasets import load_digits

SIDES = {"torch.nn": nullcontext, "enable": fnn.enable}
TABLE = "torch_transformers.md"
BATCH, GREYS = 32, 17


def build():
    config = transformers.GPT2Config(
        vocab_size=GREYS,
        n_positions=64,
        n_embd=128,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config)


def images():
    """Return images (n, 64) of grey levels 0 to 16; the last 400 are for testing."""
    pixels = torch.from_numpy(load_digits()[0]).long().flatten(1)
    return pixels[:-400], pixels[-400:]


def train(seed, steps, times):
    """Train each side's model from the same weights on the same batches; return test losses."""
    known, unknown = images()
    models, optimizers = {}, {}
    for side in SIDES:
        torch.manual_seed(seed)
        models[side] = build()
        optimizers[side] = torch.optim.AdamW(models[side].parameters(), 1e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = known[torch.randint(len(known), (BATCH,), generator=order)]
        for side, context in SIDES.items():
            with context():
                start = time.perf_counter()
                optimizers[side].zero_grad()
                models[side](input_ids=batch, labels=batch).loss.backward()
                optimizers[side].step()
                times[side].append(time.perf_counter() - start)
    losses = {}
    for side, model in models.items():
        with torch.inference_mode():
            losses[side] = model.eval()(input_ids=unknown, labels=unknown).loss.item()
    return losses


def table(steps, times, losses):
    lines = [
        f"{__doc__.splitlines()[0]}. PyTorch {torch.__version__}, transformers "
        f"{transformers.__version__}, {torch.get_num_threads()} threads; {steps} steps of {BATCH}, "
        f"{len(losses['enable'])} trainings of each.",
        "",
        "| dropout | ms per step, median | times | test loss, mean (least - most) |",
        "|---|---:|---:|---:|",
    ]
    ms = {side: statistics.median(seconds) * 1e3 for side, seconds in times.items()}
    for side, found in losses.items():
        lines.append(
            f"| {side} | {ms[side]:.2f} | {ms['torch.nn'] / ms[side]:.2f} "
            f"| {statistics.mean(found):.4f} ({min(found):.4f} - {max(found):.4f}) |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="training steps (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder for the table; none by default")
    options = parser.parse_args()
    out = options.out and results_folder(options.out, (TABLE,))
    transformers.logging.set_verbosity_error()
    times, losses = {side: [] for side in SIDES}, {side: [] for side in SIDES}

    def one(_, number):
        for side, loss in train(number, options.steps, times).items():
            losses[side].append(loss)

    keep(
        [("trainings", None)],
        options.seeds,
        one,
        lambda missing: {TABLE: table(options.steps, times, losses)} if losses["enable"] else {},
        out,
    )


if __name__ == "__main__":
    main()

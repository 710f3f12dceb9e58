"""What `fastdrop.torch.enable` gains for models of the transformers library, and for small calls.

    python benchmarks/torch_enable.py --out docs/bench

A step is forward, backward and AdamW. PyTorch's dropout, fastdrop's, copies in place of dropout,
and no dropout (p = 0) take turns in one process, and the figures are medians. The step without
dropout shows how much time there is to save, and "saved" is the share of it that fastdrop saves.
Copies save what the quickest dropout could: they write as many elements, forward and backward,
except in attention, which has no dropout there. Inductor would remove them. This writes
torch_enable.md. It needs transformers (pip install 'fastdrop-nn[examples]').
"""

import argparse
import statistics
import sys
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
import transformers
from torch._inductor.compile_fx import compile_fx
from transformers.models.swin.modeling_swin import SwinDropPath

import fastdrop.torch as fnn
from fastdrop.commands.bench.keep import keep
from fastdrop.commands.bench.machine import results_folder

TABLE = "torch_enable.md"
WORDS = 1000
SIDES = ("torch.nn", "enable", "copies", "p = 0")


class Copy(torch.autograd.Function):
    """A copy, also of the gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return dy.clone()


@contextmanager
def copies():
    """Let PyTorch's layers and functions copy where they would drop."""
    dropout = torch.nn.functional.dropout
    torch.nn.functional.dropout = lambda x, *rest, **options: Copy.apply(x)
    try:
        yield
    finally:
        torch.nn.functional.dropout = dropout


DROPOUTS = {"enable": fnn.enable, "copies": copies}


def bert(p):
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        hidden_dropout_prob=p,
        attention_probs_dropout_prob=p,
    )
    return transformers.BertForMaskedLM(config)


def gpt2(p):
    config = transformers.GPT2Config(
        vocab_size=WORDS,
        n_embd=256,
        n_layer=4,
        n_head=4,
        resid_pdrop=p,
        embd_pdrop=p,
        attn_pdrop=p,
        bos_token_id=0,
        eos_token_id=1,
    )
    return transformers.GPT2LMHeadModel(config)


def bart(p):
    config = transformers.BartConfig(
        vocab_size=WORDS,
        d_model=256,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        dropout=p,
        attention_dropout=p,
        activation_dropout=p,
    )
    return transformers.BartForConditionalGeneration(config)


# how the model is built, the batch, the length, whether it is compiled
MODELS = {
    "BERT 4 x 256, batch 16 x 128": (bert, 16, 128, False),
    "the same, torch.compile": (bert, 16, 128, True),
    "GPT-2 4 x 256, batch 8 x 256": (gpt2, 8, 256, False),
    "BART 2 + 2 x 256, batch 16 x 128": (bart, 16, 128, False),
}


class Training:
    """A model with each side's dropout, and the seconds of their steps."""

    def __init__(self, build, batch, length, compiled):
        torch.manual_seed(0)
        self.words = torch.randint(2, WORDS, (batch, length))
        sides = [side for side in SIDES if side != "copies" or not compiled]
        self.steps = {side: self._step(build, side, compiled) for side in sides}
        self.times = {side: [] for side in sides}
        self.turn(untimed=2)

    def _step(self, build, side, compiled):
        torch.manual_seed(1)
        model = build(0.0 if side in ("p = 0", "copies") else 0.1).train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
        forward = model
        if compiled:  # by a backend of its own, or a side would run what was compiled for another
            forward = torch.compile(model, backend=lambda *x: compile_fx(*x), dynamic=False)

        def step():
            optimizer.zero_grad()
            forward(input_ids=self.words, labels=self.words).loss.backward()
            optimizer.step()

        return step

    def turn(self, untimed=0):
        for side, step in self.steps.items():
            with DROPOUTS.get(side, nullcontext)():
                for _ in range(untimed):
                    step()
                start = time.perf_counter()
                step()
                if not untimed:
                    self.times[side].append(time.perf_counter() - start)


class Calls:
    """A call, forward and backward, by each side; each turn takes a tenth of a second."""

    def __init__(self, x, sides):
        self.x, self.sides = x.requires_grad_(), sides
        self.dy = torch.ones_like(x)
        self.times = {side: [] for side in sides}

    def turn(self):
        for side, (function, context) in self.sides.items():
            with context():
                function(self.x).backward(self.dy)
                end = time.perf_counter() + 0.1
                while time.perf_counter() < end:
                    self.x.grad = None
                    start = time.perf_counter()
                    function(self.x).backward(self.dy)
                    self.times[side].append(time.perf_counter() - start)


def calls():
    """Return layers of few elements, and one that drops whole samples, beside a plain product."""
    found = {}
    for elements in (1 << 10, 1 << 14):
        for p in (0.5, 0.1):
            layer = torch.nn.Dropout(p)
            sides = {"torch.nn": (layer, nullcontext), "enable": (layer, fnn.enable)}
            found[f"Dropout({p:g}), {elements} elements"] = partial(
                Calls, torch.rand(elements), sides
            )
    sides = {
        "x * 2": (lambda x: x * 2, nullcontext),
        "DropPath": (SwinDropPath(0.1), nullcontext),
    }
    found["DropPath(0.1), 16 x 64 x 1024 elements"] = partial(
        Calls, torch.rand(16, 64, 1024), sides
    )
    return found


def table(models, small):
    ms = {
        name: {side: statistics.median(times) * 1e3 for side, times in training.times.items()}
        for name, training in models.items()
    }
    lines = [
        f"PyTorch {torch.__version__}, transformers {transformers.__version__}, "
        f"{torch.get_num_threads()} threads, float32. Steps with AdamW, ms, medians.",
        "",
        f"| model | {' | '.join(SIDES)} | torch.nn / enable | torch.nn / p = 0 | saved "
        "| copies save |",
        "|---|" + "---:|" * (len(SIDES) + 4),
    ]
    for name, of in ms.items():
        stock, ours, none = of["torch.nn"], of["enable"], of["p = 0"]
        saved = [
            f"{(stock - of[side]) / (stock - none):.0%}" if side in of and stock > none else "-"
            for side in ("enable", "copies")
        ]
        cells = [f"{of[side]:.1f}" if side in of else "-" for side in SIDES]
        cells += [f"{stock / ours:.2f}", f"{stock / none:.2f}", *saved]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Forward and backward, microseconds, medians.",
        "",
        "| call | beside | us | | us | ratio |",
        "|---|---|---:|---|---:|---:|",
    ]
    for name, of in small.items():
        (a, first), (b, second) = (
            (side, statistics.median(times) * 1e6) for side, times in of.times.items()
        )
        lines.append(f"| {name} | {a} | {first:.1f} | {b} | {second:.1f} | {second / first:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, nargs="+", default=list(range(len(MODELS))))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of the table; none by default")
    options = parser.parse_args()
    out = options.out and results_folder(options.out, (TABLE,))
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    makers = {name: partial(Training, *MODELS[name]) for name in MODELS}
    makers = {name: makers[name] for i, name in enumerate(MODELS) if i in options.models}
    models, small = {}, {}

    def turn(name, number):
        place, made = (models, makers) if name in makers else (small, few)
        if name not in place:
            place[name] = made[name]()
        place[name].turn()

    few = calls()
    steps = [(name, name) for name in (*makers, *few)]
    return keep(
        steps,
        options.rounds,
        turn,
        lambda missing: {TABLE: table(models, small)} if models or small else {},
        out,
    )


if __name__ == "__main__":
    sys.exit(main())

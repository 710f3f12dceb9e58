"""An LSTM that learns to guess the next character of a text: python examples/torch_lstm.py

torch.nn.LSTM(dropout=) drops inside PyTorch's C++ code, where `convert` does not reach, although
`enable` does. So this network has two LSTM layers with a Dropout between them.
"""

from pathlib import Path

import torch
from torch import nn
from torch_compare import compare

LENGTH = 32


class Writer(nn.Module):
    def __init__(self, characters, width=128):
        super().__init__()
        self.embed = nn.Embedding(characters, width)
        self.lstms = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(2))
        self.dropouts = nn.ModuleList(nn.Dropout(0.2) for _ in range(3))
        self.classify = nn.Linear(width, characters)

    def forward(self, x):
        x = self.dropouts[0](self.embed(x))
        for lstm, dropout in zip(self.lstms, self.dropouts[1:]):
            x = dropout(lstm(x)[0])
        return self.classify(x)


def texts():
    """Return pieces of this project's text and their next characters, the last tenth for tests."""
    folder = Path(__file__).parents[1]
    pages = [folder / "README.md", *sorted(folder.glob("docs/*/*.md"))]
    text = "".join(path.read_text() for path in pages)
    characters = sorted(set(text))
    codes = torch.tensor([characters.index(c) for c in text])
    x = codes[:-1].unfold(0, LENGTH, 8)
    y = codes[1:].unfold(0, LENGTH, 8)
    split = len(x) * 9 // 10
    return len(characters), (x[:split], y[:split], x[split:], y[split:])


if __name__ == "__main__":
    characters, data = texts()
    compare(lambda: Writer(characters), data, __doc__)

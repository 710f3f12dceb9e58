"""A small transformer encoder that reads digits, row by row: python examples/torch_transformer.py

`convert` finds the dropout layers inside torch.nn.TransformerEncoderLayer; `enable` would reach
attention's own dropout, too.
"""

import torch
from torch import nn
from torch_compare import compare, digits


class Reader(nn.Module):
    def __init__(self, width=128):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.zeros(8, width))
        self.dropout = nn.Dropout(0.1)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classify = nn.Linear(width, 10)

    def forward(self, rows):
        tokens = self.dropout(self.embed(rows) + self.position)
        return self.classify(self.encoder(tokens).mean(1))


if __name__ == "__main__":
    compare(Reader, digits(), __doc__)

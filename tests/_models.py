"""Tiny torch models whose right answers are worked out by hand; imported by tests as ``from _models import ...``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TwoConcepts(nn.Module):
    """One linear layer ``mix``, two units, on the mean colour of each quarter of a (3, 4, 4) image: tokens (N, 4, 3).

    Unit 0 = 2 r + 3 g - 1 answers to red and to green alike, so it splits into two; unit 1 = b answers to blue only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 2)
        self.num_classes = 2
        with torch.no_grad():
            self.mix.weight.copy_(torch.tensor([[2.0, 3.0, 0.0], [0.0, 0.0, 1.0]]))
            self.mix.bias.copy_(torch.tensor([-1.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        tokens = nn.functional.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        return self.mix(tokens).relu().mean(1)


class Convolutions(nn.Module):
    """A chain of unlike convolutions and a linear head, with seeded weights; takes (N, 3, 12, 12)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.pointwise = nn.Conv2d(8, 12, 1)
            self.grouped = nn.Conv2d(12, 6, 3, padding=1, groups=3, bias=False)
            self.depthwise = nn.Conv2d(6, 6, (3, 2), padding="same", dilation=(2, 1), groups=6, padding_mode="reflect")
            self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pointwise(self.stem(x).relu()).relu()
        x = self.depthwise(self.grouped(x).relu())
        return self.head(x.mean((2, 3)))


class Mlp(nn.Module):
    """fc1, GELU, fc2, as in a ViT block."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """A residual block with a norm before its ``mlp``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class TinyBlocks(nn.Module):
    """Patches of 4x4, two residual MLP blocks, mean pool, head: a ViT without attention; takes (N, 3, 8, 8), 4
    tokens.
    """

    def __init__(self, width: int = 6, hidden: int = 10, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.num_classes = classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.patch = nn.Conv2d(3, width, 4, stride=4)
            self.blocks = nn.ModuleList([Block(width, hidden) for _ in range(2)])
            self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class InPlace(nn.Module):
    """Convolutions whose input and output are overwritten right after they ran, as most ResNets do; takes (N, 3, 8,
    8).
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.act = nn.ReLU(inplace=True)
            self.second = nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        y = self.act(self.second(x))
        x += y  # the input of ``second`` too
        return self.head(x.mean((2, 3)))

"""A layer of attention and a mean over places, as students that read text are made of. Knows nothing of what is read."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, rotary: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.rotary = heads, dropout, rotary
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))

    def forward(self, states: Tensor, heard: Tensor) -> Tensor:
        """`[rows, L, dim]`; `heard` bool `[rows, 1, 1, L]`: who takes part."""
        rows, length, dim = states.shape
        split = self.project(self.before(states)).view(rows, length, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if self.rotary:
            query, key = turned(query), turned(key)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=heard, dropout_p=dropout)
        states = states + self.out(mixed.transpose(1, 2).reshape(rows, length, dim))
        fed: Tensor = self.feed(self.between(states))
        return states + fed


def turned(vectors: Tensor) -> Tensor:
    """`[rows, heads, L, width]` with each pair of numbers turned by its place times 10000^(-2 i / width)."""
    half = vectors.shape[-1] // 2
    rates = 10_000 ** (-torch.arange(half, device=vectors.device, dtype=torch.float32) / half)
    angles = torch.arange(vectors.shape[-2], device=vectors.device, dtype=torch.float32)[:, None] * rates
    cos, sin = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
    one, other = vectors[..., :half], vectors[..., half:]
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)


def is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]


def mean_of_known(states: Tensor, there: Tensor) -> Tensor:
    """`[rows, L, dim]` to `[rows, dim]`; of a row without an id zeros."""
    known = there[..., None].to(states.dtype)
    return (states * known).sum(1) / known.sum(1).clamp_min(1)

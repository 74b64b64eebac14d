"""Transforms that can be replayed: what becomes of a row is decided by its content and by a seed of its own.

Each draws from a counter-based generator in integer tensor operations, so neither the other rows of a batch, nor their
order, nor the process, nor the device changes a bit of the result. Knows nothing of where rows and seeds come from.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..config.training import TransformName

Transform = Callable[[Tensor, Tensor], Tensor]
"""(images `[rows, height, width, channels]`, seeds i64 `[rows]`) to images of the same shape and dtype."""

GOLDEN = 0x9E3779B97F4A7C15
"""What the state of splitmix64 grows by with each number."""
PAD = 8
"""`pad_and_crop` adds an edge's PADth part on each side: 4 pixels to 32, as is usual on CIFAR."""
HOLE = 2
"""`cutout` blanks a square of a HOLEth part of the shorter edge: 16 pixels of 32 (DeVries and Taylor, 2017)."""
LEAST_AREA = 0.35
"""`random_resized_crop` keeps so much of the image's area at least; Inception's 0.08 (Szegedy et al., 2015) is for images of objects
in the middle of something."""
NARROWEST = 0.75
"""Of its window, the shorter edge over the longer one, where the image is a square."""
FRACTION = 12
"""Bits behind the point of a place between two pixels."""
JITTER = 64
"""`colour_jitter` changes brightness, contrast and saturation by up to so many 256ths."""
GREY = 114
"""What contrast goes towards."""
NOISE = 10.0
"""Standard deviation of `noise`, of 255."""
DRAWS_AT_ONCE = 1 << 20
"""Bounds the memory of `noise`; nothing else depends on it."""


def draw(seeds: Tensor, counter: int | Tensor) -> Tensor:
    """64 random bits as i64: number `counter` (from 0) of the splitmix64 stream (Steele et al., 2014) of each seed."""
    number = counter + 1
    bits = seeds + (_signed(number * GOLDEN % (1 << 64)) if isinstance(number, int) else number * _signed(GOLDEN))
    bits = (bits ^ _shifted(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shifted(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shifted(bits, 31)


def _signed(number: int) -> int:
    """The i64 with the bits of a u64: torch multiplies and adds those modulo 2^64."""
    return number - (1 << 64) if number >> 63 else number


def _shifted(bits: Tensor, by: int) -> Tensor:
    """To the right, zeros from the left: torch's own shift of i64 brings the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def below(limit: int | Tensor, seeds: Tensor, counter: int) -> Tensor:
    """A whole number from 0 to `limit` - 1 for each seed, i64; `limit`, of all or i64 of each, is at most 2^31."""
    return (_shifted(draw(seeds, counter), 32) * limit) >> 32


def flip(images: Tensor, seeds: Tensor) -> Tensor:
    """Every other image from right to left."""
    return torch.where(below(2, seeds, 0).bool()[:, None, None, None], images.flip(2), images)


def pad_and_crop(images: Tensor, seeds: Tensor) -> Tensor:
    """A crop of the image's own size from the image with zeros around it: a shift by an eighth of its edges at most."""
    y, from_y = _shifted_places(images.shape[1], seeds, 0)
    x, from_x = _shifted_places(images.shape[2], seeds, 1)
    rows = torch.arange(len(images), device=images.device)[:, None, None]
    inside = from_y[:, :, None] & from_x[:, None, :]
    return torch.where(inside[..., None], images[rows, y[:, :, None], x[:, None, :]], images.new_zeros(()))


def _shifted_places(edge: int, seeds: Tensor, counter: int) -> tuple[Tensor, Tensor]:
    """(which place of the edge comes to each place, is it there) `[rows, edge]`."""
    pad = max(round(edge / PAD), 1)
    places = torch.arange(edge, device=seeds.device) + (below(2 * pad + 1, seeds, counter) - pad)[:, None]
    return places.clamp(0, edge - 1), (places >= 0) & (places < edge)


def random_resized_crop(images: Tensor, seeds: Tensor) -> Tensor:
    """A window of another size and shape, brought to the image's own size between its nearest pixels, in whole numbers."""
    _, height, width, _ = images.shape
    area = _between(LEAST_AREA, 1.0, seeds, 0)
    aspect = _between(NARROWEST, 1 / NARROWEST, seeds, 1)
    high, wide = ((area * by).sqrt().clamp(max=1.0) for by in (1 / aspect, aspect))
    y0, y1, of_y = _window(height, high, seeds, 2)
    x0, x1, of_x = _window(width, wide, seeds, 3)
    rows, one = torch.arange(len(images), device=images.device)[:, None, None], 1 << FRACTION
    kind = torch.float64 if images.is_floating_point() else torch.int64

    def pixels(y: Tensor, x: Tensor) -> Tensor:
        return images[rows, y[:, :, None], x[:, None, :]].to(kind)

    across = of_x[:, None, :, None].to(kind)
    above = pixels(y0, x0) * (one - across) + pixels(y0, x1) * across
    below_it = pixels(y1, x0) * (one - across) + pixels(y1, x1) * across
    down = of_y[:, :, None, None].to(kind)
    sums = above * (one - down) + below_it * down
    if images.is_floating_point():
        return (sums / (one * one)).to(images.dtype)
    return ((sums + one * one // 2) >> (2 * FRACTION)).to(images.dtype)


def _between(low: float, high: float, seeds: Tensor, counter: int) -> Tensor:
    """f64 `[rows]`, one of 2^16 numbers."""
    return low + (high - low) * below(1 << 16, seeds, counter).double() / ((1 << 16) - 1)


def _window(edge: int, share: Tensor, seeds: Tensor, counter: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each place of an edge the places before and behind it in a window of `share` of that edge, i64 `[rows, edge]`, and how
    much of the second, of 2^FRACTION."""
    one = 1 << FRACTION
    size = (share * (edge * one)).long()  # in 2^FRACTION-ths of a pixel
    start = below(edge * one - size + 1, seeds, counter)[:, None]
    middles = 2 * torch.arange(edge, device=seeds.device) + 1
    places = (start + (middles * size[:, None]) // (2 * edge) - one // 2).clamp(0, (edge - 1) * one)
    first = places >> FRACTION
    return first, (first + 1).clamp(max=edge - 1), places & (one - 1)


def colour_jitter(images: Tensor, seeds: Tensor) -> Tensor:
    """Each image brighter or darker, with more or less contrast and saturation, in whole numbers from 0 to 255."""
    by = [256 + below(2 * JITTER + 1, seeds, number)[:, None, None, None] - JITTER for number in range(3)]
    brightness, contrast, saturation = by
    values = images.double().round().long() if images.is_floating_point() else images.long()
    values = ((values - GREY) * contrast >> 8) + GREY + (brightness - 256)
    grey = values.sum(-1, keepdim=True) // values.shape[-1]
    values = grey + ((values - grey) * saturation >> 8)
    return values.clamp(0, 255).to(images.dtype)


def cutout(images: Tensor, seeds: Tensor) -> Tensor:
    """Zeros in a square around any of the image's pixels; it may reach over the border."""
    _, height, width, _ = images.shape
    side = max(min(height, width) // HOLE, 1)
    hidden = _hidden(height, side, seeds, 0)[:, :, None] & _hidden(width, side, seeds, 1)[:, None, :]
    return torch.where(hidden[..., None], images.new_zeros(()), images)


def _hidden(edge: int, side: int, seeds: Tensor, counter: int) -> Tensor:
    """bool `[rows, edge]`"""
    first = (below(edge, seeds, counter) - side // 2)[:, None]
    places = torch.arange(edge, device=seeds.device)
    return (places >= first) & (places < first + side)


def noise(images: Tensor, seeds: Tensor) -> Tensor:
    """Bell-shaped noise on every value, independent of all others; whole numbers stay whole, from 0 to 255.

    The sum of four uniform numbers instead of a logarithm and a cosine, which differ in their last bits between devices.
    """
    rows = max(DRAWS_AT_ONCE // max(images.shape[1:].numel(), 1), 1)
    parts = zip(torch.split(images, rows), torch.split(seeds, rows), strict=True)
    return torch.cat([_with_noise(some, own) for some, own in parts])


def _with_noise(images: Tensor, seeds: Tensor) -> Tensor:
    counters = torch.arange(images.shape[1:].numel(), device=images.device)
    bits = draw(seeds[:, None], counters)
    sums = torch.full_like(bits, -2 * 0xFFFF)
    for by in (0, 16, 32, 48):
        sums += (bits >> by) & 0xFFFF
    added = images.float() + (sums.float() * (NOISE * 3**0.5 / (1 << 16))).view(images.shape)
    return added if images.is_floating_point() else added.round().clamp(0, 255).to(images.dtype)


TRANSFORMS: dict[TransformName, Transform] = {
    "flip": flip,
    "pad_and_crop": pad_and_crop,
    "random_resized_crop": random_resized_crop,
    "colour_jitter": colour_jitter,
    "cutout": cutout,
    "noise": noise,
}


def seeds_of_views(seed: int, sample_key: Tensor, views: Tensor) -> Tensor:
    """A seed for each row in its view, i64 `[rows]`; `sample_key`: the bits of u64 as i64, `views`: i64."""
    return draw(draw(torch.full_like(sample_key, seed), sample_key), views)

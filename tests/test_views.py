"""Laws of the replayable transforms: a row's result is a function of its content and its seed, and of nothing else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from students.data.augment import AUGMENTS, augmentation
from students.data.draws import Views, equal_parts
from teachers.errors import RecipeError, UsersCodeError
from teachers.transfer_set.views import (
    TRANSFORMS,
    below,
    colour_jitter,
    cutout,
    draw,
    flip,
    noise,
    pad_and_crop,
    random_resized_crop,
)

EVERY = pytest.mark.parametrize("name", TRANSFORMS)
SEEDS = st.integers(-(2**63), 2**63 - 1)


def seeds_of(*numbers):
    return torch.tensor(numbers, dtype=torch.int64)


def many_seeds(num):
    return torch.from_numpy(np.random.default_rng(0).integers(-(2**63), 2**63, num))


def images(rows=6, height=12, width=9, channels=3, seed=0):
    pixels = np.random.default_rng(seed).integers(1, 256, (rows, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(pixels)


def splitmix64(seed, counter):
    """As published, in numpy's unsigned numbers: the outputs number `counter` of the streams that begin at `seed`."""
    with np.errstate(over="ignore"):
        z = seed + (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


# the generator


def test_draws_are_the_published_stream():
    drawn = [int(draw(seeds_of(1234567), counter)) % 2**64 for counter in range(5)]
    assert drawn == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(st.lists(SEEDS, min_size=1, max_size=20), st.integers(0, 2**40))
def test_draws_are_those_of_unsigned_arithmetic(numbers, counter):
    found = draw(seeds_of(*numbers), counter).numpy().view(np.uint64)
    expected = splitmix64(np.array(numbers, np.int64).view(np.uint64), np.uint64(counter))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 2**31])
def test_whole_numbers_lie_below_their_limit_and_are_equally_likely(limit):
    numbers = below(limit, many_seeds(20_000), 0)
    assert numbers.min() >= 0 and numbers.max() < limit
    assert float(numbers.double().mean()) == pytest.approx((limit - 1) / 2, rel=0.02, abs=0.02)


# every transform


@EVERY
@given(st.lists(SEEDS, min_size=6, max_size=6), st.permutations(range(6)))
@settings(max_examples=25, deadline=None)
def test_a_rows_result_depends_neither_on_the_batch_nor_on_the_order(name, numbers, order):
    transform, pixels, seeds = TRANSFORMS[name], images(), seeds_of(*numbers)
    together = transform(pixels, seeds)
    assert torch.equal(transform(pixels[order], seeds[order]), together[order])
    for row in range(len(pixels)):
        assert torch.equal(transform(pixels[row : row + 1], seeds[row : row + 1])[0], together[row])


@EVERY
@pytest.mark.parametrize("shape", [(5, 1, 1, 1), (5, 2, 3, 1), (5, 28, 28, 1), (5, 33, 20, 3), (0, 8, 8, 1)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shape_and_dtype_stay_and_the_input_is_not_touched(name, shape, dtype):
    pixels = images(*shape).to(dtype)
    before = pixels.clone()
    moved = TRANSFORMS[name](pixels, many_seeds(shape[0]))
    assert moved.shape == pixels.shape and moved.dtype == dtype
    assert torch.equal(pixels, before)


@EVERY
def test_equal_rows_with_other_seeds_differ_and_with_the_same_seed_do_not(name):
    pixels = images(1).expand(200, -1, -1, -1)
    moved = TRANSFORMS[name](pixels, many_seeds(200))
    assert len({row.numpy().tobytes() for row in moved}) > 1
    same = TRANSFORMS[name](pixels, seeds_of(3).expand(200))
    assert len({row.numpy().tobytes() for row in same}) == 1


# each of them


def test_a_flip_undoes_itself_and_half_of_the_rows_are_flipped():
    pixels, seeds = images(2000, 4, 5, 1), many_seeds(2000)
    moved = flip(pixels, seeds)
    flipped = (moved != pixels).flatten(1).any(1)
    assert torch.equal(moved[flipped], pixels[flipped].flip(2))
    assert torch.equal(flip(moved, seeds), pixels)
    assert 0.45 < float(flipped.double().mean()) < 0.55


def test_pad_and_crop_gives_every_crop_of_the_padded_image_and_no_other():
    pixels = images(1, 16, 24, 2).expand(4000, -1, -1, -1)
    moved = {row.numpy().tobytes() for row in pad_and_crop(pixels, many_seeds(4000))}
    padded = np.pad(pixels[0].numpy(), ((2, 2), (3, 3), (0, 0)))  # an eighth of 16, and of 24
    crops = [padded[y : y + 16, x : x + 24].tobytes() for y in range(5) for x in range(7)]
    assert moved == set(crops)


def test_cutout_blanks_one_square_of_half_the_edge_wherever_its_middle_lies():
    pixels, num = images(1, 12, 20, 1), 3000
    moved = cutout(pixels.expand(num, -1, -1, -1), many_seeds(num))[..., 0]
    hidden = moved == 0
    assert torch.equal(moved[~hidden], pixels[..., 0].expand(num, -1, -1)[~hidden])
    height, width = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.sum((1, 2)), height * width)
    assert height.max() == width.max() == 6 and height.min() == width.min() == 3
    assert hidden.any(0).all()


def test_noise_is_unbiased_of_the_stated_spread_and_independent():
    grey = torch.full((200, 16, 16, 2), 128, dtype=torch.uint8)
    added = noise(grey, many_seeds(200)).double() - 128
    assert abs(float(added.mean())) < 0.1
    assert float(added.std()) == pytest.approx(10, rel=0.02)
    pairs = torch.corrcoef(added.flatten(1)[:, :40].T)
    assert (pairs - torch.eye(40)).abs().max() < 0.35
    kurtosis = float(((added / added.std()) ** 4).mean())
    assert kurtosis == pytest.approx(2.7, abs=0.1)  # of the sum of four uniform numbers; 3 is a bell's


def test_noise_stays_in_range_and_does_not_depend_on_how_much_is_drawn_at_once():
    pixels, seeds = images(40) // 255 * 255, many_seeds(40)
    moved = noise(pixels, seeds)
    assert torch.equal(
        moved, torch.cat([noise(pixels[row : row + 7], seeds[row : row + 7]) for row in range(0, 40, 7)])
    )
    assert moved.min() == 0 and moved[pixels == 255].float().mean() > 245


# as augmentation


@EVERY
def test_augmentation_is_drawn_again_from_the_same_seeds_and_keeps_the_dtype(name):
    pixels = images(30)
    one, two = (AUGMENTS[name](pixels, many_seeds(30)) for _ in range(2))
    other = AUGMENTS[name](pixels, many_seeds(30) + 1)
    assert torch.equal(one, two) and one.dtype == torch.uint8
    assert not torch.equal(one, other)


@EVERY
def test_only_images_are_moved_and_without_one_it_says_what_to_do(name):
    columns = {"image": images(30), "features": torch.ones(30, 3)}
    moved = AUGMENTS[name](columns, many_seeds(30))
    assert torch.equal(moved["features"], columns["features"])
    assert not torch.equal(moved["image"], columns["image"])
    with pytest.raises(RecipeError, match=rf"train\.augment: `{name}`"):
        AUGMENTS[name](torch.zeros(4, 7), many_seeds(4))


def darker(inputs, generator):
    return inputs // 2


def broken(inputs, generator):
    raise KeyError("pixels")


def shifted(inputs, generator):
    return inputs + torch.randint(0, 100, inputs.shape, generator=generator)


def shifted_by_row(inputs, seeds):
    return inputs + below(100, seeds, 0)[:, None, None, None]


def views(rows=slice(0, 32), *, seed=0, step=0, parts=1, of=32):
    """Of some rows of a batch of `of`, in equal parts."""
    num = rows.stop - rows.start
    here = equal_parts(num, parts)
    return Views(seed, step, torch.arange(rows.start, rows.stop), here, rows.start * parts // num, torch.Generator())


def test_several_are_applied_in_order():
    pixels, drawn = images(32), views()
    expected = AUGMENTS["affine"](AUGMENTS["cutout"](pixels, drawn.seeds(0)) // 2, drawn.seeds(2))
    augment = augmentation(["cutout", "tests.test_views:darker", "affine"])
    assert torch.equal(augment(pixels, drawn), expected)
    assert augmentation([]) is None


@pytest.mark.parametrize("name", [*AUGMENTS, "tests.test_views:shifted_by_row"])
def test_a_row_is_augmented_alike_whoever_else_of_the_batch_is_there(name):
    """So any number of workers draws the same."""
    pixels, augment = images(32), augmentation([name, name])
    whole = augment(pixels, views())
    alone = 4 if name == "mosaic" else 1  # rows that are of one image
    for shares in ([slice(0, 16), slice(16, 32)], [slice(row, row + alone) for row in range(0, 32, alone)]):
        assert torch.equal(torch.cat([augment(pixels[rows], views(rows)) for rows in shares]), whole)
    assert not torch.equal(augment(pixels, views(step=1)), whole)
    assert not torch.equal(augment(pixels, views(seed=1)), whole)


def test_what_draws_for_many_rows_at_once_draws_alike_in_the_same_part_of_the_batch():
    """Two parts on one worker, or one on each of two; in the parts it draws apart."""
    pixels, augment = images(32), augmentation(["tests.test_views:shifted"])
    whole = augment(pixels, views(parts=2))
    assert torch.equal(torch.cat([augment(pixels[rows], views(rows)) for rows in (slice(0, 16), slice(16, 32))]), whole)
    assert not torch.equal((whole - pixels)[:16], (whole - pixels)[16:])


def test_what_a_step_of_the_users_raises_is_told_by_its_name():
    with pytest.raises(UsersCodeError, match=r"train\.augment: tests\.test_views:broken raised KeyError"):
        augmentation(["flip", "tests.test_views:broken"])(images(32), views())


@pytest.mark.parametrize("shape", [(40, 24, 24, 3), (40, 17, 30, 1)])
def test_a_random_resized_crop_is_the_bilinear_window_of_torch(shape):
    """Windows by the formulas, in floats; what torch samples there, to within a step of 255."""
    pixels, seeds = images(*shape), many_seeds(shape[0])
    moved = random_resized_crop(pixels, seeds).double()
    area, aspect = (
        low + (high - low) * below(1 << 16, seeds, n).double() / 65535
        for n, (low, high) in enumerate([(0.35, 1.0), (0.75, 4 / 3)])
    )
    sides = [(area / aspect).sqrt().clamp(max=1), (area * aspect).sqrt().clamp(max=1)]
    middles = []
    for number, side in enumerate(sides, 2):
        bits = draw(seeds, number).numpy().view(np.uint64) >> np.uint64(32)
        start = (1 - side) * torch.from_numpy(bits.astype(float)) / 2**32
        middles.append((2 * start + side - 1, side))
    (y, high), (x, wide) = middles
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([wide, zero, x], 1), torch.stack([zero, high, y], 1)], 1)
    planes = pixels.permute(0, 3, 1, 2).double()
    grid = F.affine_grid(theta, list(planes.shape), align_corners=False)
    expected = F.grid_sample(planes, grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
    assert float((moved - expected).abs().max()) <= 1.0
    assert float((moved - expected).abs().mean()) < 0.3
    shares = (sides[0] * sides[1]).numpy()
    assert shares.min() >= 0.35 * 0.9 and shares.max() <= 1


def test_colours_jitter_about_what_they_were_and_grey_stays_grey():
    pixels = images(300, 4, 4, 3)
    moved = colour_jitter(pixels, many_seeds(300)).int()
    assert int(moved.min()) >= 0 and int(moved.max()) <= 255
    change = (moved.double().mean((1, 2, 3)) - pixels.double().mean((1, 2, 3))).numpy()
    assert change.min() < -40 and change.max() > 40 and abs(change.mean()) < 6
    grey = pixels[..., :1].expand(-1, -1, -1, 3)
    assert (colour_jitter(grey, many_seeds(300)).int().diff(dim=-1) == 0).all()

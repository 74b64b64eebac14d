"""Laws of a picture: it is drawn once, and what is written at its edges lies in it."""

import pytest
from matplotlib.artist import Artist

from orchestrator.reporting.plots import svg

INCH_TO_SPARE = 0.12


class Counter(Artist):
    def __init__(self):
        super().__init__()
        self.drawn = 0

    def draw(self, renderer):
        self.drawn += 1


def test_a_picture_is_drawn_once():
    counter = Counter()
    svg(lambda axes: axes.add_artist(counter), "Counted")
    assert counter.drawn == 1


def curve(axes, values):
    axes.plot(values)
    axes.set(xlabel="optimiser steps", ylabel="validation NLL, nats")


def table(axes, names, rotation):
    axes.set_xticks(range(len(names)), names, rotation=rotation, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_aspect("equal")


@pytest.mark.parametrize(
    "draw",
    [
        lambda axes: curve(axes, [0.2, 0.3]),
        lambda axes: curve(axes, [-1200.5, 3e5]),
        lambda axes: curve(axes, [0.97621, 0.97622]),
        lambda axes: curve(axes, [1e-7, 3e-7]),
        lambda axes: table(axes, ["wide", "a teacher of a long name"], 35),
        lambda axes: table(axes, ["wide", "a teacher of a long name"], 90),
        lambda axes: table(axes, ["of two\nlines", "x"], 0),
    ],
    ids=["small", "large", "alike", "tiny", "turned", "upright", "lines"],
)
def test_what_is_written_beside_the_axes_lies_in_the_picture_and_wastes_little_of_it(draw):
    """By matplotlib's own measure of its letters."""
    kept = []

    def keeping(axes):
        draw(axes)
        kept.append(axes)

    svg(keeping, "Kept", size=(5.4, 3.6))
    [axes] = kept
    box = axes.get_tightbbox().transformed(axes.figure.dpi_scale_trans.inverted())
    assert min(box.x0, box.y0) > -INCH_TO_SPARE and box.x1 < 5.4 + INCH_TO_SPARE and box.y1 < 3.6 + INCH_TO_SPARE
    assert axes.get_aspect() == 1 or box.x0 < 4 * INCH_TO_SPARE
    assert box.y0 < 4 * INCH_TO_SPARE


def test_names_of_any_length_leave_room_for_what_they_name():
    kept = []

    def draw(axes):
        table(axes, ["a" * 500, "b"], 90)
        kept.append(axes.get_position)

    svg(draw, "Long")
    box = kept[0](original=True)
    assert box.width > 0.3 and box.height > 0.3 and box.x0 < 0.7 and box.y0 < 0.7

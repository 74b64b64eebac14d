"""Boxes as pictures: images in dispute with everybody's boxes, curves of precision, who says what the teachers say together.

Knows nothing but `report.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from .plots import COLOURS, INK, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = ("#e4572e", "#2878d0", "#1f9d6b", "#b05cc6", "#c99700", "#00a5b5", "#d6336c", "#7a6a58")
"""Of classes, one after the other; of more they begin anew."""
MOST_TEACHERS = 4
"""Columns of a sheet; of more teachers the first are drawn."""
EDGE, GAP, TITLE = 240, 10, 22
"""Of a picture in a sheet."""
OTHERS = {"truth": "what is there", "ensemble": "teachers together", "student": "the student"}


def sheet(found: Sequence[Mapping[str, Any]], names: Sequence[str], of: str) -> list[tuple[str, str]]:
    """(caption, SVG) of each image: side by side the same image with the boxes of the truth, of each teacher, of the teachers
    together and of the student, in colours of their classes `names`."""
    colours = {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(names)}
    return [(_caption(shown), _panels(shown, colours, f"sheet-{of}-{number}")) for number, shown in enumerate(found)]


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """(class, its colour)."""
    return [(name, PALETTE[number % len(PALETTE)]) for number, name in enumerate(names)]


def _caption(shown: Mapping[str, Any]) -> str:
    return f"{shown['id']}: {shown['in_dispute']:.1f} boxes in dispute"


def _panels(shown: Mapping[str, Any], colours: Mapping[str, str], unique: str) -> str:
    width, height = shown["size"]
    scale = EDGE / max(width, height, 1)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    teachers = [name for name in shown["boxes"] if name not in OTHERS]
    drawn = [name for name in shown["boxes"] if name in OTHERS or name in teachers[:MOST_TEACHERS]]
    unique = "".join(each if each.isalnum() else "-" for each in unique)
    picture = (
        f'<image id="{unique}" width="{wide}" height="{high}" preserveAspectRatio="none" '
        f'href="data:image/jpeg;base64,{shown["jpeg"]}"/>'
    )
    panels = "".join(
        f'<g transform="translate({number * (wide + GAP)} {TITLE})"><text y="-7" font-size="13" fill="currentColor">'
        f'{escape(OTHERS.get(name, name))}</text><use href="#{unique}"/>{_rectangles(shown["boxes"][name], wide, high, colours)}</g>'
        for number, name in enumerate(drawn)
    )
    whole = len(drawn) * (wide + GAP) - GAP
    return (
        f'<svg role="img" aria-label="{escape(_caption(shown))}" viewBox="0 0 {whole} {high + TITLE}" '
        f'xmlns="http://www.w3.org/2000/svg"><defs>{picture}</defs>{panels}</svg>'
    )


def _rectangles(boxes: Sequence[Sequence[Any]], wide: int, high: int, colours: Mapping[str, str]) -> str:
    """A box that is surer has a thicker line; its class and score are told where a pointer stands."""
    return "".join(
        f'<rect x="{x1 * wide:.1f}" y="{y1 * high:.1f}" width="{(x2 - x1) * wide:.1f}" height="{(y2 - y1) * high:.1f}" '
        f'fill="none" stroke="{colours[name]}" stroke-width="{0.8 + 1.4 * score:.1f}"><title>{escape(name)} {score:.2f}</title></rect>'
        for x1, y1, x2, y2, score, name in boxes
    )


def box_pictures(student: Mapping[str, Any], of: str) -> Iterator[tuple[str, str]]:
    """(caption, SVG): precision over recall, and of whom the fusion of teachers is made; of what is there."""
    if found := student.get("precision_at_recall"):
        yield "Precision at each recall, boxes that overlap by half: the mean over classes.", _curves(found, of)
    if found := student.get("taken"):
        told = "Boxes of the teachers together, by who says them: full those that are right, faint those that are not."
        yield told, _taken(found, of)


def _curves(found: Mapping[str, Sequence[float] | None], of: str) -> str:
    def draw(axes: "Axes") -> None:
        for name, curve in found.items():
            if curve is not None:
                recalls = [number / (len(curve) - 1) for number in range(len(curve))]
                is_main = name in COLOURS
                axes.plot(
                    recalls,
                    curve,
                    color=COLOURS.get(name, COLOURS["teacher"]),
                    linewidth=1.8 if is_main else 0.9,
                    alpha=1.0 if is_main else 0.6,
                    label=name,
                )
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03))
        axes.legend(loc="lower left")

    return svg(draw, f"Precision over recall of {of} and its teachers")


def _taken(found: Mapping[str, Any], of: str) -> str:
    rows = [("all agree" if number == len(found["agree"]) else f"{number} say it", each) for number, each in enumerate(found["agree"], 1)]  # fmt: skip
    rows += [(f"{name} alone", each["alone"]) for name, each in found["teachers"].items()]
    rows += [(f"without {name}", each["lacks"]) for name, each in found["teachers"].items()]

    def draw(axes: "Axes") -> None:
        for place, (_, each) in enumerate(rows):
            axes.barh(place, each["right"], color=COLOURS["ensemble"])
            axes.barh(place, each["boxes"] - each["right"], left=each["right"], color=COLOURS["ensemble"], alpha=0.3)
            share = f" {100 * each['right'] / each['boxes']:.0f} %" if each["boxes"] else " none"
            axes.text(each["boxes"], place, share, va="center", color=INK)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set(xlabel="boxes", ylim=(len(rows) - 0.4, -0.6))
        axes.margins(x=0.14)

    return svg(draw, f"What the teachers of {of} say together, by who says it", size=(5.4, 1.0 + 0.3 * len(rows)))

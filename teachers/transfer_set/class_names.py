"""What a value names as a class: numbers, text, truth values; in which order classes stand. One place for all who ask.

A source's labels, the folders of an image folder and `classes_` of an estimator are read by the same rules. Knows
nothing of columns or files.
"""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

WHOLE = re.compile(r"([+-]?)0*(\d+)(?:\.0*)?")
"""A whole number, however it is written: `3`, `3.0` (pandas writes integers with gaps so), `03`."""
SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]\d{2}")
"""As printf writes numbers (`numpy.savetxt` all of them, R the round ones): `1.000e+00`, `1e+05`; `1e5` is a name."""
DECIMALS = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")


def as_number(name: str) -> str | None:
    """`3` of `3.0`, `03`, `+3` and `3.0e+00`; None of what is no whole number."""
    if not name.isascii():
        return None
    found = WHOLE.fullmatch(f"{Decimal(name):f}" if SCIENTIFIC.fullmatch(name) else name)
    if found is None:
        return None
    sign, digits = found.groups()
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def is_number_with_decimals(name: str) -> bool:
    return DECIMALS.fullmatch(name) is not None and as_number(name) is None


def plain(values: Iterable[str]) -> dict[str, str]:
    """The name of the class of each distinct value: `3` for `3.0` where all are whole numbers, else the value itself.

    Text with leading zeros is left as it is written (`01` and `1` are two), and so are all others beside it.
    """
    values = list(values)
    numbers = {value: as_number(value) for value in values}
    written = {value for value, number in numbers.items() if number is not None and value.lstrip("+-").isdigit()}
    if None in numbers.values() or any(numbers[value] != value.removeprefix("+") for value in written):
        return dict(zip(values, values, strict=True))
    return {value: str(number) for value, number in numbers.items()}


def in_order(names: Iterable[str]) -> list[str]:
    """Sorted: as integers when all are, else as text. One order, whatever the order they come in."""
    names = set(names)
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=lambda name: (Decimal(name), name))  # int() refuses long ones
    return sorted(names)


def places_of(values: Iterable[str], classes: Sequence[str]) -> list[int | None]:
    """Where the class that each value names stands among `classes`; None where it names none.

    A value is a class's name, or the same number or truth value in other letters (`3.0` of `3`, `True` of `true`) or,
    where no class is a number itself, the position of one.
    """
    exact = {name: place for place, name in enumerate(classes)}
    alike: dict[str, list[int]] = {}
    for place, name in enumerate(classes):
        alike.setdefault(_spelt(name), []).append(place)
    by_position = not any(as_number(name) is not None for name in classes)
    positions = {str(place) for place in range(len(classes))}

    def place_of(value: str) -> int | None:
        if value in exact:
            return exact[value]
        if same := alike.get(_spelt(value)):
            return same[0] if len(same) == 1 else None
        number = as_number(value) if by_position else None
        return int(number) if number in positions else None

    return [place_of(value) for value in values]


def _spelt(name: str) -> str:
    lower = name.lower()
    return lower if lower in ("true", "false") else as_number(name) or name


def name_of(value: Any) -> str:
    """A value of Python or NumPy as the text that a label column has for it: `true`, `3` of 3.0, the text of bytes."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool):
        return str(value).lower()
    return as_number(str(value)) or str(value) if isinstance(value, int | float) else str(value)

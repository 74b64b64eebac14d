"""Dates of a source, which canonical rows hold as numbers, as a person and a server read them. Knows nothing of who asks."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

NO_DAY = ("time32", "time64", "duration")
"""How Arrow calls times of day and durations: they stay numbers, since JSON has no word for them."""
US = 1_000_000
DAY_US = 86_400 * US


def date_units(plan: Mapping[str, Any]) -> dict[str, int]:
    """Of those columns of the source, in the document of a plan, that hold dates: seconds in one of what they are counted in."""
    types = list(plan.get("types", ()))
    kinds = types + [""] * (len(plan["sources"]) - len(types))
    return {
        name: how["unit"]
        for name, how, kind in zip(plan["sources"], plan.get("how", ()), kinds, strict=False)
        if how.get("unit") is not None and not kind.startswith(NO_DAY)
    }


def date_of(count: float, unit: int) -> str | float | None:
    """So many times `unit` seconds since 1970 as ISO 8601 in UTC: a day, or a moment to the microsecond; None of NaN.

    What lies in no year of four digits stays a number.
    """
    if math.isnan(count):
        return None
    day, of_day = divmod(round(count * unit * US), DAY_US)
    try:
        at = datetime(1970, 1, 1) + timedelta(days=day, microseconds=of_day)
    except OverflowError:
        return count
    return f"{at.isoformat()}Z" if of_day else at.date().isoformat()

"""What calibrating teachers has changed: their probabilities before and after, on test rows."""

from collections.abc import Iterator, Mapping
from typing import Any


def about_calibration(recipe: Mapping[str, Any], teachers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each that is calibrated. `teachers`: their figures."""
    for name, found in teachers.items():
        if before := found.get("uncalibrated"):
            how = recipe["teachers"][name]["calibrate"]
            if temperature := found.get("temperature"):
                surer = "surer" if temperature < 1 else "less sure"
                how += f" {temperature:.2f}, which makes it {surer} than it was"
            changes = ", ".join(f"{WORDS[key].format(was=was, now=found[key])}" for key, was in before.items())
            yield (
                f"Teacher {name} is calibrated by labelled rows that it has not learnt ({how}) where a target is made of what it says, not "
                f"in its store; on test rows: {changes}."
            )


WORDS = {"nll": "NLL {was:.3f} before, {now:.3f} after", "ece": "ECE {was:.1%} before, {now:.1%} after"}

"""What `plan` says of training rows beside those of the source."""

from collections.abc import Iterator

from teachers.preparing.look import Look

WHAT = {"extra": "unlabelled rows", "munge": "synthetic rows"}


def beside_notes(seen: Look) -> Iterator[str]:
    """How many there are, whom they reach, and what is not read of them."""
    for name, rows in seen.beside.items():
        many = "some" if rows is None else f"{rows:,}"
        yield (
            f"transfer_set.{name}: {many} {WHAT[name]} are training rows beside those of the source; every cached teacher labels "
            f"them, students learn them, the control does not"
        )
    if seen.labels_not_read:
        named = ", ".join(map(repr, seen.labels_not_read))
        yield f"transfer_set.extra: it has {named}, which is not read: its rows are transfer data without a label"

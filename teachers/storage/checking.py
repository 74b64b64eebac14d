"""Whether a sealed folder still is what its seal says."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import mirror
from .room import MANIFEST
from .seal import Damage, Output, Seal, expected, inside, sha256_file

if TYPE_CHECKING:
    from .manifest import Run


def check_seal(folder: Path, seal: Seal, *, hashes: bool, run: "Run | None" = None, kept: bool = True) -> list[Damage]:
    """What differs from the seal: sizes always, every byte when `hashes`. What a manifest lists is checked by `run`, or in threads here.

    Of a mirror what the seal itself lists is brought here; without `hashes` only what is small, the rest is compared with a
    listing. `kept`: what a manifest lists is, too.
    """
    paths = {output.path: inside(folder, output.path) for output in seal.outputs}
    wanted = {paths[output.path]: expected(output) for output in seal.outputs}
    with mirror.brought(wanted, hashes=hashes, listed=not hashes) as elsewhere:
        found = (_damage(output, paths[output.path], elsewhere, hashes=hashes) for output in seal.outputs)
        damages = [damage for damage in found if damage is not None]
    if damages or MANIFEST not in {output.path for output in seal.outputs}:
        return damages
    from . import manifest  # pyarrow takes a while, and most seals have none

    manifest.bring(folder)
    run = run or manifest.in_threads
    files = manifest.mapped(folder / MANIFEST)
    return [damage for _, damage in manifest.damages_in(folder, files, hashes=hashes, run=run, kept=kept)]


def _damage(output: Output, path: Path, elsewhere: Mapping[Path, str | None], *, hashes: bool) -> Damage | None:
    """`elsewhere`: what a mirror found in the storage instead, or None for what is there and need not come."""
    if path in elsewhere:
        wrong = elsewhere[path]
        return None if wrong is None else Damage(output.path, wrong, f"sha256 {output.sha256[:16]}")
    if not path.is_file():
        return Damage(output.path, "no file", f"{output.bytes} bytes")
    if (size := path.stat().st_size) != output.bytes:
        return Damage(output.path, f"{size} bytes", f"{output.bytes} bytes")
    if hashes and (found := sha256_file(path)) != output.sha256:
        return Damage(output.path, f"SHA-256 {found[:12]}", output.sha256[:12])
    return None

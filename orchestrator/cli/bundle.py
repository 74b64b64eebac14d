"""`collegium bundle`: what teachers said, for somebody who gets neither their weights nor the inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from teachers.errors import RecipeError

from .options import with_json
from .out import Out

if TYPE_CHECKING:
    from ..recipe.model import Recipe

with_key = click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The sender's public key (PEM), got by another way than the bundle.",
)


@click.group()
def bundle() -> None:
    """Exchange answers between companies: no weights, no inputs; signed, and read by row key.

    Both sides prepare the same rows: the same ids, and the same `transfer_set.key_salt`, a secret between them.
    """


@bundle.command()
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Make a key pair (Ed25519): FILE signs and stays here, FILE.pub goes to whoever receives bundles."""
    from teachers.bundles.signing import make_keys

    public = make_keys(file)
    click.echo(f"wrote {file} (private: keep it) and {public} (public: send it)")


@bundle.command()
@click.argument("out", type=Out(exists=True))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--sign", type=click.Path(path_type=Path), required=True, help="Your private key, of `bundle keygen`.")
@click.option("--licence", help="Under which the receiver may use the answers: CC-BY-4.0, or a sentence.")
@click.option(
    "--licence-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Or a file of its text."
)
@click.option("--name", help="What the bundle is called.  [default: FOLDER's name]")
@click.option(
    "--teachers", help="Whose answers leave, separated by commas.  [default: the teachers of OUT's newest recipe]"
)
@click.option("--top-k", type=click.IntRange(min=1), help="Keep so many of the largest probabilities of a row.")
@click.option("--labels", is_flag=True, help="Keep the class alone.")
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True), help="Soften scores before they leave.")
@click.option("--combine", metavar="RULE", help="Let them leave as one: mean_probability, mean_logits, mean, median.")
@click.option(
    "--epsilon",
    type=click.FloatRange(min=0, min_open=True),
    help="Let noisy votes leave: (epsilon, delta)-private for each teacher's training rows, over all answers.",
)
@click.option("--delta", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Of --epsilon, as 1e-5.")
@with_json
def export(
    out: Path,
    folder: Path,
    sign: Path,
    licence: str | None,
    licence_file: Path | None,
    name: str | None,
    teachers: str | None,
    top_k: int | None,
    labels: bool,
    temperature: float | None,
    combine: str | None,
    epsilon: float | None,
    delta: float | None,
    as_json: bool,
) -> None:
    """Write what the teachers of OUT said into FOLDER, signed.

    Without noise a bundle is weights-free, never private: answers tell something of what a teacher has learnt.
    """
    from teachers.bundles.export import Leaving, export_bundle
    from teachers.bundles.signing import Signer
    from teachers.soft_targets.listing import find_stores
    from teachers.transfer_set.answers import answered_segments, of_newest

    if (licence is None) == (licence_file is None):
        raise click.UsageError("say under which licence the answers leave: --licence or --licence-file, one of them")
    text = licence if licence_file is None else licence_file.read_text("utf-8", errors="replace")
    if not (text or "").strip():
        raise click.UsageError("the licence is empty; without one nobody may use the answers")
    signer = Signer.open(sign)
    segments = of_newest([*answered_segments(find_stores(out), out / "prepared")])
    named = tuple(filter(None, (teachers or "").split(","))) or None
    if (recipe := newest_recipe(out)) is not None:
        named = named or tuple(recipe.teachers) or None
        if epsilon is not None:
            _check_promise(recipe, named or ())
        if not recipe.transfer_set.key_salt:
            click.echo("key_salt is empty: whoever guesses ids can tell whether a row is in the bundle", err=True)
    leaving = Leaving(named, top_k, labels, temperature, combine, epsilon, delta)
    manifest, changed = export_bundle(
        segments, folder, leaving, name=name or folder.name, licence=(text or "").strip(), signer=signer
    )
    if as_json:
        click.echo(manifest.model_dump_json(indent=1))
        return
    for voice in manifest.voices:
        click.echo(f"{voice.name:<16} {voice.rows:>9,} rows  {voice.keeps:<7} {voice.bytes / 2**20:>9.2f} MiB")
    click.echo(f"wrote {folder}; {_promise(manifest.privacy)}")
    for share in changed.values():
        click.echo(f"the noise has changed {share:.1%} of the answers (this stays with you)", err=True)


def newest_recipe(out: Path) -> "Recipe | None":
    """The copy that OUT's newest run kept; None where there is none that this version reads."""
    from teachers.errors import CollegiumError

    from ..recipe.load import load_recipe

    found = sorted(out.glob("runs/*/recipe.yaml"), key=lambda path: path.stat().st_mtime)
    try:
        return load_recipe(found[-1]) if found else None
    except CollegiumError:
        return None


def _check_promise(recipe: "Recipe", named: Sequence[str]) -> None:
    """Raise RecipeError where noise would promise what it does not keep: of votes that depend on one another's rows."""
    from ..recipe.model import is_trained_here

    learners = [name for name in named if name not in recipe.teachers]
    if learners:
        raise RecipeError(
            f"--epsilon: {learners[0]!r} is a student, which has learnt from its teachers, so a row would move more than one vote; "
            f"name teachers alone by --teachers"
        )
    alike = [name for name in named if is_trained_here(recipe.teachers[name])]
    if len(alike) > 1:
        raise RecipeError(
            f"--epsilon: {', '.join(alike)} have learnt the same rows here, so one row moves all their votes and nothing is promised; "
            f"votes are of teachers of which each has rows of its own: name at most one of these by --teachers"
        )


def _promise(privacy: object) -> str:
    if privacy is None:
        return "weights-free: nothing is promised of what the answers tell"
    epsilon, delta, sigma = (getattr(privacy, key) for key in ("epsilon", "delta", "sigma"))
    return (
        f"({epsilon:g}, {delta:g})-private for the training rows of any one teacher, if no two have learnt of one row, by noise of "
        f"{sigma:.3g} votes; another bundle of the same teachers adds to it"
    )


@bundle.command()
@click.argument("folder", type=click.Path(path_type=Path))
@with_key
@with_json
def verify(folder: Path, key: Path, as_json: bool) -> None:
    """Check that every byte of the bundle in FOLDER is as the owner of the key signed it, and tell what it is."""
    from teachers.bundles.manifest import verify as verified

    manifest = verified(folder, key)
    if as_json:
        click.echo(manifest.model_dump_json(indent=1))
        return
    click.echo(f"{manifest.name}: whole, signed by the owner of {key}; {manifest.task}; {_promise(manifest.privacy)}")
    for voice in manifest.voices:
        whose = f" of {voice.teachers} teachers" if voice.teachers > 1 else ""
        click.echo(
            f"  {voice.name}{whose}: {voice.rows:,} rows, {len(voice.names)} names, {voice.keeps} ({voice.output})"
        )
    click.echo(f"licence: {manifest.licence.strip()}")


@bundle.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@with_key
def import_(folder: Path, target: Path, key: Path) -> None:
    """Verify the bundle in FOLDER, write its answers into TARGET, and print the teachers for a recipe."""
    from teachers.bundles.unpack import import_bundle

    manifest, imported = import_bundle(folder, target, key)
    click.echo(
        f"# {manifest.name}: {_promise(manifest.privacy)}\n# licence: {manifest.licence.strip().splitlines()[0]}"
    )
    click.echo("teachers:")
    for each in imported:
        click.echo("\n".join(each.lines))

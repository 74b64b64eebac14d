"""`collegium bundle`: what teachers said, for somebody who gets neither their weights nor the inputs."""

from pathlib import Path

import click

from .options import with_json
from .out import Out

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
@click.option("--licence", required=True, help="Under which the receiver may use the answers; or a file of its text.")
@click.option("--name", help="What the bundle is called.  [default: FOLDER's name]")
@click.option("--teachers", help="Whose answers leave, separated by commas.  [default: all]")
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
    licence: str,
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

    signer = Signer.open(sign)
    segments = of_newest([*answered_segments(find_stores(out), out / "prepared")])
    named = tuple(filter(None, (teachers or "").split(","))) or None
    leaving = Leaving(named, top_k, labels, temperature, combine, epsilon, delta)
    text = Path(licence).read_text("utf-8") if Path(licence).is_file() else licence
    manifest, changed = export_bundle(segments, folder, leaving, name=name or folder.name, licence=text, signer=signer)
    if as_json:
        click.echo(manifest.model_dump_json(indent=1))
        return
    for voice in manifest.voices:
        click.echo(f"{voice.name:<16} {voice.rows:>9,} rows  {voice.keeps:<7} {voice.bytes / 2**20:>9.2f} MiB")
    click.echo(f"wrote {folder}; {_promise(manifest.privacy)}")
    for share in changed.values():
        click.echo(f"the noise has changed {share:.1%} of the answers (this stays with you)", err=True)


def _promise(privacy: object) -> str:
    if privacy is None:
        return "weights-free: nothing is promised of what the answers tell"
    epsilon, delta, sigma = (getattr(privacy, key) for key in ("epsilon", "delta", "sigma"))
    return (
        f"({epsilon:g}, {delta:g})-private for each teacher's training rows, by noise of {sigma:.3g} votes; another bundle of "
        f"the same teachers adds to it"
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

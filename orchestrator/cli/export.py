"""`collegium export`: a recipe up to its model folders, or a model that is there in a form for who has no Collegium."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from .carry_out import carry_out
from .options import with_address, with_json, with_log_format, with_overrides, with_verbose
from .out import Out, brought

if TYPE_CHECKING:
    from students.delivering.forms import FormName


MAX_DROP = 0.01
EDGES = (8, 8192)


class Size(click.ParamType["int | str"]):
    """`any`, or an edge in pixels."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "any" else click.IntRange(*EDGES).convert(value, param, ctx)


@click.command()
@click.argument("named", default="digits", metavar="[RECIPE | MODEL]")
@click.option("--onnx", is_flag=True, help="Of a MODEL: write `model.onnx` and a `predict.py` that needs no torch.")
@click.option("--pt2", is_flag=True, help="Of a MODEL: write `model.pt2`, which torch.export.load reads.")
@click.option("--int8", is_flag=True, help="Beside --onnx: `model.int8.onnx`, in 8 bits, which predict.py then asks.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    help="What --int8 may cost of the headline on test rows; of one that is no share, as a share of it.  [default: 0.01]",
)
@click.option("--no-golden", is_flag=True, help="Leave out `golden.npz`, some test rows that `verify-model` asks.")
@click.option("--one-row", is_flag=True, help="Of these: a call takes one row, for devices that want every size fixed.")
@click.option(
    "--size",
    type=Size(),
    metavar="PIXELS|any",
    help="Of a detector: the edge of the images that it takes, or images of any size.  [default: as it was trained]",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder to write these to.  [default: <MODEL>-elsewhere]"
)
@click.option(
    "--rows",
    type=click.Path(path_type=Path, exists=True),
    help="Rows to compare on, as `predict` reads them.  [default: the model's golden rows]",
)
@click.option("--trust", multiple=True, metavar="MODULE:NAME", help="Code of yours that the folder may name.")
@with_overrides
@click.option(
    "--out",
    metavar="PATH",
    help="Folder of all results, or s3://, gs://; where a MODEL that is named lies.  [default: out/<recipe>]",
)
@with_address
@with_json
@with_verbose
@with_log_format
def export(
    named: str,
    onnx: bool,
    pt2: bool,
    int8: bool,
    max_drop: float | None,
    no_golden: bool,
    one_row: bool,
    size: int | Literal["any"] | None,
    output: Path | None,
    rows: Path | None,
    trust: tuple[str, ...],
    out: str | None,
    **given: Any,
) -> None:
    """Everything up to the student's model folder (safetensors, config, model card); with --onnx, --int8 or --pt2
    MODEL, a folder or a name as digits-small (the newest), in a form for elsewhere.

    What is written says of the model's golden rows, some of the test split, what the model says of them, or is not written.
    """
    wanted: dict[FormName, bool] = {"onnx": onnx or int8, "pt2": pt2}
    forms = [form for form, is_wanted in wanted.items() if is_wanted]
    if max_drop is not None and not int8:
        raise click.UsageError("--max-drop is of --int8")
    place = None if out is None else Out(exists=bool(forms)).convert(out, None, click.get_current_context())
    if not forms:
        if output is not None or rows is not None or trust or no_golden or one_row or size is not None:
            raise click.UsageError(
                "--output, --rows, --no-golden, --one-row, --size and --trust are of a MODEL that is written as --onnx, --int8 or "
                "--pt2"
            )
        carry_out(named, out=place, until="export", **given)
        return
    if given["overrides"] or given["address"]:
        raise click.UsageError(
            "--override and --address are of a RECIPE, and --onnx, --int8 and --pt2 of a MODEL that is there"
        )
    _write(
        named,
        forms,
        output,
        place,
        given["as_json"],
        (MAX_DROP if max_drop is None else max_drop) if int8 else None,
        rows=rows,
        trust=trust,
        keep_golden=not no_golden,
        one_row=one_row,
        size=size,
    )


def _write(
    model: str,
    forms: "list[FormName]",
    output: Path | None,
    out: Path | None,
    as_json: bool,
    max_drop: float | None,
    **how: Any,
) -> None:
    """`max_drop`: of 8 bits; None: none are wanted."""
    from students.delivering.elsewhere import EightBits, export_elsewhere
    from teachers.users_code.imports import use_user_path

    from .named_model import folder_of, prepared_of

    use_user_path(Path.cwd())
    folder = brought(folder_of(model, out))
    name = Path(model).resolve().name
    output = output or Path(f"{name}-elsewhere")
    int8 = None if max_drop is None else EightBits(brought(prepared_of(folder)), max_drop)
    done = export_elsewhere(folder, output, forms, name=name, vouching="command", int8=int8, **how)
    if as_json:
        click.echo(json.dumps({"folder": str(output), **asdict(done)}, indent=1))
        return
    click.echo(f"wrote {', '.join(done.files)} to {output}")
    for file, agreement in done.agreements.items():
        click.echo(f"{file}: {agreement}")
    if int8 is not None:
        _tell_of_8_bits(done.forms)
    if done.no_script:
        click.echo(f"there is no predict.py: {done.no_script}", err=True)


def _tell_of_8_bits(forms: dict[str, dict[str, Any]]) -> None:
    """Both graphs side by side: the headline, the size, the time of a row, memory."""
    before, after = forms["model.onnx"], forms["model.int8.onnx"]
    headline = next(iter(after["figures"]))
    click.echo(
        f"8 bits: test {headline} {after['figures'][headline]:.4f} for {before['figures'][headline]:.4f} on {after['rows']:,} rows, "
        f"calibrated on {after['calibrated_on']:,} training rows; {after['bytes'] / before['bytes']:.0%} of the bytes, "
        f"{after['p50_ms']:.2f} for {before['p50_ms']:.2f} ms a row on one thread, "
        f"{after['peak_bytes'] / 2**20:.1f} for {before['peak_bytes'] / 2**20:.1f} MiB of memory"
    )

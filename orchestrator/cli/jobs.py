"""`collegium submit` and `collegium jobs`: a recipe as a job of a Ray cluster."""

import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ..jobs.verb import VERBS, Verb
from .interrupts import Interrupted
from .options import with_json, with_overrides, with_recipe, with_verbose

if TYPE_CHECKING:
    from ..jobs.client import Job, Jobs
    from ..jobs.submission import Submission

with_dashboard = click.option(
    "--address", metavar="URL", help="The cluster's dashboard: http://HEAD:8265.  [default: RAY_API_SERVER_ADDRESS]"
)
with_id = click.argument("job_id", metavar="ID")


@click.command()
@with_recipe
@with_overrides
@click.option(
    "--out", metavar="PLACE", help="Of all results; every node must see it: /shared/digits, s3://bucket/digits."
)
@with_dashboard
@click.option("--verb", type=click.Choice(VERBS), default="run", show_default=True, help="The command to run there.")
@click.option("--smoke", is_flag=True, help="Of `run`: the whole recipe on a few rows and steps, in an OUT of its own.")
@click.option("--fresh", is_flag=True, help="Of `tune`: set an earlier study of this OUT aside.")
@click.option("--methods", metavar="NAMES", help="Of `compare`: soft,dkd,... or `all`.")
@click.option("--teachers", is_flag=True, help="Of `compare`: which teacher helped.")
@click.option("--student", metavar="NAME", help="Of `compare`: which one, where the recipe has several.")
@click.option("--seeds", type=int, metavar="N", help="Of `compare`: so many of each.")
@click.option("--tune", is_flag=True, help="Of `compare`: try settings of each method first.")
@with_verbose
@click.option(
    "--env", "variables", multiple=True, metavar="NAME", help="Pass this variable on; all on the cluster can read it."
)
@click.option(
    "--autoscaling", is_flag=True, help="The cluster adds nodes: a request that none of today's meets can wait."
)
@click.option("--installed", is_flag=True, help="The cluster has this version of Collegium: ship only what is yours.")
@click.option("--detach", is_flag=True, help="Hand the job in, print its id, and leave.")
@click.option("--dry-run", is_flag=True, help="Print what would be submitted, and submit nothing.")
@with_json
def submit(address: str | None, as_json: bool, detach: bool, dry_run: bool, **given: Any) -> None:
    """Run a recipe as a job of a Ray cluster; follow its log; end with its exit code.

    The recipe, your modules that it names and Collegium itself go along, data does not. The same command again
    follows the job while it runs, and afterwards resumes the run. Ctrl-C leaves the job running.
    """
    _show_warnings()
    submission = _make(**given)
    if dry_run:
        _show(submission, as_json)
        return
    for note in submission.notes:
        click.echo(f"note: {note}", err=True)
    jobs = _jobs(address)
    job, new = jobs.submit(submission)
    click.echo(f"{'submitted' if new else 'under way already:'} {job.id} at {jobs.address}", err=True)
    if detach:
        click.echo(json.dumps(job.record(), indent=1) if as_json else job.id)
        return
    _follow(jobs, job.id, as_json)


def _make(recipe: str, smoke: bool, fresh: bool, verbose: bool, verb: Verb, **given: Any) -> "Submission":
    from ..jobs.submission import make
    from ..recipe.shipped import find

    if smoke and verb != "run":
        raise click.UsageError("--smoke is of `run`")
    if fresh and verb != "tune":
        raise click.UsageError("--fresh is of `tune`")
    flags = {"--smoke": smoke, "--fresh": fresh, "--verbose": verbose and verb != "plan"}
    asked = _of_compare(verb, **{key: given.pop(key) for key in ("methods", "teachers", "student", "seeds", "tune")})
    return make(
        find(recipe),
        given.pop("overrides"),
        given.pop("out"),
        verb=verb,
        flags=[*(f for f, on in flags.items() if on), *asked],
        **given,
    )


def _of_compare(verb: Verb, **asked: Any) -> list[str]:
    """What is asked of a comparison, as its command takes it."""
    found = {key: value for key, value in asked.items() if value not in (None, False)}
    if found and verb != "compare":
        raise click.UsageError(f"--{next(iter(found))} is of `compare`; say --verb compare")
    return [part for key, value in found.items() for part in (f"--{key}", *([] if value is True else [str(value)]))]


def _show(submission: "Submission", as_json: bool) -> None:
    shown = submission.shown()
    if as_json:
        click.echo(json.dumps(shown, indent=1))
        return
    ships = shown["ships"]
    click.echo(f"id           {shown['id']}\nentry point  {shown['entrypoint']}")
    for number, (name, value) in enumerate(shown["runtime_env"].items()):
        click.echo(f"{'runtime_env' if not number else '':<12} {name}: {json.dumps(value)}")
    click.echo(
        f"ships        {ships['files']} files, {ships['bytes'] / 2**10:,.0f} KiB; yours: {', '.join(ships['yours'])}"
    )
    for note in shown["notes"]:
        click.echo(f"note: {note}")


def _follow(jobs: "Jobs", job_id: str, as_json: bool) -> None:
    """Write the job's log to stderr as it comes, and leave with its exit code."""
    from ..jobs.client import exit_code

    try:
        job = jobs.follow(job_id, lambda text: click.echo(text, nl=False, err=True))
    except Interrupted as stop:
        where = f"--address {jobs.address}"
        click.echo(
            f"\n{job_id} goes on without this command\n"
            f"  follow: collegium jobs logs -f {job_id} {where}\n  stop:   collegium jobs stop {job_id} {where}",
            err=True,
        )
        sys.exit(stop.exit_code)
    click.echo(json.dumps(job.record(), indent=1) if as_json else ending(job))
    sys.exit(exit_code(job))


def ending(job: "Job") -> str:
    from ..jobs.client import NO_PYTHON

    if job.exit_code in NO_PYTHON:
        return (
            f"{job.id}: failed (no `python` can be started from the PATH of the cluster's head; start the head with its "
            f"environment's folder first: `PATH=/its/environment/bin:$PATH ray start --head ...`)"
        )
    told = {"SUCCEEDED": "done", "STOPPED": "stopped; submitted again, it goes on"}.get(job.status, "failed")
    code = f", exit code {job.exit_code}" if job.exit_code else ""
    last = job.message.strip().splitlines()[-1:] if job.exit_code is None and job.status == "FAILED" else []
    return f"{job.id}: {told}{code}{''.join(f' ({line})' for line in last)}"


@click.group()
def jobs() -> None:
    """List, follow and stop the jobs of a cluster."""


@jobs.command("list")
@with_dashboard
@with_json
def list_jobs(address: str | None, as_json: bool) -> None:
    """List the jobs of a cluster, the oldest first."""
    found = _jobs(address).list()
    if as_json:
        click.echo(json.dumps([job.record() for job in found], indent=1))
        return
    width = max([len(job.id) for job in found] + [2])
    click.echo(f"{'id':<{width}}  {'status':<9}  exit  {'started':<16}  {'seconds':>8}  out")
    for job in found:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started)) if job.started else "-"
        code = "-" if job.exit_code is None else job.exit_code
        click.echo(
            f"{job.id:<{width}}  {job.status.lower():<9}  {code:>4}  {began:<16}  {job.seconds or 0:>8,.0f}  {job.out or '-'}"
        )


@jobs.command()
@with_id
@with_dashboard
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, and end with its exit code.")
def logs(job_id: str, address: str | None, follow: bool) -> None:
    """Print what a job has said up to now."""
    found = _jobs(address)
    if follow:
        _follow(found, job_id, False)
    else:
        click.echo(found.log(job_id), nl=False)


@jobs.command()
@with_id
@with_dashboard
@with_json
def stop(job_id: str, address: str | None, as_json: bool) -> None:
    """Stop a job. What it has sealed stays; submitted again, it goes on."""
    job = _jobs(address).stop(job_id)
    click.echo(json.dumps(job.record(), indent=1) if as_json else f"{job.id}: {job.status.lower()}")


def _jobs(address: str | None) -> "Jobs":
    from ..cluster.dashboard import dashboard_address
    from ..jobs.client import Jobs

    _show_warnings()
    return Jobs(dashboard_address(address))


def _show_warnings() -> None:
    """To stderr, a line each."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

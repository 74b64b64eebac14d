"""How a command ends: a message on stderr and an exit code, whatever has happened; a traceback goes to a file.

Exit codes: 0 done, 1 run failed, 2 usage or recipe invalid, 3 quality gate missed, 4 environment unfit, 5 predictions that
lack rows, 130/143 interrupted.
"""

import atexit
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from teachers.errors import CollegiumError
from teachers.process.log_lines import are_json
from teachers.storage.disk import is_unfit, unfit
from teachers.storage.place import spoken

from ..running.tracebacks import TOLD, _is_unforeseen, _keep
from .interrupts import Interrupted, raise_on_signals


def end_well(command: Callable[..., Any]) -> None:
    """Run the command line, and leave with an exit code where it does not simply end."""
    raise_on_signals()
    try:
        command(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        _leave(error.exit_code)
    except click.exceptions.Exit as stop:
        _leave(stop.exit_code)
    except SystemExit as stop:
        _leave(int(stop.code or 0))
    except (Interrupted, click.Abort) as stop:
        say(getattr(stop, "told", Interrupted.told))
        _leave(getattr(stop, "exit_code", 130))
    except BrokenPipeError:
        _leave(141)
    except Exception as error:
        _leave(_tell(unfit(error) if isinstance(error, OSError) and is_unfit(error) else error))


def _tell(error: Exception) -> int:
    """Say what was wrong; the exit code."""
    said = str(error).strip()
    if not isinstance(error, CollegiumError):
        said = f"{type(error).__name__}: {(said.splitlines() or ['nothing said'])[0]}"
    said = spoken(said)
    say(said if "\n" in said or are_json() else f"error: {said}")
    if _is_unforeseen(error):
        told = next((note for note in getattr(error, "__notes__", ()) if note.startswith(TOLD)), None)
        say(told or _keep(error, Path(tempfile.mkdtemp(prefix="collegium-"))))
    return error.exit_code if isinstance(error, CollegiumError) else 1


def say(message: str) -> None:
    """Last words on stderr: as they are, or as a line of JSON like all before them."""
    if are_json():
        logging.getLogger("collegium").error("%s", message)
    else:
        click.echo(message, err=True)


def _leave(exit_code: int) -> NoReturn:
    """End now: a thread that still asks a cluster that is gone would keep the process for ever."""
    Interrupted.is_heard = True
    with suppress(OSError):
        sys.stdout.flush()
    atexit._run_exitfuncs()  # among them Ray's, which ends what a start that was cut short has started
    os._exit(exit_code)

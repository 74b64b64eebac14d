"""How a command ends: a message on stderr and an exit code, whatever has happened; a traceback goes to a file.

Exit codes: 0 done, 1 run failed, 2 usage or recipe invalid, 3 quality gate missed, 4 environment unfit, 130/143 interrupted.
"""

import atexit
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import click

from teachers.disk import is_unfit, unfit
from teachers.errors import CollegiumError
from teachers.log_lines import are_json
from teachers.storage.place import spoken

from .interrupts import Interrupted, raise_on_signals

TRACEBACK = "traceback.txt"
TOLD = "the traceback is in "


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
        say("interrupted; the same command goes on from here")
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


class traceback_kept:
    """A context: the traceback of what nobody foresaw is kept in `folder`, and the exception says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and _is_unforeseen(error):
            with suppress(OSError):  # a disk that is full: it is kept elsewhere
                error.add_note(_keep(error, self.folder))


def _is_unforeseen(error: Exception) -> bool:
    """Whether only a traceback helps. An error of ours that has one from another process carries it as a note."""
    foreseen = isinstance(error, CollegiumError) or is_unfit(error)
    return not foreseen or hasattr(error, "__notes__")


def _keep(error: Exception, folder: Path) -> str:
    file = folder / TRACEBACK
    file.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return f"{TOLD}{file}"


def _leave(exit_code: int) -> NoReturn:
    """End now: a thread that still asks a cluster that is gone would keep the process for ever."""
    with suppress(OSError):
        sys.stdout.flush()
    atexit._run_exitfuncs()  # among them Ray's, which ends what a start that was cut short has started
    os._exit(exit_code)

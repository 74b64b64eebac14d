"""Which of the commands a job may run. Read for `--help`: imports nothing."""

from typing import Literal, get_args

Verb = Literal["run", "plan", "label", "distill", "evaluate", "export", "tune", "compare"]
VERBS: tuple[Verb, ...] = get_args(Verb)

"""Log lines and figures for Prometheus, where no Ray runs."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from teachers.process import log_lines
from teachers.process.log_lines import ROOTS, Carried, JsonLines, ids, with_ids, working_on
from tests import warm

ROOT = Path(__file__).parents[1]


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What our loggers write as JSON."""
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in ROOTS}
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    log_lines.handle(handler, logging.INFO)
    yield stream
    for name, (handlers, level) in before.items():
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = handlers, True
        logger.setLevel(level)


def test_a_line_is_one_object_with_the_ids_of_its_work(written: io.StringIO) -> None:
    log = logging.getLogger("teachers.labelling.label")
    with working_on(run="r"):
        with working_on(stage="label/wide", shard=3):
            log.warning("two\nlines of %s", "text")
        log.debug("not wanted")
        log.info("done")
    first, second = map(json.loads, written.getvalue().splitlines())
    assert first | {"time": 0} == {
        "time": 0,
        "level": "WARNING",
        "logger": "teachers.labelling.label",
        "message": "two\nlines of text",
        "run": "r",
        "stage": "label/wide",
        "shard": 3,
    }
    assert set(second) == {"time", "level", "logger", "message", "run"}


def test_ids_follow_the_work_into_a_thread_and_no_other() -> None:
    with ThreadPoolExecutor(1) as pool, working_on(run="r"):
        assert pool.submit(ids).result() == {}
        assert pool.submit(with_ids(ids)).result() == {"run": "r"}
        assert pool.submit(ids).result() == {}


def test_another_process_writes_as_this_one_does(written: io.StringIO) -> None:
    with working_on(run="r", stage="label/wide"):
        carried = Carried.from_here()
    assert carried == Carried({"run": "r", "stage": "label/wide"}, True, logging.INFO)
    code = (
        "import logging; from teachers.process.log_lines import Carried, working_on\n"
        f"{carried!r}.take_up()\n"
        "with working_on(shard=1): logging.getLogger('students.training.train').info('hello')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    line = json.loads(done.stderr)
    assert (line["message"], line["run"], line["stage"], line["shard"]) == ("hello", "r", "label/wide", 1)


def test_the_last_words_of_a_command_are_json_too(tmp_path: Path) -> None:
    done = warm.run(["run", "nowhere.yaml", "--log-format", "json"], tmp_path, os.environ)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 2 and lines[-1]["level"] == "ERROR" and "no such file" in lines[-1]["message"]


def test_without_ray_figures_go_nowhere() -> None:
    code = (
        "import sys; from teachers.process import prometheus\n"
        "for name, figure in prometheus.FIGURES.items():\n"
        "    labels = dict.fromkeys(figure.labels, 'x')\n"
        "    (prometheus.add if figure.kind == 'Counter' else prometheus.show)(name, 1, **labels)\n"
        "sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_figures_wait_for_a_ray_that_another_thread_is_importing() -> None:
    code = (
        "import sys, types; from teachers.process import prometheus\n"
        "sys.modules['ray'] = types.ModuleType('ray')\n"  # as it is until its last line was run
        "prometheus.show('collegium_stages_done', 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

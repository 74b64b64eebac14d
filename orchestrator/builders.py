"""How each stage is built: the glue between the graph and the code in teachers and students. Reuse is decided elsewhere."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from students.config import HardTerm, StudentConfig
from teachers.config import ModuleTeacher, Resources, SklearnTeacher, TeacherConfig, TrainConfig
from teachers.seal import Damage, Seal, digest_of, publish, read_seal, write_seal

from . import graph
from .cluster import Cluster, call
from .progress import Watch
from .recipe import Recipe, public
from .stages import Built, Stage, Stages

if TYPE_CHECKING:
    from students.train import Run, RunResult, Source
    from teachers.transfer_set import TransferSet

Facts = Mapping[str, Any]


@dataclass
class Context:
    """What every builder needs."""

    recipe: Recipe
    stages: Stages
    cluster: Cluster
    watch: Watch
    mailbox: Any
    user_path: Path


@dataclass
class Taught:
    """A teacher's labels: one built stage per segment, by the segment's name."""

    name: str
    config: TeacherConfig
    labels: dict[str, Built] = field(default_factory=dict)

    def digests(self, segments: Sequence[str]) -> str:
        return digest_of([[segment, self.labels[segment].digest] for segment in sorted(segments)])


def prepare(context: Context) -> Built:
    from teachers.prepare import prepare as prepare_transfer_set
    from teachers.sources import source_digest

    config = context.recipe.transfer_set
    stage = graph.prepare_stage(context.recipe, source_digest(config))

    def build(folder: Path) -> tuple[Seal, Facts]:
        earlier = context.stages.earlier(stage)
        start = time.monotonic()
        transfer_set = prepare_transfer_set(
            config,
            folder,
            earlier=Path(earlier["folder"]) if earlier else None,
            run=partial(context.cluster.map, user_path=context.user_path),
        )
        rows = sum(segment.num_rows for segment in transfer_set.segments)
        return write_seal(folder, transfer_set.files()), _speed(rows, time.monotonic() - start)

    return context.stages.build(stage, build)


def train_teachers(context: Context, prepared: Built) -> dict[str, Built]:
    """All teachers that are trained here; the networks in one worker group."""
    mine = [name for name, teacher in context.recipe.teachers.items() if graph.is_trained_here(teacher)]
    stages = {graph.train_teacher_stage(context.recipe, name, prepared.digest): name for name in mine}
    networks = [stage for stage in stages if context.recipe.teachers[stage.name].kind == "module"]
    built: dict[Stage, Built] = {}
    for stage in stages:
        if stage not in networks:
            built[stage] = context.stages.build(stage, partial(_fit_sklearn, context, stage, prepared))
    for group in _groups(networks, lambda stage: _needs(context.recipe.teachers[stage.name])):
        built |= context.stages.build_together(group, partial(_fit_networks, context, prepared))
    return {stage.name: built[stage] for stage in stages}


def _fit_sklearn(context: Context, stage: Stage, prepared: Built, folder: Path) -> tuple[Seal, Facts]:
    from teachers.adapters import fit_sklearn

    config = context.recipe.teachers[stage.name]
    assert isinstance(config, SklearnTeacher)
    start = time.monotonic()
    call(fit_sklearn, config, prepared.folder, folder, resources=config.resources, user_path=context.user_path)
    outputs = [path.name for path in folder.iterdir() if path.name in ("model.skops", "teacher.json")]
    return write_seal(folder, outputs), {"train_s": round(time.monotonic() - start, 3)}


def _fit_networks(context: Context, prepared: Built, folders: Mapping[Stage, Path]) -> dict[Stage, tuple[Seal, Facts]]:
    runs = {stage: _teacher_run(context, stage, prepared, folder) for stage, folder in folders.items()}
    config = context.recipe.teachers[next(iter(folders)).name]
    assert isinstance(config, ModuleTeacher) and config.train is not None
    results = _fit(context, list(runs.values()), config.resources, config.train.workers)
    return {stage: _seal_runs(folders[stage], [results[run]]) for stage, run in runs.items()}


def _teacher_run(context: Context, stage: Stage, prepared: Built, folder: Path) -> "Run":
    from students.train import Run

    config = context.recipe.teachers[stage.name]
    assert isinstance(config, ModuleTeacher) and config.train is not None
    name = f"teacher/seed-{config.train.seed}"
    return Run(
        name=name,
        folder=folder / name,
        stage=folder,
        stage_name=stage.title,
        model=config.model,
        arguments=config.arguments,
        preprocess=config.preprocess,
        objective=(HardTerm(loss="hard"),),
        train=config.train,
        seed=config.train.seed,
        transfer_set=prepared.folder,
        sources=(),
        labelled_only=True,
        user_path=context.user_path,
        trust=context.recipe.trusted(),
    )


def label(
    context: Context, name: str, config: TeacherConfig, weights: str, trained: Path | None, prepared: Built
) -> Taught:
    """Ask one teacher about every segment; its actors start once, and only when something is missing."""
    from teachers.transfer_set import TransferSet

    transfer_set = TransferSet.open(prepared.folder)
    statistics = digest_of([[c.name, list(c.mean), list(c.std)] for c in transfer_set.columns])
    classes = list(transfer_set.classes)
    segments = {
        graph.label_stage(config, name, (segment.name, segment.digest), weights, classes, statistics): segment.name
        for segment in transfer_set.segments
    }
    build = partial(_label, context, config, weights, trained, transfer_set)
    built = context.stages.build_together(list(segments), build, _repair_store)
    return Taught(name, config, {segments[stage]: done for stage, done in built.items()})


def _label(
    context: Context,
    config: TeacherConfig,
    weights: str,
    trained: Path | None,
    transfer_set: "TransferSet",
    folders: Mapping[Stage, Path],
) -> dict[Stage, tuple[Seal, Facts]]:
    from teachers.labelling import LabelTask, TeacherSpec
    from teachers.labelling import label as ask

    from teachers.soft_targets.store import SoftTargetStore

    name = next(iter(folders)).name
    teacher = TeacherSpec(
        name=name,
        config=config,
        digest=weights,
        transfer_set=transfer_set.folder,
        trained=trained,
        trust=context.recipe.trusted(),
        user_path=context.user_path,
    )
    tasks = [LabelTask(transfer_set.folder, stage.part, folder) for stage, folder in folders.items()]
    report = ask(
        teacher,
        tasks,
        progress=lambda now: context.watch.advance(
            f"label/{name}", now.rows_done, now.rows_total, f"{now.rows_per_s:,.0f} rows/s"
        ),
    )
    facts = report.facts()
    return {stage: (SoftTargetStore.open(folder).seal(), facts[folder]) for stage, folder in folders.items()}


def _repair_store(folder: Path, away: Path, damages: list[Damage]) -> None:
    from teachers.soft_targets.store import SoftTargetStore

    SoftTargetStore.open(folder).repair(away)


def distill(context: Context, names: Sequence[str], prepared: Built, taught: Mapping[str, Taught]) -> dict[str, Built]:
    """Train students whose teachers have all labelled, with their controls; equal needs share a worker group."""
    train = segments_of(prepared, "train")
    stages = []
    for name in names:
        labels = {teacher: taught[teacher].digests(train) for teacher in context.recipe.students[name].teachers}
        stages.append(graph.distill_stage(context.recipe, name, prepared.digest, labels))
    built: dict[Stage, Built] = {}
    for group in _groups(stages, lambda stage: _needs(context.recipe.students[stage.name])):
        built |= context.stages.build_together(group, partial(_distill, context, prepared, taught, train))
    return {stage.name: built[stage] for stage in stages}


def _distill(
    context: Context,
    prepared: Built,
    taught: Mapping[str, Taught],
    train: Sequence[str],
    folders: Mapping[Stage, Path],
) -> dict[Stage, tuple[Seal, Facts]]:
    runs: dict[Stage, list[Run]] = {}
    for stage, folder in folders.items():
        config = context.recipe.students[stage.name]
        heard = sources(context.recipe, config, taught, train)
        runs[stage] = _student_runs(context, stage, prepared, folder, heard)
    config = context.recipe.students[next(iter(folders)).name]
    results = _fit(context, [run for each in runs.values() for run in each], config.resources, config.train.workers)
    return {stage: _seal_runs(folders[stage], [results[run] for run in each]) for stage, each in runs.items()}


def sources(
    recipe: Recipe, config: StudentConfig | None, taught: Mapping[str, Taught], segments: Sequence[str]
) -> tuple["Source", ...]:
    """A student's teachers (or all of the recipe's), as those who read their labels need them."""
    from students.train import Source

    names = config.teachers if config is not None else list(recipe.teachers)
    return tuple(
        Source(name=name, stores={s: taught[name].labels[s].folder for s in segments}, **graph.hearing(recipe, name))
        for name in names
    )


def _student_runs(
    context: Context, stage: Stage, prepared: Built, folder: Path, heard: "tuple[Source, ...]"
) -> "list[Run]":
    from students.train import Run

    config = context.recipe.students[stage.name]
    runs = []
    for kind in ("student", "control") if config.control else ("student",):
        for seed in config.train.seeds:
            run = Run(
                name=f"{kind}/seed-{seed}",
                folder=folder / kind / f"seed-{seed}",
                stage=folder,
                stage_name=stage.title,
                model=config.model,
                arguments=config.arguments,
                preprocess=config.preprocess,
                objective=tuple(config.objective) if kind == "student" else (HardTerm(loss="hard"),),
                train=config.train,
                seed=seed,
                transfer_set=prepared.folder,
                sources=heard if kind == "student" else (),
                labelled_only=kind == "control",
                user_path=context.user_path,
                trust=context.recipe.trusted(),
            )
            runs.append(run)
    return runs


def _fit(context: Context, runs: "list[Run]", resources: Resources, workers: int) -> "dict[Run, RunResult]":
    from students.ray_train import fit_on_ray

    results = fit_on_ray(
        runs, resources=resources, workers=workers, gpus=context.cluster.gpus(resources), mailbox=context.mailbox
    )
    return dict(zip(runs, results, strict=True))


def _seal_runs(folder: Path, results: "list[RunResult]") -> tuple[Seal, Facts]:
    """Seal a training stage; delivered is the seed with the best validation metric, ties to the lower seed."""
    students = [result for result in results if not result.name.startswith("control/")]
    best = min(students, key=lambda result: (-result.validation["accuracy"], result.seed))
    publish(folder / "delivered.json", json.dumps({"format": 1, "run": best.name, "seed": best.seed}).encode())
    outputs = ["delivered.json"]
    for result in results:
        seal = read_seal(folder / result.name)
        assert seal is not None
        outputs += [f"{result.name}/{path}" for path in (*(output.path for output in seal.outputs), "SEAL.json")]
    facts = {"steps": sum(result.steps for result in results)}
    return write_seal(folder, outputs), facts


def delivered(folder: Path) -> tuple[str, int]:
    """(run, seed) that a training stage delivers."""
    document = json.loads((folder / "delivered.json").read_bytes())
    return document["run"], document["seed"]


def delivered_digest(built: Built) -> str:
    run, _ = delivered(built.folder)
    return built.output_digest(f"{run}/config.json", f"{run}/model.safetensors")


def evaluate_teachers(context: Context, prepared: Built, taught: Mapping[str, Taught]) -> Built:
    from students.evaluate import evaluate_teachers as evaluate

    segments = segments_of(prepared, "validation", "test")
    labels = {name: taught[name].digests(segments) for name in context.recipe.teachers}
    stage = graph.evaluate_teachers_stage(context.recipe, prepared.digest, labels)
    heard = sources(context.recipe, None, taught, segments)
    build = partial(_evaluate, context, Resources(), evaluate, prepared.folder, heard)
    return context.stages.build(stage, build)


def evaluate_student(
    context: Context, name: str, prepared: Built, student: Built, taught: Mapping[str, Taught]
) -> Built:
    from students.evaluate import evaluate_student as evaluate

    config = context.recipe.students[name]
    segments = segments_of(prepared, "validation", "test")
    labels = {teacher: taught[teacher].digests(segments) for teacher in config.teachers}
    stage = graph.evaluate_stage(context.recipe, name, prepared.digest, student.digest, labels)
    heard = sources(context.recipe, config, taught, segments)
    runs = {
        kind: {s: student.folder / kind / f"seed-{s}" for s in config.train.seeds} for kind in ("student", "control")
    }
    control = runs["control"] if config.control else None
    arguments = (
        prepared.folder,
        heard,
        runs["student"],
        control,
        delivered(student.folder)[1],
        context.recipe.trusted(),
    )
    build = partial(_evaluate, context, config.resources, evaluate, *arguments)
    return context.stages.build(stage, build)


def _evaluate(
    context: Context, resources: Resources, function: Callable[..., dict[str, Any]], *arguments: Any
) -> tuple[Seal, Facts]:
    *given, folder = arguments
    document = call(function, *given, resources=resources, user_path=context.user_path)
    publish(folder / "evaluation.json", json.dumps(document, indent=1, allow_nan=False).encode())
    return write_seal(folder, ["evaluation.json"]), {}


def segments_of(prepared: Built, *splits: str) -> list[str]:
    from teachers.transfer_set import TransferSet

    return [segment.name for segment in TransferSet.open(prepared.folder).segments if segment.split in splits]


def export(context: Context, name: str, student: Built, evaluated: Built) -> Built:
    from students.export import export_student

    stage = graph.export_stage(context.recipe, name, delivered_digest(student), evaluated.digest)

    def build(folder: Path) -> tuple[Seal, Facts]:
        run, _ = delivered(student.folder)
        evaluation = json.loads((evaluated.folder / "evaluation.json").read_bytes())
        recipe_yaml = yaml.safe_dump(public(context.recipe), sort_keys=False)
        outputs = export_student(
            student.folder / run, folder, name=name, evaluation=evaluation, recipe_yaml=recipe_yaml
        )
        return write_seal(folder, outputs), {}

    return context.stages.build(stage, build)


def _needs(config: ModuleTeacher | StudentConfig | TeacherConfig) -> str:
    train = getattr(config, "train", None)
    workers = train.workers if isinstance(train, TrainConfig) else 1
    return digest_of([config.resources.model_dump(mode="json"), workers])


def _groups(stages: Sequence[Stage], key: Callable[[Stage], str]) -> list[list[Stage]]:
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(key(stage), []).append(stage)
    return list(groups.values())


def _speed(rows: int, seconds: float) -> Facts:
    return {"rows": rows, "rows_per_s": round(rows / max(seconds, 1e-9), 1)}

"""The reference of the recipe: one page a part of it, one table a model, all from the models' own schema."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.recipe.model import Recipe

from .tables import NOTE, row


@dataclass(frozen=True)
class Page:
    """`models` are names of models, or the ends of names: `*Teacher`. `all_of`: what these are together called."""

    title: str
    models: tuple[str, ...]
    all_of: str | None = None

    @property
    def anchor(self) -> str:
        return (self.all_of or self.title).lower().replace(" ", "-")


PAGES: dict[str, Page] = {
    "transfer-set": Page(
        "The transfer set",
        ("TransferSetConfig", "InputColumn", "*Source", "SplitConfig", "SplitFiles", "LabelledRows", "Munge"),
    ),
    "teachers": Page(
        "Teachers", ("*Teacher", "NamedOutput", "TeacherRequire", "Limits", "Price", "Budget"), all_of="Every teacher"
    ),
    "students": Page(
        "Students", ("StudentConfig", "Hydra", "Init", "Energy", "EstimatorStudent", "ControlTrain", "Require")
    ),
    "objective": Page("The objective", ("*Term", "Ramp"), all_of="Every term"),
    "hints": Page("Hints", ("*Hint", "Evenly"), all_of="Every hint"),
    "training": Page(
        "Training",
        (
            "StudentTrain",
            "TeacherTrain",
            "MemberTrain",
            "EstimatorTrain",
            "EstimatorStudentTrain",
            "EarlyStopping",
            "HeldOut",
            "Mix",
        ),
    ),
    "cohorts": Page("Cohorts", ("*Cohort", "MemberConfig"), all_of="Every cohort"),
    "search": Page("The search", ("SearchConfig", "Uniform", "LogUniform", "Integer", "Choice", "Subset", "SubsetOf")),
    "preprocess": Page("Preprocessing", ("Preprocess", "Normalise", "Tokenizer", "Ngrams", "Encoder")),
    "running": Page("Resources and tracking", ("Resources", "Replicas", "Tracking")),
}
FAMILY = 3
"""Of so many models of one kind, the keys that all have are told once."""


def pages() -> dict[str, str]:
    """{path below docs/reference: Markdown}. Raises ValueError for a model that stands on no page, or on two."""
    schema = Recipe.model_json_schema()
    models = {name: model for name, model in schema["$defs"].items() if "properties" in model}
    where = {name: _page_of(name) for name in models}
    meanings = {name: _told(model) for name, model in models.items()}
    told = {"recipe.md": _index(schema, _Types(where, meanings, None))}
    for stem, page in PAGES.items():
        mine = [name for pattern in page.models for name in models if where[name] == stem and _fits(name, pattern)]
        parts = [f"{NOTE}\n\n# {page.title}\n\nPart of [the recipe](../recipe.md)."]
        parts += _tables(page, {name: models[name] for name in mine}, _Types(where, meanings, stem))
        told[f"recipe/{stem}.md"] = "\n\n".join(parts) + "\n"
    return told


def _fits(name: str, pattern: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*") else name == pattern


def _page_of(name: str) -> str:
    exact = [stem for stem, page in PAGES.items() if name in page.models]
    found = exact or [stem for stem, page in PAGES.items() if any(_fits(name, pattern) for pattern in page.models)]
    if len(found) != 1:
        raise ValueError(f"docs/render/recipe.py: model {name} stands on {len(found)} pages; name it in PAGES, on one")
    return found[0]


@dataclass(frozen=True)
class _Types:
    """How types are told on the page `here` (None: the index)."""

    where: Mapping[str, str]
    meanings: Mapping[str, str]
    here: str | None

    def link(self, name: str) -> str:
        if name not in self.where:
            return name
        page = "" if self.where[name] == self.here else f"{self.where[name]}.md"
        folder = "recipe/" if self.here is None else ""
        return f"[{name}]({folder}{page}#{name.lower()})"

    def of(self, field: Mapping[str, Any]) -> str:
        if "$ref" in field:
            return self.link(str(field["$ref"]).rpartition("/")[2])
        if "const" in field:
            return f"`{field['const']}`"
        if "enum" in field:
            return ", ".join(f"`{value}`" for value in field["enum"])
        for union in ("anyOf", "oneOf", "allOf"):
            if union in field:
                return self._of_union(field[union])
        kind = str(field.get("type", "any"))
        if kind == "array":
            return f"list of {self._inner(field.get('items', {}))}"
        by_name = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
        if kind == "object" and isinstance(by_name[0], dict):
            return f"mapping to {self._inner(by_name[0])}"
        return {"string": "text", "boolean": "true or false", "object": "mapping"}.get(kind, kind)

    def told(self, field: Mapping[str, Any]) -> str:
        """What the model says of itself that a field is of."""
        return self.meanings.get(str(field.get("$ref", "")).rpartition("/")[2], "")

    def _of_union(self, members: Sequence[Mapping[str, Any]]) -> str:
        names = [str(member.get("$ref", "")).rpartition("/")[2] for member in members]
        pages = {self.where.get(name) for name in names}
        if len(members) > FAMILY and len(pages) == 1 and (page := pages.pop()) is not None:
            folder = "recipe/" if self.here is None else ""
            return f"[one of these]({'' if page == self.here else f'{folder}{page}.md'}#{PAGES[page].anchor})"
        return " or ".join(dict.fromkeys(self.of(member) for member in members))

    def _inner(self, field: Mapping[str, Any]) -> str:
        told = self.of(field)
        return f"({told})" if " or " in told else told


def _index(schema: Mapping[str, Any], types: "_Types") -> str:
    linked = [f"- [{page.title}](recipe/{stem}.md)" for stem, page in PAGES.items()]
    text = (
        "A YAML file; unknown keys are errors, told with line, column and the nearest key. `collegium schema` prints the "
        "JSON schema for editors, `collegium schema RECIPE --recipe` a recipe with every default filled in, and `-o path.to.key=value` "
        "sets a key on the command line."
    )
    table = _table({key: _cells(schema, key, types) for key in schema["properties"]})
    return "\n\n".join([NOTE, "# The recipe", text, "\n".join(linked), "## Recipe", _told(schema), table]) + "\n"


def _tables(page: Page, models: Mapping[str, Mapping[str, Any]], types: _Types) -> Iterator[str]:
    cells = {name: {key: _cells(model, key, types) for key in model["properties"]} for name, model in models.items()}
    family = [name for name in models if page.all_of and _fits(name, page.models[0])]
    shared: dict[str, list[str]] = {}
    if len(family) >= FAMILY:
        first = cells[family[0]]
        shared = {key: told for key, told in first.items() if all(cells[name].get(key) == told for name in family)}
        yield f"## {page.all_of}"
        yield _table(shared)
    for name, model in models.items():
        own = {key: told for key, told in cells[name].items() if name not in family or key not in shared}
        yield f"## {name}"
        yield _told(model)
        yield _table(own) if own else "No keys of its own."


def _told(model: Mapping[str, Any]) -> str:
    return " ".join(str(model.get("description", "")).split())


def _cells(model: Mapping[str, Any], key: str, types: _Types) -> list[str]:
    """Key, type, default and meaning."""
    field = model["properties"][key]
    required = key in model.get("required", [])
    given = field.get("default")
    nested = isinstance(given, dict) and given
    default = "required" if required else "its own defaults" if nested else f"`{json.dumps(_said(given))}`"
    return [f"`{key}`", types.of(field), default, _told(field) or types.told(field)]


def _said(value: Any) -> Any:
    """A default without what it leaves open."""
    if isinstance(value, dict):
        return {key: _said(each) for key, each in value.items() if each is not None}
    return [_said(each) for each in value] if isinstance(value, list) else value


def _table(rows: Mapping[str, Sequence[str]]) -> str:
    lines = [row("key", "type", "default", "meaning"), "|---|---|---|---|"]
    return "\n".join([*lines, *(row(*cells) for cells in rows.values())])

"""Puts the recipe reference, which is generated from the models, into the README: `python -m tests.readme`."""

from pathlib import Path

from orchestrator.recipe.reference import reference

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- reference: begin -->\n", "<!-- reference: end -->\n"


def main() -> None:
    text = README.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    README.write_text(before + BEGIN + reference() + END + after)


if __name__ == "__main__":
    main()

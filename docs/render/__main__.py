"""`python -m docs.render`: writes what is made, and says which files changed."""

from . import ROOT
from .pages import made


def main() -> None:
    for path, text in made().items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()

"""A module's source by what it means. Comments, docstrings and the lines that things stand on do not count."""

import ast
import hashlib
from pathlib import Path


def source_digest(payload: bytes, path: Path) -> str:
    """Of a module's source by its meaning; of a compiled module by its bytes. Raises SyntaxError."""
    if path.suffix != ".py":
        return hashlib.sha256(payload).hexdigest()
    tree = ast.parse(payload, str(path))
    asks_for_docstrings = any("__doc__" in (getattr(n, "attr", ""), getattr(n, "id", "")) for n in ast.walk(tree))
    if not asks_for_docstrings:
        for node in ast.walk(tree):
            for block in ("body", "orelse", "finalbody"):
                if isinstance(statements := getattr(node, block, None), list):
                    setattr(node, block, [each for each in statements if not _is_text(each)])
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None)
    return isinstance(statement, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str)

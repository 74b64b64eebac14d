"""Collegium distils many teachers into one small student on a Ray cluster.

Everything the command does is one call from here: `from orchestrator import Recipe, compare, load_recipe, plan, run, tune`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .planning.planning import plan as plan
    from .recipe.load import load_recipe as load_recipe
    from .recipe.model import Recipe as Recipe
    from .running.compare import compare as compare
    from .running.run import run as run
    from .running.tune import tune as tune

__all__ = ["Recipe", "compare", "load_recipe", "plan", "run", "tune"]
_HOMES = {
    "Recipe": "recipe.model",
    "compare": "running.compare",
    "load_recipe": "recipe.load",
    "plan": "planning.planning",
    "run": "running.run",
    "tune": "running.tune",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `collegium --help` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

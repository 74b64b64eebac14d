"""The pages of `docs/` that are made, from models, tables and records, by `make docs`. No part of what is installed."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

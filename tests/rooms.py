"""The rooms of each package, top first: a room imports only rooms below it. Held by a test, drawn by `make docs`."""

PACKAGES = ("orchestrator", "students", "teachers")
"""Top first, too."""
ROOMS = {
    "orchestrator": ["cli", "running", "planning", "building", "tracking", "reporting", "watching", "search", "jobs", "stages", "cluster", "scheduling", "recipe"],
    "students": ["fitting", "cohorts", "delivering", "training", "measuring", "data", "objective", "runs", "tasks", "config"],
    "teachers": ["labelling", "preparing", "models", "sources", "bundles", "transfer_set", "users_code", "soft_targets", "resources", "tasks", "storage", "rows", "process", "config"],
}  # fmt: skip
"""Top first: a room imports only rooms below it."""
BESIDE = {
    "orchestrator": ["__init__", "__main__"],
    "students": ["__init__", "models"],
    "teachers": ["__init__", "zoo", "errors"],
}
"""Modules that stand beside the rooms: entry points on the left of these, what recipes and every room name."""

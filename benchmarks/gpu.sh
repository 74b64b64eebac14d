#!/usr/bin/env bash
# What a GPU shows, in under six minutes on a large one: the tests marked gpu, labelling by a network as large as ResNet-50, a cached
# step over a plain one, and what views cost a step. The last line printed is one JSON object: each part's last line, or null with
# its exit code where it failed. Run from the repository root; `--device cpu` tries all of it, small, on a machine without a GPU.
#
#     bash benchmarks/gpu.sh [--device cuda|cpu]
set -uo pipefail
cd "$(dirname "$0")/.."
device=cuda
[ "${1:-}" = --device ] && device=$2
python=.venv/bin/python
[ -x "$python" ] || python=python3
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
rounds=7
[ "$device" = cpu ] && rounds=1
part() { # NAME COMMAND...
  local name=$1
  shift
  "$@" > "$logs/$name" 2>&1
  echo $? > "$logs/$name.rc"
  tail -n 3 "$logs/$name"
}
part tests "$python" -m pytest tests -m gpu -q --no-header -p no:cacheprovider
part large_images "$python" -m benchmarks.large_images --device "$device" --rounds "$rounds"
part training "$python" -m benchmarks.training --device "$device" --rounds "$rounds"
part views "$python" -m benchmarks.views --device "$device" --rounds "$rounds"
"$python" - "$logs" << 'PYTHON'
import json
import sys
from pathlib import Path

logs, found = Path(sys.argv[1]), {}
for name in ("tests", "large_images", "training", "views"):
    code, lines = int((logs / f"{name}.rc").read_text()), (logs / name).read_text().strip().splitlines()
    last = lines[-1] if lines else ""
    ended = last if name == "tests" else json.loads(last) if code == 0 else None
    found[name] = {"exit_code": code, "found": ended}
print(json.dumps(found))
PYTHON

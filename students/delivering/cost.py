"""What a graph costs where it will run: a process of onnxruntime alone that answers one row at a time on one thread.

Knows nothing of what it says.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teachers.errors import CollegiumError

TIMES = 200
PROBE = """
import json, resource, sys, time
import numpy, onnxruntime
graph, rows, times = sys.argv[1], dict(numpy.load(sys.argv[2])), int(sys.argv[3])
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
fed = {each.name: rows[each.name][:1] for each in session.get_inputs()}
seconds = []
for number in range(times // 10 + times):
    start = time.perf_counter()
    session.run(None, fed)
    seconds.append(time.perf_counter() - start)
p50, p95 = numpy.quantile(seconds[times // 10 :], [0.5, 0.95]) * 1e3
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps({"p50_ms": float(p50), "p95_ms": float(p95), "peak_bytes": int(peak - before)}))
"""


def cost_of(payload: bytes, inputs: Mapping[str, NDArray[Any]], times: int = TIMES) -> dict[str, Any]:
    """`p50_ms`, `p95_ms` of one row on one thread; `peak_bytes`: of memory, beyond what the packages take by themselves."""
    with TemporaryDirectory(prefix="cost-") as scratch:
        graph, rows = Path(scratch, "graph.onnx"), Path(scratch, "rows.npz")
        graph.write_bytes(payload)
        np.savez(rows, **{name: values[:1] for name, values in inputs.items()})  # type: ignore[arg-type]
        command = [sys.executable, "-I", "-c", PROBE, str(graph), str(rows), str(times)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CollegiumError(f"the graph could not be timed in a process of its own: {last:.200}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found

"""One measurement in a process of its own: `python -m benchmarks.child TASK.json RESULT.json`.

Peaks of memory, threads and caches of one store then say nothing about the next.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import workloads
from benchmarks.compare.base import UnsupportedError
from benchmarks.task import Task


def main(task_path: str, result_path: str) -> None:
    """Does the task and leaves what it found."""
    task = Task(**json.loads(Path(task_path).read_text()))
    result = Path(result_path)

    def leave(found: dict[str, object]) -> None:
        result.write_text(json.dumps(found))

    try:
        found = workloads.WORKLOADS[task.workload].run(task, leave)
    except UnsupportedError as refused:
        leave({"unsupported": str(refused)})
        return
    leave(found)


if __name__ == "__main__":
    main(*sys.argv[1:])

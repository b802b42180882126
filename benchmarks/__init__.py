"""Named workloads for waferdb and its peers: `python -m benchmarks --help`, docs/benchmarks.md.

A run is a list of measurements; each is a workload's case done by one store, in a process of its
own (child.py) on a file system of its own (device.py). The harness (harness.py) collects them,
targets.py judges them, and report.py, terminal.py and page.py show them.
"""

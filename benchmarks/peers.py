"""The same points into MLflow's and Trackio's own stores: run by `ingest.py --peers-python`, prints JSON.

It imports nothing of Preflab's, so that it runs in an environment of its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
import time
from pathlib import Path

BATCH = 1000  # the most metrics that MLflow takes in one log-batch


def mlflow(lines: list[dict[str, float]]) -> dict[str, object]:
    """`MlflowClient.log_batch` into its SQLite store, 1,000 points a call."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    path = Path(tempfile.mkdtemp()) / "mlflow.db"
    client = MlflowClient(tracking_uri=f"sqlite:///{path}")
    run = client.create_run(client.create_experiment("ingest")).info.run_id
    now = int(1000 * time.time())
    points = [Metric(name, value, now + step, step) for step, line in enumerate(lines) for name, value in line.items()]
    before = _size(path)
    begun = time.perf_counter()
    for start in range(0, len(points), BATCH):
        client.log_batch(run, metrics=points[start : start + BATCH])
    seconds = time.perf_counter() - begun
    return _told("mlflow", len(points), seconds, _size(path) - before)


def trackio(lines: list[dict[str, float]]) -> dict[str, object]:
    """`trackio.log`, one call a step, until `trackio.finish` has it all stored locally."""
    folder = Path(tempfile.mkdtemp())
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    trackio.init(project="ingest", name="run")
    before = _size(folder)
    begun = time.perf_counter()
    for step, line in enumerate(lines):
        trackio.log(line, step=step)
    trackio.finish()
    seconds = time.perf_counter() - begun
    return _told("trackio", sum(map(len, lines)), seconds, _size(folder) - before)


def _told(name: str, points: int, seconds: float, size: int) -> dict[str, object]:
    version = importlib.metadata.version(name)
    return {"name": name, "version": version, "points": points, "seconds": seconds, "bytes": size}


def _size(path: Path) -> int:
    """Bytes of a file with its write-ahead log, or of all files of a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


if __name__ == "__main__":
    wanted, source = sys.argv[1], Path(sys.argv[2])
    measured = {"mlflow": mlflow, "trackio": trackio}[wanted](json.loads(source.read_text()))
    print("RESULT " + json.dumps(measured))

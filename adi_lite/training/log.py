"""The course of a training run on disk: one JSON object a line, and event files that TensorBoard reads."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboardX import SummaryWriter

from adi_lite.atomic import replacing

METRICS_FILE, LOGS = "metrics.jsonl", "logs"


class RunLog:
    """Keeps each epoch's record in ``out/metrics.jsonl`` and in ``out/logs``.

    Args:
        out: folder of the run.
        resume: keep the lines that are there; an epoch that is trained again takes the place of its line.
    """

    def __init__(self, out: Path, *, resume: bool = False) -> None:
        self.path = out / METRICS_FILE
        self.lines: dict[tuple[str, int], dict] = {}
        if resume and self.path.is_file():
            for line in self.path.read_text().splitlines():
                record = json.loads(line)
                self.lines[record.get("domain", ""), record["epoch"]] = record
        self.logs, self.writer = out / LOGS, None

    def add(self, record: dict) -> None:
        """Keep an epoch's record: epoch (from 0), numbers, and ``domain`` where a model is one domain's."""
        if self.writer is None:  # not before: a run that is refused leaves its folder alone
            self.writer = SummaryWriter(str(self.logs))
        domain, epoch = record.get("domain", ""), record["epoch"]
        self.lines[domain, epoch] = record
        with replacing(self.path) as partial:
            partial.write_text("".join(json.dumps(self.lines[key]) + "\n" for key in sorted(self.lines)))
        for name, value in record.items():
            if name not in ("epoch", "domain"):
                self.writer.add_scalar(f"{domain}/{name}" if domain else name, value, epoch)
        self.writer.flush()

    def complete(self, records: list[dict]) -> None:
        """Add the epochs of a finished run that are missing: a run killed between its checkpoint and its line."""
        for record in records:
            if (record.get("domain", ""), record["epoch"]) not in self.lines:
                self.add(record)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

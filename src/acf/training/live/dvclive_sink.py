"""Curves for DVC: one table per curve, and the last values in `metrics.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acf.training.live.sink import points


class DVCLiveSink:
    """Writes `plots/metrics/<label>.tsv` and `metrics.json` by DVCLive, which saves no experiment of its own."""

    package = "dvclive"

    def __init__(self, folder: Path) -> None:
        from dvclive import Live

        self._live = Live(str(folder), save_dvc_exp=False, dvcyaml=None)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row to the tables."""
        self._live.step = row["step"]
        for label, value in points(row).items():
            self._live.log_metric(label, value)

    def flush(self) -> None:
        """Write the last values; `Live.next_step` would read all tables again to do so."""
        self._live.make_summary()

    def close(self) -> None:
        """End DVCLive's run."""
        self._live.end()

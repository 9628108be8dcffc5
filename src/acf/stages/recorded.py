"""The recipe that output files say they are of: in JSON, in a picture's text, in a page's head."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from acf.errors import AcfError
from acf.flows.record import CONFIG, HASHES, WEIGHTS, read_record, weights_hash
from acf.registry import ANALYSES
from acf.reporting.analysis_files import AnalysisFile
from acf.reporting.result_files import read_result, read_table
from acf.reporting.row_schemas import HistoryRow
from acf.reporting.rows_file import RowsFile
from acf.reporting.sampled_files import SamplesFile
from acf.reporting.schemas import Baselines, Metrics, TrainedModel
from acf.runs.recipe import file_hash
from acf.stages.project import BASELINE_IMAGES, HISTORY, IMAGES, ROWS, ROWS_RECORD, SAMPLES_RECORD

SCHEMAS: dict[str, type[BaseModel]] = {
    CONFIG: TrainedModel,
    "metrics.json": Metrics,
    "baselines.json": Baselines,
    SAMPLES_RECORD: SamplesFile,
    ROWS_RECORD: RowsFile,
    **{f"{name}.json": AnalysisFile for name in ANALYSES},
}
VOUCHED = {
    IMAGES: ("metrics.json", "images_sha256"),
    BASELINE_IMAGES: ("baselines.json", "images_sha256"),
    ROWS: (ROWS_RECORD, "rows_sha256"),
}
"""Tables, each with the output of the same call that has its hash, and under which key."""
IN_PAGE = re.compile(r'<meta name="recipe" content="(\w+)">')
HEAD = 1000
"""Characters of a page in which it says its recipe."""


def recorded_recipe(paths: Sequence[Path], whole: bool = False) -> str | None:
    """Return the recipe that all of these files are of, as far as they say one.

    Args:
        paths: output files of one call of a stage.
        whole: also check what takes time: the hash of a model's weights, the rows of its history, a picture's pixels.

    Returns:
        None if a file is missing or damaged, if they say different recipes, or none.
    """
    try:
        said = {_said(path, whole, paths) for path in paths} - {""}
    except (AcfError, OSError, ValueError, SyntaxError, KeyError):  # pillow's readers raise SyntaxError, too
        return None
    return said.pop() if len(said) == 1 else None


def _said(path: Path, whole: bool, paths: Sequence[Path]) -> str | None:
    """Return what one file says; "" for a file that is vouched for by the others."""
    if path.name in VOUCHED:
        name, key = VOUCHED[path.name]
        (voucher,) = (other for other in paths if other.name == name)
        record = read_result(voucher, SCHEMAS[voucher.name], {}, "acf")
        return "" if file_hash(path) == getattr(record, key, None) else None
    if path.name in SCHEMAS:
        if path.name == CONFIG:
            read_record(path.parent)
        return getattr(read_result(path, SCHEMAS[path.name], {}, "acf"), "recipe", None)
    if path.suffix == ".png":
        from PIL import Image

        with Image.open(path, formats=["PNG"]) as picture:
            if whole:
                picture.load()
            return str(picture.info["recipe"])
    if path.suffix == ".html":
        with path.open(encoding="utf-8") as page:
            found = IN_PAGE.search(page.read(HEAD))
        return found[1] if found else None
    path.stat()
    if whole and path.name == WEIGHTS:
        hashes = json.loads((path.parent / CONFIG).read_bytes())[HASHES]
        return "" if weights_hash(path.parent) == hashes["weights"] else None
    if whole and path.name == HISTORY:
        read_table(path, HistoryRow, "acf", more_columns=True)
    return ""

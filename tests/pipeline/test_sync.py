"""What `acf sync` records in dvc.lock, in a project that has no more than data."""

from pathlib import Path

from acf.stages.conversions import NOTES
from tests.pipeline.project import Project


def test_data_made_by_other_code_are_named_and_not_recorded(tmp_path: Path, server: str) -> None:
    project = Project(tmp_path, server=server)
    prepare = ("acf", "prepare", "--dataset", "digits")
    project.output(*prepare)
    (note,) = (project.root / NOTES / "digits").glob("*/*")
    note.rename(note.with_name("another"))
    said = project.output("acf", "sync")
    assert "data/digits is not what `acf prepare` would make now" in said
    assert "remove it and run: acf prepare --dataset digits" in said
    assert "recorded 1 stages" in said  # the code

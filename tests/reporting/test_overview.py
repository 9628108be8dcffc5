"""The page over all reports."""

import re

import pytest

from acf.stages.index import index
from acf.stages.report import report


@pytest.mark.usefixtures("undrawn")
def test_reports_are_linked_and_missing_ones_named(project):
    report("digits", project)
    index(project)
    page = (project / "reports/index.html").read_text()
    assert '<a href="digits/index.html">digits</a>' in page
    page = re.sub(' data-key="[^"]*"', "", page)
    assert '<td class="left">acf-l2</td><td>1.930 ± 0.012</td><td>0.305 ± 0.023</td><td>84,600</td>' in page
    assert "not built yet: <code>dvc repro report@fashion-mnist</code>" in page
    assert 'href="fashion-mnist' not in page
    assert "http" not in page


def test_an_index_without_any_report(project):
    index(project)
    assert (project / "reports/index.html").read_text().count("not built yet") == 2

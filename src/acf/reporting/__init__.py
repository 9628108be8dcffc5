"""Reports from result files: tables, figures and pages, without a single number of their own."""

from acf.reporting.overview import index
from acf.reporting.readme import check_readme, write_readme
from acf.reporting.report import report

__all__ = ["check_readme", "index", "report", "write_readme"]

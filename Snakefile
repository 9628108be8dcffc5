# The graph of the study for `snakemake --cores N`; dvc.yaml is the same graph, and tests/pipeline compares the two.
from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/signals.smk"
include: "workflow/rules/common.smk"


rule all:
    input:
        "reports/index.html",


include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/analyses.smk"
include: "workflow/rules/reports.smk"

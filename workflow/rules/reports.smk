localrules:
    report,
    index,


rule report:
    input:
        read("report", files_of),
        stamp=stamp("report"),
    output:
        [file for file in REPORT_FILES if file != TABLE],
        FOR_DVC,
        report(
            TABLE,
            caption="../report/table.rst",
            category="Tables",
            subcategory="{experiment}",
            labels={"table": "comparison"},
        ),
        report(
            directory(FIGURES),
            patterns=["{figure}.png"],
            caption="../report/figures.rst",
            category="Figures",
            subcategory="{experiment}",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/report/{experiment}.log",
    conda:
        "../envs/acf.yaml"
    shell:
        "acf report --experiment {wildcards.experiment} 2>&1 | tee {log}"


rule index:
    input:
        read("index", reports),
        stamp=stamp("index"),
    output:
        "reports/index.html",
    log:
        "logs/index.log",
    conda:
        "../envs/acf.yaml"
    shell:
        "acf index 2>&1 | tee {log}"

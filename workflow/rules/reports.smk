localrules:
    report,
    index,


rule report:
    input:
        lambda wildcards: files_of(wildcards.dataset),
        code("report"),
    output:
        REPORT_FILES,
        report(
            directory(FIGURES),
            patterns=["{figure}.png"],
            caption="../report/figures.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/report/{dataset}.log",
    conda:
        "../envs/acf.yaml"
    params:
        settings=settings("report"),
    shell:
        "acf report --dataset {wildcards.dataset} 2>&1 | tee {log}"


rule index:
    input:
        expand([*REPORT_FILES, FIGURES], dataset=STUDY.datasets),
        code("index"),
    output:
        "reports/index.html",
    log:
        "logs/index.log",
    conda:
        "../envs/acf.yaml"
    shell:
        "acf index 2>&1 | tee {log}"

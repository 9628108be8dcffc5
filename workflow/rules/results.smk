rule evaluate:
    input:
        DATA_FILES,
        MODEL_FILES,
        code("evaluate"),
    output:
        METRICS_FILE,
    log:
        "logs/evaluate/{dataset}/{variant}/seed{seed}.log",
    conda:
        "../envs/acf.yaml"
    threads: 2
    params:
        settings=settings("evaluate"),
    shell:
        "acf evaluate --dataset {wildcards.dataset} --variant {wildcards.variant} --seed {wildcards.seed}"
        " 2>&1 | tee {log}"


rule baselines:
    input:
        DATA_FILES,
        code("baselines"),
    output:
        BASELINES_FILE,
    log:
        "logs/baselines/{dataset}.log",
    conda:
        "../envs/acf.yaml"
    threads: 2
    params:
        settings=settings("baselines"),
    shell:
        "acf baselines --dataset {wildcards.dataset} 2>&1 | tee {log}"


rule sample:
    input:
        DATA_FILES,
        MODEL_FILES,
        code("sample"),
    output:
        report(
            SAMPLE_FILES,
            caption="../report/samples.rst",
            category="Samples",
            subcategory="{dataset}",
            labels={"variant": "{variant}", "seed": "{seed}"},
        ),
    log:
        "logs/sample/{dataset}/{variant}/seed{seed}.log",
    conda:
        "../envs/acf.yaml"
    threads: 2
    params:
        settings=settings("sample"),
    shell:
        "acf sample --dataset {wildcards.dataset} --variant {wildcards.variant} --seed {wildcards.seed}"
        " 2>&1 | tee {log}"

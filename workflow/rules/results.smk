rule evaluate:
    input:
        read("evaluate", data_labels_and_model),
        stamp=stamp("evaluate"),
    output:
        METRICS_FILES,
    log:
        "logs/evaluate/{experiment}/{variant}/seed{seed}.log",
    conda:
        "../envs/acf.yaml"
    threads: threads_of("evaluate")
    resources:
        gpu=1,
    shell:
        "acf evaluate --experiment {wildcards.experiment} --variant {wildcards.variant} --seed {wildcards.seed}"
        " 2>&1 | tee {log}"


rule baselines:
    input:
        read("baselines", data_of),
        stamp=stamp("baselines"),
    output:
        BASELINE_FILES,
    log:
        "logs/baselines/{experiment}.log",
    conda:
        "../envs/acf.yaml"
    threads: threads_of("baselines")
    shell:
        "acf baselines --experiment {wildcards.experiment} 2>&1 | tee {log}"


# Of flows of images; those of vectors are sampled as rows of a table.
rule sample:
    input:
        read("sample", data_and_model),
        stamp=stamp("sample"),
    output:
        SAMPLE_NUMBERS,
        *[
            report(
                file,
                caption="../report/samples.rst",
                category="Samples",
                subcategory="{experiment}",
                labels={"picture": Path(file).stem, "variant": "{variant}", "seed": "{seed}"},
            )
            for file in SAMPLE_PICTURES
        ],
    log:
        "logs/sample/{experiment}/{variant}/seed{seed}.log",
    conda:
        "../envs/acf.yaml"
    threads: threads_of("sample")
    resources:
        gpu=1,
    shell:
        "acf sample --experiment {wildcards.experiment} --variant {wildcards.variant} --seed {wildcards.seed}"
        " 2>&1 | tee {log}"


rule sample_rows:
    input:
        read("sample", data_and_model),
        stamp=stamp("sample"),
    output:
        ROW_FILES,
        report(
            PAIRS,
            caption="../report/samples.rst",
            category="Samples",
            subcategory="{experiment}",
            labels={"picture": "pairs", "variant": "{variant}", "seed": "{seed}"},
        ),
    log:
        "logs/sample/{experiment}/{variant}/seed{seed}.log",
    conda:
        "../envs/acf.yaml"
    threads: threads_of("sample")
    resources:
        gpu=1,
    shell:
        "acf sample --experiment {wildcards.experiment} --variant {wildcards.variant} --seed {wildcards.seed}"
        " 2>&1 | tee {log}"

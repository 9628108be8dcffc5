rule prepare:
    input:
        stamp=stamp("prepare"),
    output:
        DATA_FILES,
        LABELS_FILE,
    log:
        "logs/prepare/{dataset}.log",
    conda:
        "../envs/acf.yaml"
    shell:
        "acf prepare --dataset {wildcards.dataset} 2>&1 | tee {log}"

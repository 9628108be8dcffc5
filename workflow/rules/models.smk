rule train:
    input:
        DATA_FILES,
        code("train"),
    output:
        MODEL_FILES,
    log:
        "logs/train/{dataset}/{variant}/seed{seed}.log",
    conda:
        "../envs/acf.yaml"
    threads: 2
    resources:
        mem_mb=8000,
        runtime="3d",
    params:
        settings=settings("train"),
    shell:
        "acf train --dataset {wildcards.dataset} --variant {wildcards.variant} --seed {wildcards.seed}"
        " 2>&1 | tee {log}"

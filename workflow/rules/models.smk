rule train:
    input:
        read("train", data_and_labels),
        stamp=stamp("train"),
    output:
        MODEL_FILES,
    log:
        "logs/train/{experiment}/{variant}/seed{seed}.log",
    conda:
        "../envs/acf.yaml"
    threads: threads_of("train")
    resources:
        gpu=1,
        mem_mb=8000,
        runtime="3d",
    # As many processes as GPUs, unless the environment says how many.
    shell:
        "export ACF_PROCESSES=${{ACF_PROCESSES:-$(({resources.gpu} > 1 ? {resources.gpu} : 1))}}; "
        "acf train --experiment {wildcards.experiment} --variant {wildcards.variant} --seed {wildcards.seed}"
        " 2>&1 | tee {log}"

# One rule per analysis of trained models.
for analysis, section in ANALYSES.items():

    rule:
        name:
            analysis
        input:
            read(analysis, data_and_model_for(analysis)),
            stamp=stamp(analysis),
        output:
            analysis_files(analysis, section),
        log:
            f"logs/{analysis}/{RUN}.log",
        conda:
            "../envs/acf.yaml"
        threads: threads_of(analysis)
        resources:
            gpu=1,
        params:
            analysis=analysis,
        shell:
            "acf {params.analysis} --experiment {wildcards.experiment} --variant {wildcards.variant} --seed {wildcards.seed}"
            " 2>&1 | tee {log}"

# Signals that ask to stop go to all processes of a job: Ctrl-C to those of a terminal, and SLURM's `--signal`, `scancel` and
# time limit to those of a job step. `acf` then saves what it has and ends by itself. The processes around it have to wait
# for that, as SLURM kills what is left of a step once the step's first process, a Snakemake, has ended.
import os
import signal

STOP_SIGNALS = "INT TERM HUP USR1 USR2 XCPU"

# Bash waits for its commands before it runs a trap, and does not end by the signal. `tee` ignores the signals; without it
# the last lines of `acf` would be lost. The first words are Snakemake's own prefix, which this one replaces.
shell.prefix(f"set -euo pipefail; trap : {STOP_SIGNALS}; tee() {{{{ trap '' {STOP_SIGNALS}; exec tee \"$@\"; }}}}; ")

# Snakemake waits for its jobs after SIGTERM and SIGINT, but would end by SIGUSR1 and SIGUSR2. The handler is not SIG_IGN,
# which `acf` would inherit.
if "SLURM_JOB_ID" in os.environ:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)

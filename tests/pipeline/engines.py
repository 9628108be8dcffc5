"""What the tests of both engines share: the commands that the study of `Project` runs."""

from tests.conftest import ANALYSES

DATA = ["baselines --experiment digits", "prepare --dataset digits", "report --experiment digits"]
RATE = "experiments.digits.variants.acf-l2.training.learning_rate"
DRAWS = "experiments.digits.evaluation.draws"


def calls(stage: str, *variants: str) -> list[str]:
    """Arguments of `acf` of one stage for these variants."""
    return [f"{stage} --experiment digits --variant {variant} --seed 0" for variant in variants]


OF_MODELS = ("train", "evaluate", "sample", *ANALYSES)
EVERYTHING = sorted(DATA + [c for stage in OF_MODELS for c in calls(stage, "acf-l2", "resflow")])
ONE_VARIANT = sorted(
    [
        "report --experiment digits",
        *(c for stage in OF_MODELS for c in calls(stage, "acf-l2")),
    ]
)
MEASUREMENTS = sorted(
    [
        *("baselines --experiment digits", "report --experiment digits"),
        *(c for stage in ("evaluate", *ANALYSES) for c in calls(stage, "acf-l2", "resflow")),
    ]
)
WIDE = [
    "baselines --experiment digits-wide",
    *(f"{stage} --experiment digits-wide --variant resflow --seed 0" for stage in OF_MODELS),
    "report --experiment digits-wide",
]

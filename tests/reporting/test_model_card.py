"""The card of an exported model that has what the example of digits has not: heads, an exact estimator, no settings."""

import json
from typing import Any

from acf.examples import FOLDER
from acf.reporting.model_card import DataFacts, model_card
from acf.reporting.schemas import Metrics, TrainedModel

STORED: dict[str, Any] = json.loads((FOLDER / "digits" / "config.json").read_text())
CLASSIFICATION = {
    **{"classes": 10, "accuracy": 0.75, "accuracy_se": 0.025, "cross_entropy": 0.8, "cross_entropy_se": 0.031},
    **{"calibration_error": 0.05, "calibration_error_se": 0.012, "calibration_error_floor": 0.03},
    "bins": [{"images": 4, "accuracy": 0.75, "confidence": 0.8}],
}


def card(settings: dict[str, Any], **changes: Any) -> str:
    metrics = Metrics.model_validate({**STORED["metrics"], **changes})
    facts = DataFacts(**{name: STORED["data"][name] for name in ("name", "source", "licence", "citation", "counts")})
    return model_card(TrainedModel.model_validate(STORED), settings, metrics, facts, "mit", "0.0")


def test_heads_have_rows_of_their_own() -> None:
    text = card({"task": {"kind": "hybrid"}, "validation_images": 7}, classification=CLASSIFICATION)
    assert "| task | hybrid |" in text
    assert "| training images held out for validation | 7 |" in text
    assert "| accuracy, of 10 classes | 0.750 ± 0.025 |" in text
    assert "| cross-entropy, in nats | 0.800 ± 0.031 |" in text
    assert "| calibration error | 0.050 ± 0.012 |" in text
    assert 'metrics: ["bits_per_dim", "accuracy"]' in text
    assert "accuracy" not in card({})


def test_what_is_not_known_is_not_available() -> None:
    text = card({}, bits_per_dim_se_draws=None, train_device=None, train_recipe=None)
    for row in ("| task |", "| training images held out for validation |", "| device |", "| recipe of the training |"):
        assert f"{row} not available |" in text
    assert "that more draws would remove is not available" in text


def test_an_exact_log_determinant_is_not_called_an_estimate() -> None:
    assert "Log-determinants were exact." in card({}, estimator={"estimator": "exact", "probes": 1})
    assert "Log-determinants were estimated with" in card({})

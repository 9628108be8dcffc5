"""What an analysis of a trained model is given, and what it returns.

An analysis is a function of a flow, `Analysed` and its section of the settings that returns `Found`. The flow is proven
contractive, in evaluation mode, and has the estimator of log-determinants of evaluation; torch's generators are seeded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acf.data.prepared.labels import Labels
from acf.data.prepared.tensors import Images
from acf.settings.config import EvaluationConfig

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Analysed:
    """What an analysis looks at beside the flow.

    Attributes:
        train: images that the model was trained and validated on.
        test: test images.
        others: images of the data sets that the settings of the analysis name, with the flow's shape and levels.
        evaluation: how likelihoods are measured: batch size and seed.
        labels: of the images, for an analysis that reads them; empty where there are none.
    """

    train: Images
    test: Images
    evaluation: EvaluationConfig
    others: Mapping[str, Images] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)


@dataclass(frozen=True)
class Found:
    """What an analysis found.

    Attributes:
        content: what JSON can hold, finite numbers only; the report's part on the analysis has its form.
        picture: a picture, if the settings of the analysis say that it has one.
        refuted: what has been proven of the model and is refuted by what was found; empty where nothing is. The files
            are written, and then the stage ends with this text as an error, as often as it is called.
    """

    content: Mapping[str, Any]
    picture: "Image.Image | None" = None
    refuted: str = ""

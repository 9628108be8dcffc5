from pathlib import Path

import pytest
import torch

import acf
from acf.data.prepared.seen import averaged_shape
from acf.data.sources.registered import dataset_source
from acf.runs.threads import threads_that_pay
from acf.settings.config import ModelConfig
from acf.settings.params import Params
from acf.settings.work import covariance, largest_map, work
from tests.two_cores import SMALL

STUDY = Params(Path(__file__).parents[2] / "params.yaml")


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"blocks": [1], "idim": 10}, 8 * 8 * 10),
        ({"blocks": [1], "idim": 10, "squeeze_first": True}, 4 * 4 * 10),
        ({"blocks": [1, 1], "idim": 2, "factor_out": True}, 8 * 8 * 2),
        ({"blocks": [1], "idim": 10, "attention": {"kind": "l2", "heads": 2}}, 64 * 2 * 64),
        ({"blocks": [1], "idim": 10, "attention": {"kind": "l2", "heads": 2, "max_tokens": 32}}, 8 * 8 * 10),
        ({"blocks": [1], "idim": 10, "attention": {"kind": "l2", "heads": 2, "window": 4}}, 64 * 2 * 16),
        ({"blocks": [1], "idim": 10, "attention": {"kind": "l2", "heads": 2, "window": 16}}, 64 * 2 * 64),
        ({"blocks": [1], "branch": "dense", "dense": {"depth": 2, "growth": 5}}, 8 * 8 * 11),
    ],
)
def test_largest_map(settings: dict[str, object], values: int) -> None:
    config = ModelConfig(shape=(1, 8, 8), **settings)  # type: ignore[arg-type]
    assert largest_map(config, config.shape) == values


def test_largest_map_is_that_of_the_flow() -> None:
    """The largest output of a layer in the branches of convolutional blocks is what is predicted."""
    config = {"shape": (1, 8, 8), "blocks": [1, 1], "idim": 12, "squeeze_first": True, "fc_blocks": 0}
    flow = acf.build(config).eval()
    sizes: list[int] = []
    for block in flow.contractive_blocks().values():
        for layer in block.branch.layers():
            layer.register_forward_hook(lambda _module, _inputs, output: sizes.append(output[0].numel()))
    with torch.no_grad():
        flow.transform(torch.rand(3, 1, 8, 8))
    assert max(sizes) == largest_map(flow.config, flow.shape)


def test_small_experiments_compute_with_one_thread_and_papers_sizes_with_more() -> None:
    for experiment in STUDY.experiments:
        stored = dataset_source(STUDY.prepared(experiment)).shape
        assert stored is not None
        shape = averaged_shape(stored, STUDY.seen(experiment).average)
        for variant in STUDY.variants(experiment):
            settings = STUDY.resolve(experiment, variant)
            numbers = {threads_that_pay(work(settings, stage, shape)) for stage in ("train", "evaluate", "sample")}
            assert (numbers == {1}) == (experiment in SMALL), (experiment, variant, numbers)


def test_covariance_of_images() -> None:
    assert covariance((3, 4, 5)) == 60**2

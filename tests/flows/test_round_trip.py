"""f^-1(f(x)) over whole test sets, and the error of each block's inverse against the bound that comes with it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

import acf
from acf.data import load
from acf.flows.actnorm import ActNorm
from acf.flows.fixed_point import invert
from acf.registry import ATTENTIONS
from acf.stages.prepare import prepare
from tests.building_blocks.bijections import make_flow
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import bring_norms_to_limits, move_all_parameters

LIMITS = {torch.float32: 1e-4, torch.float64: 1e-10}
every_type = pytest.mark.parametrize("dtype", LIMITS)
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")


def images(dataset: str, root: Path, levels: int) -> Tensor:
    """The whole test set, dequantised, in float64."""
    raw = load(dataset, "test", root / "data")[:].double()
    return (raw + torch.rand(raw.shape, dtype=raw.dtype, generator=torch.Generator().manual_seed(0))) / levels


@torch.no_grad()
def round_trip_error(made: acf.Flow, x: Tensor, batch: int = 100) -> float:
    return max(float((made.inverse(made.transform(part)) - part).abs().max()) for part in x.split(batch))


@torch.no_grad()
def block_inputs(made: acf.Flow, x: Tensor) -> dict[str, Tensor]:
    """What enters each residual block on the way of x through the flow."""
    seen: dict[str, Tensor] = {}
    hooks = [
        block.branch.register_forward_pre_hook(lambda _branch, inputs, name=name: seen.update({name: inputs[0]}))
        for name, block in made.contractive_blocks().items()
    ]
    made.transform(x)
    for hook in hooks:
        hook.remove()
    return seen


def check_blocks(made: acf.Flow, x: Tensor) -> None:
    """Each block, in the flow's type: |x - x*| is at most the bound, x* from a far tighter solve in float64."""
    dtype = x.dtype
    with torch.no_grad():
        values = {name: made.contractive_blocks()[name].transform(part) for name, part in block_inputs(made, x).items()}
    found = {name: block.solve(values[name]) for name, block in made.contractive_blocks().items()}
    made.double()
    for name, block in made.contractive_blocks().items():
        truth = block.solve(values[name].double(), tolerance=1e-15)
        error = (found[name].x - truth.x).flatten(1).norm(dim=1)
        assert bool((error <= found[name].bound + truth.bound).all()), name
        assert float(truth.bound.max()) < 0.1 * float(found[name].bound.max()), "no truth to compare with"
    made.to(dtype)


@pytest.fixture
def digits_flow(trained: Path) -> acf.Flow:
    return acf.load(trained / "models" / "digits" / "acf-l2" / "seed0")


@every_type
def test_all_test_digits_come_back_through_a_trained_flow(trained, digits_flow, dtype):
    x = images("digits", trained, digits_flow.config.levels).to(dtype)
    assert len(x) == 297
    assert round_trip_error(digits_flow.to(dtype), x) <= LIMITS[dtype]


@every_type
def test_bounds_on_a_trained_flow(trained, digits_flow, dtype):
    x = images("digits", trained, digits_flow.config.levels)[:100].to(dtype)
    check_blocks(digits_flow.to(dtype), x)


@every_type
def test_acceleration_saves_evaluations_in_a_trained_flow(trained, digits_flow, dtype):
    x = images("digits", trained, digits_flow.config.levels)[:100].to(dtype)
    made = digits_flow.to(dtype)
    total = torch.zeros(2)
    for name, part in block_inputs(made, x).items():
        block = made.contractive_blocks()[name]
        with torch.no_grad():
            y = block.transform(part)
        fast, plain = (invert(block.branch, y, block.cached_lipschitz_bound(), memory=m).evaluations for m in (8, 0))
        assert bool((fast <= plain + 1).all()), name
        total += torch.tensor([fast.sum(), plain.sum()])
    assert total[0] < total[1]


# Whether scales are factored out is how they are joined, whatever is in them.
@every_type
@pytest.mark.parametrize(
    ("kind", "factor_out"),
    [
        *((kind, False) for kind in ("none", *ATTENTIONS)),
        *(
            pytest.param(kind, True, marks=() if kind in ("none", "sinkhorn") else pytest.mark.slow)
            for kind in ("none", *ATTENTIONS)
        ),
    ],
)
def test_images_come_back_through_flows_with_every_attention(kind, factor_out, dtype):
    settings = with_attention(kind) | {"factor_out": factor_out, "idim": 8, "squeeze_first": True}
    torch.manual_seed(0)
    made = bring_norms_to_limits(make_flow((1, 8, 8), blocks=(2, 1), **settings).double())
    # Not the parameters of branches: they would make values so large that rounding hides the error of an inverse.
    for part in made.modules():
        if isinstance(part, ActNorm):
            move_all_parameters(part, 0.2)
    made = made.eval().to(dtype)
    x = torch.rand(20, 1, 8, 8, dtype=torch.float64).to(dtype)
    assert round_trip_error(made, x) <= LIMITS[dtype]
    check_blocks(made, x)


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_MNIST.is_file(), reason="apt install dataset-fashion-mnist")
def test_all_of_fashion_mnist_comes_back(study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from acf.stages.train import train

    monkeypatch.setenv("ACF_MIRROR", str(FASHION_MNIST.parent))
    root = study(model={"blocks": [2, 2], "idim": 16}, training={"steps": 60, "batch_size": 16})
    prepare("fashion-mnist", root / "data")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["experiments"]["fashion-mnist"] = params["experiments"]["digits"]
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    train("fashion-mnist", "acf-l2", 0, "cpu", root)
    made = acf.load(root / "models" / "fashion-mnist" / "acf-l2" / "seed0")
    x = images("fashion-mnist", root, made.config.levels)
    assert len(x) == 10000
    errors = {dtype: round_trip_error(made.to(dtype), x.to(dtype)) for dtype in LIMITS}
    print({str(dtype): error for dtype, error in errors.items()})
    assert all(errors[dtype] <= LIMITS[dtype] for dtype in LIMITS)
    check_blocks(made.float(), x[:100].float())
    check_blocks(made.double(), x[:100])

"""The picture of README: test images on their way through a trained flow to noise.

python benchmarks/picture.py, after `acf train --experiment digits --variant acf-sinkhorn`; writes docs/flow.png.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

import acf
from acf import data
from acf.flows.dequantise import dequantise
from acf.flows.residual import ResidualBlock

ROOT = Path(__file__).resolve().parents[1]
MODEL, PICTURE = ROOT / "models/digits/acf-sinkhorn/seed0", ROOT / "docs/flow.png"
IMAGES, EVERY, SEED = 4, 3, 0
SPREAD = 2.5
"""Standard deviations from the mean at which a value is black or white."""


@torch.no_grad()
def stations(flow: acf.Flow, x: Tensor) -> list[tuple[str, Tensor]]:
    """The images, then the maps after every third residual block, unsqueezed, and the noise they end as."""
    found = [("image x", x)]
    x = flow.preprocessing.transform(x)
    (scale,) = flow.bijection.scales
    total = len(flow.contractive_blocks())
    blocks = 0
    for bijection in scale.bijections:
        x = bijection.transform(x)
        if isinstance(bijection, ResidualBlock):
            blocks += 1
            if blocks % EVERY == 0 and blocks < total:
                found.append((f"block {blocks}", F.pixel_shuffle(x, 2)))
    return [*found, ("noise z = f(x)", F.pixel_shuffle(x, 2))]


def main() -> None:
    flow = acf.load(MODEL)
    images = data.load("digits", "test", ROOT / "data")[:IMAGES]
    x = dequantise(images, flow.config.levels, torch.Generator().manual_seed(SEED))
    columns = stations(flow, x)
    back = flow.inverse(flow.transform(x))
    columns.append(("f⁻¹(z)", back))
    figure = Figure(figsize=(len(columns), IMAGES * 0.92 + 0.3), layout="constrained")
    axes = figure.subplots(IMAGES, len(columns))
    for column, (title, maps) in enumerate(columns):
        pixels = title in ("image x", "f⁻¹(z)")
        mean, spread = float(maps.mean()), SPREAD * float(maps.std())
        limits = (0.0, 1.0) if pixels else (mean - spread, mean + spread)
        for row in range(IMAGES):
            axis = axes[row, column]
            axis.imshow(maps[row, 0].numpy(), cmap="gray", vmin=limits[0], vmax=limits[1])
            axis.set_axis_off()
        axes[0, column].set_title(title, fontsize=8)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    print(f"wrote {PICTURE}; largest |x - f⁻¹(f(x))| {float((x - back).abs().max()):.1e}")


if __name__ == "__main__":
    main()

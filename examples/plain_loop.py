"""A contractive flow on digits in a plain loop: train, prove, evaluate, sample, save.

python examples/plain_loop.py --steps 300
"""

import argparse
import math

import torch
from digits import LEVELS, dequantised, digits

import acf

CONFIG = {
    "shape": (1, 8, 8),
    "levels": LEVELS,
    "squeeze_first": True,
    "blocks": [4],
    "idim": 64,
    "fc_blocks": 1,
    "attention": {"kind": "sinkhorn", "heads": 4},
}


def bits_per_dim(flow: acf.Flow, images: torch.Tensor) -> tuple[float, float]:
    """Return mean bits/dim over images and its standard error."""
    flow.eval()
    with torch.no_grad():
        bits = torch.cat([acf.bits_per_dim(flow, batch) for batch in images.split(128)])
    return float(bits.mean()), float(bits.std()) / math.sqrt(len(bits))


def main(steps: int, batch_size: int, folder: str) -> None:
    """Train for so many steps and write the flow to a folder."""
    torch.manual_seed(0)
    images, _, test_images, _ = digits()
    flow = acf.build(CONFIG).train()
    optimiser = torch.optim.Adam(flow.parameters(), lr=2e-3)
    for step in range(1, steps + 1):
        batch = images[torch.randint(len(images), (batch_size,))]
        loss = -flow.log_prob(dequantised(batch)).mean()  # nats; the first batch sets scales of ActNorm and attention
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        flow.renormalise()  # the estimates of spectral norms follow the weights
        if step % 50 == 0 or step == steps:
            bits = loss.item() / math.log(2) / math.prod(flow.shape) + math.log2(LEVELS)
            print(f"step {step}: {bits:.3f} bits/dim of a batch")

    flow.eval()
    certificate = acf.tighten(flow)  # closes the gap between estimated and proven norms
    mean, error = bits_per_dim(flow, test_images)
    print(f"test: {mean:.3f} +- {error:.3f} bits/dim; worst proven Lipschitz constant {certificate.worst:.4f}")
    x = dequantised(test_images[:64])
    with torch.no_grad():
        error = float((flow.inverse(flow.transform(x)) - x).abs().max())
    print(f"largest error of the inverse: {error:.1e}; samples: {tuple(flow.sample(16).shape)}")
    acf.save(flow, folder)
    print(f"acf.load({folder!r}) brings the flow back")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--folder", default="digits-flow")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.batch_size, arguments.folder)

"""A classifier of digits that no small change of an image can deceive, made of certified layers.

With L a proven bound of the classifier's l2 Lipschitz constant, the difference of two logits changes by at most
sqrt(2) L |d| when the image changes by d. So an image keeps its class within the radius margin / (sqrt(2) L), where the
margin is the difference of the largest logit and the next (arXiv 1802.04034). An attack checks that.

    python examples/robust_classifier.py --steps 600
"""

import argparse
import math

import torch
import torch.nn.functional as F
from digits import digits
from torch import Tensor

from acf.lipschitz import Branch, CLipSwish, ConvexShare, NormalisedConv2d, OrthogonalLinear, Reshape
from acf.lipschitz import SinkhornSelfAttention as Attention
from acf.lipschitz.normalised import Normalised, renormalise

TOKENS = 16
"""Number of positions of the maps: 4 x 4, each with the 4 pixels of a square, which is no more than another order."""


def make_classifier() -> Branch:
    """Return a map from (B, 4, 4, 4) to 10 logits; its proven bound is the product of those of its layers."""
    return Branch(
        NormalisedConv2d(4, 32, 3, size=(4, 4), coefficient=1.0),
        CLipSwish(),
        ConvexShare.for_channels(lambda channels: Attention(channels, heads=4, coefficient=1.0), 64, share=0.5),
        Reshape(64 * TOKENS),
        OrthogonalLinear(64 * TOKENS, 64, coefficient=1.0),
        CLipSwish(),
        OrthogonalLinear(128, 10, coefficient=1.0),
    )


def inputs(images: Tensor) -> Tensor:
    """Return images with values in [0, 1] as maps (B, 4, 4, 4); distances stay the same."""
    return F.pixel_unshuffle(images / 16, 2)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of the label less the largest of the others, (B,); negative where the class is wrong."""
    right = logits.gather(1, labels[:, None]).squeeze(1)
    return right - logits.scatter(1, labels[:, None], -math.inf).amax(1)


def attack(classifier: Branch, x: Tensor, labels: Tensor, radii: Tensor, steps: int) -> Tensor:
    """Return inputs within `radii` (B,) of x with margins as small as projected gradient descent finds."""
    radii = radii.view(-1, 1, 1, 1)
    noise = torch.randn_like(x)
    change = radii * noise / _length(noise)
    for _ in range(steps):
        change.requires_grad_(True)
        (gradient,) = torch.autograd.grad(margins(classifier(x + change), labels).sum(), change)
        change = change.detach() - radii / 4 * gradient / _length(gradient)
        change = change * (radii / _length(change)).clamp_max(1)
    return x + change


def _length(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).clamp_min(1e-30).view(-1, 1, 1, 1)


def train(images: Tensor, labels: Tensor, steps: int) -> Branch:
    """Return a trained classifier, in float64 and evaluation mode."""
    classifier = make_classifier().train()
    layers = [module for module in classifier.modules() if isinstance(module, Normalised)]
    optimiser = torch.optim.Adam(classifier.parameters(), lr=3e-3)
    for step in range(1, steps + 1):
        chosen = torch.randint(len(images), (64,))
        # Logits of a 1-Lipschitz map are small; the factor says how large a margin is worth striving for.
        loss = F.cross_entropy(20 * classifier(inputs(images[chosen])), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        renormalise(layers, iterations=2)
        if step % 100 == 0 or step == steps:
            print(f"step {step}: loss {loss.item():.3f}")
    return classifier.double().eval()


def main(steps: int, attack_steps: int, test_images: int) -> dict[str, float]:
    """Train, certify and attack; return what is printed."""
    torch.manual_seed(0)
    images, labels, others, other_labels = digits()
    classifier = train(images, labels, steps)
    x, y = inputs(others[:test_images].double()), other_labels[:test_images]
    bound = classifier.lipschitz_bound(TOKENS)
    with torch.no_grad():
        radii = margins(classifier(x), y).clamp_min(0) / (math.sqrt(2) * bound)
    found = {"bound": bound, "accuracy": float((radii > 0).double().mean())}
    print(f"proven Lipschitz constant {bound:.4f}; accuracy on {len(x)} test images {found['accuracy']:.3f}")
    for radius in (0.1, 0.25, 0.5):
        found[f"certified {radius}"] = float((radii > radius).double().mean())
        attacked = attack(classifier, x, y, torch.full_like(radii, radius), attack_steps)
        found[f"attacked {radius}"] = float((margins(classifier(attacked), y) > 0).double().mean())
        print(
            f"radius {radius}: certified accuracy {found[f'certified {radius}']:.3f}, "
            f"accuracy under attack {found[f'attacked {radius}']:.3f}"
        )
    right = radii > 0
    for factor in (1.0, 8.0):
        attacked = attack(classifier, x[right], y[right], factor * radii[right], attack_steps)
        found[f"deceived {factor}"] = float((margins(classifier(attacked), y[right]) < 0).double().sum())
        print(
            f"attacks within {factor:g} certified radii that succeed: {found[f'deceived {factor}']:g} of {right.sum()}"
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--attack-steps", type=int, default=20)
    parser.add_argument("--test-images", type=int, default=297)
    arguments = parser.parse_args()
    main(arguments.steps, arguments.attack_steps, arguments.test_images)

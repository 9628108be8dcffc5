"""The attentions written out with numbers and loops, heads and tokens one by one."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from acf.lipschitz import dot_attention_constant, l2_attention_constant

Rows = np.ndarray


def mixed(weights: Rows, values: Rows) -> Rows:
    return np.stack([sum(w * row for w, row in zip(line, values, strict=True)) for line in weights])


def softmax(logits: list[list[float]]) -> Rows:
    lines = [[math.exp(s - max(line)) for s in line] for line in logits]
    return np.array([[w / sum(line) for w in line] for line in lines])


def clipped(rows: Rows, radius: float) -> Rows:
    lengths = [math.sqrt(sum(x * x for x in row)) for row in rows]
    return np.stack([row if a <= radius else row * (radius / a) for row, a in zip(rows, lengths, strict=True)])


def alternated(kernel: Rows, times: int = 2000) -> Rows:
    """Rows and columns divided by their sums in turns until nothing changes, or so many times; rows last."""
    for _ in range(times):
        before, kernel = kernel, kernel / kernel.sum(0)
        kernel = kernel / kernel.sum(1, keepdims=True)
        if np.array_equal(before, kernel):
            break
    return kernel


def clipped_constant(t: float, ratio: float) -> float:
    """Theorem 3 with b(t) searched for instead of solved for."""
    e = math.exp(2 * t) - 1
    grid = np.linspace(0, 1, 1001)
    near = grid[np.argmax(grid * (1 - grid) * (1 + e * grid) ** 2)]
    best = minimize_scalar(
        lambda b: -4 * b * (1 - b) * (1 + e * b) ** 2 / (1 + e),
        bounds=(max(0, near - 0.01), min(1, near + 0.01)),
        method="bounded",
        options={"xatol": 1e-12},
    )
    return math.sqrt(math.cosh(t) ** 2 + ratio**2 * (1 - best.fun))


def l2_head(layer: nn.Module, head: int, q: Rows) -> Rows:
    bandwidth = math.exp(layer.log_bandwidth[head].item())
    logits = [[-bandwidth * float(((a - b) ** 2).sum()) for b in q] for a in q]
    return mixed(softmax(logits), q) / l2_attention_constant(len(q))


def dot_head(layer: nn.Module, head: int, q: Rows, k: Rows, v: Rows) -> Rows:
    u = math.sqrt(sum(float(row @ row) for row in q))
    longest = [max(math.sqrt(float(row @ row)) for row in rows) for rows in (k, v)]
    scale = max(u * longest[0], u * longest[1], longest[0] * longest[1])
    return mixed(softmax([[float(a @ b) / scale for b in k] for a in q]), v) / dot_attention_constant(len(q))


def sharpness(layer: nn.Module, head: int) -> tuple[float, float]:
    return layer.max_sharpness / (1 + math.exp(-layer.sharpness[head].item())), math.exp(layer.log_radius[head].item())


def clip_head(layer: nn.Module, head: int, q: Rows, k: Rows, v: Rows) -> Rows:
    (t, radius), w = sharpness(layer, head), math.exp(layer.log_value_radius[head].item())
    q, k = clipped(q, radius), clipped(k, radius)
    weights = softmax([[t * float(a @ b) / radius**2 for b in k] for a in q])
    return mixed(weights, clipped(v, w)) / clipped_constant(t, t * w / radius)


def bias(layer: nn.Module, head: int, query: int, key: int) -> float:
    """What is added to a logit for the displacement between two positions, which are counted row by row."""
    if layer.position is None:
        return 0.0
    height, width = layer.size
    (top, left), (y, x) = divmod(query, width), divmod(key, width)
    return 3 * math.tanh(layer.position[head, height - 1 + y - top, width - 1 + x - left].item() / 3)


def sinkhorn_head(layer: nn.Module, head: int, q: Rows, k: Rows, v: Rows) -> Rows:
    t, radius = sharpness(layer, head)
    q, k = clipped(q, radius), clipped(k, radius)
    logits = [
        [t * float(a @ b) / radius**2 + bias(layer, head, i, j) for j, b in enumerate(k)] for i, a in enumerate(q)
    ]
    kernel = np.exp(np.array(logits))
    return mixed(alternated(kernel), clipped(v, radius / (math.sqrt(2) * t)))


HEADS = {"l2": l2_head, "dot": dot_head, "clip": clip_head, "sinkhorn": sinkhorn_head}


def by_loops(kind: str, layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's map for x (B, C, H, W)."""
    width = math.ceil(layer.channels / layer.heads)
    weight = layer.project.effective_weight().detach().numpy()
    bias = layer.project.bias.detach().numpy() if layer.project.bias is not None else np.zeros(len(weight))
    out, shift = layer.output.effective_weight().detach().numpy(), layer.output.bias.detach().numpy()
    images = []
    for image in x.detach():
        projected = image.flatten(1).T.numpy() @ weight.T + bias
        heads = []
        for h in range(layer.heads):
            places = [(p * layer.heads + h) * width for p in range(layer.projections)]
            heads.append(HEADS[kind](layer, h, *(projected[:, at : at + width] for at in places)))
        images.append((np.concatenate(heads, 1) @ out.T + shift).T.reshape(image.shape))
    return x.new_tensor(np.stack(images))

# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A flow in ten minutes
#
# This page is a notebook that was executed when the site was built, on one core of a CPU. It loads a small flow with
# certified attention that comes with the package, scores images, samples, walks between images, reads the
# certificate, inverts with an error bound, and trains a flow for a minute. `docs/notebook.py` is its source;
# `jupytext --to ipynb docs/notebook.py` makes it a notebook to play with.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

import acf
from acf.data.sources.digits import split_indices

torch.manual_seed(0)
torch.set_num_threads(1)
flow = acf.load_example("digits")
parameters = sum(parameter.numel() for parameter in flow.parameters())
print(f"{parameters:,} parameters, images of shape {flow.shape}, {flow.config.levels} grey levels")

# %% [markdown]
# ## Score images
#
# The images are scikit-learn's digits, divided as the pipeline divides them, so that the model has not been trained
# on those that are scored here. Grey levels are whole numbers from 0 to 16; `acf.bits_per_dim` adds the noise that
# makes them real numbers, and returns how many bits per pixel a perfect code built on the model needs. Uniform grey
# levels need $\log_2 17 = 4.09$.

# %%
digits = load_digits()
split = split_indices(digits.target)
images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
train, test = (images[torch.from_numpy(split[name])] for name in ("train", "test"))
others = {
    "test images": test,
    "their pixels shuffled": test.flatten(1)[:, torch.randperm(64)].view_as(test),
    "noise": torch.randint(17, test.shape, dtype=torch.uint8),
}
with torch.no_grad():
    for name, some in others.items():
        bits = acf.bits_per_dim(flow, some)
        error = bits.std() / len(bits) ** 0.5
        print(f"{name:>22}: {bits.mean():6.3f} ± {error:.3f} bits/dim")

# %% [markdown]
# ## Sample
#
# Samples are inverses of noise. A temperature below 1 makes the noise smaller, and the samples more alike.


# %% alt="Two rows of sampled digits, at temperatures 1 and 0.7"
def show(rows, titles=()):
    """Draw rows of images (N, 1, 8, 8) with values in [0, 1)."""
    count = max(len(row) for row in rows)
    size = (0.75 * count, 0.85 * len(rows))
    _, axes = plt.subplots(len(rows), count, figsize=size, squeeze=False)
    for places, row in zip(axes, rows, strict=True):
        for place, image in zip(places, row, strict=False):
            place.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        for place in places:
            place.axis("off")
    for places, title in zip(axes, titles, strict=False):
        places[0].set_title(title, loc="left", fontsize=9)
    plt.show()


def sampled(flow, temperature):
    """Return twelve samples, from the same noise whenever it is called."""
    return flow.sample(12, temperature, generator=torch.Generator().manual_seed(1))


show([sampled(flow, 1.0), sampled(flow, 0.7)], ["temperature 1", "temperature 0.7"])

# %% [markdown]
# ## Walk between images
#
# The flow maps images to vectors and back, so images can be mixed there. On the way from one test image to another, a
# straight line in pixels shows both at once; the line between their vectors passes images of its own.

# %% alt="Ten images on the way from one digit to another: mixed pixel by pixel above, through latent space below"
x = (test[[0, 3]].float() + 0.5) / 17
t = torch.linspace(0, 1, 10)
z = flow.transform(x)
with torch.no_grad():
    latent_path = flow.inverse(z[0] + t[:, None] * (z[1] - z[0])).clamp(0, 1)
pixel_path = x[0] + t[:, None, None, None] * (x[1] - x[0])
show([pixel_path, latent_path], ["mixed pixel by pixel", "through latent space"])

# %% [markdown]
# ## Read the certificate
#
# Each block is $x + g(x)$, which is invertible if $g$ is a contraction. The certificate has a proven upper bound of
# the Lipschitz constant of every $g$, computed in float64 from the weights that the model uses. It is a proof, not an
# estimate, and it holds for all inputs.

# %% alt="Proven bounds of the Lipschitz constants of all contractive blocks, each below one"
certificate = acf.certify(flow)
print(f"worst block: {certificate.worst_block}, bound {certificate.worst:.4f}")
uppers = [block.upper for block in certificate.blocks]
plt.figure(figsize=(8, 2.5))
plt.bar(range(1, len(uppers) + 1), uppers)
plt.axhline(1, color="black", lw=1)
plt.xticks(range(1, len(uppers) + 1))
plt.xlabel("contractive block")
plt.ylabel("bound of Lip(g)")
plt.show()

# %% [markdown]
# ## Invert with an error bound
#
# A block is inverted by a fixed-point iteration. As $g$ is proven to be a contraction with constant $L$, the distance
# to the solution is at most the residual divided by $1 - L$. `flow.invert` returns that bound for every block, with
# the number of evaluations of $g$ that the inverse took.

# %%
z = flow.transform((test.float() + 0.5) / 17)
inversion = flow.invert(z)
error = (inversion.x - (test.float() + 0.5) / 17).abs().max()
bound = max(float(block.max()) for block in inversion.bounds.values())
evaluations = np.mean([float(block.float().mean()) for block in inversion.evaluations.values()])
print(f"largest difference of a pixel after f and its inverse: {error:.1e}")
print(f"largest proven error of one block's inverse:           {bound:.1e}")
print(f"evaluations of g per block and image, on average:      {evaluations:.1f}")

# %% [markdown]
# ## Train a flow for a minute
#
# `acf.build` takes the same settings as `params.yaml`. Any optimiser of torch will do; after each step, `renormalise`
# refreshes the estimates of spectral norms. The loss is an unbiased estimate with an unbiased gradient.

# %% alt="Bits per dimension of training batches, falling with the steps"
torch.manual_seed(0)
config = {
    "shape": (1, 8, 8),
    "levels": 17,
    "blocks": [4],
    "idim": 48,
    "squeeze_first": True,
    "fc_blocks": 2,
    "fc_width": 64,
    "attention": {"kind": "sinkhorn", "heads": 2, "every": 2},
}
own = acf.build(config)
optimiser = torch.optim.Adam(own.parameters(), lr=5e-3)
history, start = [], time.process_time()
own.train()
for _ in range(300):
    batch = train[torch.randint(len(train), (64,))]
    loss = acf.bits_per_dim(own, batch).mean()
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(own.parameters(), 1.0)
    optimiser.step()
    own.renormalise()
    history.append(loss.item())
print(f"{len(history)} steps in {time.process_time() - start:.0f} seconds of one core")
plt.figure(figsize=(8, 2.5))
plt.plot(history, lw=0.8)
plt.xlabel("step")
plt.ylabel("bits/dim of a batch")
plt.ylim(None, np.quantile(history, 0.95))
plt.show()

# %% [markdown]
# During training norms are estimated from below, so nothing is proven yet. `acf.tighten` closes the gap between
# estimates and proven bounds; what is certified afterwards are the weights that are evaluated and stored.

# %%
own.eval()
acf.tighten(own)
print(f"worst block's proven bound: {acf.certify(own).worst:.4f}")
with torch.no_grad():
    for name, model in {"trained for a minute": own, "comes with the package": flow}.items():
        print(f"{name:>22}: {acf.bits_per_dim(model, test).mean():.3f} bits/dim on test images")

# %% alt="A row of samples of the flow that was trained for a minute"
show([sampled(own, 0.7)])

# %% [markdown]
# `acf.save(own, "my-flow")` stores it, and `acf.load("my-flow")` brings it back. The [API](reference/flows.md) has
# the rest; the [tour](tour.md) follows a batch through the code.

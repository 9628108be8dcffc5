"""Settings of the architecture: everything about a flow that does not depend on its data set."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from acf.registry import ACTIVATIONS, ATTENTIONS, BIASED_ATTENTIONS, BLOCKS, BRANCHES, JOINS
from acf.settings.section import (
    INTEGRAL,
    MOST_BLOCKS,
    Blocks,
    Fraction,
    Positive,
    Section,
    one_of,
)

MAX_SHARPNESS, MAX_SHARPNESS_WITH_POSITION = 6.0, 3.0


class AttentionConfig(Section):
    """Self-attention over all positions of a feature map: which form, in which blocks, and how it is joined to them."""

    kind: str = Field(
        default="none",
        description="Form of attention, or `none` for a flow without attention. `l2` is the L2 form (arXiv 2006.04710, "
        "used by arXiv 2109.12135), `dot` the dot-product form under Lipschitz normalisation (arXiv 2103.04886, used "
        "by arXiv 2109.12135), `clip` softmax on clipped tokens and `sinkhorn` doubly stochastic weights, both this "
        "project's (docs/mathematics.md, Theorems 1 to 4).",
        json_schema_extra={"enum": ["none", *ATTENTIONS]},
    )
    heads: Positive = Field(
        default=4,
        description="Number of attention heads; it need not divide the number of channels. The default is this "
        "project's choice.",
    )
    join: str = Field(
        default="block",
        description="How attention is joined to the flow. `block` makes it a block of its own after the "
        "convolutional block. The others put it before the last convolution of the branch, where arXiv 2109.12135 has "
        "it: `convex` mixes features and attention with a learnt weight, `concatenate` stacks both along the channels "
        "with a learnt angle, and `split` applies attention to a part of the channels. All four are this project's, "
        "measured in docs/tables/joins.md.",
        json_schema_extra={"enum": ["block", *JOINS]},
    )
    share: float = Field(
        default=0.5,
        ge=1e-6,
        le=1 - 1e-6,
        description="Weight of attention at the start of training for `convex` and `concatenate`, share of the "
        "channels that attention works on for `split`; without effect for `block`. The default is this project's "
        "choice.",
    )
    every: Positive = Field(
        default=1,
        description="Distance, in blocks, between the convolutional (or dense) blocks of a scale that get attention: "
        "with 3, every third has it, with 1 all of them, as in arXiv 2109.12135.",
    )
    once_per_scale: bool = Field(
        default=False,
        description="Whether the last block of each scale alone gets attention, instead of every `every`-th. This "
        "project's addition.",
    )
    max_tokens: Positive = Field(
        default=4096,
        description="Largest number of positions (height times width) of a map that gets attention; scales with larger "
        "maps have none, because cost grows with the square of that number. The default is this project's choice.",
    )
    window: Positive | None = Field(
        default=None,
        description="Height and width of the windows that maps are cut into for attention, each of which attends to "
        "itself alone; it must divide the sides of the maps, unless they are shorter. `null` for attention over the "
        "whole map. This project's addition; every form keeps its bound, that for the positions of a window "
        "(docs/mathematics.md, Proposition 5b).",
    )
    position: Literal["none", "relative"] = Field(
        default="none",
        description="What attention knows of where positions are: nothing, or, for `relative`, a learnt bias of the "
        "logits for each head and each displacement between two positions of a map or window. Only `sinkhorn` allows "
        "it (docs/mathematics.md, Theorem 4c). The default is this project's choice.",
    )
    position_start: Literal["zero", "local", "shifts"] = Field(
        default="zero",
        description="How the bias of `relative` starts: at `zero`; `local`, largest for near positions, within about "
        "1, 2, 4 ... of them from head to head; or `shifts`, largest for a neighbouring position, another one for each "
        "head. Without effect where `position` is `none`. The default is this project's choice.",
    )
    max_sharpness: float = Field(
        default=2.0,
        ge=0.1,
        le=MAX_SHARPNESS,
        description="Upper end of the range in which `sinkhorn` and `clip` learn the sharpness t of their logits, at "
        "the start half of it (for `clip` a quarter). Values may be as long as 1 / t, so that sharper weights go with "
        "smaller values. At most 6, with a bias of position at most 3. Without effect on the other forms. The default "
        "is this project's choice.",
    )

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return one_of("attention", value, ("none", *ATTENTIONS))

    @field_validator("join")
    @classmethod
    def _known_join(cls, value: str) -> str:
        return one_of("way of joining", value, ("block", *JOINS))

    @model_validator(mode="after")
    def _allows_a_bias(self) -> Self:
        if self.position == "none" or self.kind == "none":
            return self
        if self.kind not in BIASED_ATTENTIONS:
            raise ValueError(
                f"position {self.position} adds a bias to the logits, for which {self.kind} has no proven bound (its "
                f"weights are a softmax): use {' or '.join(BIASED_ATTENTIONS)}, or set position to none"
            )
        if self.max_sharpness > MAX_SHARPNESS_WITH_POSITION:
            raise ValueError(
                f"max_sharpness is at most {MAX_SHARPNESS_WITH_POSITION:g} with position {self.position} (got "
                f"{self.max_sharpness:g}): beyond, the weights cannot be computed in float32"
            )
        return self


class DenseConfig(Section):
    """The densely connected branch of an i-DenseNet; used where `model.branch` is `dense`."""

    depth: Blocks = Field(
        default=3,
        description="Number of dense layers in a branch, each a 3x3 convolution whose result is concatenated to its "
        "input. The default is that of arXiv 2102.02694 for CIFAR-10 and ImageNet 32x32.",
    )
    growth: Positive = Field(
        default=172,
        description="Number of channels that each dense layer adds; with `clipswish` or `cpila`, which double "
        "channels, it must be even. The default is that of arXiv 2102.02694 for CIFAR-10 and ImageNet 32x32.",
    )


class ModelParams(Section):
    """The architecture: everything about a flow that does not depend on its data set."""

    blocks: list[Blocks] = Field(
        default=[16, 16, 16],
        strict=False,
        min_length=1,
        description="Number of convolutional (or dense) blocks of each scale, one entry per scale; between "
        "scales maps are halved in height and width. The default is that of arXiv 1906.02735, appendix E, for MNIST "
        "and CIFAR-10.",
    )
    idim: Positive = Field(
        default=512,
        description="Number of channels between the convolutions of a branch; without effect on dense branches. The "
        "default is that of arXiv 1906.02735, appendix E.",
    )
    kernels: list[Positive] = Field(
        default=[3, 1, 3],
        strict=False,
        min_length=1,
        description="Height and width of each convolution's kernel in a branch, in pixels and odd, one entry per "
        "convolution; on potential branches one per potential layer between the first and the last; without effect on "
        "dense branches. The default is that of arXiv 1906.02735, appendix E.",
    )
    block: str = Field(
        default="residual",
        description="How a contraction g makes a bijection. `residual` is x + g(x) (arXiv 1811.00995). `monotone` is "
        "sqrt(2) (I + g)^-1(sqrt(2) x) - x (arXiv 2210.08176), which may stretch distances by up to (1 + L) / (1 - L) "
        "where g has the Lipschitz bound L, instead of 1 + L, and solves an equation in the forward direction too.",
        json_schema_extra={"enum": [*BLOCKS]},
    )
    branch: str = Field(
        default="conv",
        description="Form of the branch g of a block: `conv` alternates activations and convolutions "
        "(arXiv 1906.02735), `dense` is densely connected (arXiv 2102.02694), `potential` has convex potential layers "
        "(arXiv 2110.12690) between its first and its last convolution, an arrangement of this project.",
        json_schema_extra={"enum": [*BRANCHES]},
    )
    activation: str = Field(
        default="lipswish",
        description="Activation function in all branches: `lipswish` (arXiv 1906.02735, section 3.3), `elu`, which "
        "the CelebA-HQ 256 model of that paper's code uses, or one of `clipswish` (arXiv 2102.02694) and `cpila` "
        "(arXiv 2210.08176), which double the number of channels; without effect on potential branches, whose layers "
        "have one of their own.",
        json_schema_extra={"enum": [*ACTIVATIONS]},
    )
    coefficient: Fraction = Field(
        default=0.98,
        description="Largest spectral norm that a convolution or fully connected layer may have; a larger one is "
        "scaled down to it (arXiv 1811.00995). The default is that of arXiv 1906.02735, appendix E.",
    )
    power_iterations: Positive = Field(
        default=5,
        description="Number of steps of power iteration that refresh the estimated spectral norms after each step of "
        "the optimiser. This project's choice; the code published with arXiv 1906.02735 iterates to a tolerance "
        "instead. The certificate does not rely on these estimates.",
    )
    actnorm: bool = Field(
        default=True,
        description="Whether activation normalisation (arXiv 1807.03039, section 3.1) stands at the start of a scale "
        "and after each block, as in the image models of arXiv 1906.02735.",
    )
    fc_blocks: Annotated[int, Field(ge=0, le=MOST_BLOCKS), INTEGRAL] = Field(
        default=4,
        description="Number of blocks with fully connected layers at the end of the last scale. The default "
        "is that of arXiv 1906.02735, appendix E.",
    )
    fc_width: Positive = Field(
        default=128,
        description="Number of values in the two hidden layers of a fully connected block. The default is that of "
        "arXiv 1906.02735, appendix E.",
    )
    factor_out: bool = Field(
        default=False,
        description="Whether half of the channels leave the flow after each scale but the last (arXiv 1605.08803, "
        "section 3.6). The code published with arXiv 1906.02735 does so for ImageNet 64x64 and CelebA-HQ 256.",
    )
    squeeze_first: bool = Field(
        default=False,
        description="Whether images are halved in height and width, at four times the channels, before the first scale "
        "as well as between scales. The code published with arXiv 1906.02735 does so for ImageNet 64x64 and "
        "CelebA-HQ 256.",
    )
    logit_alpha: float = Field(
        default=0.05,
        ge=1e-30,
        lt=0.5,
        description="Offset a of the first transform, logit(a + (1 - 2a) x) for pixel values x between 0 and 1 "
        "(arXiv 1605.08803, section 4.1). The default is that of arXiv 1906.02735, appendix E, which has 1e-6 for "
        "MNIST.",
    )
    head_width: Positive = Field(
        default=64,
        description="Number of channels of each classification head, of which there is one at the end of every scale; "
        "without effect where `training.task.kind` is `density`. The default is that of the code published with "
        "arXiv 1906.02735.",
    )
    attention: AttentionConfig = Field(
        default=AttentionConfig(),
        description="Self-attention in the convolutional or dense blocks (arXiv 2109.12135).",
    )
    dense: DenseConfig = Field(default=DenseConfig(), description="Size of dense branches (arXiv 2102.02694).")

    @field_validator("block")
    @classmethod
    def _known_block(cls, value: str) -> str:
        return one_of("block", value, BLOCKS)

    @field_validator("branch")
    @classmethod
    def _known_branch(cls, value: str) -> str:
        return one_of("branch", value, BRANCHES)

    @field_validator("activation")
    @classmethod
    def _known_activation(cls, value: str) -> str:
        return one_of("activation", value, ACTIVATIONS)

    @field_validator("kernels")
    @classmethod
    def _odd(cls, value: list[int]) -> list[int]:
        if any(k % 2 == 0 for k in value):
            raise ValueError("kernels must be odd so that the map keeps its size")
        return value

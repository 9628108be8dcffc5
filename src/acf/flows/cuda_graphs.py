"""Sequences of CUDA kernels that are recorded once and started again by one call: CUDA graphs.

Starting a kernel costs the host some microseconds, more than the kernel takes on small maps. The computation of a
contractive block always starts the same kernels for the same number of terms of its series, so these are recorded.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from acf.lipschitz.effective import Described

Outputs: TypeAlias = tuple[Tensor | None, ...]
WARM = 2
"""Calls on a stream of their own before the recording, in which libraries choose algorithms and allocate memory."""


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Outputs

    def replay(self, inputs: Sequence[Tensor]) -> Outputs:
        torch._foreach_copy_(self.inputs, list(inputs))
        self.graph.replay()
        return tuple(None if output is None else output.clone() for output in self.outputs)


class CudaGraphs:
    """The recordings of a flow's blocks, made when a computation is asked for the second time.

    Blocks of one structure share recordings, as all weights are inputs. All share one pool of memory and the places of
    their inputs, which one stream uses one after the other. A copy of the object starts without recordings.
    """

    def __init__(self) -> None:
        self._recordings: dict[Hashable, _Recording | None] = {}
        self._places: dict[Hashable, Tensor] = {}
        self._structures: dict[tuple[nn.Module, ...], Hashable] = {}
        self._pool: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "CudaGraphs":
        return CudaGraphs()

    def __reduce__(self) -> tuple[type["CudaGraphs"], tuple[()]]:
        return CudaGraphs, ()

    def call(
        self, branch: nn.Module, key: Hashable, function: Callable[..., Outputs], inputs: Sequence[Tensor]
    ) -> Outputs:
        """Return function(*inputs), by replaying its recording where there is one.

        Args:
            branch: the module that computes the function.
            key: what else the function depends on besides its inputs.
            function: of tensors alone, without random numbers and without reading values on the host.
            inputs: tensors on one CUDA device, all the weights that the function depends on among them.
        """
        full_key = (
            self._structure(branch),
            key,
            tuple((t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for t in inputs),
        )
        if full_key not in self._recordings:
            self._recordings[full_key] = None
            return function(*inputs)
        recording = self._recordings[full_key]
        if recording is None:
            recording = self._recordings[full_key] = self._record(function, inputs)
        return recording.replay(inputs)

    def _record(self, function: Callable[..., Outputs], inputs: Sequence[Tensor]) -> _Recording:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        places = [self._place(index, tensor) for index, tensor in enumerate(inputs)]
        torch._foreach_copy_(places, list(inputs))
        current, own = torch.cuda.current_stream(), torch.cuda.Stream()
        own.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(own):
            for _ in range(WARM):
                function(*places)
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            outputs = function(*places)
            graph.capture_end()
        current.wait_stream(own)
        return _Recording(graph, places, outputs)

    def _structure(self, branch: nn.Module) -> Hashable:
        modules = tuple(branch.modules())
        if modules not in self._structures:
            self._structures[modules] = tuple(map(_structure, modules))
        return self._structures[modules]

    def _place(self, index: int, like: Tensor) -> Tensor:
        key = index, like.shape, like.stride(), like.dtype, like.device, like.requires_grad
        if key not in self._places:
            self._places[key] = torch.empty_like(like).requires_grad_(like.requires_grad)
        return self._places[key]


def _structure(module: nn.Module) -> Hashable:
    """What a module computes besides its tensors: class and settings, or the module itself where that is not known.

    `Described` layers compute from their described tensors and their attributes alone.
    """
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if tensors and not isinstance(module, Described):
        return module
    settings = {name: value for name, value in vars(module).items() if name not in _INTERNAL}
    return type(module), tuple((name, _comparable(value)) for name, value in settings.items())


_INTERNAL = frozenset(vars(nn.Module()))


def _comparable(value: Any) -> Hashable:
    """The value if it compares by what it holds, and else what is equal to itself only."""
    if isinstance(value, tuple):
        return tuple(map(_comparable, value))
    return value if isinstance(value, int | float | str | type(None) | torch.dtype) else id(value)

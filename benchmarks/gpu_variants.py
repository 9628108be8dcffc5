"""Ways of taking a training step that `gpu.py` measures beside each other.

A variant is a function from a flow, in training mode and on its device, to a step (`published_steps.Step`): a generator
of losses that ends when the weights, norms and average have been updated. A new one, a step captured as a CUDA graph or
compiled by torch, is a function here and a line in `VARIANTS`; or a file of its own, named on the command line as
`--variant NAME=FILE.py:FUNCTION`. Work before the first step (capture, compilation) belongs into the function or into
the first call of the step: neither is timed, but the budget has to allow for it. A variant is measured once per shape
and kind of attention, on a flow of its own with the same weights, and its first loss is compared with eager mode's.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from published_steps import Step, our_step, reference_step

import acf

Variant = Callable[[acf.Flow], Step]


def with_graphs(flow: acf.Flow) -> Step:
    """Return our step with the kernels of every block recorded and replayed; as `our_step` for a package without."""
    if hasattr(flow, "use_cuda_graphs"):
        flow.use_cuda_graphs()
    return our_step(flow)


VARIANTS: dict[str, Variant] = {
    "ours": our_step,
    "graphs": with_graphs,
    "reference": reference_step,
}


def variants(given: list[str]) -> dict[str, Variant]:
    """Return `VARIANTS` and those given as NAME=FILE.py:FUNCTION.

    Raises:
        SystemExit: text of another form, or no such file or function.
    """
    found = dict(VARIANTS)
    for text in given:
        name, _, place = text.partition("=")
        path, _, function = place.rpartition(":")
        spec = importlib.util.spec_from_file_location(Path(path).stem, path) if Path(path).is_file() else None
        if not name or spec is None or spec.loader is None:
            raise SystemExit(f"--variant {text}: expected NAME=FILE.py:FUNCTION with a file that exists")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, function):
            raise SystemExit(f"--variant {text}: {path} has no function {function!r}")
        found[name] = getattr(module, function)
    return found

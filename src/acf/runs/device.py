"""The device that computes: its selection and its description."""

import os
import platform
import re
from typing import TYPE_CHECKING

from acf.errors import ConfigError, shown

if TYPE_CHECKING:
    import torch


def select_device(name: str = "auto") -> "torch.device":
    """Return the torch device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Turns TF32 arithmetic off for the process.

    Raises:
        ConfigError: not a device, or one this machine does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,3})?", name):  # torch knows others, on which no flow can be computed
        raise ConfigError(f"device {shown(name)} is none of cpu, cuda, cuda:1, mps, and auto")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); use cpu, cuda or auto") from None
    # TF32 rounds to 11 bits, more than the certificate's allowance for rounding covers.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device


def describe_device(device: "torch.device") -> str:
    """Return words for a results file: kind, model and, on the CPU, the number of threads."""
    import torch

    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{device.type}, {_processor()}, {threads} thread{'s' * (threads != 1)}"


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

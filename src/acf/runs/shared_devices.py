"""The devices of this machine that computations share, each under a name that all processes know it by."""

import os
import re
from collections import Counter
from dataclasses import dataclass

from acf.errors import ConfigError, shown

VARIABLE = "ACF_DEVICES"


@dataclass(frozen=True)
class SharedDevice:
    """A device that one computation at a time uses.

    Attributes:
        name: what torch calls it in this process, `cuda:1`.
        identity: what all processes of this machine call it. `CUDA_VISIBLE_DEVICES` and containers number the devices
            of each process anew, so it contains the UUID of a CUDA device.
    """

    name: str
    identity: str


def shared_devices() -> list[SharedDevice]:
    """Return the devices that the environment's `ACF_DEVICES` lists; without that, all CUDA devices.

    A device that is listed n times serves n computations at once. Looking for devices reserves no memory on them.

    Raises:
        ConfigError: an entry of `ACF_DEVICES` is no device, or a CUDA device that this process does not see.
    """
    import torch

    count = torch.cuda.device_count()
    listed = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    times: Counter[str] = Counter()
    devices = []
    for name in listed or [f"cuda:{number}" for number in range(count)]:
        identity = _identity(name, count)
        devices.append(SharedDevice(name, f"{identity}#{times[identity]}"))
        times[identity] += 1
    return devices


def _identity(name: str, count: int) -> str:
    """Return the name of a device on this machine, of which the process sees `count` CUDA devices."""
    import torch

    if name in ("cpu", "mps"):
        return name
    if not re.fullmatch("cuda:(0|[1-9][0-9]{0,2})", name):
        raise ConfigError(f"{VARIABLE} lists {shown(name)}, which is none of cpu, mps, cuda:0, cuda:1 and so on")
    if (number := int(name.removeprefix("cuda:"))) >= count:
        raise ConfigError(f"{VARIABLE} lists {name}, and this process sees {count} CUDA devices; mend {VARIABLE}")
    return str(torch.cuda.get_device_properties(number).uuid)

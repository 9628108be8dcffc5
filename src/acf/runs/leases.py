"""Leases: each computation has its devices for itself, and waits until they are free.

Only the processes of one user are considered, those that take leases and have the same temporary folder. What else
computes on a device is not known.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from acf.errors import ConfigError
from acf.runs.device import select_device
from acf.runs.lease_queue import Place, lease_folder
from acf.runs.shared_devices import VARIABLE, SharedDevice, shared_devices

if TYPE_CHECKING:
    import torch

PAUSE = 0.3
"""Seconds between two looks at whether devices are free."""


@contextmanager
def leased_devices(name: str = "auto", count: int = 1) -> Iterator[list["torch.device"]]:
    """Have `count` devices that no other holder of a lease uses until the context ends.

    Waits until so many are free together, says once on standard output for whom, and is served in the order of
    arrival. The devices of a process that has died are free at once. Nothing is computed on the devices, and no memory
    reserved, so that other processes may be given them; processes that are given them take no leases of their own.

    Args:
        name: "auto" for any of the shared devices (`acf.runs.shared_devices`), "cuda" for any CUDA device of them,
            "cuda:1" for that one. "cpu" and "mps" stand for themselves, and so does what "auto" is on a machine without
            shared devices: these need no lease and are returned `count` times.
        count: number of devices.

    Raises:
        ConfigError: not a device, not one of those that `ACF_DEVICES` lists, or more than there are.
        UnwritableError: leases cannot be written.
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; a lease is of one device or more")
    candidates = _candidates(name)
    if not candidates:
        yield [select_device(name)] * count
        return
    if len(candidates) < count:
        raise ConfigError(
            f"{count} devices are asked for, and there are {len(candidates)} ({_names(candidates)}); ask for fewer "
            f"processes or name more devices in {VARIABLE}"
        )
    import torch

    with Place(lease_folder(), [device.identity for device in candidates], count) as place:
        taken = _wait(place, candidates, count)
        yield [torch.device(device.name) for device in candidates if device.identity in taken]


@contextmanager
def leased_device(name: str = "auto") -> Iterator["torch.device"]:
    """Have one device as `leased_devices` gives it, ready to compute (`acf.runs.device.select_device`).

    Raises:
        ConfigError: as for `leased_devices`, or the device cannot be used.
        UnwritableError: leases cannot be written.
    """
    with leased_devices(name) as (device,):
        yield select_device(str(device))


def _candidates(name: str) -> list[SharedDevice]:
    """Return the shared devices that `name` may stand for; none if it needs no lease."""
    if name in ("cpu", "mps"):
        return []
    devices = shared_devices()
    found = [device for device in devices if name in ("auto", device.name, device.name.partition(":")[0])]
    if devices and not found:
        select_device(name)
        raise ConfigError(f"device {name!r} is none of the shared ones ({_names(devices)}); see {VARIABLE}")
    return found


def _wait(place: Place, candidates: Sequence[SharedDevice], count: int) -> Sequence[str]:
    """Return the identities of the devices once they are free."""
    said = False
    while not (taken := place.take()):
        if not said:
            number = "a device is" if count == 1 else f"{count} devices are"
            print(f"waiting until {number} free of {_names(candidates)}: {place.reason()}", flush=True)
            said = True
        time.sleep(PAUSE)
    return taken


def _names(devices: Sequence[SharedDevice]) -> str:
    return ", ".join(device.name for device in devices)

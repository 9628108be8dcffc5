"""The shape of images whose squares of pixels are averaged when they are loaded."""

from collections.abc import Sequence

from acf.errors import ConfigError


def averaged_shape(shape: Sequence[int], average: int) -> tuple[int, ...]:
    """Return the shape of images (C, H, W) whose squares of `average` x `average` pixels have become one pixel each.

    Raises:
        ConfigError: it does not divide height and width.
    """
    if average == 1:
        return tuple(shape)
    if len(shape) != 3 or shape[1] % average or shape[2] % average:
        size = "x".join(map(str, shape))
        raise ConfigError(f"average is {average}, which does not divide height and width of images of {size}")
    return (shape[0], shape[1] // average, shape[2] // average)


def average_between(stored: Sequence[int], seen: Sequence[int]) -> int:
    """Return the side of the squares that become one pixel where samples of shape `stored` are seen as of shape `seen`.

    1 where no such side makes one shape of the other, which is then for the model to refuse.
    """
    if len(stored) == len(seen) == 3 and stored[1] % seen[1] == 0:
        average = stored[1] // seen[1]
        if tuple(stored) == (seen[0], seen[1] * average, seen[2] * average):
            return average
    return 1

"""Where a clip of sound ends and the zeros begin that pad it."""

from torch import Tensor


def before_padding(clips: Tensor) -> Tensor:
    """Return bool [B, 1, T]: which positions of clips [B, C, T] are not after the last value other than 0."""
    sounds = (clips != 0).any(1, keepdim=True)
    return sounds.flip(-1).cumsum(-1).flip(-1) > 0

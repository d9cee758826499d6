"""A trained encoder of Hugging Face's transformers over the vectors of word pieces."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.encoders import layers_of, pieces_of
from ltsd.errors import UserError
from ltsd.models.blocks import without_dropout
from ltsd.models.network import Features, Opaque

FAMILY = "transformers/"
"""Before the folder of an encoder, in the name of its network."""
UNFIT = (RuntimeError, IndexError, ValueError)
"""What encoders raise at texts longer than they take, or at vectors of another size."""


class TextEncoder(Opaque):
    """The layers of an encoder, [B, D, L] -> [B, size]: the mean over a text.

    The vectors of its word pieces are given, as a part of the data; those of the pieces that it puts before and after
    every text are its own, and no attack moves them.
    """

    before: Tensor
    after: Tensor

    def __init__(self, folder: str) -> None:
        super().__init__()
        pieces, network = pieces_of(folder), layers_of(folder)
        vectors = network.get_input_embeddings().weight.detach()
        self.register_buffer("before", vectors[list(pieces.before)].clone())
        self.register_buffer("after", vectors[list(pieces.after)].clone())
        network.set_input_embeddings(nn.Identity())
        if getattr(network, "pooler", None) is not None:
            network.pooler = None
        without_dropout(network)
        self.network = network
        self.size: int = network.config.hidden_size

    def forward(self, inputs: Tensor) -> Tensor:
        """Read the vectors at every position in the light of all others; vectors of zeros behind a text are padding."""
        words = (inputs != 0).any(1).sum(1)
        vectors = self._between(inputs.transpose(1, 2), words)
        places = torch.arange(vectors.shape[1], device=inputs.device)
        is_read = places < (words + len(self.before) + len(self.after))[:, None]
        hidden = self.network(inputs_embeds=vectors, attention_mask=is_read.long()).last_hidden_state
        read = is_read[..., None]
        mean: Tensor = (hidden * read).sum(1) / read.sum(1)
        return mean

    def _between(self, vectors: Tensor, words: Tensor) -> Tensor:
        """Return vectors [B, L, D], of which `words` [B] are no padding, with those before and after each text."""
        before = self.before.to(vectors.dtype).expand(vectors.shape[0], -1, -1)
        whole = F.pad(torch.cat([before, vectors], 1), (0, 0, 0, len(self.after)))
        for number, vector in enumerate(self.after.to(vectors.dtype)):
            place = F.one_hot(words + len(self.before) + number, whole.shape[1]).to(vectors.dtype)
            whole = whole + place[..., None] * vector
        return whole


def text_encoder(name: str) -> tuple[Features, int]:
    """Return the encoder in the folder of a name `transformers/FOLDER`, with its weights.

    Raises:
        UserError: as `layers_of` and `pieces_of`.
        MissingPackageError: transformers is not installed.
    """
    encoder = TextEncoder(name.removeprefix(FAMILY))
    return Features(encoder), encoder.size


def check_length(name: str, network: nn.Module, dimensions: int, length: int) -> None:
    """Check that a network of `text_encoder` takes texts of so many word pieces.

    Raises:
        UserError: it does not.
    """
    try:
        with torch.no_grad():
            network.eval()(torch.ones(2, dimensions, length))
    except UNFIT as error:
        told = " ".join(str(error).split())[:150]
        raise UserError(
            f"--model.name {name}: does not take texts of {length} word pieces with vectors of {dimensions} numbers "
            f"({told}); give a smaller --data.tokens, and no other --data.encoder"
        ) from error

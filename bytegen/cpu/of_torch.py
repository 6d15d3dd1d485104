"""The decoder of a torch model, where the C library takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from bytegen.cpu.binding import library
from bytegen.cpu.decoder import Decoder

if TYPE_CHECKING:
    from bytegen.model import ByteLM


def available(lm: ByteLM) -> bool:
    """Whether the library is there and takes the model: float32, or int8 with float32, on the CPU."""
    return library is not None and lm.device.type == "cpu" and str(lm.embed.weight.dtype) == "torch.float32"


_decoders: WeakKeyDictionary[ByteLM, tuple[object, Decoder]] = WeakKeyDictionary()


def new_decoder(lm: ByteLM, **options: Any) -> Decoder:
    """A decoder of the weights as they are now; options are those of `Decoder`. ValueError if it is not available."""
    if not available(lm):
        where = f"{lm.embed.weight.dtype} on {lm.device}"
        raise ValueError(
            f"the C decoder takes float32 on the CPU, and has to be compiled; the model is {where}"
        )
    arrays = {name: tensor.detach().numpy() for name, tensor in lm.state_dict().items()}
    from bytegen.quantised import is_dynamic

    return Decoder(lm.config, arrays, dynamic=is_dynamic(lm), **options)


def decoder_of(lm: ByteLM) -> Decoder:
    """The model's decoder, made again when its weights have changed."""
    state = [(p.data_ptr(), p._version) for p in (*lm.parameters(), *lm.buffers())]
    known = _decoders.get(lm)
    if known is None or known[0] != state:
        known = _decoders[lm] = state, new_decoder(lm)
    return known[1]

"""Where in a transformer the modules of a layer end, which bottleneck adapters stand behind. Found in the model, not in a table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile

from jobs.errors import UserError
from jobs.models.frame import Frame

# Parts of the names of layers that lead into an attention; what is left and as wide as the model leads out of it.
_INTO_ATTENTION = frozenset({"q", "k", "v", "kv", "qkv", "query", "key", "value"})
# A layer of the model: the name up to its first number. A module within it that is numbered too (T5's): up to the last.
_LAYER = re.compile(r"^(?:[^.]+\.)*?\d+(?=\.)")
_NUMBERED = re.compile(r"^.*\.\d+(?=\.)")


@dataclass(frozen=True)
class Places:
    """Names of linear layers, in the model's order. `attention`: those that each attention ends with (self- and cross-attention);
    `feed_forward`: those that each feed-forward module ends with; `inputs`: for each of these, one that reads the module's input.
    """

    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    inputs: dict[str, str]


def find_places(frame: Frame, *, method: str) -> Places:
    """The places in a model. Raises `UserError("method_cannot")` where a layer has no such module, or several."""
    width, layers = frame.width, [layer for layer in frame.layers if _LAYER.match(layer.name)]
    attention = {layer.within: layer.name for layer in layers if layer.within and layer.outputs == width and not _leads_in(layer.name)}
    outside = [layer for layer in layers if not layer.within and "expert" not in layer.name.lower()]
    feed_forward = [layer.name for layer in outside if layer.outputs == width != layer.inputs]
    if reason := _fault([*dict.fromkeys(layer.within for layer in layers if layer.within)], attention, feed_forward):
        raise cannot(method, reason)
    readers = [layer.name for layer in outside if layer.inputs == width != layer.outputs]
    return Places(tuple(attention.values()), tuple(feed_forward), {name: _nearest(name, readers, method) for name in feed_forward})


def cannot(method: str, reason: str) -> UserError:
    """The error of a model in which a place is not found; `reason` goes on after "cannot train this model"."""
    return UserError(
        "method_cannot", method=method, reason=reason, instead="Choose LoRA, which needs no such places.", where={"field": "method.id"}
    )


def _leads_in(name: str) -> bool:
    return bool(_INTO_ATTENTION & set(name.rpartition(".")[2].lower().split("_")))


def _fault(attentions: list[str], attention: dict[str, str], feed_forward: list[str]) -> str:
    """What is missing, or empty."""
    if not attentions:
        return "it has no attention in its layers"
    if missing := [name for name in attentions if name not in attention]:
        return f"the layer that {missing[0]} ends with is not found"
    ends = [_numbered(name) for name in feed_forward]
    if missing := [name for name in attentions if _layer(name) not in {_layer(end) for end in feed_forward}]:
        return f"the layer {_layer(missing[0])} has no plain feed-forward module, as where that is a mixture of experts"
    if several := [end for end in ends if ends.count(end) > 1]:
        return f"the layer {several[0]} has several modules that could be its feed-forward module"
    return ""


def _layer(name: str) -> str:
    found = _LAYER.match(name)
    return found[0] if found else ""


def _numbered(name: str) -> str:
    found = _NUMBERED.match(name)
    return found[0] if found else ""


def _nearest(end: str, readers: list[str], method: str) -> str:
    """Who reads the input of the module that `end` ends: of the readers in the same numbered module, the one nearest in the tree."""

    def shared(name: str) -> int:
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(name.split("."), end.split("."), strict=False)))

    found = [name for name in readers if _numbered(name) == _numbered(end)]
    if not found:
        raise cannot(method, f"no layer is found that reads the input of the feed-forward module that {end} ends")
    return max(found, key=shared)

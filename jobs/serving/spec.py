"""What the serving process is asked and what it answers, as JSON lines. Free of torch.

In: `ask`, `cancel`, `unload`, `status`, `quit`. Out: for each question `loading` where its model is not there yet, `started`, `token` for
each piece of text, then `finished` or `refused`; all with the question's id. Times are seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from jobs.spec import STRICT, read_strictly

Bits = Literal[16, 8, 4]
MOST_TOP = 20


@dataclass(frozen=True)
class ModelRef:
    """A model: the folder of a base model, and perhaps of an adapter upon it (as peft saves it). `bits` 4 and 8 quantise the base."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    folder: str
    adapter: str = ""
    bits: Bits = 16
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @property
    def base(self) -> tuple[str, int, str]:
        """What is loaded once for all adapters upon it."""
        return self.folder, self.bits, self.precision


@dataclass(frozen=True)
class Ask:
    """A question: `messages` of a chat, or a `text` to go on from. `top` likeliest tokens are told at each place, -1: not even the chosen
    one's probability. `seed` decides what is drawn at a temperature above 0, whatever else is answered at the same time.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    id: Annotated[str, Field(min_length=1, max_length=64)]
    model: ModelRef
    messages: list[dict[str, Any]] | None = None
    text: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 256
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=4)] | None = None
    top: Annotated[int, Field(ge=-1, le=MOST_TOP)] = -1

    def to_json(self) -> dict[str, Any]:
        """The question as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Any) -> Ask:
        """Reads a JSON object. Raises `UserError` that names the first field at fault."""
        return read_strictly(_ADAPTER, body)


_ADAPTER: TypeAdapter[Ask] = TypeAdapter(Ask)


@dataclass(frozen=True)
class Likely:
    """A token with its natural logarithm of probability; `bytes` of its text, since a token may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


@dataclass(frozen=True)
class Reply:
    """One line of an answer. `text` is a piece of a `token` reply, `tokens` those that it is made of, with the likeliest at each place."""

    id: str
    kind: Literal["loading", "started", "token", "finished", "refused"]
    text: str = ""
    tokens: tuple[Likely, ...] = ()
    tops: tuple[tuple[Likely, ...], ...] = ()
    prompt_tokens: int = 0
    answer_tokens: int = 0
    reason: Literal["", "stop", "length", "cancelled"] = ""
    code: str = ""
    message: str = ""
    seconds: float = 0.0
    first_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The reply as a JSON object, without what it does not say."""
        return {name: value for name, value in asdict(self).items() if value not in ("", (), 0, 0.0) or name in ("id", "kind")}

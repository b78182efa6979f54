"""The models that are loaded, and the questions that they answer: each turn of the loop is one decoding step of every batch."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from jobs.commands.generate import prompt_ids
from jobs.errors import GraftError, UserError
from jobs.evaluation.generation import stop_tokens
from jobs.evaluation.likelihood import known_positions
from jobs.export.archive import unpack
from jobs.models.heads import CAUSAL, finished_head
from jobs.models.loading import load_tokenizer
from jobs.models.opened import Opened, add_adapter, open_model
from jobs.models.virtual import virtual_tokens
from jobs.serving.batch import Batch, Chosen, Row
from jobs.serving.spec import Ask, Likely, ModelRef, Reply
from jobs.serving.text import Writer

Say = Callable[[Reply], None]
# Rows of one batch, and adapters upon one base that stay in memory.
MOST_ROWS = 32
MOST_ADAPTERS = 16
MOST_MODELS = 2


@dataclass
class Answering:
    """A question that is being answered."""

    ask: Ask
    row: Row
    writer: Writer
    asked_at: float
    first_at: float = 0.0
    cancelled: bool = False


@dataclass
class Loaded:
    """A base model with its adapters: by their folders, the name that peft knows each by, its tokenizer, its batch and who is answered.
    The empty folder is the base alone.
    """

    opened: Opened
    tokenizers: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    answering: dict[str, list[Answering]] = field(default_factory=dict)
    count: int = 0
    used_at: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether it is answering."""
        return any(self.answering.values())


class Engine:
    """Give it questions by `put`; every `turn` goes on with all of them by a token. Replies go to `say`."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._waiting: deque[tuple[Ask, float]] = deque()
        self.loaded: dict[tuple[str, int, str], Loaded] = {}
        self._unpacked: dict[str, Path] = {}

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting) or any(loaded.busy for loaded in self.loaded.values())

    def put(self, ask: Ask) -> None:
        """Takes a question; it begins with the next turn."""
        self._waiting.append((ask, time.monotonic()))

    def cancel(self, ask_id: str) -> None:
        """Ends an answer where it is; nothing happens for an unknown id."""
        for ask, _ in self._waiting:
            if ask.id == ask_id:
                self._waiting = deque(each for each in self._waiting if each[0].id != ask_id)
                self._say(Reply(ask_id, "finished", reason="cancelled"))
                return
        for loaded in self.loaded.values():
            for one in (one for group in loaded.answering.values() for one in group if one.ask.id == ask_id):
                one.cancelled = True

    def unload(self, idle_seconds: float = 0.0) -> int:
        """Lets go of the models that have been idle for so long. Gives how many."""
        now = time.monotonic()
        idle = [key for key, loaded in self.loaded.items() if not loaded.busy and now - loaded.used_at >= idle_seconds]
        for key in idle:
            del self.loaded[key]
        return len(idle)

    def turn(self) -> None:
        """Begins what waits and fits, and makes a step of every batch. What goes wrong ends the questions that it belongs to."""
        self._begin()
        for key, loaded in list(self.loaded.items()):
            for name in [name for name, group in loaded.answering.items() if group]:
                try:
                    self._step(loaded, name)
                except (RuntimeError, MemoryError) as failure:
                    self._fail(loaded, name, failure)
            if loaded.busy:
                self.loaded[key].used_at = time.monotonic()

    # -- beginning ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        later: deque[tuple[Ask, float]] = deque()
        joining: dict[tuple[tuple[str, int, str], str], list[Answering]] = {}
        while self._waiting:
            ask, asked_at = self._waiting.popleft()
            group = joining.setdefault((ask.model.base, ask.model.adapter), [])
            if len(group) + self._rows(ask.model) >= MOST_ROWS:
                later.append((ask, asked_at))
                continue
            try:
                group.append(self._answering(ask, asked_at))
            except GraftError as error:
                self._say(Reply(ask.id, "refused", code=error.code, message=f"{error.message} {error.remedy}"))
            except Exception as failure:  # noqa: BLE001 one question, whatever is in it, must not end the answers of the others
                words = f"{type(failure).__name__}: {failure}"[:500]
                self._say(Reply(ask.id, "refused", code="model_unusable", message=words))
        self._waiting = later
        for (base, name), group in joining.items():
            if group:
                self._join(self.loaded[base], name, group)

    def _rows(self, model: ModelRef) -> int:
        loaded = self.loaded.get(model.base)
        return len(loaded.answering.get(model.adapter, ())) if loaded else 0

    def _answering(self, ask: Ask, asked_at: float) -> Answering:
        """Raises `UserError` for what cannot be answered."""
        loaded = self._load(ask)
        tokenizer = loaded.tokenizers[ask.model.adapter]
        ids = prompt_ids(ask.messages if ask.messages is not None else str(ask.text), tokenizer, raw=ask.messages is None)
        if not ids:
            ids = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id]
        known = known_positions(loaded.opened.model)
        if known and len(ids) + 1 > known:
            raise UserError("prompt_too_long", tokens=len(ids), limit=known, where={"field": "messages"})
        row = Row(ids, ask.temperature, ask.top_p, ask.seed, ask.top)
        return Answering(ask, row, Writer(tokenizer, ask.stop or ()), asked_at)

    def _load(self, ask: Ask) -> Loaded:
        model = ask.model
        loaded = self.loaded.get(model.base)
        if loaded is None or model.adapter not in loaded.tokenizers:
            self._say(Reply(ask.id, "loading"))
        if loaded is None:
            self._make_room()
            opened = open_model(self._folder(model.folder), None, bits=model.bits, precision=model.precision)
            if opened.head != CAUSAL:
                raise UserError("model_writes_not", what=f"it is loaded as {opened.head.auto}", where={"field": "model"})
            loaded = self.loaded[model.base] = Loaded(opened, {"": opened.tokenizer}, used_at=time.monotonic())
        if model.adapter not in loaded.tokenizers:
            self._load_adapter(loaded, model)
        return loaded

    def _make_room(self) -> None:
        """Before a further model is loaded, the one that has been idle for longest goes."""
        idle = sorted((loaded.used_at, key) for key, loaded in self.loaded.items() if not loaded.busy)
        if len(self.loaded) >= MOST_MODELS and idle:
            del self.loaded[idle[0][1]]

    def _load_adapter(self, loaded: Loaded, model: ModelRef) -> None:
        folder, opened = self._folder(model.adapter), loaded.opened
        head = finished_head(self._folder(model.folder), folder)
        if head != CAUSAL:
            raise UserError("model_writes_not", what=f"it is loaded as {head.auto}", where={"field": "model"})
        gone = next((each for each in loaded.names if not loaded.answering.get(each)), None)
        if len(loaded.names) >= MOST_ADAPTERS and gone is not None:
            opened.model.delete_adapter(loaded.names.pop(gone))
            loaded.tokenizers.pop(gone)
            loaded.batches.pop(gone, None)
        # A folder's path may have dots, which no part of a model's name may.
        loaded.count += 1
        name = f"adapter{loaded.count}"
        with_more = add_adapter(opened.model, folder, name)
        if virtual_tokens(with_more):
            with_more.delete_adapter(name)
            raise UserError("model_unusable", reason="its adapter is made of virtual tokens, which are not served yet")
        loaded.opened = replace(opened, model=with_more)
        own = (folder / "tokenizer.json").is_file()
        loaded.tokenizers[model.adapter] = load_tokenizer(self._folder(model.folder), files=folder) if own else opened.tokenizer
        loaded.names[model.adapter] = name

    def _folder(self, path: str) -> Path:
        """The files at a path: a folder, or a download (zip), which is unpacked once. Raises `UserError`."""
        if Path(path).suffix != ".zip":
            return Path(path)
        if path not in self._unpacked:
            self._unpacked[path] = unpack(Path(path), Path(tempfile.mkdtemp(prefix="served-")))
        return self._unpacked[path]

    def _join(self, loaded: Loaded, name: str, group: list[Answering]) -> None:
        for one in group:
            self._say(Reply(one.ask.id, "started", prompt_tokens=len(one.row.prompt)))
        answering = loaded.answering.setdefault(name, [])
        answering += group
        try:
            batch = loaded.batches.get(name)
            if batch is None:
                batch = loaded.batches[name] = Batch(loaded.opened.model, stop_tokens(loaded.opened.model, loaded.opened.tokenizer)[0])
            batch.model = loaded.opened.model
            with self._with(loaded, name):
                found = batch.join([one.row for one in group])
            self._tell(loaded, name, list(zip(group, found, strict=True)))
        except (RuntimeError, MemoryError) as failure:
            self._fail(loaded, name, failure)

    # -- going on ----------------------------------------------------------------------------------------------------

    def _step(self, loaded: Loaded, name: str) -> None:
        with self._with(loaded, name):
            found = loaded.batches[name].step()
        self._tell(loaded, name, list(zip(loaded.answering[name], found, strict=True)))

    def _with(self, loaded: Loaded, name: str) -> Any:
        return _Arithmetic(loaded.opened, loaded.names.get(name, ""))

    def _tell(self, loaded: Loaded, name: str, found: list[tuple[Answering, Chosen]]) -> None:
        """Passes on the newest tokens, and lets go of the rows that have ended."""
        ends = set(stop_tokens(loaded.opened.model, loaded.tokenizers[name]))
        known = known_positions(loaded.opened.model)
        gone = [one for one, chosen in found if self._told(one, chosen, ends, loaded.tokenizers[name], known)]
        if gone:
            left = [one for one in loaded.answering[name] if not any(one is each for each in gone)]
            loaded.answering[name] = left
            loaded.batches[name].keep([one.row for one in left])

    def _told(self, one: Answering, chosen: Chosen, ends: set[int], tokenizer: Any, known: int | None) -> bool:
        """Whether the answer has ended with this token."""
        ask, count = one.ask, len(one.row.new)
        now = time.monotonic()
        one.first_at = one.first_at or now
        if one.cancelled:
            return self._finish(one, "cancelled", count - 1, now)
        if chosen.token in ends:
            return self._finish(one, "stop", count - 1, now)
        text = one.writer.add(chosen.token)
        tokens, tops = ((), ()) if ask.top < 0 else _likely(chosen, tokenizer)
        if text or tokens:
            self._say(Reply(ask.id, "token", text=text, tokens=tokens, tops=tops))
        if one.writer.stopped:
            return self._finish(one, "stop", count, now)
        if count >= ask.max_tokens or (known and len(one.row.prompt) + count >= known):
            return self._finish(one, "length", count, now)
        return False

    def _finish(self, one: Answering, reason: Any, count: int, now: float) -> bool:
        if rest := one.writer.end():
            self._say(Reply(one.ask.id, "token", text=rest))
        seconds, first = now - one.asked_at, one.first_at - one.asked_at
        self._say(
            Reply(
                one.ask.id, "finished", prompt_tokens=len(one.row.prompt), answer_tokens=count, reason=reason, seconds=round(seconds, 4),
                first_seconds=round(first, 4),
            )
        )  # fmt: skip
        return True

    def _fail(self, loaded: Loaded, name: str, failure: BaseException) -> None:
        """Ends what a batch was answering, in words; the batch begins anew."""
        memory = isinstance(failure, MemoryError | torch.OutOfMemoryError)
        error = GraftError("serving_memory") if memory else GraftError("serving_failed", reason=str(failure)[:300])
        for one in loaded.answering.pop(name, []):
            self._say(Reply(one.ask.id, "refused", code=error.code, message=f"{error.message} {error.remedy}"))
        loaded.batches.pop(name, None)


class _Arithmetic:
    """A model's own numbers, with one of its adapters or without any."""

    def __init__(self, opened: Opened, adapter: str) -> None:
        self._opened, self._adapter = opened, adapter
        self._computing = opened.computing()
        self._base: Any = None

    def __enter__(self) -> None:
        model = self._opened.model
        if isinstance(model, PeftModel):
            if self._adapter:
                model.set_adapter(self._adapter)
            else:
                self._base = model.disable_adapter()
                self._base.__enter__()
        self._computing.__enter__()

    def __exit__(self, *failure: Any) -> None:
        self._computing.__exit__(*failure)
        if self._base is not None:
            self._base.__exit__(*failure)


def _likely(chosen: Chosen, tokenizer: Any) -> tuple[tuple[Likely, ...], tuple[tuple[Likely, ...], ...]]:
    def said(token: int, logprob: float) -> Likely:
        text = str(tokenizer.decode([token]))
        return Likely(text, round(logprob, 6), list(text.encode()))

    return (said(chosen.token, chosen.logprob),), (tuple(said(*one) for one in chosen.tops),)

"""The asynchronous cycle: an answer streams from the memory at hand, then its event is remembered behind the caller's back.

    host = Host(model, tokenizer)                        one model, one worker thread, any number of conversations
    talk = host.open()                                   a conversation and its memory
    for piece in talk.answer("Who has the hat?"): ...    `async for` does as well

    said so far  ->  event = query + answer  ->  queue  ->  one `remember` for all that wait  ->  new memory

An event is over when its answer is, or when nobody listens any more: `break`, `close`, an exception, a cancelled
task. From then on it waits in the host's queue and the caller has the control back. The next answer of the same
conversation waits for its memory; those of others do not.

A memory is a value: an update puts a new one in the place of the old in one assignment, and nothing writes into it.
So nobody ever sees half of one, and forking, keeping or rewinding is a matter of holding on to it.
"""

import asyncio
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rxt_lite.config import EOS, PAD
from rxt_lite.data.tokenizer import decode, encode_query
from rxt_lite.models import memory_file
from rxt_lite.models.base import EventModel
from rxt_lite.models.generate import stream


class UpdateFailed(RuntimeError):
    """An event could not be remembered. The memory before it is in place, and the conversation goes on from there."""


class Moment(NamedTuple):
    """A memory, and how many events are in it."""

    events: int
    memory: Tensor


@dataclass(eq=False)
class Finished:
    """An event that waits to be remembered."""

    conversation: "Conversation"
    tokens: list[int]
    done: threading.Event = field(default_factory=threading.Event)  # set when it is in the memory, or has failed


class Answer:
    """An answer being given: iterate over it, with `for` or `async for`, to hear it in pieces of text.

    Nothing happens before the first piece is asked for. `tokens` holds what was said so far. A piece in the making
    when its listener is cancelled counts as said.
    """

    def __init__(self, conversation: "Conversation", query: list[int], stale: bool, how: dict):
        self.tokens: list[int] = []
        self._pieces = conversation._say(weakref.ref(self), query, self.tokens, stale, how)
        self._turn = threading.RLock()  # two threads take turns, token by token

    def __iter__(self) -> "Answer":
        return self

    def __next__(self) -> str:
        piece = advance(self._pieces, self._turn)
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Listen no more: what was said so far is the event. Works from any thread."""
        with self._turn:
            self._pieces.close()

    def __del__(self):
        self.close()

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> str:
        try:
            piece = await asyncio.to_thread(advance, self._pieces, self._turn)  # not self: a thread lets go of things late
        except asyncio.CancelledError:  # the thread still makes its piece; wait for that without holding up the loop
            await asyncio.shield(asyncio.to_thread(self.close))
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece


def advance(pieces: Iterator[str], turn) -> str | None:
    with turn:
        return next(pieces, None)


class Conversation:
    """One line of talk with a memory of its own; made by `Host.open`, `Host.restore` and `fork`.

    `memory`, `events` and `inspect` show the last good memory at once; `save`, `fork` and `rewind` first wait for a
    pending update. If one has failed, the next call that would wait raises `UpdateFailed`, once.
    One answer at a time: asking while another answer is being given is refused. Any thread may call.
    """

    def __init__(self, host: "Host", moments: tuple[Moment, ...], keep: int):
        self.host, self.keep = host, keep
        self._moments = moments  # the last is now; before it up to `keep` earlier ones. Replaced whole, never changed
        self._updates: list[threading.Event] = []  # of events still to be remembered, oldest first
        self._failures: list[UpdateFailed] = []
        self._speaking = threading.Lock()  # held from the first token to the event's place in the queue
        self._answer = lambda: None  # or a weak reference to the answer being given

    @property
    def memory(self) -> Tensor:
        """The last good memory: a value, to look at and to hand on, not to change."""
        return self._moments[-1].memory

    @property
    def events(self) -> int:
        """How many events are in `memory`."""
        return self._moments[-1].events

    def answer(self, query: str, *, stale: bool = False, **how) -> Answer:
        """The answer to `query`, to be iterated over. A query that cannot be read is refused here, nothing changed.

        A pending update is waited for when the first piece is asked for. With `stale`, only the update before it is:
        the answer comes at once, from a memory that lacks the last event. `how`: see `rxt_lite.models.generate.sample`.
        """
        self.host._check_open()
        ids = self.host._ids(query)
        self._room(ids, self.memory)
        return Answer(self, ids, stale, how)

    def stop(self) -> None:
        """End the answer being given, if there is one, as if its listener had left. Works from any thread."""
        answer = self._answer()
        if answer is not None:
            answer.close()

    def settle(self, behind: int = 0) -> None:
        """Wait until at most `behind` events are still to be remembered. Raises `UpdateFailed` if one could not be."""
        updates = list(self._updates)
        for done in updates[: len(updates) - behind]:
            while not done.wait(timeout=1):
                if not self.host._worker.is_alive():  # nothing known can do this; better an error than to wait for ever
                    raise UpdateFailed("the worker ended before all was remembered; open a new Host with this memory")
        if self._failures:
            raise self._failures.pop(0)

    async def asettle(self) -> None:
        """`settle` for asyncio."""
        await asyncio.to_thread(self.settle)

    def fork(self) -> "Conversation":
        """A second conversation that remembers the same, and goes its own way from here."""
        self.host._check_open()
        self.settle()
        return self.host._adopt(self._moments, self.keep)

    def rewind(self, events: int) -> None:
        """Back to the memory after the first `events` events. How far back it can go is `keep`, chosen at `Host.open`."""
        with self._floor():
            self.settle()
            until = tuple(moment for moment in self._moments if moment.events <= events)
            if not until or until[-1].events != events:
                raise ValueError(
                    f"the memory after events={events} is not kept; here are those after "
                    f"{', '.join(str(moment.events) for moment in self._moments)}. Open the conversation with a larger keep"
                )
            self._moments = until

    def clear(self) -> None:
        """Forget everything; kept memories and failed updates too."""
        with self._floor():
            with suppress(UpdateFailed):
                self.settle()
            self._failures.clear()
            self._moments = (Moment(0, self.host._fresh()),)

    def save(self, path: Path | str) -> Path:
        """Write the memory to `path`, whole or not at all; `Host.restore` reads it. Earlier memories are not in it."""
        self.settle()
        now = self._moments[-1]
        return memory_file.save(now.memory, path, self.host.identity, events=now.events)

    def inspect(self) -> list[dict]:
        """What is in the memory, in rows.

        Slots: {"layer", "slot", "norm", "change"}, change being the length of what the last event moved; None if
        the memory before it is not kept. A transcript: {"position", "token"}.
        """
        *_, before, now = (None, *self._moments)
        if not now.memory.is_floating_point():
            return [{"position": i, "token": self.host.tokenizer.id_to_token(t)} for i, t in enumerate(now.memory[0].tolist())]
        L, _, S, _ = now.memory.shape
        norm = now.memory[:, 0].norm(dim=-1).tolist()  # (L, S)
        change = (now.memory - before.memory)[:, 0].norm(dim=-1).tolist() if before else L * [S * [None]]
        return [{"layer": l, "slot": s, "norm": norm[l][s], "change": change[l][s]} for l in range(L) for s in range(S)]

    @contextmanager
    def _floor(self) -> Iterator[None]:
        if not self._speaking.acquire(blocking=False):
            raise ValueError("this conversation is still answering; hear that answer to its end, or stop() it, then try again")
        try:
            yield
        finally:
            self._speaking.release()

    def _room(self, query: list[int], memory: Tensor) -> int:
        """How long an answer to `query` from `memory` may be."""
        window = max(0, self.host.model.room(memory))
        if window <= len(query):
            raise ValueError(
                f"the message has {len(query)} tokens and an answer needs one more, the window of one event {window}; "
                "say it shorter, or clear() a memory that fills the window"
            )
        return min(self.host.max_new_tokens, window - len(query))

    def _say(self, answer: weakref.ref, query: list[int], tokens: list[int], stale: bool, how: dict) -> Iterator[str]:
        """The body of an `Answer`. However it ends, what was said is an event; if nothing was, nothing happened."""
        model, tokenizer, text = self.host.model, self.host.tokenizer, ""
        with self._floor():
            self._answer = answer
            self.host._check_open()
            self.settle(behind=1 if stale else 0)
            memory = self.memory
            room = self._room(query, memory)
            said = stream(model, torch.tensor([query], device=model.device), memory, room, **how)
            try:
                for token in map(int, said):
                    tokens.append(token)
                    piece = readable(tokenizer, tokens, over=token == EOS or len(tokens) == room)[len(text) :]
                    if piece:
                        text += piece
                        yield piece
            finally:
                del memory, said  # and with it the cache: freeing tensors would let the worker in before the caller is out
                if tokens:
                    closing = [] if tokens[-1] == EOS or len(tokens) == room else [EOS]
                    event = Finished(self, [t for t in (*query, *tokens, *closing) if t != PAD])
                    self._updates = [*(done for done in self._updates if not done.is_set()), event.done]
                    self.host._queue.put(event)

    def _take(self, memory: Tensor) -> None:
        self._moments = (*self._moments, Moment(self.events + 1, memory))[-1 - self.keep :]

    def _fail(self, tokens: list[int], error: Exception) -> None:
        failure = UpdateFailed(
            f"the event {decode(self.host.tokenizer, tokens)[:60]!r} could not be remembered: {error}. "
            f"The memory is the one after {self.events} events; say it again, or go on without it"
        )
        failure.__cause__ = error
        self._failures.append(failure)


class Host:
    """One model shared by many conversations, and the one worker that keeps their memories up to date.

    Use it in a `with`, or `close` it: then all that was said is remembered before it ends.
    The model must be in eval mode; the host does not switch it, for somebody may be training it.
    """

    def __init__(self, model: EventModel, tokenizer: Tokenizer, *, max_new_tokens: int = 24, batch_size: int = 32):
        if model.training:
            raise ValueError("the model is in training mode; call model.eval() before it talks")
        if tokenizer.get_vocab_size() > model.config.vocab_size:
            raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, the model knows "
                             f"vocab_size={model.config.vocab_size}; load the tokenizer that was saved with the model")
        if max_new_tokens < 1 or batch_size < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens} and batch_size={batch_size} must be at least 1")
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens
        self.closed = False
        self._conversations: weakref.WeakValueDictionary[int, Conversation] = weakref.WeakValueDictionary()
        self._queue: SimpleQueue[Finished | None] = SimpleQueue()  # its put() may even be called by the garbage collector
        self._worker = threading.Thread(target=work, args=(self._queue, model, batch_size), name="memory", daemon=True)
        self._worker.start()
        self._end = weakref.finalize(self, end, self._conversations, self._queue, self._worker)  # at exit too

    def open(self, memory: Tensor | None = None, *, events: int = 0, keep: int = 0) -> Conversation:
        """A new conversation that remembers nothing, or `memory`, in which there are `events` events.

        It keeps `keep` earlier memories to rewind to; with none, its size is that of one memory for ever.
        """
        self._check_open()
        if keep < 0 or events < 0:
            raise ValueError(f"keep={keep} and events={events} must be at least 0")
        memory = self._fresh() if memory is None else self._checked(memory)
        return self._adopt((Moment(events, memory),), keep)

    def restore(self, path: Path | str, *, keep: int = 0) -> Conversation:
        """The conversation that `Conversation.save` wrote to `path`. Its model must be this one, weights included."""
        memory, events = memory_file.load(path, self.identity)
        return self.open(memory, events=events, keep=keep)

    @cached_property
    def identity(self) -> dict:
        return memory_file.identity(self.model)

    def close(self) -> None:
        """End the answers being given, remember all that was said, and stop the worker. Memories can still be saved."""
        self.closed = True
        self._end()

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the host of this conversation is closed; open a new Host and restore the saved memory there")

    def _ids(self, query: str) -> list[int]:
        try:
            query.encode()
        except (AttributeError, UnicodeEncodeError):
            raise ValueError(f"the query is {query!r}, expected text that can be written in UTF-8") from None
        return encode_query(self.tokenizer, query)

    @torch.no_grad()
    def _fresh(self) -> Tensor:
        return self._row(self.model.init_state(1), 0)

    def _row(self, state: Tensor, row: int) -> Tensor:
        return self.model.select(state, torch.tensor([row], device=self.model.device))  # a copy, which holds on to no batch

    def _checked(self, memory: Tensor) -> Tensor:
        self.model.check_state(memory, 1)
        expected = self.model.init_state(1).dtype
        if memory.dtype != expected or not memory.isfinite().all():
            raise ValueError(f"the memory is {memory.dtype} or holds values that are not finite; expected finite {expected}")
        return self._row(memory.detach().to(self.model.device), 0)

    def _adopt(self, moments: tuple[Moment, ...], keep: int) -> Conversation:
        conversation = Conversation(self, moments, keep)
        self._conversations[id(conversation)] = conversation
        return conversation


def readable(tokenizer: Tokenizer, tokens: list[int], over: bool) -> str:
    """The text of an answer so far. Half a letter at its end waits for its other bytes, unless the answer is over."""
    text = decode(tokenizer, tokens)
    return text if over else text.rstrip("\ufffd").rstrip()


def work(queue: SimpleQueue, model: EventModel, batch_size: int) -> None:
    """The worker: remember what is in the queue, up to `batch_size` conversations at a time, until None comes."""
    waiting = []
    while True:
        waiting = waiting or [queue.get()]
        while not queue.empty():
            waiting.append(queue.get())
        if waiting[0] is None:
            return
        remember(model, take(waiting, batch_size))  # no names here: asleep, the worker must not keep anybody alive


def take(waiting: list[Finished | None], most: int) -> list[Finished]:
    """Take the oldest events out of `waiting`, one a conversation: the next one needs the memory that this one makes."""
    oldest = {}
    for event in filter(None, waiting):
        oldest.setdefault(event.conversation, event)
    batch = list(oldest.values())[:most]
    waiting[:] = [event for event in waiting if event not in batch]
    return batch


@torch.no_grad()
def remember(model: EventModel, batch: list[Finished]) -> None:
    """Put each event into the memory of its conversation. If that fails, each is tried alone: only the guilty one fails."""
    try:
        tokens = pad_sequence([torch.tensor(event.tokens) for event in batch], batch_first=True, padding_value=PAD)
        state = model.stack([event.conversation.memory for event in batch])
        state = model.remember(tokens.to(model.device), state)
        memories = [event.conversation.host._row(state, row) for row, event in enumerate(batch)]
        if not all(memory.isfinite().all() for memory in memories):
            raise FloatingPointError("the new memory holds values that are not finite numbers")
    except Exception as error:
        for event in batch:
            if len(batch) > 1:
                remember(model, [event])
            else:
                event.conversation._fail(event.tokens, error)
                event.done.set()
        return
    for event, memory in zip(batch, memories):
        event.conversation._take(memory)
        event.done.set()


def end(conversations: weakref.WeakValueDictionary, queue: SimpleQueue, worker: threading.Thread) -> None:
    """End the answers being given, let the worker do what waits, and wait for that."""
    for reference in conversations.valuerefs():
        conversation = reference()
        if conversation is not None:
            conversation.stop()
    queue.put(None)
    if worker is not threading.current_thread():
        worker.join()

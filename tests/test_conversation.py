"""The asynchronous cycle: who waits for whom, what is remembered when a listener leaves, and that nobody reads another's mind."""

import asyncio
import gc
import queue
import random
import signal
import threading
import time
import weakref
from dataclasses import replace

import pytest
import torch

from rxt_lite.config import EOS, PAPER, TINY
from rxt_lite.conversation import Host, UpdateFailed, readable
from rxt_lite.data.tokenizer import decode, encode_query, world_tokenizer
from rxt_lite.models import MODELS, DecoderLM, RxT
from rxt_lite.models.base import join
from rxt_lite.models.generate import generate

TOKENIZER = world_tokenizer()
CONFIG = replace(TINY, vocab_size=TOKENIZER.get_vocab_size(), max_len=48)
HAT, WHO, KEY = "Tom has the hat.", "Who has the hat?", "The key is in the box."
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=lambda make: make.__name__)


def build(make=RxT, seed=0, **config):
    """An untrained model: it says anything, but what it says depends on what it remembers."""
    torch.manual_seed(seed)
    return make(replace(CONFIG, **config)).eval()


class Watched(RxT):
    """Counts its updates, holds them until told, and fails on demand."""

    def __init__(self, config):
        super().__init__(config)
        self.batches, self.poison, self.nan = [], None, False
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()

    def remember(self, tokens, state):
        self.batches.append(len(tokens))
        self.entered.set()
        assert self.go.wait(30)
        poisoned = (tokens == self.poison).any(1) if self.poison else torch.zeros(len(tokens), dtype=torch.bool)
        if poisoned.any() and not self.nan:
            raise RuntimeError("out of memory")
        return super().remember(tokens, state).masked_fill(poisoned[:, None, None], torch.nan)


@pytest.fixture
def watched():
    """A host of a `Watched` model."""
    with Host(build(Watched), TOKENIZER, max_new_tokens=6) as host:
        yield host
        host.model.go.set()


@pytest.fixture(scope="module")
def host():
    with Host(build(), TOKENIZER, max_new_tokens=6) as host:
        yield host


def say(conversation, *queries):
    for query in queries:
        for _ in conversation.answer(query):
            pass
    conversation.settle()
    return conversation


@torch.no_grad()
def alone(model, query, memory, most=6):
    """What the plain event cycle makes of `query`: the answer and the memory after it."""
    query = torch.tensor([encode_query(TOKENIZER, query)])
    answer = generate(model, query, memory, most)
    return answer[0].tolist(), model.remember(join(query, answer), memory)


@torch.no_grad()
def after(model, query, said, memory):
    """The memory after an event of which `said` was heard."""
    end = [] if said[-1] == EOS or len(said) == 6 else [EOS]
    return model.remember(torch.tensor([[*encode_query(TOKENIZER, query), *said, *end]]), memory)


def assert_close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


# --- the cycle -------------------------------------------------------------------------------


@each_model
def test_a_conversation_is_the_plain_loop_of_answer_and_remember(make):
    model = build(make)
    with Host(model, TOKENIZER, max_new_tokens=6) as host:
        conversation, memory = host.open(), model.init_state(1)
        for turn, query in enumerate((HAT, WHO, KEY)):
            said, memory = alone(model, query, memory)
            answer = conversation.answer(query)
            assert "".join(answer) == decode(TOKENIZER, said) and answer.tokens == said
            conversation.settle()
            assert_close(conversation.memory, memory)
            assert conversation.events == turn + 1


def test_the_last_token_is_handed_over_before_the_update_starts(watched):
    model, conversation = watched.model, watched.open()
    model.go.clear()
    answer = conversation.answer(HAT)
    for _ in answer:
        assert not model.entered.is_set()
    assert len(answer.tokens) == 6, "the caller has the whole answer and the control"
    assert model.entered.wait(10) and conversation.events == 0, "and the update is still under way"
    model.go.set()
    conversation.settle()
    assert conversation.events == 1


def test_the_next_answer_waits_for_the_memory_and_a_stale_one_does_not(watched):
    model, conversation, heard = watched.model, say(watched.open(), KEY), queue.Queue()
    before = conversation.memory
    model.go.clear()
    said, full = alone_free(model, HAT, before)
    list(conversation.answer(HAT))

    stale = conversation.answer(WHO, stale=True)
    assert "".join(stale) == decode(TOKENIZER, alone_free(model, WHO, before)[0]), "answered from the memory before the hat"

    patient = threading.Thread(target=lambda: heard.put("".join(conversation.answer(WHO))))
    patient.start()
    patient.join(0.2)
    assert patient.is_alive() and heard.empty() and conversation.memory is before
    model.go.set()
    patient.join(30)
    full = after(model, WHO, stale.tokens, full)
    assert heard.get() == decode(TOKENIZER, alone(model, WHO, full)[0])
    conversation.settle()
    assert conversation.events == 4, "both stale and patient events are in, in the order they ended"


def alone_free(model, query, memory):
    """`alone`, past the lock of a `Watched` model."""
    free = RxT(model.config).eval()
    free.load_state_dict(model.state_dict())
    return alone(free, query, memory)


def test_a_stale_answer_is_one_event_behind_and_no_more(watched):
    conversation = watched.open()
    watched.model.go.clear()
    list(conversation.answer(HAT))
    list(conversation.answer(WHO, stale=True))
    third = threading.Thread(target=lambda: list(conversation.answer(KEY, stale=True)))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    watched.model.go.set()
    third.join(30)
    conversation.settle()
    assert conversation.events == 3 and watched.model.batches == [1, 1, 1], "events of one conversation never share an update"


def test_updates_that_wait_are_made_together(watched):
    model, conversations = watched.model, [watched.open() for _ in range(40)]
    model.go.clear()
    for conversation in conversations:
        list(conversation.answer(HAT))
        assert model.entered.wait(10)
    model.go.set()
    for conversation in conversations:
        conversation.settle()
        assert_close(conversation.memory, conversations[0].memory)
        assert conversation.memory.untyped_storage().nbytes() == 4 * conversation.memory.numel(), "it holds on to no batch"
    assert model.batches == [1, 32, 7], "the first alone, then all that waited, 32 at a time"


def test_two_events_of_one_conversation_never_share_an_update(watched):
    model, first, conversation = watched.model, watched.open(), watched.open()
    model.go.clear()
    list(first.answer(HAT))
    assert model.entered.wait(10)
    told = conversation.answer(HAT)
    list(told)
    asked = conversation.answer(WHO, stale=True)  # from the empty memory: both events wait now
    list(asked)
    model.go.set()
    conversation.settle()
    memory = after(model, WHO, asked.tokens, after(model, HAT, told.tokens, model.init_state(1)))
    assert_close(conversation.memory, memory)
    assert model.batches[:3] == [1, 1, 1] and conversation.events == 2


# --- updates that fail -----------------------------------------------------------------------


@pytest.mark.parametrize("nan", [False, True], ids=["raises", "not a number"])
def test_a_failed_update_leaves_the_last_good_memory_and_raises_once(watched, nan):
    model = watched.model
    model.poison, model.nan = TOKENIZER.token_to_id("Ġkey"), nan
    conversation = say(watched.open(), HAT)
    good = conversation.memory
    list(conversation.answer(KEY))
    with pytest.raises(UpdateFailed, match=f"(?s)The key.*{'not finite' if nan else 'out of memory'}.*after 1 events"):
        list(conversation.answer(WHO))
    assert conversation.memory is good and conversation.events == 1
    said, memory = alone(model, WHO, good)
    assert "".join(conversation.answer(WHO)) == decode(TOKENIZER, said)
    conversation.settle()
    assert_close(conversation.memory, memory)


def test_in_a_batch_only_the_guilty_update_fails(watched):
    model, (first, *others) = watched.model, [watched.open() for _ in range(4)]
    model.poison = TOKENIZER.token_to_id("Ġkey")
    model.go.clear()
    list(first.answer(HAT))
    assert model.entered.wait(10)
    for conversation, query in zip(others, (HAT, KEY, WHO)):
        list(conversation.answer(query))
    model.go.set()
    with pytest.raises(UpdateFailed):
        others[1].settle()
    for conversation in (first, others[0], others[2]):
        conversation.settle()
    assert [c.events for c in (first, *others)] == [1, 1, 0, 1] and model.batches == [1, 3, 1, 1, 1]


# --- listeners that leave --------------------------------------------------------------------


def leave_by_break(conversation, answer):
    return


def leave_by_close(conversation, answer):
    answer.close()


def leave_by_stop_from_another_thread(conversation, answer):
    stopper = threading.Thread(target=conversation.stop)
    stopper.start()
    stopper.join()


def leave_by_exception(conversation, answer):
    raise OSError("the line is dead")


def leave_by_interrupt(conversation, answer):
    signal.raise_signal(signal.SIGINT)


@each_model
@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close, leave_by_stop_from_another_thread, leave_by_exception,
                                   leave_by_interrupt], ids=lambda leave: leave.__name__)
def test_what_was_said_until_the_listener_left_is_remembered(make, leave):
    model = build(make)
    with Host(model, TOKENIZER, max_new_tokens=6) as host:
        conversation = host.open()

        def listen():
            for heard, _ in enumerate(conversation.answer(HAT)):
                if heard == 1:
                    leave(conversation, conversation._answer())
                    return

        try:
            listen()
        except (OSError, KeyboardInterrupt):
            pass
        conversation.settle()
        said = alone(model, HAT, model.init_state(1))[0][:2]
        assert conversation.events == 1
        assert_close(conversation.memory, after(model, HAT, said, model.init_state(1)))


def test_an_error_while_answering_loses_nothing_that_was_said(host, monkeypatch):
    conversation, answer = host.open(), None
    answer = conversation.answer(HAT)
    next(answer)
    monkeypatch.setattr(host.model, "extend", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(answer)
    monkeypatch.undo()
    conversation.settle()
    assert_close(conversation.memory, after(host.model, HAT, answer.tokens, host.model.init_state(1)))


def test_an_answer_that_nobody_begins_to_hear_is_no_event(host):
    conversation = host.open()
    unheard, closed = conversation.answer(HAT), conversation.answer(HAT)
    closed.close()
    assert list(closed) == []
    say(conversation, WHO)
    del unheard
    conversation.settle()
    assert conversation.events == 1


def test_an_answer_that_fails_before_its_first_token_is_no_event(host):
    conversation = host.open()
    with pytest.raises(ValueError, match="temperature=-1"):
        list(conversation.answer(HAT, temperature=-1))
    assert say(conversation, WHO).events == 1


def test_one_answer_at_a_time(host):
    conversation = host.open()
    first = conversation.answer(HAT)
    next(first)
    refused = queue.Queue()

    def ask():
        try:
            list(conversation.answer(WHO))
        except ValueError as error:
            refused.put(str(error))

    other = threading.Thread(target=ask)
    other.start()
    other.join(30)
    assert "still answering" in refused.get_nowait()
    for change in (conversation.clear, lambda: conversation.rewind(0)):
        with pytest.raises(ValueError, match="still answering"):
            change()
    assert host.open().events == 0 and len(list(first)) > 0, "others go on, and so does the first answer"
    conversation.settle()
    assert conversation.events == 1


# --- a memory is a value ---------------------------------------------------------------------


@each_model
def test_a_fork_goes_its_own_way(make):
    with Host(build(make), TOKENIZER, max_new_tokens=6) as host:
        conversation = say(host.open(), HAT)
        fork, before = conversation.fork(), conversation.memory.clone()
        say(fork, KEY)
        assert torch.equal(conversation.memory, before) and (fork.events, conversation.events) == (2, 1)
        say(conversation, KEY)
        assert_close(conversation.memory, fork.memory)


def test_rewinding_goes_back_as_far_as_was_kept(host):
    conversation = host.open(keep=2)
    memories = [say(conversation, query).memory for query in (HAT, WHO, KEY, HAT)]
    with pytest.raises(ValueError, match="events=1 is not kept.*2, 3, 4.*larger keep"):
        conversation.rewind(1)
    conversation.rewind(3)
    assert conversation.memory is memories[2] and conversation.events == 3
    conversation.rewind(2)
    assert conversation.memory is memories[1]
    assert_close(say(conversation, KEY).memory, memories[2])
    with pytest.raises(ValueError, match="not kept"):
        say(host.open(), HAT).rewind(0)


def test_clearing_forgets_and_gaussian_slots_are_drawn_once_for_each_beginning():
    with Host(build(**PAPER), TOKENIZER, max_new_tokens=3) as host:
        conversation, other = host.open(keep=1), host.open()
        begin = conversation.memory
        assert not torch.equal(begin, other.memory) and conversation.memory is begin
        say(conversation, HAT).clear()
        assert conversation.events == 0 and not torch.equal(conversation.memory, begin)
        with pytest.raises(ValueError, match="not kept"):
            conversation.rewind(1)


def test_inspecting_tells_what_the_last_event_moved(host):
    conversation = host.open(keep=1)
    start = conversation.memory
    rows = say(conversation, HAT).inspect()
    assert [(r["layer"], r["slot"]) for r in rows] == [(l, s) for l in range(2) for s in range(16)]
    assert rows[17]["change"] == pytest.approx((conversation.memory - start)[1, 0, 1].norm().item(), rel=1e-5)
    assert rows[17]["norm"] == pytest.approx(conversation.memory[1, 0, 1].norm().item(), rel=1e-5)
    assert say(host.open(), HAT).inspect()[0]["change"] is None
    with Host(build(DecoderLM), TOKENIZER) as transcripts:
        assert [r["token"] for r in say(transcripts.open(), HAT).inspect()][:4] == ["[BOS]", "[Q]", "ĠTom", "Ġhas"]


# --- files -----------------------------------------------------------------------------------


@each_model
def test_a_saved_memory_comes_back_and_goes_on(make, tmp_path):
    model = build(make)
    with Host(model, TOKENIZER, max_new_tokens=6) as host:
        conversation = say(host.open(), HAT)
        path = conversation.save(tmp_path / "a folder" / "é.memory")
        host.open().save(tmp_path / "empty")
    with pytest.raises(ValueError, match="closed"):
        host.restore(path)
    with Host(model, TOKENIZER, max_new_tokens=6) as host:
        restored = host.restore(path)
        assert torch.equal(restored.memory, conversation.memory) and restored.events == 1
        assert "".join(restored.answer(WHO)) == decode(TOKENIZER, alone(model, WHO, conversation.memory)[0])
        assert torch.equal(host.restore(tmp_path / "empty").memory, model.init_state(1))
        assert [p.name for p in path.parent.iterdir()] == ["é.memory"]


def test_a_file_that_is_not_this_models_memory_is_refused_in_words(host, tmp_path):
    path = say(host.open(), HAT).save(tmp_path / "memory")
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="damaged, cut off or not a memory"):
            host.restore(tmp_path / "cut")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="not a memory"):
        host.restore(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="no memory at"):
        host.restore(tmp_path / "nothing")
    others = {"n_slots=16, here 8": build(n_slots=8), "weights=": build(seed=1), "'RxT', here 'DecoderLM'": build(DecoderLM)}
    for words, model in others.items():
        with Host(model, TOKENIZER) as other, pytest.raises(ValueError, match=f"another model.*{words}"):
            other.restore(path)


def test_a_memory_that_cannot_be_written_leaves_the_old_file(host, tmp_path, monkeypatch):
    path = say(host.open(), HAT).save(tmp_path / "memory")
    old = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rxt_lite.models.memory_file.os.replace", full)
    with pytest.raises(OSError, match="could not save the memory.*No space"):
        say(host.open(), KEY).save(path)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("query, words", [(" ", "empty"), ("hat " * 60, "63 tokens.*window of one event 48"), (None, "None, expected text"),
                                          ("\ud800", "UTF-8")], ids=["empty", "long", "None", "surrogate"])
def test_a_bad_query_is_refused_at_once_and_changes_nothing(watched, query, words):
    conversation = watched.open()
    watched.model.go.clear()
    list(conversation.answer(HAT))
    with pytest.raises(ValueError, match=words):
        conversation.answer(query)  # although the update is still under way
    watched.model.go.set()
    assert say(conversation, WHO).events == 2


def test_a_host_refuses_what_cannot_talk():
    with pytest.raises(ValueError, match="eval"):
        Host(build().train(), TOKENIZER)
    with pytest.raises(ValueError, match="767 tokens.*vocab_size=300"):
        Host(build(vocab_size=300), TOKENIZER)
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        Host(build(), TOKENIZER, max_new_tokens=0)


def test_a_memory_that_is_handed_in_is_looked_at_first_and_copied(host):
    good = host.model.init_state(1).detach().clone()
    for memory, words in [(good[:, :, :9], "init_state"), (good * torch.nan, "finite"), (good.double(), "float64")]:
        with pytest.raises(ValueError, match=words):
            host.open(memory)
    with pytest.raises(ValueError, match="keep=-1"):
        host.open(keep=-1)
    conversation = host.open(good)
    before = conversation.memory.clone()
    good.zero_()
    assert torch.equal(conversation.memory, before)


def test_a_full_transcript_says_so_and_can_be_cleared():
    with Host(build(DecoderLM), TOKENIZER, max_new_tokens=6) as host:
        conversation = say(host.open(keep=1), HAT, HAT, HAT)
        with pytest.raises(ValueError, match="of one event 6.*clear"):
            conversation.answer(HAT)
        conversation.rewind(2)
        say(conversation, HAT).clear()
        assert say(conversation, HAT).memory.shape == (1, 14)


# --- the host --------------------------------------------------------------------------------


def test_closing_remembers_all_that_was_said_and_then_refuses():
    with Host(build(Watched), TOKENIZER, max_new_tokens=6) as host:
        waiting, talking = [host.open() for _ in range(5)], host.open()
        host.model.go.clear()
        for conversation in waiting:
            list(conversation.answer(HAT))
        answer = talking.answer(HAT)
        next(answer)
        threading.Timer(0.1, host.model.go.set).start()
    assert [c.events for c in (*waiting, talking)] == [1] * 6
    assert list(answer) == [], "an answer under way has ended"
    for refused in (lambda: talking.answer(WHO), host.open, talking.fork):
        with pytest.raises(ValueError, match="closed"):
            refused()
    host.close()


def test_a_host_that_nobody_holds_ends_its_worker():
    host = Host(build(), TOKENIZER, max_new_tokens=2)
    conversation = say(host.open(), HAT)
    worker = next(t for t in threading.enumerate() if t.name == "memory" and t is host._worker)
    gone = weakref.ref(host)
    del host
    assert worker.is_alive(), "the conversation still needs it"
    del conversation
    worker.join(10)
    assert not worker.is_alive() and gone() is None


def test_conversations_of_two_models_share_nothing():
    with Host(build(seed=0), TOKENIZER, max_new_tokens=6) as one, Host(build(seed=1), TOKENIZER, max_new_tokens=6) as two:
        for host, conversation in [(h, h.open()) for h in (one, two)]:
            said, memory = alone(host.model, HAT, host.model.init_state(1))
            assert "".join(conversation.answer(HAT)) == decode(TOKENIZER, said)
            conversation.settle()
            assert_close(conversation.memory, memory)


def test_pieces_of_letters_wait_for_each_other():
    for text in ("é世 \U0001f600 x", " a\u3000b", "\ufffd\ufffd z", "\x1b[2J", "\U0001f600"):
        tokens, said = TOKENIZER.encode(text, add_special_tokens=False).ids, ""
        for n in range(1, len(tokens) + 1):
            said += readable(TOKENIZER, tokens[:n], over=n == len(tokens))[len(said) :]
            assert n == len(tokens) or not said.endswith("\ufffd")
        assert said == decode(TOKENIZER, tokens)


# --- asyncio ---------------------------------------------------------------------------------


def test_asyncio_hears_the_same_answers_and_its_loop_never_stands_still(watched):
    async def main():
        conversations = [watched.open() for _ in range(8)]
        ticks = 0

        async def talk(conversation):
            heard = "".join([piece async for piece in conversation.answer(HAT)])
            return heard + "".join([piece async for piece in conversation.answer(WHO)])

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        watched.model.go.clear()
        ticker, talks = asyncio.create_task(tick()), [asyncio.create_task(talk(c)) for c in conversations]
        await asyncio.sleep(0.5)
        assert ticks > 5 and not any(t.done() for t in talks), "all wait for their memories, the loop does not"
        watched.model.go.set()
        heard = await asyncio.gather(*talks)
        await asyncio.gather(*(c.asettle() for c in conversations))
        ticker.cancel()
        assert len(set(heard)) == 1 and all(c.events == 2 for c in conversations)
        return heard[0]

    said, memory = alone(watched.model, HAT, watched.model.init_state(1))
    again, _ = alone(watched.model, WHO, memory)
    assert asyncio.run(main()) == decode(TOKENIZER, said) + decode(TOKENIZER, again)


@pytest.mark.parametrize("how", ["cancel", "break"])
def test_an_asyncio_listener_that_leaves_has_had_its_event(host, how):
    async def main():
        conversation, tokens = host.open(), []

        async def listen():
            answer = conversation.answer(HAT)
            tokens.append(answer.tokens)
            async for _ in answer:
                if len(answer.tokens) >= 2:
                    if how == "break":
                        break
                    task.cancel()  # strikes while the next piece is made

        task = asyncio.create_task(listen())
        await asyncio.wait([task])
        assert task.cancelled() is (how == "cancel")
        await conversation.asettle()
        assert conversation.events == 1 and len(tokens[0]) < 6
        assert_close(conversation.memory, after(host.model, HAT, tokens[0], host.model.init_state(1)))
        for _ in range(20):
            async for _ in conversation.answer(WHO):
                break  # the conversation goes on, at once

    asyncio.run(main())


# --- one conversation never reads another's memory -------------------------------------------


def test_200_interleaved_conversations_remember_what_each_would_alone(host):
    """Any thread takes up any conversation; some listeners leave, are stopped from elsewhere, crash or are cancelled."""
    nouns = ("hat", "key", "ball", "book", "cup", "box", "map", "coin")
    conversations = [host.open() for _ in range(200)]
    chance = random.Random(0)
    queries = [[f"{i} has the {' and the '.join(chance.choices(nouns, k=chance.randint(1, 5)))}." for _ in range(3)] for i in range(200)]
    said, todo, over, lost = [[] for _ in conversations], queue.Queue(), threading.Event(), []

    def hear(i, turn, way):
        answer = conversations[i].answer(queries[i][turn], stale=way == "stale")
        if way == "cancelled":
            asyncio.run(hear_and_cancel(answer))
        else:
            for heard, _ in enumerate(answer):
                if (way == "left" and heard == turn) or way == "dropped":
                    break
        answer.close()
        said[i].append((answer.tokens, way == "stale"))

    async def hear_and_cancel(answer):
        async def listen():
            return [piece async for piece in answer]

        task = asyncio.create_task(listen())
        await asyncio.sleep(0.004)
        task.cancel()
        await asyncio.wait([task])

    def listener(seed):
        chance = random.Random(seed)
        while True:
            i, turn = todo.get()
            if i is None:
                return
            try:
                hear(i, turn, chance.choice(["whole", "stale", "left", "dropped", "cancelled"]))
                if turn < 2:
                    todo.put((i, turn + 1))
            except Exception as error:  # a failure here must fail the test, not just its thread
                lost.append(error)
            finally:
                todo.task_done()

    def stopper():
        chance = random.Random(7)
        while not over.wait(0.003):
            chance.choice(conversations).stop()

    for i in range(200):
        todo.put((i, 0))
    threads = [threading.Thread(target=listener, args=(seed,)) for seed in range(6)] + [threading.Thread(target=stopper)]
    for thread in threads:
        thread.start()
    todo.join()
    over.set()
    for _ in range(6):
        todo.put((None, None))
    for thread in threads:
        thread.join()

    assert not lost
    memories, cut = [], 0
    for i, conversation in enumerate(conversations):
        conversation.settle()
        before = memory = host.model.init_state(1).detach()
        for query, (tokens, stale) in zip(queries[i], said[i]):
            if tokens:  # nothing heard, nothing happened
                assert likely(host.model, query, tokens, memory) or (stale and likely(host.model, query, tokens, before))
                before, memory = memory, after(host.model, query, tokens, memory)
            cut += len(tokens) < 6
        assert_close(conversation.memory, memory)
        assert conversation.events == sum(bool(tokens) for tokens, _ in said[i])
        memories.append(conversation.memory.flatten())
    apart = torch.cdist(torch.stack(memories), torch.stack(memories)).fill_diagonal_(torch.inf)
    assert apart.min() > 0.01, "conversations must differ by far more than the tolerance for this test to mean something"
    assert 100 < cut < 500


@torch.no_grad()
def likely(model, query, tokens, memory):
    """Whether every token was the most likely one, up to rounding, after this query and from this memory."""
    event = torch.tensor([[*encode_query(TOKENIZER, query), *tokens]])
    logits = model(event, memory)[0, -len(tokens) - 1 : -1]
    return bool((logits.max(-1).values - logits[range(len(tokens)), tokens] < 1e-4).all())


# --- what it weighs --------------------------------------------------------------------------


def tensors_alive():
    """All tensors that Python holds."""
    gc.collect()
    return [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]


def bytes_alive():
    """Their bytes, each storage once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_alive()}.values())


def test_a_conversation_weighs_its_memory_and_during_an_answer_the_cache_of_one_event():
    of_others = tensors_alive()  # held until the end, so that what earlier tests left behind cannot go meanwhile
    c = replace(CONFIG, n_slots=24)
    stm = 4 * c.n_layers * c.n_slots * c.d_model
    with Host(build(n_slots=24), TOKENIZER, max_new_tokens=12) as host:
        say(host.open(), HAT)  # what is made once
        empty = bytes_alive()

        def left(expected):
            """Bytes beyond those of an idle host, once the worker has let go of the numbers in its hands."""
            until = time.monotonic() + 10
            while bytes_alive() - empty != expected and time.monotonic() < until:
                time.sleep(0.05)
            return bytes_alive() - empty

        conversation = host.open()
        assert left(stm) == stm
        for _ in range(3):
            say(conversation, *3 * (HAT, WHO, KEY))
            assert left(stm) == stm, "the same after 9, 18 and 27 events"

        answer = conversation.answer(HAT)
        for _ in zip(range(5), answer):
            pass
        most = bytes_alive() - empty - stm
        tokens = len(encode_query(TOKENIZER, HAT)) + 12 - 1
        cache = 2 * 4 * c.n_layers * c.d_model * tokens + 2 * stm  # keys and values of the event, and of the slots
        assert cache <= most < cache + 4 * c.vocab_size + 500, "besides: the logits of one token, and a few numbers"
        conversation.settle()
        del answer
        assert left(stm) == stm
    del of_others

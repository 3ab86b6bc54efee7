"""The loop: it learns, it can be killed, its loss is what it says, and bad runs are refused."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
import torch

from rxt_lite.config import EOS, PAD, TINY, A
from rxt_lite.data.dialogues import make_dialogues
from rxt_lite.data.tokenizer import world_tokenizer
from rxt_lite.models import MODELS, RxT
from rxt_lite.training.loop import Stage, fit
from rxt_lite.training.losses import answer_loss, whole_answers_right
from rxt_lite.training.source import ListBatches, WorldBatches

TOKENIZER = world_tokenizer()
SMALL = replace(TINY, vocab_size=TOKENIZER.get_vocab_size(), d_model=16, n_heads=2, n_slots=4, d_ff=24, max_len=256)
BATCHES = WorldBatches(((0, ("easy",)), (4, ("base",))), batch_size=3, seed=0, max_event_len=48, tokenizer=TOKENIZER)
STAGE = Stage(name="test", loss=answer_loss, steps=8, warmup=2)


def new_model(make=RxT, **changes):
    torch.manual_seed(0)
    return make(replace(SMALL, **changes))


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))


# --- the loss --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS.values(), ids=lambda m: m.__name__)
@torch.no_grad()
def test_the_loss_is_the_mean_surprise_at_answer_tokens_and_nothing_else(make):
    model, batch = new_model(make).eval(), BATCHES(5)
    state, surprise = model.init_state(3), []
    for n in range(batch.tokens.shape[1]):
        tokens = batch.tokens[:, n]
        log_p = model(tokens, state).log_softmax(-1)
        for b in range(3):
            row = tokens[b].tolist()
            if A in row:
                first, last = row.index(A) + 1, row.index(EOS)
                surprise += [-log_p[b, t - 1, row[t]].item() for t in range(first, last + 1)]
        state = model.remember(tokens, state)
    assert answer_loss(model, batch).item() == pytest.approx(sum(surprise) / len(surprise), abs=1e-5)


@torch.no_grad()
def test_an_answer_is_right_only_as_a_whole():
    model, batch = new_model().eval(), BATCHES(0)
    model.head.weight.zero_()
    model.head.bias.zero_()
    model.head.bias[EOS] = 1.0  # says [EOS] always: right at the last token only
    assert not whole_answers_right(model, batch).any()


def test_gradient_reaches_the_first_event_from_the_last_answer():
    model, batch = new_model(), BATCHES(5)
    last_only = torch.zeros_like(batch.is_answer)
    last_only[:, -1] = batch.is_answer[:, -1]
    answer_loss(model, replace(batch, is_answer=last_only)).backward()
    assert model.memory.attention.to_q.weight.grad.abs().sum() > 0
    assert model.initial_slots.grad.abs().sum() > 0


# --- the loop --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MODELS.values(), ids=lambda m: m.__name__)
def test_a_few_steps_lower_the_loss(make):
    rows = fit(new_model(make), replace(STAGE, steps=40, lr=1e-2), BATCHES, progress=False)
    assert [r["step"] for r in rows] == list(range(40))
    assert sum(r["loss"] for r in rows[-5:]) < 0.7 * sum(r["loss"] for r in rows[:5])


def test_the_learning_rate_warms_up_and_decays():
    stage = Stage(name="", loss=answer_loss, steps=100, lr=1.0, warmup=10)
    rates = [stage.lr_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates.index(max(rates)) in (9, 10)
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.05, abs=0.01)


def test_the_gradient_is_clipped():
    quick = {"progress": False}
    free, held = new_model(), new_model()
    fit(free, replace(STAGE, steps=1), BATCHES, **quick)
    fit(held, replace(STAGE, steps=1, clip=1e-9), BATCHES, **quick)
    assert not same_weights(free, held)


def test_bf16_rounds_the_forward_pass_and_nothing_that_is_kept():
    plain, rounded = new_model(), new_model()
    exact = fit(plain, STAGE, BATCHES, progress=False)
    rows = fit(rounded, STAGE, BATCHES, progress=False, bf16=True)
    assert 0 < max(abs(a["loss"] - b["loss"]) for a, b in zip(exact, rows)) < 0.1
    assert all(p.dtype == torch.float32 for p in rounded.parameters())


def test_same_seed_same_weights_other_seed_other_weights():
    gaussian = {"initial_slots": "gaussian"}  # fresh noise in every step: the random state must follow the seed
    first, again, other = (new_model(**gaussian) for _ in range(3))
    fit(first, STAGE, BATCHES, seed=1, progress=False)
    fit(again, STAGE, BATCHES, seed=1, progress=False)
    fit(other, STAGE, BATCHES, seed=2, progress=False)
    assert same_weights(first, again) and not same_weights(first, other)


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 5, 7])
def test_a_run_that_stops_and_goes_on_ends_with_the_same_weights(tmp_path, at):
    whole, broken = new_model(initial_slots="gaussian"), new_model(initial_slots="gaussian")
    fit(whole, STAGE, BATCHES, progress=False)

    def dies(step):
        if step == at:
            raise Killed
        return BATCHES(step)

    source = type("Source", (), {"__call__": lambda self, step: dies(step), "__str__": lambda self: str(BATCHES)})()
    with pytest.raises(Killed):
        fit(broken, STAGE, source, run=tmp_path / "a.run", save_every=0, progress=False)
    resumed = new_model(initial_slots="gaussian")
    rows = fit(resumed, STAGE, BATCHES, run=tmp_path / "a.run", progress=False)
    assert same_weights(whole, resumed) and len(rows) == STAGE.steps
    assert fit(new_model(), STAGE, BATCHES, run=tmp_path / "b.run", progress=False) and (tmp_path / "b.run").exists()


def test_a_process_killed_without_warning_goes_on_to_the_same_weights(tmp_path):
    script = textwrap.dedent(f"""
        import sys, torch
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_training import BATCHES, STAGE, new_model
        from dataclasses import replace
        from rxt_lite.training.loop import fit
        torch.set_num_threads(1)
        model = new_model()
        fit(model, replace(STAGE, steps=60), BATCHES, run={str(tmp_path / "k.run")!r}, save_every=0, progress=False)
    """)
    child = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 120
    while not (tmp_path / "k.run").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = len(torch.load(tmp_path / "k.run", weights_only=True)["rows"])
    assert 1 <= done < 60, "the kill came too late to mean anything"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = new_model()
    fit(whole, replace(STAGE, steps=60), BATCHES, progress=False)
    torch.set_num_threads(threads)
    resumed = torch.load(tmp_path / "k.run", weights_only=True)["model"]
    assert all(torch.equal(p, resumed[name]) for name, p in whole.state_dict().items())


def test_a_finished_run_is_loaded_not_repeated(tmp_path):
    first, again = new_model(), new_model()
    rows = fit(first, STAGE, BATCHES, run=tmp_path / "a.run", progress=False)
    source = type("Source", (), {"__call__": lambda self, step: pytest.fail("trained again"), "__str__": lambda self: str(BATCHES)})()
    assert fit(again, STAGE, source, run=tmp_path / "a.run", progress=False) == rows
    assert same_weights(first, again)


def test_a_run_with_other_settings_or_a_damaged_file_is_refused_and_kept(tmp_path):
    run = tmp_path / "a.run"
    fit(new_model(), STAGE, BATCHES, run=run, progress=False)
    before = run.read_bytes()
    with pytest.raises(ValueError, match="lr=0.002, now 0.1"):
        fit(new_model(), replace(STAGE, lr=0.1), BATCHES, run=run, progress=False)
    with pytest.raises(ValueError, match="n_slots=4, now 6"):
        fit(new_model(n_slots=6), STAGE, BATCHES, run=run, progress=False)
    with pytest.raises(ValueError, match="seed=0, now 5"):
        fit(new_model(), STAGE, BATCHES, run=run, seed=5, progress=False)
    assert run.read_bytes() == before
    run.write_bytes(before[:1000])
    with pytest.raises(ValueError, match="not a readable training run"):
        fit(new_model(), STAGE, BATCHES, run=run, progress=False)


def test_a_full_disk_says_so_and_leaves_the_last_good_save(tmp_path, monkeypatch):
    run = tmp_path / "a.run"
    fit(new_model(), replace(STAGE, steps=8), BATCHES, run=run, progress=False)
    before = run.read_bytes()

    def full(*args, **kwargs):
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    run.rename(tmp_path / "old.run")
    with pytest.raises(OSError, match="could not save the training run.*free some space"):
        fit(new_model(), STAGE, BATCHES, run=run, progress=False)
    assert (tmp_path / "old.run").read_bytes() == before and not list(tmp_path.glob("*.part"))


def test_watching_does_not_change_what_is_learned():
    watched, plain = new_model(initial_slots="gaussian"), new_model(initial_slots="gaussian")
    rows = fit(watched, STAGE, BATCHES, watch=lambda m: {"noise": torch.rand(1).item()}, watch_every=3, progress=False)
    fit(plain, STAGE, BATCHES, progress=False)
    assert same_weights(watched, plain)
    assert [r["step"] for r in rows if "noise" in r] == [2, 5, 7]


# --- where batches come from -----------------------------------------------------------------


def test_a_lesson_begins_where_it_says():
    assert BATCHES(3).tokens.shape[1] == 5 and BATCHES(4).tokens.shape[1] == 9
    assert torch.equal(BATCHES(4).tokens, BATCHES(4).tokens) and not torch.equal(BATCHES(0).tokens, BATCHES(1).tokens)


def test_every_dialogue_comes_once_an_epoch_in_a_new_order():
    dialogues = make_dialogues("easy", 10)
    batches = ListBatches(dialogues, 4, 0, 48, TOKENIZER)

    def epoch(e):
        rows = [tuple(row[row != PAD].tolist()) for step in range(3) for row in batches(3 * e + step).tokens.flatten(1)]
        assert len(rows) == 10
        return rows

    assert sorted(epoch(0)) == sorted(epoch(1)) and epoch(0) != epoch(1)

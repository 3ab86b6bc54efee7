"""The curriculum: every loss is what it says, padding never counts, what is frozen stays, and no accident costs a run."""

import json
import os
import resource
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations, permutations

import pytest
import torch
import torch.nn.functional as F
from test_training import BATCHES, SMALL, TOKENIZER, Killed, new_model, same_weights
from typer.testing import CliRunner

from rxt_lite.config import BOS, EOS, MASK, PAD, TINY, A
from rxt_lite.data.batches import Batch, make_batch
from rxt_lite.data.dialogues import Dialogue, Event, make_dialogues
from rxt_lite.data.tokenizer import encode_event
from rxt_lite.data.world import ATTRIBUTES, PEOPLE, facts_told
from rxt_lite.experiments.stages import BEFORE_MEMORY, SIZES, leak_rows, plans, stages_rows, takes, tell_and_ask, whose_rows
from rxt_lite.layers.experts import balance_loss, watch_routers
from rxt_lite.models import MODELS, DecoderLM, RxT
from rxt_lite.models.base import EventModel
from rxt_lite.models.checkpoint import load, read_card
from rxt_lite.training import pretraining
from rxt_lite.training.loop import Stage, fit, out_of_patience
from rxt_lite.training.losses import TARGETS, answer_loss, targets_of
from rxt_lite.training.metrics import metrics_file
from rxt_lite.training.pretraining import MaskedHead, Reader, fill_in_blanks, imitate_event, joint_lm, published_weights, spread
from rxt_lite.training.processes import total
from rxt_lite.training.recipes import train_on_world
from rxt_lite.training.regularisers import REGULARISERS, balance, gate_size, slot_diversity, watch_memory
from rxt_lite.training.source import ListBatches
from rxt_lite.training.stages import CURRICULUM, PUBLISHED, STAGES

B, N = 3, 5
STAGE = Stage(name="test", loss=answer_loss, steps=8, warmup=2)
QUICK = {"progress": False}


def batch_of(text="easy", n=B):
    return make_batch(make_dialogues(text, n), TOKENIZER, max_event_len=48)


def wider(batch, columns=4, events=0):
    """The same batch with more padding: after every event, and as events after every dialogue."""
    pad = (0, columns, 0, events)
    return Batch(F.pad(batch.tokens, pad, value=PAD), F.pad(batch.is_answer, pad, value=False))


def real(tokens):
    """Without padding: a list of whole numbers as a row (1, T)."""
    return tokens[tokens != PAD].unsqueeze(0)


def extra_of(stage, model):
    torch.manual_seed(1)
    return [stage.extra(model.config)] if stage.extra else []


# --- the table -------------------------------------------------------------------------------


def test_both_curricula_go_through_the_same_stages_and_end_in_memory_aware_training():
    assert set(CURRICULUM) | set(PUBLISHED) | {"practice", "more_practice"} == set(STAGES)
    kinds = ["joint_lm", "interaction_tuning", "memory_attention", "memory_aware"]
    assert list(CURRICULUM) == kinds
    assert list(dict.fromkeys(name.split("_published")[0] for name in PUBLISHED)) == kinds
    assert STAGES["memory_aware_published"].options["depth"] == 1 and "depth" not in STAGES["memory_aware"].options


def test_targets_are_what_their_names_say():
    batch = batch_of()
    tokens, text = batch.tokens, {which: targets_of(batch, which) for which in TARGETS}
    assert torch.equal(text["text"], (tokens != PAD) & (tokens != BOS))
    assert not text["answer_words"][tokens == EOS].any() and text["answer"][tokens == EOS].all()
    assert not text["answer"][tokens == A].any() and text["answer_and_frame"][tokens == A].all()
    counts = [int(text[which].sum()) for which in ("answer_words", "answer", "answer_and_frame", "text")]
    assert counts == sorted(counts) and counts[1] - counts[0] == counts[2] - counts[1] == B * N
    with pytest.raises(ValueError, match="choose one of text, answer_words"):
        targets_of(batch, "all")


# --- the losses, transcribed -----------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("targets", ["text", "answer_words"])
@pytest.mark.parametrize("reads", pretraining.READS)
def test_joint_language_model_is_two_mean_surprises(reads, targets):
    model, batch = new_model(), batch_of()
    head = MaskedHead(model.config)
    is_target, guessed, said = targets_of(batch, targets), [], []
    for b in range(B):
        encoded = [model.encode(real(e).masked_fill(real(e) != BOS, MASK)) for e in batch.tokens[b]]  # (L, 1, T, D) each
        for n in range(N):
            tokens, empty = real(batch.tokens[b, n]), model.init_state(1)
            guessed += F.cross_entropy(head(encoded[n][-1])[0, 1:], tokens[0, 1:], reduction="none").tolist()
            before = torch.cat([empty, encoded[n - 1]], dim=2) if n else empty
            slots = {"itself": encoded[n], "nothing": empty, "event_before": before}[reads]
            log_p = model.decode(tokens, model.read_slots(slots)).log_softmax(-1)
            said += [-log_p[0, t - 1, tokens[0, t]].item() for t in range(1, tokens.shape[1]) if is_target[b, n, t]]
    expected = sum(guessed) / len(guessed) + sum(said) / len(said)
    assert joint_lm(model, batch, head, reads=reads, targets=targets, mask=1.0, noise=0.0).item() == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_imitation_is_the_mean_cosine_between_slot_and_label():
    model, batch = new_model(initial_slots="gaussian"), batch_of()
    torch.manual_seed(3)
    loss = imitate_event(model, batch, jitter=0.0, noise=0.0, change=0.01)
    torch.manual_seed(3)
    start, cosines, changes = model.init_state(B), [], []
    for b in range(B):
        stm = start[:, b : b + 1]
        for n in range(N):
            tokens = real(batch.tokens[b, n])
            event, (a, w) = model.encode(tokens), published_weights(n)
            new = model.write(stm, event, tokens)
            aligned = F.interpolate(event[:, 0].transpose(1, 2), size=SMALL.n_slots, mode="linear", align_corners=True).transpose(1, 2)
            cosines.append(F.cosine_similarity(new[:, 0], a * stm[:, 0] + w * aligned, dim=-1))
            changes.append((n + 1) ** 0.5 * (new - stm).pow(2))
            stm = new
    expected = -torch.stack(cosines).mean() + 0.01 * torch.stack(changes).mean()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert published_weights(0) == pytest.approx((0.1, 0.9)) and published_weights(3) == pytest.approx((0.65, 0.35))
    assert published_weights(40) == pytest.approx((0.95, 0.05))


def test_a_label_of_as_many_tokens_as_slots_is_the_tokens_themselves():
    encoded, S = torch.randn(2, 3, 7, 5), 4
    label = spread(encoded, torch.tensor([4, 7, 1]), S)
    torch.testing.assert_close(label[:, 0], encoded[:, 0, :4])
    torch.testing.assert_close(label[:, 1, 0], encoded[:, 1, 0])
    torch.testing.assert_close(label[:, 1, 3], encoded[:, 1, 6])
    torch.testing.assert_close(label[:, 2], encoded[:, 2, :1].expand(-1, S, -1))


@torch.no_grad()
def test_filling_in_blanks_asks_the_memory_after_an_event_for_one_up_to_it():
    model, batch = new_model(), batch_of()
    reader = Reader(model.config)
    torch.manual_seed(5)
    loss = fill_in_blanks(model, batch, reader, mask=1.0)
    torch.manual_seed(5)
    drawn, surprise = (torch.rand(B, N) * torch.arange(1, N + 1)).long(), []
    assert (drawn <= torch.arange(N)).all() and (drawn < torch.arange(N)).any()
    for b in range(B):
        stm = model.init_state(1)
        for n in range(N):
            stm = model.remember(real(batch.tokens[b, n]), stm)
            asked = real(batch.tokens[b, drawn[b, n]])
            blank = asked != BOS
            logits = reader(model.encode(asked.masked_fill(blank, MASK))[-1], stm, blank)
            surprise += F.cross_entropy(logits, asked[blank], reduction="none").tolist()
    assert loss.item() == pytest.approx(sum(surprise) / len(surprise), abs=1e-4)


@torch.no_grad()
def test_a_reader_does_not_care_which_slot_holds_what_and_the_published_label_does():
    model, batch = new_model(), batch_of()
    reader, tokens = Reader(model.config), batch.tokens[:, 0]
    encoded, start = model.encode(tokens), model.init_state(B)
    stm = model.write(start, encoded, tokens)
    order = list(permutations(range(SMALL.n_slots)))[7]
    where = tokens != PAD
    torch.testing.assert_close(reader(encoded[-1], stm[:, :, order], where), reader(encoded[-1], stm, where))
    label = spread(encoded, where.sum(-1), SMALL.n_slots)
    assert not torch.allclose(F.cosine_similarity(stm[:, :, order], label, dim=-1).mean(), F.cosine_similarity(stm, label, dim=-1).mean())


@torch.no_grad()
@pytest.mark.parametrize("reads, leaks", [("itself", True), ("event_before", False), ("nothing", False)])
def test_what_is_read_shows_the_tokens_to_predict_only_as_published(monkeypatch, reads, leaks):
    model, batch, seen = new_model(), batch_of(), []
    read_slots = model.read_slots
    monkeypatch.setattr(model, "read_slots", lambda stm: seen.append(stm) or read_slots(stm))
    other = batch.tokens.clone()
    other[:, -1, 3] = 300  # a word of the last event
    for tokens in (batch.tokens, other):
        joint_lm(model, replace(batch, tokens=tokens), MaskedHead(model.config), reads=reads, mask=0.0, noise=0.0)
    last = slice(N - 1, None, N)
    assert torch.equal(seen[0][:, last], seen[1][:, last]) is not leaks


def test_the_decoder_does_not_teach_the_encoder_and_masks_do():
    for mask, learns in ((0.0, False), (0.5, True)):
        model = new_model()
        joint_lm(model, batch_of(), MaskedHead(model.config), reads="event_before", mask=mask).backward()
        gradient = [p.grad for p in model.encoder.parameters()]
        assert any(g is not None and g.any() for g in gradient) is learns


def test_every_option_of_the_losses_does_something():
    model, batch = new_model(), batch_of()
    head, reader = MaskedHead(model.config), Reader(model.config)

    def values(loss, *extra, **options):
        torch.manual_seed(0)
        return loss(model, batch, *extra, **options).item()

    base = {"reads": "event_before", "mask": 0.5, "noise": 0.0}
    joint = [values(joint_lm, head, **{**base, **o}) for o in ({}, {"mask": 0.6}, {"noise": 0.5}, {"drop": 0.9}, {"reads": "itself"})]
    imitation = [values(imitate_event, **o) for o in ({}, {"jitter": 0.0}, {"noise": 0.0}, {"change": 0.1})]
    blanks = [values(fill_in_blanks, reader, **o) for o in ({}, {"mask": 0.9})]
    for of_loss in (joint, imitation, blanks):
        assert len(set(of_loss)) == len(of_loss)


# --- padding never counts --------------------------------------------------------------------

SURE = {  # every stage without its dice, so that two calls agree
    joint_lm: {"mask": 1.0, "noise": 0.0}, imitate_event: {"jitter": 0.0, "noise": 0.0}, fill_in_blanks: {"mask": 1.0}, answer_loss: {}}


@torch.no_grad()
@pytest.mark.parametrize("name", STAGES)
def test_more_padding_changes_no_loss(name):
    model, batch, stage = new_model(), batch_of(), STAGES[name]
    extra, options = extra_of(stage, model), {**stage.options, **SURE[stage.loss]}
    batches = [batch, wider(batch)]
    if stage.loss is not fill_in_blanks:  # which draws an event for every place in the dialogue
        batches.append(wider(batch, events=2))
    losses = []
    for padded in batches:
        torch.manual_seed(0)
        losses.append(stage.loss(model, padded, *extra, **options).item())
    assert losses[1:] == pytest.approx([losses[0]] * len(losses[1:]), abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", REGULARISERS)
def test_more_padding_changes_no_regulariser(name):
    model, batch, values = new_model(n_experts=4), batch_of(), []
    for padded in (wider(batch, columns=0, events=1), wider(batch, events=3), wider(batch_of(n=B - 1), events=1)):
        with watch_memory(model) as seen:
            answer_loss(model, padded)
        values.append(REGULARISERS[name](seen, padded).item())
    assert values[0] == pytest.approx(values[1], abs=1e-5) and abs(values[0] - values[2]) > 1e-5


# --- regularisers ----------------------------------------------------------------------------


@torch.no_grad()
def test_regularisers_are_what_they_say():
    model, batch = new_model(n_experts=4, memory_attention="interlayer"), batch_of()
    with watch_memory(model) as seen, watch_routers(model) as routings:
        answer_loss(model, batch)
    cosines, gates = [], []
    for b in range(B):
        stm = model.init_state(1)
        for n in range(N - 1):
            tokens = real(batch.tokens[b, n])
            first = model.memory.norm_first(stm)
            mean = model.memory.norm_mean(stm.mean(0, keepdim=True)).expand_as(stm)
            middle = model.memory.attention_first(first, mean)
            gates.append(model.memory.gate_first.amount(stm, middle))
            between = model.memory.gate_first(stm, middle)
            rotation = model.rope(torch.arange(tokens.shape[1]))
            gates.append(model.memory.gate.amount(between, model.memory.update(between, model.encode(tokens), rotation)))
            stm = model.remember(tokens, stm)
            for slots in stm[:, 0]:
                cosines += [F.cosine_similarity(slots[i], slots[j], dim=0) for i, j in permutations(range(SMALL.n_slots), 2)]
    torch.testing.assert_close(slot_diversity(seen, batch), torch.stack(cosines).pow(2).mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gate_size(seen, batch), torch.stack(gates).pow(2).mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(balance(seen, batch), balance_loss(routings, (batch.tokens != PAD).flatten()))
    assert slot_diversity(watched([torch.ones(2, B, 4, 3)]), batch).item() == pytest.approx(1.0)
    assert slot_diversity(watched([torch.eye(4).expand(2, B, 4, 4)]), batch).item() == pytest.approx(0.0)


def watched(slots):
    with watch_memory(new_model()) as seen:
        seen.slots.extend(slots)
    return seen


@pytest.mark.parametrize("name", REGULARISERS)
def test_a_regulariser_lowers_what_it_measures_and_is_reported(name):
    lr, steps = 1e-2, 8
    plain, pressed = (fit(new_model(n_experts=4), replace(STAGE, steps=steps, lr=lr, **{name: weight}), BATCHES, **QUICK)
                      for weight in (1e-9, 10.0))
    assert pressed[-1][name] < plain[-1][name]
    assert pressed[0]["loss"] == pytest.approx(plain[0]["loss"] + 10 * plain[0][name], rel=1e-4)


def test_a_regulariser_without_its_part_is_refused_and_balance_is_for_experts_only():
    for make, asked, words in ((DecoderLM, {"slot_diversity": 1.0}, "slot_diversity=0"), (RxT, {"gate_size": 1.0}, "gate_size=0")):
        with pytest.raises(ValueError, match=words):
            fit(new_model(make, **({"gate": "none"} if make is RxT else {})), replace(STAGE, **asked), BATCHES, **QUICK)
    plain, asked = new_model(), new_model()
    fit(plain, STAGE, BATCHES, **QUICK)
    assert "balance" not in fit(asked, replace(STAGE, balance=1.0), BATCHES, **QUICK)[0] and same_weights(plain, asked)


# --- what learns, and how far back -----------------------------------------------------------


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_does_not_train_stays_as_it_was_to_the_bit(name):
    stage, model, start = replace(STAGES[name], steps=2, warmup=1), new_model(n_experts=2), new_model(n_experts=2)
    fit(model, stage, BATCHES, **QUICK)
    before = start.state_dict()
    changed = {key.split(".")[0] for key, w in model.state_dict().items() if not torch.equal(w, before[key])}
    assert all(f"{part}.".startswith(stage.learns) or part.startswith(stage.learns) for part in changed)
    parts = {"memory": {"memory"}, "memory_aware": {"encoder", "memory", "decoder"}}
    wanted = parts["memory"] if "memory_attention" in name else parts["memory_aware"] if stage.learns == ("",) else {"decoder", "head"}
    assert wanted <= changed and list(model.state_dict()) == list(before)
    assert all(p.requires_grad for p in model.parameters())
    if "memory_attention" in name:
        assert changed == {"memory"}


@pytest.mark.parametrize("depth", [1, 2, 3, None])
@pytest.mark.parametrize("route", [RxT.forward_dialogue, EventModel.forward_dialogue], ids=["at once", "plain loop"])
def test_depth_says_which_updates_get_gradient(monkeypatch, route, depth):
    """An answer's gradient reaches the updates since the last cut, `depth` at most; the values are those without a cut."""
    model, batch = new_model(), batch_of()
    write, updates = model.write, []

    def remembered(*args):
        updates.append(write(*args).requires_grad_())
        updates[-1].retain_grad()
        return updates[-1]

    monkeypatch.setattr(model, "write", remembered)
    for event in range(N):
        updates.clear()
        logits = route(model, batch.tokens, depth=depth)
        torch.testing.assert_close(logits, RxT.forward_dialogue(new_model(), batch.tokens))
        logits[:, event].sum().backward()
        reached = [n for n, stm in enumerate(updates) if stm.grad is not None and stm.grad.any()]
        since = 0 if depth is None or event == 0 else (event - 1) // depth * depth
        assert reached == list(range(since, event))
        assert depth is None or len(reached) <= depth


def test_depth_changes_the_gradient_not_the_loss_and_nothing_for_a_transcript():
    batch = batch_of()
    for make in MODELS.values():
        losses, gradients = [], []
        for depth in (1, None):
            model = new_model(make)
            loss = answer_loss(model, batch, depth=depth)
            loss.backward()
            losses.append(loss.item())
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        assert losses[0] == losses[1]
        assert torch.equal(*gradients) is (make is DecoderLM)
    with pytest.raises(ValueError, match="depth=0 must be at least 1"):
        answer_loss(new_model(), batch, depth=0)


# --- early stopping --------------------------------------------------------------------------

VALID = [batch_of()]
IMPATIENT = replace(STAGE, steps=60, patience=2, lr=0.3, warmup=1)  # so fast that it soon gets worse
EARLY = {"valid": VALID, "watch_every": 2, **QUICK}


def test_training_stops_when_validation_gets_no_better_and_keeps_the_best(tmp_path):
    model = new_model()
    rows = fit(model, IMPATIENT, BATCHES, run=tmp_path / "a.run", save_every=0, **EARLY)
    losses = [row["valid"] for row in rows if "valid" in row]
    assert len(rows) == 2 * len(losses) < 60 and losses.index(min(losses)) == len(losses) - 3
    with torch.no_grad():
        assert answer_loss(model, VALID[0]).item() == pytest.approx(min(losses), abs=1e-5)
    again = new_model()
    assert fit(again, IMPATIENT, BATCHES, run=tmp_path / "a.run", **EARLY) == rows and same_weights(model, again)
    with pytest.raises(ValueError, match="needs `valid`"):
        fit(new_model(), IMPATIENT, BATCHES, **QUICK)


def test_patience_counts_watches_since_the_best():
    rows = [{"valid": v} for v in (3.0, 2.0, 2.0, 2.5)]
    assert [out_of_patience(rows[:n], 2) for n in range(5)] == [False, False, False, False, True]
    assert not out_of_patience(rows, 3) and not out_of_patience(rows, None)


# --- accidents -------------------------------------------------------------------------------


def source(batch_at):
    """A source that says it is BATCHES."""
    return type("Source", (), {"__call__": lambda self, step: batch_at(step), "__str__": lambda self: str(BATCHES)})()


def test_a_run_killed_ten_times_at_random_ends_with_the_weights_of_the_unbroken_one(tmp_path):
    """SIGKILL, in the middle of whatever it was doing: a step, a save, a line of metrics."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(f"""
        import os, random, signal, sys, time, torch
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from dataclasses import replace
        from pathlib import Path
        from test_stages import BATCHES, VALID, new_model
        from rxt_lite.training.loop import fit
        from rxt_lite.training.stages import JOINT_LM
        torch.set_num_threads(1)
        torch.optim.AdamW(new_model().parameters())  # the first one imports much; the processes forked below need not
        stage, dice = replace(JOINT_LM, steps=60, warmup=5, patience=20), random.Random(os.getpid())

        def train(name):  # in a process of its own
            child = os.fork()
            if not child:
                fit(new_model(initial_slots="gaussian"), stage, BATCHES, run={str(tmp_path)!r} + name, valid=VALID, watch_every=7,
                    save_every=0, progress=False)
                os._exit(0)
            return child

        started = time.monotonic()
        os.waitpid(train("/whole.run"), 0)
        step = (time.monotonic() - started) / stage.steps  # seconds, on this machine and today
        run, kills = Path({str(tmp_path)!r}, "broken.run"), 0
        for _ in range(10):
            before, child = run.exists() and run.stat().st_mtime_ns, train("/broken.run")
            while (run.exists() and run.stat().st_mtime_ns) == before:
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 2 * step))
            os.kill(child, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        saved = torch.load(run, weights_only=True)
        print(kills, len(saved["rows"]))
        os.waitpid(train("/broken.run"), 0)
    """)], capture_output=True, text=True, timeout=200, check=True)
    kills, steps = map(int, done.stdout.split())
    assert kills == 10 and 10 <= steps < 60, "the kills came too late to mean anything"
    whole, broken = (torch.load(tmp_path / f"{name}.run", weights_only=True) for name in ("whole", "broken"))
    for part in ("model", "extra"):
        assert all(torch.equal(w, broken[part][name]) for name, w in whole[part].items())
    assert whole["best"]["valid"] == broken["best"]["valid"]
    curves = [[(row["step"], row["loss"], row.get("valid")) for row in run["rows"]] for run in (whole, broken)]
    assert curves[0] == curves[1]
    lines = [json.loads(line) for line in (tmp_path / "broken.metrics.jsonl").read_text().splitlines()]
    assert lines == broken["rows"], "every step once, in order"


def test_metrics_drop_what_a_killed_run_wrote_after_its_last_save(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, board = tmp_path / "a.run", tmp_path / "board"

    def dies(step):
        if step == 6:
            raise Killed
        return BATCHES(step)

    fit(new_model(), replace(STAGE, steps=3), BATCHES, run=run, **QUICK)
    saved = torch.load(run, weights_only=True)
    saved["settings"]["steps"] = STAGE.steps
    torch.save(saved, run)
    with pytest.raises(Killed):
        fit(new_model(), STAGE, source(dies), run=run, save_every=1000, tensorboard=board, **QUICK)
    assert len(metrics_file(run).read_text().splitlines()) == 6
    with metrics_file(run).open("a") as file:
        file.write('{"step": 6, "lo')
    rows = fit(new_model(), STAGE, BATCHES, run=run, tensorboard=board, **QUICK)
    assert [json.loads(line) for line in metrics_file(run).read_text().splitlines()] == rows
    assert [row["step"] for row in rows] == list(range(8))
    shown = EventAccumulator(str(board))
    shown.Reload()
    assert [event.step for event in shown.Scalars("loss")] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("accident", ["loss", "gradient"])
def test_what_is_not_a_number_stops_the_run_and_leaves_the_last_good_save(tmp_path, accident):
    run, good, step = tmp_path / "a.run", [], [0]

    def breaks(model, batch):
        loss = answer_loss(model, batch)
        if step[0] < 5:
            return loss
        return loss * float("nan") if accident == "loss" else loss + (0 * model.head.bias.sum()).sqrt() * 0  # d sqrt(0) = inf

    def at(n):
        step[0] = n
        good[:] = [run.read_bytes()] if run.exists() else []
        return BATCHES(n)

    with pytest.raises(ValueError, match="step 5 of test gave loss.*last good save, .*a.run with 5 steps, is untouched"):
        fit(new_model(), replace(STAGE, loss=breaks), source(at), run=run, save_every=0, **QUICK)
    assert run.read_bytes() == good[0] and len(torch.load(run, weights_only=True)["rows"]) == 5
    assert all(w.isfinite().all() for w in torch.load(run, weights_only=True)["model"].values())


def test_a_run_of_another_optimizer_is_refused(tmp_path):
    run = tmp_path / "a.run"
    fit(new_model(), STAGE, BATCHES, run=run, **QUICK)
    saved = torch.load(run, weights_only=True)
    del saved["settings"]["optimizer"]
    torch.save(saved, run)
    with pytest.raises(ValueError, match="optimizer=None, now 'Muon and AdamW'"):
        fit(new_model(), STAGE, BATCHES, run=run, **QUICK)


@contextmanager
def largest_file(size):
    """As on a full disk, no file of this process grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size, what", [(20_000, "could not save the training run"), (1, "could not write the metrics")])
def test_a_full_disk_is_one_clear_error_and_leaves_the_last_good_save(tmp_path, size, what):
    run, good = tmp_path / "a.run", []

    def fills(step):
        if step == 5:
            good.append(run.read_bytes())
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return BATCHES(step)

    with largest_file(10**9), pytest.raises(OSError, match=what + ".*last good save.*untouched; free some space"):
        fit(new_model(), STAGE, source(fills), run=run, save_every=0, **QUICK)
    assert run.read_bytes() == good[0] and not list(tmp_path.glob("*.part"))
    whole, resumed = new_model(), new_model()
    fit(whole, STAGE, BATCHES, **QUICK)
    fit(resumed, STAGE, BATCHES, run=run, **QUICK)
    assert same_weights(whole, resumed)


def test_a_dialogue_longer_than_the_window_is_one_clear_error_and_leaves_the_last_good_save(tmp_path):
    long = Dialogue((Event("Where is Tom? " * 40, "I see."),))
    batches = ListBatches([*make_dialogues("easy", 7), long], 2, 0, 48, TOKENIZER, "mine")
    with pytest.raises(ValueError, match="'Where is Tom.*at most max_event_len=48"):
        fit(new_model(), replace(STAGE, steps=40), batches, run=tmp_path / "a.run", save_every=0, **QUICK)
    kept = torch.load(tmp_path / "a.run", weights_only=True) if (tmp_path / "a.run").exists() else {"rows": []}
    assert len(kept["rows"]) < 4
    with pytest.raises(ValueError, match="fit the window of max_len=20"):
        fit(new_model(DecoderLM, max_len=20), STAGE, BATCHES, **QUICK)


@pytest.mark.parametrize("args, words", [
    (("--stories", "{tmp}/empty.txt"), "is empty"),
    (("--stories", "{tmp}/blank.txt"), "holds no story"),
    (("--stage", "joint"), "choose one of joint_lm, joint_lm_published"),
    (("--stage", "joint_lm", "--curriculum"), "choose --stage NAME, or --curriculum"),
    (("--published",), "choose --stage NAME, or --curriculum"),
    (("--stage", "joint_lm", "--model", "full_history"), "it is for RxT"),
    (("--curriculum", "--steps", "0"), "at least 1"),
    (("--stage", "memory_aware", "--patience", "0"), "patience=0"),
])
def test_a_mistake_is_one_sentence(tmp_path, args, words):
    from rxt_lite.cli import app

    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n<|endoftext|>\n")
    out = CliRunner().invoke(app, ["train", str(tmp_path / "run"), "--preset", "tiny", "--batch-size", "2", "--steps", "2",
                                   *(arg.format(tmp=tmp_path) for arg in args)])
    lines = [line for line in out.stderr.splitlines() if line.startswith("rxt-lite:")]
    assert out.exit_code == 1 and len(lines) == 1 and words in lines[0] and not (tmp_path / "run" / "rxt").exists()


def test_an_empty_list_of_dialogues_is_refused():
    with pytest.raises(ValueError, match="mine holds no dialogue to train on"):
        ListBatches([], 2, 0, 48, TOKENIZER, "mine")


# --- the curriculum as a whole ---------------------------------------------------------------

WORLD = {"config": replace(SMALL, max_len=48), "worlds": ("easy",), "batch_size": 2, "changes": {"steps": 2, "warmup": 1}, **QUICK}


def test_a_curriculum_is_its_stages_one_after_the_other(tmp_path):
    at_once, rows = train_on_world(tmp_path / "a", stages=CURRICULUM, **WORLD)
    assert [(row["stage"], row["step"]) for row in rows] == [(name, step) for name in CURRICULUM for step in range(2)]
    assert all("valid" in row for row in rows[1::2])
    for name in CURRICULUM:
        one_by_one, _ = train_on_world(tmp_path / "b", stages=(name,), **WORLD)
    assert same_weights(at_once, one_by_one) and same_weights(at_once, load(tmp_path / "b" / "rxt"))
    assert read_card(tmp_path / "b" / "rxt")["card"]["stages"] == list(CURRICULUM)
    first, again = train_on_world(tmp_path / "b", stages=CURRICULUM[:1], **WORLD)
    assert [(row["step"], row["loss"]) for row in again] == [(row["step"], row["loss"]) for row in rows[:2]]
    assert not same_weights(at_once, first)
    assert same_weights(at_once, load(tmp_path / "b" / "rxt")), "a stage that is loaded again does not undo later ones"
    (tmp_path / "b" / "rxt.memory_attention.run").unlink()
    assert same_weights(at_once, train_on_world(tmp_path / "b", stages=CURRICULUM, **WORLD)[0])


def test_a_penalty_on_the_memory_is_for_the_stages_that_write_to_it(tmp_path):
    pressed = {**WORLD, "changes": {**WORLD["changes"], "slot_diversity": 0.1, "gate_size": 0.1}}
    _, rows = train_on_world(tmp_path, stages=CURRICULUM, **pressed)
    assert {row["stage"] for row in rows if "slot_diversity" in row and "gate_size" in row} == set(CURRICULUM[2:])


def test_a_stage_goes_on_from_a_model_trained_without_stages(tmp_path):
    without = {name: value for name, value in WORLD.items() if name != "changes"}
    model, _ = train_on_world(tmp_path, stage=replace(STAGE, steps=2), **without)
    further, _ = train_on_world(tmp_path, stages=("memory_aware",), **WORLD)
    again, _ = train_on_world(tmp_path, stages=("memory_aware",), **WORLD)
    assert same_weights(further, again) and same_weights(further, load(tmp_path / "rxt")) and not same_weights(model, further)
    assert read_card(tmp_path / "rxt")["card"]["stages"] == ["memory-aware training", "memory_aware"]


def test_a_stage_that_began_elsewhere_is_not_taken_for_the_curriculum(tmp_path):
    train_on_world(tmp_path, stages=("memory_aware",), **WORLD)
    with pytest.raises(ValueError, match=r"after=\(\), now \('joint_lm',"):
        train_on_world(tmp_path, stages=CURRICULUM, **WORLD)


def parts(batch):
    """{what: its value} for every loss and regulariser: this process's part of them, no dice."""
    values, model = {}, new_model(n_experts=4)
    for stage in STAGES.values():
        some = Batch(batch.tokens[:, :1], batch.is_answer[:, :1]) if stage.loss is fill_in_blanks else batch
        value = stage.loss(model, some, *extra_of(stage, model), **{**stage.options, **SURE[stage.loss]})
        values[stage.name] = total(value).item()
    with watch_memory(model) as seen:
        answer_loss(model, batch)
    return values | {name: total(regulariser(seen, batch)).item() for name, regulariser in REGULARISERS.items()}


def test_two_processes_train_like_one(tmp_path):
    """`torchrun` with two processes on shares of 3 and 2 rows: the loss curve of one process on the batch of 5.

    So are all other losses the sum of their parts, even where a batch has fewer rows than there are processes.
    """
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(f"""
        import json, sys, torch
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_stages import batch_of, parts
        from rxt_lite.cli import app
        from rxt_lite.training.processes import my_share, number, processes
        with processes():
            for n in (1, 5):
                with torch.no_grad():
                    values = parts(my_share(batch_of(n=n)))
                if number() == 0:
                    print(json.dumps(values), flush=True)
            app(["train", {str(tmp_path / "two")!r}, *"--preset tiny --stage memory_aware --steps 6 --batch-size 5 --json".split()])
    """))
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)],
                          capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    one_row, five_rows, *said = [json.loads(line) for line in done.stdout.splitlines()]
    with torch.no_grad():
        assert one_row == pytest.approx(parts(batch_of(n=1)), abs=1e-5)
        assert five_rows == pytest.approx(parts(batch_of(n=5)), abs=1e-5)
    assert [row["steps"] for row in said] == [6], "only the first process speaks"

    alone, rows = train_on_world(tmp_path / "one", config=TINY, stages=("memory_aware",), batch_size=5, changes={"steps": 6}, **QUICK)
    two = [json.loads(line) for line in (tmp_path / "two" / "rxt.memory_aware.metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in rows], abs=1e-5)
    assert two[-1]["valid"] == pytest.approx(rows[-1]["valid"], abs=1e-5)
    weights = load(tmp_path / "two" / "rxt").state_dict()
    for name, w in alone.state_dict().items():
        torch.testing.assert_close(weights[name], w, atol=1e-4, rtol=1e-4)


# --- measured --------------------------------------------------------------------------------


def test_plans_take_one_stage_away_or_exchange_one():
    named = plans()
    assert named["ours"] == CURRICULUM and named["published"] == PUBLISHED and named["ours, memory-aware alone"] == ("memory_aware",)
    assert named["ours without joint"] == CURRICULUM[1:] and named["ours without joint and attention"] == CURRICULUM[1::2]
    assert named["ours with published attention"][2] == "memory_attention_published"
    assert {tuple(n for n in stages if n != "memory_aware") for stages in named.values()} >= {
        some for many in range(4) for some in combinations(CURRICULUM[:3], many)}, "with and without each early stage, all eight"
    assert len(named) == len(set(named.values())) == 17 and all(name in STAGES for plan in named.values() for name in plan)


def test_both_sides_are_measured(tmp_path):
    size = replace(SIZES["ci"], steps=1, batch_size=2, dialogues=4)
    some = ("ours", "ours, memory-aware alone", "ours with published aware")
    rows = list(stages_rows(tmp_path, size, some))
    assert [row["plan"] for row in rows] == list(some) and [row["steps"] for row in rows] == [4, 1, 4]
    columns = ["plan", "seed", "recall", "low", "high", "n", "alone", "rival", "memory_reset", "memory_swapped", "last_event_only",
               "cosine", "rank", "loss", "steps"]
    assert all(list(row) == columns for row in rows)
    assert all(0 <= row["low"] <= row["recall"] <= row["high"] <= 1 and -1 <= row["cosine"] <= 1 for row in rows)
    shared, own = (torch.load(tmp_path / "seed-0" / name / "rxt.joint_lm.run", weights_only=True)["rows"][0]["seconds"]
                   for name in ("ours", "ours-with-published-aware"))
    assert shared == own, "the common beginning was trained once"
    leaks = list(leak_rows(tmp_path, size))
    assert [(row["stage"], row["reads"]) for row in leaks] == [
        (stage, reads) for stage in ("joint_lm", "joint_lm_published") for reads in pretraining.READS]
    with pytest.raises(ValueError, match="unknown plan 'theirs'"):
        list(stages_rows(tmp_path, size, ("theirs",)))


def test_whose_values_a_decoder_names(tmp_path):
    size = replace(SIZES["ci"], steps=1, batch_size=2, dialogues=4)
    rows = list(whose_rows(tmp_path, size))
    assert [(row["stages"], row["told_of"]) for row in rows] == [(name, of) for name in BEFORE_MEMORY for of in ("asked", "another")]
    assert all(row["n"] == 8 and 0 <= row["low"] <= row["share"] <= row["high"] <= 1 and 1 / 12 <= row["chance"] <= 1 / 8 for row in rows)


@pytest.mark.parametrize("of_another", [False, True])
def test_a_telling_and_a_question_about_the_same_or_another(of_another):
    for pair, value, attribute in tell_and_ask(40, names=PEOPLE[:4], of_another=of_another):
        ((told, name, word),) = facts_told(pair.events[0].query)
        ((answered, asked, right),) = facts_told(pair.events[1].answer)
        assert (told, word) == (answered, right) == (attribute, value) and (name != asked) is of_another and asked in pair.events[1].query


def test_the_value_is_looked_for_where_the_answer_names_it(monkeypatch):
    model, ((pair, value, attribute),) = new_model(), tell_and_ask(1, names=PEOPLE[:4], of_another=True)
    ids = encode_event(TOKENIZER, pair.events[1].query, pair.events[1].answer)
    token = lambda word: TOKENIZER.encode(word, add_special_tokens=False).ids[0]  # noqa: E731
    for word in ATTRIBUTES[attribute].values:
        logits = torch.zeros(2, len(ids), model.config.vocab_size)
        logits[1, ids.index(token(value)) - 1, token(word)] = 1.0
        monkeypatch.setattr(model, "decode", lambda *args, logits=logits, **how: logits)
        assert takes(model, pair, value, attribute, TOKENIZER) is (word == value)

"""Learned forgetting: streams are what they say, closed forms hold, the analysis agrees with oracles."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from rxt_lite.cli import app
from rxt_lite.experiments import forgetting
from rxt_lite.experiments.forgetting import ASK, FIRST, SIZES, Stream, Streams, Task, draw, forgetting_rows, theory
from rxt_lite.experiments.slots import births, contents, effective_slots, survival_rows, written
from rxt_lite.experiments.trace import trace_of
from rxt_lite.models.memnet import MemNet

TASK, CI = Task(), SIZES["ci"]
MANY = Task(noises=5000)  # so that hardly two events are alike


def streams(n=64, task=TASK, seed=0):
    return draw(task, n, torch.Generator().manual_seed(seed))


def test_a_stream_tells_each_key_once_among_noise_and_asks_for_all_of_them():
    stream = streams()
    assert stream.events.shape == (64, 32, 2) and stream.is_fact.sum(1).tolist() == [4] * 64
    values, noise = FIRST + TASK.keys, FIRST + TASK.keys + TASK.values
    assert stream.events[~stream.is_fact].min() >= noise and stream.events.max() < TASK.vocab_size
    for b in range(64):
        told = {key: value for key, value in stream.events[b, stream.at[b]].tolist()}
        assert len(told) == 4 and all(FIRST <= k < values <= v < noise for k, v in told.items())
        assert [told[key] for key, _ in stream.queries[b].tolist()] == stream.values[b].tolist()
    assert (stream.queries[..., 1] == ASK).all()
    spread = torch.bincount(streams(2000).at.flatten(), minlength=32)
    assert spread.min() > 180 and spread.max() < 330  # 250 each, were they all alike


def test_the_same_step_brings_the_same_stream_and_early_ones_are_short():
    batches = Streams(TASK, 3, seed=1, short=5, short_steps=6)
    assert torch.equal(batches(7).events, batches(7).events) and not torch.equal(batches(7).events, batches(8).events)
    assert batches(4).events.shape == (3, 6, 2) and batches(5).events.shape == (3, 32, 2)


def test_a_task_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="facts=9.*keys=8"):
        Task(facts=9)


def test_the_closed_forms_are_what_a_simulation_counts():
    """A bank of six places, written by the rule of each arm, 20,000 streams; what is lost is guessed."""
    T, N, n = TASK.steps, 6, 20_000
    generator = torch.Generator().manual_seed(0)
    at = torch.rand(n, T, generator=generator).topk(4, dim=1).indices.sort(1).values
    always = (T - at <= N).float().mean()
    slots = torch.randint(N, (n, 4), generator=generator)
    spared = torch.stack([(slots[:, j + 1 :] != slots[:, j : j + 1]).all(1) for j in range(4)], dim=1).float().mean()
    for arm, kept in (("learned", 1.0), ("always", always), ("random", spared), ("memory off", 0.0)):
        assert theory(arm, TASK, N) == pytest.approx(float(kept + (1 - kept) / 12), abs=0.01), arm
    assert theory("always", TASK, N) == pytest.approx(0.255, abs=0.001) and theory("random", TASK, N) == pytest.approx(0.795, abs=0.001)
    assert theory("learned", replace(TASK, facts=8), N) == pytest.approx(6 / 8 + 2 / 8 / 12)


def crafted(**config):
    """A model whose gate is open and whose memory is untrained: what it holds is known all the same."""
    torch.manual_seed(0)
    model = MemNet(replace(SIZES["cpu"].config, **{"write_gate": "open", **config})).eval()
    return model


@torch.no_grad()
def test_always_writing_the_least_recently_used_slot_gives_every_content_a_life_of_n_events():
    """Oracle of the definitions in slots.py: lifetime N exactly, S(N - 1) = 1 and S(N) = 0, for facts and noise alike."""
    model, stream = crafted(vocab_size=MANY.vocab_size), streams(8, MANY)
    steps = model.forward_events(stream.events)
    traces = [trace_of(model, stream.events, steps, row) for row in range(8)]
    for row, trace in enumerate(traces):
        wrote = forgetting.wrote(steps, row)
        assert {c.lived for c in contents(trace, wrote) if c.ended} == {6}
        assert sorted(births(wrote)) == list(range(32))
        assert torch.equal(wrote, written(trace)), "events that differ turn a slot: by cosine the same slots are written"
    rows = {(r["of"], r["age"]): r["alive"] for r in forgetting.survival_table(stream, steps, traces)}
    assert {rows[of, age] for of in ("fact", "noise") for age in range(1, 6) if (of, age) in rows} == {1.0}
    assert rows["fact", 6] == rows["noise", 6] == 0.0
    use = forgetting.use_row(stream, steps, traces)
    assert use["write_fact"] == use["write_noise"] == 1.0


@torch.no_grad()
def test_a_random_slot_gives_contents_a_life_of_the_closed_form():
    model, stream = crafted(write_policy="random", vocab_size=MANY.vocab_size), streams(200, MANY)
    torch.manual_seed(1)
    steps = model.forward_events(stream.events)
    traces = [trace_of(model, stream.events, steps, row) for row in range(200)]
    lives = [(c.lived, c.ended) for _, _, c in forgetting.lives_of(steps, traces) if c.lived]
    rows = {r["age"]: r for r in survival_rows(lives)}
    for age in (2, 4, 8, 16):
        assert rows[age]["alive"] == pytest.approx((1 - 1 / 6) ** age, abs=0.03)


@torch.no_grad()
def test_the_trace_of_a_stream_is_a_trace_like_any_other():
    model, stream = crafted(write_gate="learned"), streams(3)
    steps = model.forward_events(stream.events)
    trace = trace_of(model, stream.events, steps, 1)
    assert trace.slots.shape == (33, 1, 6, 64) and trace.gate.shape == (32, 1, 6)
    assert torch.equal(trace.slots[-1, 0, :, :32], steps.state[1, :, :32])
    assert all(torch.allclose(r.sum(-1), torch.ones(1, 2)) for r in trace.read)
    assert all(torch.allclose(w.sum(-1), torch.ones(1, 6)) for w in trace.write)


def test_effective_slots_count_what_is_read_alike():
    shares = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(effective_slots(shares), torch.tensor([1.0, 2.0, 4.0]))


@torch.no_grad()
def test_only_values_may_be_answered_and_only_the_right_one_counts():
    model, stream = crafted(), streams(4)
    model.head.weight.zero_()
    model.head.bias.zero_()
    model.head.bias[ASK] = 9.0  # not a value, so it does not count as an answer
    model.head.bias[stream.values[0, 0]] = 1.0
    ok = forgetting.right(model, stream, model.init_state(4), TASK)
    assert torch.equal(ok, stream.values == stream.values[0, 0])


def test_the_rows_of_a_small_run(tmp_path):
    rows = list(forgetting_rows(tmp_path, CI))
    assert {row["table"] for row in rows} == set(forgetting.TABLES)
    accuracy = {row["arm"]: row for row in rows if row["table"] == "accuracy"}
    assert list(accuracy) == ["learned", "always", "random", "memory off"] and accuracy["always"]["gate_noise"] == 1.0
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in accuracy.values())
    gates = [row for row in rows if row["table"] == "gates" and row["arm"] == "learned" and row["of"] == "noise"]
    assert sum(row["share"] for row in gates) == pytest.approx(1)
    assert rows == list(forgetting_rows(tmp_path, CI)), "a finished run is loaded, and says the same"


def test_a_loss_of_the_memory_joins_the_loss_of_the_task():
    model, stream = crafted(), streams(4)
    plain, dear = (forgetting.forgetting_loss(model, stream, weights) for weights in (None, {"write_cost": 0.5}))
    assert dear.item() == pytest.approx(plain.item() + 0.5)  # the open gate writes one slot an event
    assert isinstance(stream.to("cpu"), Stream)


def test_the_command_prints_the_tables_asked_for(tmp_path):
    ask = lambda *more: CliRunner().invoke(app, ["forgetting", str(tmp_path), "--profile", "ci", *more])  # noqa: E731
    rows = [json.loads(line) for line in ask("--only", "accuracy", "--only", "use", "--json").stdout.splitlines() if line[0] == "{"]
    assert {row["table"] for row in rows} == {"accuracy", "use"} and {row["arm"] for row in rows} == set(forgetting.ARMS)
    assert ask("--only", "nonsense").exit_code == 1 and "memory" in ask("--only", "accuracy").stdout

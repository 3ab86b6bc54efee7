"""Continual learning: measures have the right divisors, streams are what they say, arms do what their names promise."""

import doctest
import json
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

from rxt_lite.cli import app
from rxt_lite.experiments import continual
from rxt_lite.experiments.continual import ARMS, EWC, STREAMS, Learner, Replay, WithBank, continual_rows, measures


def test_the_example_in_the_docstring():
    assert doctest.testmod(continual).failed == 0


def test_measures_of_what_is_constant_perfect_or_forgotten():
    T, before = 4, torch.full((4,), 0.1)
    same = measures(torch.full((T, T), 0.3), before)
    assert same == pytest.approx({"acc": 0.3, "bwt": 0, "fwt": 0.2, "forgetting": 0})
    perfect = measures(torch.ones(T, T).tril() + 0.1 * torch.ones(T, T).triu(1), before)  # learned once, known for ever
    assert perfect == pytest.approx({"acc": 1, "bwt": 0, "fwt": 0, "forgetting": 0}, abs=1e-6)
    gone = measures(torch.eye(T), torch.zeros(T))
    assert gone == pytest.approx({"acc": 1 / T, "bwt": -1, "fwt": 0, "forgetting": 1})  # T - 1 of T - 1, not of T
    R = torch.rand(T, T)
    loops = {"acc": sum(R[-1]) / T, "bwt": sum(R[-1, j] - R[j, j] for j in range(T - 1)) / (T - 1),
             "fwt": sum(R[j - 1, j] - before[j] for j in range(1, T)) / (T - 1),
             "forgetting": sum(max(R[i, j] for i in range(T - 1)) - R[-1, j] for j in range(T - 1)) / (T - 1)}
    assert measures(R, before) == pytest.approx({name: float(value) for name, value in loops.items()}, abs=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        measures(torch.ones(1, 1), torch.ones(1))


def test_streams_are_reproducible_and_held_out_images_are_held_out():
    for make in STREAMS.values():
        one, again, other = make(0), make(0), make(1)
        assert len(one) == 5
        assert all(torch.equal(a.train[0], b.train[0]) for a, b in zip(one, again))
        assert not torch.equal(one[0].train[0], other[0].train[0])
    whole = continual.digits(0)
    assert len(whole.train[0]) + len(whole.test[0]) == 1797
    assert whole.train[0].min() == 0 and whole.train[0].max() == 1 and sorted(set(whole.test[1].tolist())) == list(range(10))


def test_permuting_moves_points_and_splitting_shares_out_labels():
    tasks = continual.permuted(0)
    for task in tasks[1:]:
        assert not torch.equal(task.train[0], tasks[0].train[0]) and torch.equal(task.train[1], tasks[0].train[1])
        assert torch.equal(task.train[0].sort(1).values, tasks[0].train[0].sort(1).values)
    assert [sorted(set(task.test[1].tolist())) for task in continual.split(0)] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def small(make, tasks=2, examples=40):
    """Few examples of few tasks."""
    return [continual.Split(*(tuple(part[:examples] for part in data) for data in (task.train, task.test))) for task in make(0)[:tasks]]


def test_a_reservoir_keeps_every_example_with_the_same_probability():
    """And the bank is one too: 100 examples, 10 places, each held in about a tenth of 40 runs."""
    x, y = torch.zeros(100, continual.PIXELS), torch.zeros(100, dtype=torch.long)
    x[:, -1] = torch.arange(100.0)
    less = (continual.PIXELS - 1) / continual.PIXELS  # what is left of the last point when the mean is taken off
    task = continual.Split((x, y), (x, y))
    banks = (partial(Replay, kept=10), lambda l: l.x[:, -1]), (partial(WithBank, slots=10), lambda l: l.slots.keys[0, :, -1] / less)
    for make, held in banks:
        counts = torch.zeros(100)
        for seed in range(40):
            learner = make(epochs=0, seed=seed)
            learner.learn([task])
            kept = held(learner).round().long()
            assert len(kept.unique()) == 10
            counts[kept] += 1
        assert counts[:50].sum() / counts.sum() == pytest.approx(0.5, abs=0.1) and counts.max() < 15


def test_a_bank_that_keeps_the_last_has_forgotten_the_first_task():
    tasks = small(continual.split, examples=40)
    last, fair = WithBank(slots=40, keep="last", epochs=0), WithBank(slots=80, epochs=0)
    for n in (1, 2):
        last.learn(tasks[:n])
        fair.learn(tasks[:n])
    held = lambda learner: sorted(set(learner.slots.values[0, :, :10].argmax(-1).tolist()))  # noqa: E731
    assert held(last) == [2, 3] and held(fair) == [0, 1, 2, 3]
    assert (fair.answer(tasks[0].train[0]) == tasks[0].train[1]).all(), "what is in the bank is found"


def test_a_key_sees_neither_a_brighter_image_nor_stronger_ink():
    bank, x = WithBank(slots=3, epochs=0), torch.rand(3, continual.PIXELS, generator=torch.Generator().manual_seed(0))
    for image, label in zip(x, (1, 2, 3)):
        bank.remember(image, torch.tensor(label))
    plain, changed = bank.recall(x), bank.recall(0.5 * x + 0.3)
    assert torch.allclose(plain[1], torch.ones(3)) and all(torch.allclose(a, b, atol=1e-5) for a, b in zip(plain, changed))
    assert plain[0].argmax(-1).tolist() == [1, 2, 3]


def test_taking_the_memory_away_leaves_the_naive_network():
    tasks = small(continual.split)
    naive, memnet = Learner(epochs=2, seed=3), WithBank(epochs=2, seed=3)
    naive.learn(tasks[:1])
    memnet.learn(tasks[:1])
    x = tasks[1].test[0]
    assert torch.equal(naive.answer(x), memnet.answer(x, memory=False))


def test_weights_that_mattered_are_held():
    tasks = small(continual.permuted)
    moved = {}
    for strength in (0.0, 300.0):
        learner = EWC(epochs=3, strength=strength, lr=0.05)
        learner.learn(tasks[:1])
        before, importance = learner.held[0]
        learner.learn(tasks)
        moved[strength] = sum((i * (p - w).pow(2)).sum() for p, w, i in zip(learner.model.parameters(), before, importance)).item()
    assert 0 < moved[300.0] < 0.5 * moved[0.0]


def test_every_arm_gives_a_matrix_and_its_measures(monkeypatch):
    monkeypatch.setitem(STREAMS, "pairs", partial(continual.pairs, examples=40))
    rows = list(continual_rows(["pairs"], seeds=(0,), epochs=1))
    arms = {row["arm"] for row in rows}
    assert arms == {*ARMS, "memnet, off"}
    for arm in arms:
        matrix = [row for row in rows if row["arm"] == arm and row["table"] == "matrix"]
        assert len(matrix) == 25 and all(0 <= row["accuracy"] <= 1 for row in matrix)
        assert [row["table"] for row in rows if row["arm"] == arm].count("measures") == 1
    with pytest.raises(ValueError, match="unknown stream 'mnist'.*permuted"):
        list(continual_rows(["mnist"]))
    with pytest.raises(ValueError, match="unknown arm 'gem'.*replay"):
        list(continual_rows(["pairs"], ["gem"]))


def test_the_command_prints_measures_and_with_json_the_matrices_too():
    asked = ["continual", "--stream", "split", "--arm", "naive", "--seeds", "1", "--epochs", "1"]
    ask = lambda *more: CliRunner().invoke(app, [*asked, *more])  # noqa: E731
    rows = [json.loads(line) for line in ask("--json").stdout.splitlines()]
    assert [row["table"] for row in rows] == ["matrix"] * 25 + ["measures"]
    assert "naive" in ask().stdout and ask("--epochs", "0").exit_code == 1

"""Long dependencies: who can see what, whatever has been learned."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from rxt_lite.cli import app
from rxt_lite.experiments.forgetting import draw
from rxt_lite.experiments.long_dependency import ARMS, SIZES, TASK, Recurrent, dependency_rows, marks, reach, sequence

CI = SIZES["ci"]


def stream(n=4, steps=24):
    return draw(replace(TASK, steps=steps), n, torch.Generator().manual_seed(0))


def test_questions_come_last_and_distances_are_counted_from_them():
    some = stream()
    tokens, distance = sequence(some)
    assert tokens.shape == (4, 24 + 3, 2) and torch.equal(tokens[:, :24], some.events)
    for b in range(4):
        for f in range(3):
            told = 24 + f - distance[b, f]
            assert tokens[b, told, 0] == tokens[b, 24 + f, 0] and tokens[b, told, 1] == some.values[b, f]


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_an_answer_depends_on_the_first_step_exactly_where_a_model_can_reach_it(arm):
    torch.manual_seed(0)
    config = replace(SIZES["cpu"].config, window=ARMS[arm].window, write_gate="open", n_slots=40)  # nothing is written over
    model = ARMS[arm].make(config).eval()
    tokens, _ = sequence(stream())
    other = tokens.clone()
    other[:, 0] = other[:, 0].flip(0) + 1
    changed = (ARMS[arm].logits(model, tokens) - ARMS[arm].logits(model, other)).abs().amax((0, 2)) > 1e-6  # (M)
    seen_to = reach(config, ARMS[arm].window)
    if ARMS[arm].memory or seen_to is None:
        assert changed[-1] or arm == "lstm" and changed[8]  # an untrained LSTM halves what it knows at every step
    else:
        assert changed.tolist() == [step <= seen_to for step in range(27)]


def test_a_recurrent_network_speaks_for_every_step():
    model = Recurrent(CI.config)
    assert model(sequence(stream())[0]).shape == (4, 27, TASK.vocab_size) and model.device.type == "cpu"


def test_only_the_value_asked_for_is_right():
    some = stream()
    model = Recurrent(CI.config)
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()
    model.head.bias.data[some.values[1, 2]] = 1.0
    assert torch.equal(marks(model, "lstm", some)[0], some.values == some.values[1, 2])


def test_the_rows_of_a_small_run(tmp_path):
    rows = list(dependency_rows(tmp_path, CI))
    grid = {(row["window"], row["memory"]) for row in rows if row["table"] == "grid"}
    assert grid == {(4, "on"), (4, "off"), ("all", "on"), ("all", "off")}
    far = [row for row in rows if row["table"] == "distance" and row["model"] == "lstm"]
    assert {row["length"] for row in far} == {24, 48} and sum(row["n"] for row in far) == 2 * 8 * 3
    assert {row["model"] for row in rows if row["table"] == "use"} == {"memnet", "memnet, full"}
    assert rows == list(dependency_rows(tmp_path, CI)), "a finished run is loaded, and says the same"
    with pytest.raises(ValueError, match="unknown model 'gru'.*lstm"):
        list(dependency_rows(tmp_path, CI, ["gru"]))


def test_the_command_prints_the_two_by_two_table(tmp_path):
    ask = lambda *more: CliRunner().invoke(app, ["long-dependency", str(tmp_path), "--profile", "ci", *more])  # noqa: E731
    rows = [json.loads(line) for line in ask("--json").stdout.splitlines() if line[0] == "{"]
    assert {row["table"] for row in rows} == {"grid", "distance", "use"}
    assert "all" in ask().stdout and ask("--table", "nonsense").exit_code == 1

"""The command line: rows as promised, --json alone on standard output, one sentence for every mistake."""

import json
import shutil
import subprocess
import sys

import pytest


def rxt_lite(*args, stdin="", ok=True):
    done = subprocess.run([sys.executable, "-m", "rxt_lite.cli", *map(str, args)], input=stdin.encode(), capture_output=True, timeout=300)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()  # as they are: an untrained model says anything, \r too
    assert (done.returncode == 0) is ok, done.stderr
    return done


def rows_of(*args, **how):
    return [json.loads(line) for line in rxt_lite(*args, **how).stdout.rstrip("\n").split("\n")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few steps: it knows nothing, but everything is there."""
    folder = tmp_path_factory.mktemp("a run") / "seed 3"
    rows = rows_of("train", folder, "--preset", "tiny", "--steps", 3, "--batch-size", 2, "--seed", 3, "--json")
    assert [(r["model"], r["steps"]) for r in rows] == [("rxt", 3), ("full_history", 3)]
    return folder


def test_recall_prints_all_arms(run):
    rows = rows_of("recall", run, "--dialogues", 6, "--json")
    assert list(dict.fromkeys(r["arm"] for r in rows)) == [
        "memory_on", "memory_reset", "memory_swapped", "last_event_only", "full_history", "chance"]
    assert all(list(r) == ["arm", "seen", "recall", "low", "high", "n", "seed"] and r["seed"] == 3 for r in rows)
    assert rows == rows_of("recall", run, "--dialogues", 6, "--json"), "the same command, the same rows"
    assert "memory_on" in rxt_lite("recall", run, "--dialogues", 4).stdout


def test_cost_prints_four_arms_for_every_turn():
    rows = rows_of("cost", "--turns", 5, "--json")
    assert [(r["arm"], r["turn"]) for r in rows] == [
        (arm, turn) for turn in range(1, 6) for arm in ("rxt_answer", "rxt_update", "reread", "prefix_cached")]
    assert all(list(r) == ["arm", "turn", "tokens", "macs", "state_bytes"] for r in rows)


def test_presets_lists_shapes_and_sizes():
    rows = {r["preset"]: r for r in rows_of("presets", "--json")}
    assert rows["nano_12m"]["total"] == 11_734_220 and rows["stateless_22m"]["model"] == "DecoderLM"
    assert "shape_4b" in rxt_lite("presets").stdout


def test_bench_refuses_what_it_cannot_measure():
    assert "d128, d128_experts, nano_12m" in rxt_lite("bench", "huge", ok=False).stderr
    assert "at least 1" in rxt_lite("bench", "--rounds", 0, ok=False).stderr


def test_stability_prints_every_memory_over_time(run):
    rows = rows_of("stability", "--events", 2, "--paper", "--json")
    assert all(list(r) == ["seed", "memory", "gate", "text", "event", "norm", "cosine", "rank"] for r in rows)
    assert len({(r["memory"], r["gate"]) for r in rows}) == 5 * 10 and {r["event"] for r in rows} == {1, 2}
    assert "simple, slot sigmoid" in rxt_lite("stability", run, "--trained", "--events", 1).stdout


def test_chat_answers_every_line_and_keeps_count(run):
    rows = rows_of("chat", run, "--json", stdin="Tom has the hat.\nWho has the hat?\n\u00e9\u4e16 \U0001f600\n")
    assert [r["event"] for r in rows] == [0, 1, 2] and rows[1]["query"] == "Who has the hat?"
    assert all(set(r) == {"event", "query", "answer", "tokens", "answer_ms", "update_ms"} for r in rows)
    plain = rxt_lite("chat", run, stdin="Tom has the hat.\nWho has the hat?\n").stdout
    assert plain == "".join(r["answer"] + "\n" for r in rows[:2])


def test_a_reset_memory_forgets(run):
    asked = "Who has the hat?\n"
    fresh = rows_of("chat", run, "--json", stdin=asked)[0]["answer"]
    assert rows_of("chat", run, "--json", stdin="Tom has the hat.\n/reset\n" + asked)[-1]["answer"] == fresh


def test_a_finished_run_is_over_at_once(run):
    again = rows_of("train", run, "--preset", "tiny", "--steps", 3, "--batch-size", 2, "--seed", 3, "--json")
    assert [r["steps"] for r in again] == [3, 3]


@pytest.mark.parametrize(
    "args, words",
    [
        (("train", "{tmp}/x", "--preset", "huge"), ["huge", "tiny, book"]),
        (("train", "{tmp}/x", "--world", "flat"), ["flat", "easy, base"]),
        (("train", "{tmp}/x", "--model", "rnn"), ["rnn", "rxt, full_history"]),
        (("train", "{tmp}/x", "--steps", "0"), ["--steps 0", "at least 1"]),
        (("train", "{run}", "--preset", "tiny", "--steps", "9", "--batch-size", "2"), ["steps=3, now 9"]),
        (("train", "{tmp}/x", "--stories", "{tmp}/nothing.txt"), ["nothing.txt"]),
        (("train", "{tmp}/x", "--stories", "hub"), ["hub", "local file"]),
        (("recall", "{tmp}/nowhere"), ["nowhere"]),
        (("recall", "{run}", "--world", "flat"), ["flat"]),
        (("recall", "{run}", "--split", "exam"), ["exam", "test_iid"]),
        (("recall", "{run}", "--dialogues", "1"), ["at least 2"]),
        (("recall", "{run}", "--full", "--world", "hard"), ["--full", "leave out"]),
        (("compare", "{tmp}/x", "--limit", "5"), ["--limit 5", "--stories"]),
        (("compare", "{tmp}/x", "--profile", "ci", "--stories", "{tmp}/nothing.txt"), ["nothing.txt"]),
        (("cost", "--turns", "0"), ["turns=0", "at least 1"]),
        (("cost", "--preset", "huge"), ["huge", "book"]),
        (("chat", "{tmp}/nowhere"), ["nowhere"]),
        (("chat", "{cut}"), ["truncated"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_sentence(args, words, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    weights = cut / "rxt" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    done = rxt_lite(*(a.format(tmp=tmp_path, run=run, cut=cut) for a in args), ok=False)
    message = [line for line in done.stderr.splitlines() if line.startswith("rxt-lite:")]
    assert len(message) == 1 and "Traceback" not in done.stderr and done.stdout == ""
    assert all(word in message[0] for word in words), message


@pytest.mark.parametrize("line, words", [(" ", "empty"), ("hat " * 100, "window of one event")])
def test_a_message_that_cannot_be_read_is_refused_in_words(run, line, words):
    done = rxt_lite("chat", run, "--json", stdin="Tom has the hat.\n" + line + "\n", ok=False)
    assert words in done.stderr and "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1, "the message before it was answered"

"""Real stories: read from every kind of file, split by their own words, and retold as dialogues that can be checked."""
import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from rxt_lite.data.dialogues import FEATURES, Dialogue, Event, answer_is_right, from_row, make_dialogues, to_row
from rxt_lite.data.facts import facts_in, names_in, rename
from rxt_lite.data.stories import load_dialogues, load_stories, repair, sentences, story_split, story_to_dialogue

LILY = ("Once upon a time, there was a little girl named Lily. She lived in a small house. Lily loved to dance in the "
        "rain. Every day she put on her big red hat. One day, Lily went to the market. “Is there a blue hat?” she asked "
        "the man. The man said no, and Lily was sad. She walked on and on. Then Lily found a shiny key. It was lying "
        "under a bench near the old gate. Lily picked it up and smiled. She ran home. At home there was a locked box. "
        "Lily put the key into the box and it opened! Inside there was a photo of her grandpa. She was very happy.")
OTHERS = ["Tom had a kite. He was glad.", "A dog ran. It barked."]


# ------------------------------------------------------------------------------------------------- files
def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def test_a_text_file_holds_one_story_between_two_marks(tmp_path):
    path = write(tmp_path / "a story.txt", f"\n{LILY}\n<|endoftext|>\n\n{OTHERS[0]}\n<|endoftext|>\n <|endoftext|>\n{OTHERS[1]}")
    assert load_stories(path) == [LILY, *OTHERS]
    assert load_stories(str(path), limit=2) == [LILY, OTHERS[0]]


@pytest.mark.parametrize("column", ["text", "story"])
@pytest.mark.parametrize("name", ["s.json", "s.jsonl", "s.parquet", "odd [name] *.json"])
def test_rows_are_read_whatever_the_file_is_called(name, column, tmp_path):
    from datasets import Dataset

    rows = [{column: text, "source": "x"} for text in [LILY, *OTHERS]]
    path = tmp_path / name
    if name.endswith(".parquet"):
        Dataset.from_list(rows).to_parquet(path)
    elif name.endswith(".jsonl"):
        write(path, "\n".join(map(json.dumps, rows)))
    else:
        write(path, json.dumps(rows))
    assert load_stories(path) == [LILY, *OTHERS]


def test_mojibake_is_repaired(tmp_path):
    right = "“Don’t,” she said – ‘really’ — and left…"
    broken = right.encode().decode("cp1252", errors="ignore")            # what the hub's V1 rows look like
    assert broken != right and repair(broken) == right
    assert repair(right) == right
    assert load_stories(write(tmp_path / "s.txt", broken)) == [right]


def test_an_instruct_block_gives_its_story(tmp_path):
    blocks = ["Features: Dialogue\nWords: quit, oak\nSummary: A tree.\nRandom sentence: Story: no.\nStory: \n\nOnce. Story: two.",
              "Summary: B.\nStory:\nTwice.", "A dog read a book. Story: it was long."]
    path = write(tmp_path / "s.txt", "\n<|endoftext|>\n".join(blocks))
    assert load_stories(path) == ["Once. Story: two.", "Twice.", blocks[2]]


@pytest.mark.parametrize("name, content, error, says", [
    ("empty.txt", b"", ValueError, "is empty"), ("white.txt", b" \n<|endoftext|>\n", ValueError, "holds no story"),
    ("latin.txt", b"caf\xe9", ValueError, "not UTF-8 text: byte 3 is 0xe9"),
    ("x.csv", b"text\nOne.", ValueError, r"expected a \.txt, \.json"),
    ("wrong.json", b'[{"texts": "One."}]', ValueError, "no column \"text\" or \"story\", only 'texts'"),
    ("none.json", b'[{"text": "One."}, {"text": null}]', ValueError, "row 1 has no text"),
    ("numbers.json", b'[{"text": 1}]', ValueError, "row 0 has no text in 'text', but 1"),
    ("cut.jsonl", b'{"text": "One."}\n{"text": "Tw', ValueError, "cannot be read as json"),
    ("latin.json", b'[{"text": "caf\xe9"}]', ValueError, "cannot be read as json"),
    ("no.parquet", b"PAR1 and then nothing", ValueError, "cannot be read as parquet"),
])
def test_a_bad_file_is_one_clear_error_and_nothing_else(name, content, error, says, tmp_path, capfd):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=says) as caught:
        load_stories(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_says_what_to_give(tmp_path):
    for load in (load_stories, load_dialogues):
        with pytest.raises(FileNotFoundError, match="no file .*nowhere.txt; give a .txt"):
            load(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("load, source", [(load_stories, "hub"), (load_dialogues, "hub:ReactiveAI/TinyStories-MRL:steps-4")])
def test_without_network_the_hub_fails_at_once_in_one_sentence(load, source, monkeypatch, capfd):
    import datasets  # noqa: F401  (its import is not part of the waiting)

    def nowhere(*_, **__):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", nowhere)
    monkeypatch.setattr("socket.create_connection", nowhere)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="could not reach it .*; pass a local file instead") as caught:
        load(source)
    assert time.monotonic() - start < 5 and caught.value.__suppress_context__ and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------- dialogues
def test_dialogues_of_the_hub_schema_keep_every_row_and_every_event(tmp_path):
    rows = [{"query": "q0", "answer": "a0", "interactions": [{"answer": f"a{i}", "query": f"q{i}"} for i in range(1, n)]}
            for n in (1, 4, 2)]
    dialogues = load_dialogues(write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, rows))))
    assert [len(d.events) for d in dialogues] == [1, 4, 2]
    assert dialogues[1].events == tuple(Event(f"q{i}", f"a{i}") for i in range(4))


def test_single_interactions_are_dialogues_of_one_event(tmp_path):
    path = write(tmp_path / "sft.json", json.dumps([{"query": "q", "answer": "a"}, {"query": "r", "answer": "b"}]))
    assert load_dialogues(path) == [Dialogue((Event("q", "a"),)), Dialogue((Event("r", "b"),))]


def test_our_own_rows_come_back_with_their_probes(tmp_path):
    from datasets import Dataset

    dialogues = make_dialogues("overwrite", 10) + [story_to_dialogue(LILY)]
    Dataset.from_list([to_row(d) for d in dialogues], features=FEATURES()).to_parquet(tmp_path / "rows.parquet")
    assert load_dialogues(tmp_path / "rows.parquet") == dialogues


def test_columns_instead_of_structs_are_put_right_and_unequal_ones_refused(tmp_path):
    by_column = {"query": "q0", "answer": "a0", "interactions": {"query": ["q1", "q2"], "answer": ["a1", "a2"]}}
    events = load_dialogues(write(tmp_path / "a.json", json.dumps([by_column])))[0].events
    assert events == tuple(Event(f"q{i}", f"a{i}") for i in range(3))
    by_column["interactions"]["answer"].pop()
    with pytest.raises(ValueError, match="row 0 has unequal numbers"):
        load_dialogues(write(tmp_path / "b.json", json.dumps([by_column])))


def test_newer_sets_keep_the_first_event_among_the_interactions(tmp_path):
    rows = [{"interactions": [{"query": "q0", "answer": "a0"}, {"query": "q1", "answer": "a1"}]}]
    assert load_dialogues(write(tmp_path / "a.json", json.dumps(rows)))[0].events == (Event("q0", "a0"), Event("q1", "a1"))


@pytest.mark.parametrize("row, says", [
    ({"text": "a story"}, "row 0 has an event without 'query'.*got 'text'"),
    ({"query": "q", "answer": None}, "row 0 has an event without 'answer'"),
    ({"query": "q", "answer": "a", "interactions": [{"query": "q"}]}, "row 0 has an event without 'answer'"),
    ({"query": "q", "answer": "a", "interactions": ["hello"]}, "row 0 has an event without 'query'"),
    ({"query": "q", "answer": "a", "probes": [{"turn": 1}]}, "row 0 has probes that do not fit"),
])
def test_a_row_of_another_shape_is_named(row, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        load_dialogues(write(tmp_path / "rows.json", json.dumps([row])))


def test_a_text_file_has_no_rows(tmp_path):
    with pytest.raises(ValueError, match="cannot read rows from s.txt"):
        load_dialogues(write(tmp_path / "s.txt", LILY))


# ------------------------------------------------------------------------------------------------- a story retold
def test_the_split_depends_on_the_words_alone():
    assert story_split("Once upon A time.\n\n The end ") == story_split("once upon a time. the end")
    shares = Counter(story_split(f"Story number {i}.") for i in range(4000))
    assert shares["valid"] / 4000 == pytest.approx(0.05, abs=0.01)


def test_quotations_stay_in_one_sentence():
    assert sentences('Mr. Fox came. "Hello! Who is it?" she said. He smiled.') == [
        "Mr. Fox came.", '"Hello! Who is it?" she said.', "He smiled."]


def test_a_story_is_told_in_order_and_whole():
    dialogue = story_to_dialogue(LILY)
    told = [e.answer for e in dialogue.events if e.query.startswith(("Tell me a story", "What happened next?"))]
    assert dialogue.events[0].query == "Tell me a story about a little girl."
    assert len(told) == 4 and max(map(len, told)) < 2 * min(map(len, told))
    name = re.search("named ([A-Z][a-z]+)", told[0])[1]
    assert " ".join(told).replace(name, "Lily") == LILY.replace("“", '"').replace("”", '"')


def test_every_answer_stands_in_an_earlier_chunk_and_not_in_the_last_one_told():
    dialogue = story_to_dialogue(LILY)
    recall = [p for p in dialogue.probes if p.kind == "recall"]
    assert recall and [p.turn for p in dialogue.probes if p.kind == "next"] == [
        t for t, e in enumerate(dialogue.events) if e.query == "What happened next?"]
    for probe in recall:
        event = dialogue.events[probe.turn]
        assert answer_is_right(probe, event.answer) and not answer_is_right(probe, "I do not know.")
        assert probe.value in dialogue.events[probe.turn - probe.distance].answer
        assert probe.value.lower() in dialogue.events[probe.turn - probe.seen].answer.lower()
        assert 1 <= probe.seen <= probe.distance and event.query not in {e.query for e in dialogue.events[:probe.turn]}


def test_distance_counts_from_the_last_telling():
    part = "Then she sat down and slept. " * 4
    story = f"She saw a red ball. {part}She saw a red ball. {part}She sang one song. {part}She ate one plum. {part}"
    dialogue = story_to_dialogue(story)
    probe = next(p for p in dialogue.probes if p.kind == "recall")
    assert [e.query for e in dialogue.events[1:4]] == ["What happened next?"] * 2 + ["What colour was the ball?"]
    assert (probe.turn, probe.distance, probe.seen, probe.writes) == (3, 2, 2, 2)


def test_the_same_story_gives_the_same_dialogue_and_survives_a_row():
    assert story_to_dialogue(LILY) == story_to_dialogue(LILY.replace(" ", "\n", 5)) == from_row(to_row(story_to_dialogue(LILY)))


def test_long_chunks_are_cut_after_a_sentence_and_what_is_cut_is_not_asked():
    dialogue = story_to_dialogue("A dog sat. " * 10 + "Tom had a kite. " + "A cat came. " * 40, chunks=2, max_words=20)
    assert all(len(e.answer.split()) <= 20 and e.answer.endswith(".") for e in dialogue.events)
    assert not any(p.kind == "recall" for p in dialogue.probes)
    assert len(story_to_dialogue("word " * 300, chunks=3, max_words=50).events[0].answer.split()) == 50


def test_tiny_stories_and_no_stories():
    assert story_to_dialogue("The end").events == (Event("Tell me a story.", "The end"),)
    assert len(story_to_dialogue(LILY, chunks=1).events) == 1
    with pytest.raises(ValueError, match="the story is empty"):
        story_to_dialogue(" \n")
    with pytest.raises(ValueError, match="chunks=0"):
        story_to_dialogue(LILY, chunks=0)


# ------------------------------------------------------------------------------------------------- facts and names
@pytest.mark.parametrize("text, question, answer", [
    ("There was a little girl named Lily.", "What was the name of the girl?", "The name of the girl was Lily."),
    ("There was a little girl named Lily.", "Who was Lily?", "Lily was a little girl."),
    ("Then Lily loved to dance in the rain.", "What did Lily love to do?", "Lily loved to dance in the rain."),
    ("She saw a big red ball.", "What colour was the ball?", "The ball was red."),
    ("One day, Tom ran to the park with Ann.", "Where did Tom go?", "Tom went to the park."),
    ("Tom found a shiny key.", "What did Tom find?", "Tom found a shiny key."),
    ("Tom had a kite and a hat.", "What did Tom have?", "Tom had a kite."),
    ("Tom learned that sharing is fun!", "What did Tom learn?", "Tom learned that sharing is fun."),
])
def test_a_fact_is_found(text, question, answer):
    assert (question, answer) in {(fact.question, fact.answer) for fact in facts_in(text)}


@pytest.mark.parametrize("text", [
    'He said, "There was a girl named Lily. Tom had a kite. A red ball."', "If Tom had a kite, he would fly.",
    "Ann wished Tom had a kite.", "He saw a red toy car.", "two friends named Tom and Ann", "a man named Mr. Fox",
    "Tom had a big, soft bear.", "Tom had an idea.", "Tom ran to the other side.", "Tom loved to eat it.",
    "She had a friend named Ann.", "He saw the blue sky.", "red shoes were there", "the red shoes.", "Mom had a cake.",
])
def test_what_is_not_said_is_not_found(text):
    assert facts_in(text) == []


def test_two_answers_to_one_question_are_no_question():
    story = "A girl saw a red ball. " * 2 + "She sat down and slept well. " * 3 + "She saw a blue ball. " + "She ran. " * 9
    assert not any(p.kind == "recall" for p in story_to_dialogue(story).probes)


def test_characters_are_renamed_everywhere_and_others_are_not():
    story = "A girl named Lily met a boy named Tom. Lily gave Tom's hat to Mom. On Monday, Tom said, \"Thank you, Lily!\""
    new = rename(story)
    girl, boy = names_in(new)[:2]
    assert not {"Lily", "Tom"} & set(re.findall(r"\w+", new)) and {"Mom", "Monday"} <= set(re.findall(r"\w+", new))
    assert new.replace(girl, "Lily").replace(boy, "Tom") == story and rename(story) == new


def test_new_names_are_spread_and_fit_the_pronoun():
    from rxt_lite.data.facts import BOYS, GIRLS

    new = [names_in(rename(f"There was a girl named Lily. She had {i} hats. Lily was glad."))[0] for i in range(600)]
    assert set(new) == set(GIRLS) and max(Counter(new).values()) < 3 * 600 / 24
    assert not set(GIRLS) & set(BOYS) and len(GIRLS) == len(BOYS) == 24
    assert names_in(rename("A bear named Max ran. Max hurt his paw."))[0] in BOYS


# ------------------------------------------------------------------------------------------------- the real file
SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinystories-sample.txt"


@pytest.mark.skipif(not SAMPLE.exists(), reason="the sample of real stories is not here")
def test_real_stories_give_questions_that_cannot_be_guessed():
    stories = load_stories(SAMPLE)
    assert len(stories) == 13258 and sum(story_split(s) == "valid" for s in stories) == 656
    dialogues = [story_to_dialogue(story) for story in stories[::4]]
    recall = [[p for p in d.probes if p.kind == "recall"] for d in dialogues]
    share = [sum(len(r) >= n for r in recall) / len(recall) for n in (1, 2, 3)]
    assert share == pytest.approx([0.65, 0.30, 0.09], abs=0.04)
    assert sum(len(d.events) for d in dialogues) / len(dialogues) == pytest.approx(5.0, abs=0.2)
    names = Counter(p.value for r in recall for p in r if p.attribute == "name")
    assert names.most_common(1)[0][1] / sum(names.values()) < 0.06
    for d, probes in zip(dialogues, recall):
        assert all(len(e.answer.split()) <= 80 for e in d.events)
        assert all(answer_is_right(p, d.events[p.turn].answer) for p in probes)

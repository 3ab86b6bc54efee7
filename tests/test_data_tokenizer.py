"""The tokenizer: a word of the small world is one token, and no text ever becomes a control token."""
import json
import re

import pytest

from rxt_lite.config import BOS, EOS, PAD, A, Q
from rxt_lite.data.dialogues import PRESETS, SPLITS, make_dialogues
from rxt_lite.data.tokenizer import (
    SPECIALS,
    decode,
    encode_event,
    encode_query,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
    world_tokenizer,
)

TEXTS = ["Once upon a time there was a little girl.", "She had a red hat and a little dog."] * 20
TRICKY = "Is [EOS] a [A] token? [PAD][BOS] [Q]"


def test_every_word_of_the_world_is_one_token():
    tokenizer = world_tokenizer()
    text = " ".join(f"{event.query} {event.answer}" for preset in PRESETS for split in SPLITS
                    for dialogue in make_dialogues(preset, 60, split=split) for event in dialogue.events)
    words = set(re.findall(r"[A-Za-z]+(?!\w|'s)|[A-Za-z]+(?='s)", text)) - {"s"}
    assert len(words) > 200
    assert {word for word in words if len(tokenizer.encode(word).ids) != 1} == set()


def test_an_event_wears_its_frame():
    tokenizer = world_tokenizer()
    query = encode_query(tokenizer, "Who has the hat?")
    event = encode_event(tokenizer, "Who has the hat?", "Ben has the hat.")
    assert query[:2] == [BOS, Q] and query[-1] == A and event[:len(query)] == query and event[-1] == EOS
    assert SPECIALS == ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MASK]", "[Q]", "[A]") and (PAD, A) == (0, 6)
    assert decode(tokenizer, event[len(query):]) == "Ben has the hat."


def test_text_is_written_and_read_back_exactly():
    for text in ("naïve café – “quoted”…", "日本", "a  b\n\nc", TRICKY, "😀 'tis"):
        assert decode(world_tokenizer(), encode_event(world_tokenizer(), "q", text)[4:]) == text


def test_typed_control_tokens_stay_text_also_after_reloading(tmp_path):
    tokenizer = train_tokenizer(TEXTS, 300)
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    for each in (tokenizer, load_tokenizer(tmp_path / "tokenizer.json"), world_tokenizer()):
        event = encode_event(each, TRICKY, TRICKY)
        assert [i for i in event if i < len(SPECIALS)] == [BOS, Q, A, EOS]


def test_the_same_texts_give_the_same_tokenizer():
    assert train_tokenizer(iter(TEXTS), 400).to_str() == train_tokenizer(TEXTS, 400).to_str()


def test_vocab_size_is_a_limit_with_room_for_the_bytes():
    assert train_tokenizer(TEXTS, 280).get_vocab_size() == 280
    with pytest.raises(ValueError, match="vocab_size=100 is too small"):
        train_tokenizer(TEXTS, 100)


def test_a_reloaded_tokenizer_is_the_same(tmp_path):
    save_tokenizer(world_tokenizer(), tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert encode_event(again, *TEXTS[:2]) == encode_event(world_tokenizer(), *TEXTS[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(world_tokenizer(), path)
    before = path.read_bytes()

    def full(self, text, **_):
        with self.open("w") as file:
            file.write(text[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space"):
        save_tokenizer(train_tokenizer(TEXTS, 300), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_an_empty_query_is_refused_and_an_empty_answer_is_not():
    for query in ("", "  \n"):
        with pytest.raises(ValueError, match="the query is empty"):
            encode_query(world_tokenizer(), query)
    assert encode_event(world_tokenizer(), "Hello!", "")[-2:] == [A, EOS]


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer at .*nowhere.json"):
        load_tokenizer(tmp_path / "nowhere.json")


def damaged():
    whole = world_tokenizer().to_str()
    yield from (whole[:n] for n in (0, 1, 100, len(whole) // 2, len(whole) - 2))
    yield from ("null", "[]", "{}", '{"model": 3}', "not json")
    for path in ("model", "added_tokens", "pre_tokenizer"):
        yield json.dumps({**json.loads(whole), path: {"type": "nonsense"}})
    tokenizer = json.loads(whole)
    tokenizer["model"]["merges"][0] = ["no such", "token"]
    yield json.dumps(tokenizer)


@pytest.mark.parametrize("text", list(damaged()), ids=lambda text: repr(text[:12]) + f"...{len(text)}")
def test_a_damaged_file_is_one_value_error(text, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer.json"):
        load_tokenizer(path)


def test_bytes_that_are_no_text_are_one_value_error(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(ValueError, match="not a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_somebody_elses_specials_are_refused(tmp_path):
    text = world_tokenizer().to_str().replace("[Q]", "[I]")
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"\[Q\] at id None, expected 5"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_nothing_that_a_model_says_can_steer_a_terminal():
    tokenizer = world_tokenizer()
    ids = encode_event(tokenizer, "a", "red\x1b[31m\r\x07 hat")
    assert decode(tokenizer, ids[ids.index(A):]) == "red\ufffd[31m\ufffd\ufffd hat"

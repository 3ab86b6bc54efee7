"""Real stories: where they come from, and how one becomes a dialogue.

    load_stories(source)      list[str]        the hub's TinyStories, or a local .txt, .json, .jsonl or .parquet file
    load_dialogues(source)    list[Dialogue]   the ReactiveAI schema: query, answer, interactions, perhaps probes
    story_to_dialogue(story)  Dialogue         a story told chunk by chunk, with questions about earlier chunks

TinyStories (R. Eldan and Y. Li, arXiv 2305.07759) exists in several versions: some with mojibake, some with a block
of instructions before each story. The loader reads them all and returns clean text.
"""
import glob
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from rxt_lite.data.dialogues import Dialogue, Dice, Event, Probe, from_row
from rxt_lite.data.facts import Fact, facts_in, names_in, rename

HUB_STORIES = "roneneldan/TinyStories"
END_OF_STORY = "<|endoftext|>"
MOJIBAKE = (("â€œ", "“"), ("â€™", "’"), ("â€˜", "‘"), ("â€“", "–"), ("â€”", "—"), ("â€¦", "…"),
            ("â€\x9d", "”"), ("â€", "”"))                                # in this order: the last is a prefix of all
PLAIN = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "..."})
LOADERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


# ---------------------------------------------------------------------------------------------- stories
def load_stories(source: str | Path, *, limit: int | None = None) -> list[str]:
    """The stories of a local file, or of the hub; with `limit` only the first so many are read.

    source  "hub" (roneneldan/TinyStories), "hub:NAME" (another set with a column "text" or "story"), or a path:
            .txt with <|endoftext|> between stories, or .json, .jsonl, .parquet with a column "text" or "story"

    Raises FileNotFoundError for a missing file, ConnectionError when the hub is out of reach, and ValueError for a
    file that is empty or cannot be read; each says what to do.
    """
    if str(source).split(":")[0] == "hub":
        name = str(source)[4:] or HUB_STORIES
        texts = _texts(_hub_rows(name, None, "train", limit), name)
    else:
        path = _existing(source)
        texts = [_read_text(path)] if path.suffix == ".txt" else _texts(_file_rows(path), path)
    stories = list(islice(_stories_in(texts), limit))
    if not stories:
        raise ValueError(f"{source} holds no story")
    return stories


def story_split(story: str) -> str:
    """"train" or "valid" (one in twenty), decided by the words of the story alone, so it never changes."""
    words = " ".join(story.lower().split())
    return "valid" if int(hashlib.sha256(words.encode()).hexdigest(), 16) % 20 == 0 else "train"


def repair(text: str) -> str:
    """Undo the mojibake of TinyStories V1: UTF-8 quotes and dashes that were once read as cp1252."""
    for broken, right in MOJIBAKE:
        text = text.replace(broken, right)
    return text


def _stories_in(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for block in text.split(END_OF_STORY):
            if re.match(r"\s*(?:Features|Words|Summary|Random sentence|Story):", block):  # TinyStories-Instruct
                block = re.split(r"^\s*Story:", block, maxsplit=1, flags=re.MULTILINE)[-1]
            if story := repair(block).strip():
                yield story


def _texts(rows: Iterable[Mapping], source: str | Path) -> Iterator[str]:
    for i, row in enumerate(rows):
        column = next((name for name in ("text", "story") if name in row), None)
        if column is None:
            raise ValueError(f'{source} has no column "text" or "story", only {", ".join(map(repr, row))}')
        if not isinstance(row[column], str):
            raise ValueError(f"{source}: row {i} has no text in {column!r}, but {row[column]!r}")
        yield row[column]


# ---------------------------------------------------------------------------------------------- dialogues
def load_dialogues(source: str | Path) -> list[Dialogue]:
    """Dialogues in the ReactiveAI schema from the hub or from a local .parquet, .json or .jsonl file.

    source  "hub:ReactiveAI/TinyStories-MRL:steps-4", in full "hub:NAME:CONFIG:SPLIT" (split: train), or a path

    Columns: query, answer; perhaps interactions, a list of {query, answer}, or (older files) a dict of two lists; and
    perhaps our probes. A row without interactions is a dialogue of one event. Every row and every event is kept, and
    dialogues may differ in length. Raises like `load_stories`.
    """
    if str(source).startswith("hub:"):
        name, config, split = (*str(source)[4:].split(":"), None, None)[:3]
        rows = _hub_rows(name, config or None, split or "train", None)
    else:
        rows = _file_rows(_existing(source))
    dialogues = [_dialogue_in(row, f"{source}: row {i}") for i, row in enumerate(rows)]
    if not dialogues:
        raise ValueError(f"{source} holds no dialogue")
    return dialogues


def _dialogue_in(row: Mapping, where: str) -> Dialogue:
    rest = row.get("interactions") or []
    if isinstance(rest, Mapping):                                        # a Sequence of structs, stored by column
        if len({len(column) for column in rest.values()}) > 1:
            raise ValueError(f"{where} has unequal numbers of queries and answers in interactions")
        rest = [dict(zip(rest, pair)) for pair in zip(*rest.values())]
    if "query" not in row and rest:                                      # newer sets: the first event is in there too
        row, rest = {**row, **rest[0]}, rest[1:]
    for event in (row, *rest):
        for name in ("query", "answer"):
            if not isinstance(event, Mapping) or not isinstance(event.get(name), str):
                raise ValueError(f"{where} has an event without {name!r}; expected the columns query, answer and "
                                 f"interactions (a list of query, answer), got {', '.join(map(repr, row))}")
    try:
        return from_row({**row, "interactions": rest})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{where} has probes that do not fit the schema: {error}") from None


# ---------------------------------------------------------------------------------------------- files and the hub
def _existing(source: str | Path) -> Path:
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give a .txt, .json, .jsonl or .parquet file, or \"hub\"")
    if path.suffix not in (".txt", *LOADERS):
        raise ValueError(f"cannot read {path.name}: expected a .txt, .json, .jsonl or .parquet file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    return path


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None


def _file_rows(path: Path) -> Iterator[Mapping]:
    """The rows as `datasets` reads them, streamed, so that nothing is left in a cache."""
    from datasets import load_dataset

    if path.suffix not in LOADERS:
        raise ValueError(f"cannot read rows from {path.name}: expected a .json, .jsonl or .parquet file")
    kind, name = LOADERS[path.suffix], glob.escape(str(path))            # a name may hold [ or *
    try:
        with _quiet():
            yield from load_dataset(kind, data_files=name, split="train", streaming=True)
    except Exception as error:  # pyarrow, json, datasets: each has its own
        raise ValueError(f"{path} cannot be read as {kind}: {_first_line(error)}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """No log lines and tracebacks from `datasets` beside our own error."""
    logger = logging.getLogger("datasets")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _hub_rows(name: str, config: str | None, split: str, limit: int | None) -> Iterator[Mapping]:
    """The rows of a hub data set. The hub is asked first whether it is there: `datasets` alone would try for long."""
    from datasets import load_dataset
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    try:
        if not offline:
            HfApi().dataset_info(name, timeout=10)
        yield from load_dataset(name, config, split=split, streaming=limit is not None and not offline)
    except HfHubHTTPError as error:
        raise ValueError(f"the hub does not give us the data set {name}: {_first_line(error)}") from None
    except ValueError as error:                                          # an unknown config or split, with the choices
        raise ValueError(f"the data set {name} cannot be loaded: {error}") from None
    except Exception as error:
        raise ConnectionError(f"tried to load {name} from the Hugging Face hub and could not reach it "
                              f"({_first_line(error)}); pass a local file instead, or set HF_HUB_OFFLINE=1 if it was "
                              "downloaded before") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ---------------------------------------------------------------------------------------------- a story as a dialogue
def story_to_dialogue(story: str, *, chunks: int = 4, max_words: int = 80) -> Dialogue:
    """The story told in up to `chunks` answers, with questions about earlier ones in between.

        Tell me a story about a little girl.    Once upon a time, there was a little girl named Ada. ...
        What happened next?                     One day, ...                         probe of kind "next"
        What was the name of the girl?          The name of the girl was Ada.        probe of kind "recall"
        What happened next?                     ...

    The same story always gives the same dialogue. Characters get new names (see facts.py). A chunk longer than
    `max_words` is cut after its last sentence that fits. After each chunk but the first at most one question is asked,
    about a fact that stands in an earlier chunk and not in this one. Its answer can be checked by exact match;
    how a story goes on cannot, so compare losses there. `options` is 0: nobody can count the values of a free text.

    Raises ValueError for an empty story.
    """
    if chunks < 1 or max_words < 1:
        raise ValueError(f"chunks={chunks} and max_words={max_words} must be at least 1")
    text = rename(" ".join(story.translate(PLAIN).split()))
    if not text:
        raise ValueError("the story is empty")
    dice = Dice(text)
    parts = [_shorten(part, max_words) for part in _cut(sentences(text), chunks)]
    facts = _askable(parts)
    events, probes, told_at, asked = [], [], [], set()
    for chunk, part in enumerate(parts):
        if chunk:
            probes.append(Probe(turn=len(events), kind="next", attribute="story", entity=""))
        told_at.append(len(events))
        events.append(Event("What happened next?" if chunk else _opening(part), part))
        known = [fact for fact, where in facts.items()
                 if where[0] < chunk and chunk not in where and _topic(fact) not in asked]
        if known:
            fact = dice.pick(known)
            asked.add(_topic(fact))
            told = [told_at[where] for where in facts[fact] if where < chunk]
            probes.append(_probe(fact, events, told, stored=sum(where[0] <= chunk for where in facts.values())))
            events.append(Event(fact.question, fact.answer))
    return Dialogue(tuple(events), tuple(probes))


def sentences(text: str) -> list[str]:
    """Sentences of one-line text with plain quotes; what one speaker says in one breath stays together."""
    pieces = re.split(r"(?<=[.!?])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bMs\.) +(?=[\"'A-Z])"
                      r"|(?<=[.!?][\"']) +(?=[\"'A-Z])", text)
    whole = []
    for piece in pieces:
        if whole and whole[-1].count('"') % 2:                           # a quotation is still open
            whole[-1] += " " + piece
        else:
            whole.append(piece)
    return whole


def _cut(sentences: list[str], chunks: int) -> list[str]:
    """At most `chunks` parts of about equally many words, cut between sentences."""
    words, parts = sum(len(s.split()) for s in sentences), [[]]
    seen = 0
    for sentence in sentences:
        n = len(sentence.split())
        if parts[-1] and len(parts) < chunks and seen + n / 2 > words * len(parts) / chunks:
            parts.append([])
        parts[-1].append(sentence)
        seen += n
    return [" ".join(part) for part in parts]


def _shorten(part: str, max_words: int) -> str:
    kept = []
    for sentence in sentences(part):
        if len(" ".join([*kept, sentence]).split()) > max_words:
            break
        kept.append(sentence)
    return " ".join(kept) or " ".join(part.split()[:max_words])


def _opening(part: str) -> str:
    subject = re.search(r"\b(?:was|were|lived) ((?:an?|two|three|some) (?:[a-z]+,? ){0,3}?[a-z]+)"
                        r"(?=[.!?]|,? (?:named|called|who|that|and|in|on|with|at|of)\b)", part)
    about = subject[1] if subject else next(iter(names_in(part)), None)
    return f"Tell me a story about {about}." if about else "Tell me a story."


def _askable(parts: list[str]) -> dict[Fact, list[int]]:
    """Each fact and the parts that state it, in order; a question with two different answers is left out."""
    where: dict[Fact, list[int]] = {}
    for chunk, part in enumerate(parts):
        for fact in dict.fromkeys(facts_in(part)):
            where.setdefault(fact, []).append(chunk)
    answers: dict[str, set[str]] = {}
    for fact in where:
        answers.setdefault(fact.question, set()).add(fact.value)
    return {fact: chunks for fact, chunks in where.items() if len(answers[fact.question]) == 1}


def _topic(fact: Fact) -> tuple[str, str]:
    """Who somebody was and what somebody was called is one thing, to be asked once."""
    if fact.attribute in ("name", "who"):
        return "character", fact.value if fact.attribute == "name" else fact.entity
    return fact.attribute, fact.entity


def _probe(fact: Fact, events: list[Event], told: list[int], stored: int) -> Probe:
    turn = len(events)
    value = re.compile(rf"(?<!\w){re.escape(fact.value)}(?!\w)", re.IGNORECASE)
    seen = next(d for d in range(1, turn + 1) if value.search(f"{events[turn - d].query} {events[turn - d].answer}"))
    return Probe(turn=turn, kind="recall", attribute=fact.attribute, entity=fact.entity, value=fact.value,
                 distance=turn - told[-1], seen=seen, writes=len(told), stored=stored)

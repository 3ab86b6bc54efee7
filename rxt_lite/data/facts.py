"""What a story says that can be asked later: facts found by regular expressions, and characters given new names.

    "a little girl named Lily"   What was the name of the girl?   The name of the girl was Lily.
                                 Who was Lily?                    Lily was a little girl.
    "Lily loved to dance."       What did Lily love to do?        Lily loved to dance.
    "her big red ball."          What colour was the ball?        The ball was red.
    "Tom ran to the park."       Where did Tom go?                Tom went to the park.
    "Tom found a shiny key."     What did Tom find?               Tom found a shiny key.
    "Tom had a kite."            What did Tom have?               Tom had a kite.
    "Tom learned that sharing is fun."   What did Tom learn?      Tom learned that sharing is fun.

Only narration counts (what stands in quotes may be a wish or a lie), and a question with two different answers is
dropped. Four of ten TinyStories are about a Tim, a Lily or a Tom, so a model that has read nothing could guess;
new names, drawn from a hash of the story, take that away.
"""
import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

GIRLS = ("Ada", "Beth", "Cora", "Dina", "Edith", "Flora", "Gwen", "Heidi", "Ida", "Judy", "Karin", "Lena",
         "Mabel", "Nell", "Olga", "Paula", "Rita", "Selma", "Thea", "Ursula", "Vera", "Wanda", "Yara", "Zelda")
BOYS = ("Aron", "Boris", "Carl", "Dirk", "Edgar", "Felix", "Glenn", "Hugo", "Ivan", "Jonas", "Karl", "Lars",
        "Milo", "Niels", "Oscar", "Piet", "Ralf", "Simon", "Theo", "Ulf", "Victor", "Walter", "Yuri", "Zeno")
SHE = "girl|woman|lady|mom|mother|sister|queen|princess|hen|cow"
HE = "boy|man|dad|father|brother|king|prince|rooster|bull"
NO_NAMES = frozenset(  # capitals inside a sentence that are not a character, or a name that says something
    "I Mom Mommy Mama Mum Mummy Mother Dad Daddy Papa Father Grandma Grandpa Granny Grandmother Grandfather Aunt Uncle "
    "Mr Mrs Ms Miss Mister Dr Sir Lady King Queen Prince Princess God Santa Christmas Easter Halloween Birthday "
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August "
    "September October November December Spring Summer Autumn Fall Winter English Spanish French Earth Sun Moon Star "
    "America Africa Paris London Blue Red Green Yellow Pink Black White Brown Orange Purple Little Big Small Tiny "
    "The A An And But So Then They He She It We You His Her Their My Your Our This That There Once One Two In On At "
    "When What Why Who Where How Yes No Oh Please Thank Hello Hi Today Tomorrow Yesterday End Sale TV".split())


@dataclass(frozen=True)
class Fact:
    """One thing that a story says; `value` is what an answer has to hold."""

    attribute: str
    entity: str
    value: str
    question: str
    answer: str


# ------------------------------------------------------------------------------------------------- names
def rename(story: str) -> str:
    """The story with its characters renamed, every time they are mentioned, the same way every time it is read."""
    old = [name for name in names_in(story) if name not in NO_NAMES]
    taken = set(re.findall(r"[A-Z][a-z]+", story))
    draw = random.Random(hashlib.sha256(story.encode()).hexdigest()).random
    new = {}
    for name in old:
        pool = [n for n in (GIRLS if _is_she(name, story) else BOYS) if n not in taken]
        if pool:
            new[name] = pool[int(draw() * len(pool))]
            taken.add(new[name])
    return re.sub(r"\b[A-Z][a-z]+\b", lambda match: new.get(match[0], match[0]), story)


def names_in(story: str) -> list[str]:
    """Capitalised words inside sentences that are never written small: the characters, first mentioned first."""
    introduced = re.findall(r"\b(?:named|called|[Nn]ame was) ([A-Z][a-z]+)\b", story)
    inside = re.findall(r"(?<=[a-z,] )[A-Z][a-z]+\b", story)
    often = Counter(re.findall(r"\b[A-Z][a-z]+\b", story))
    small = set(re.findall(r"\b[a-z]+\b", story))
    names = {name: None for name in introduced + [word for word in inside if often[word] > 1]}
    return [name for name in names if name.lower() not in small]


def _is_she(name: str, story: str) -> bool:
    """As introduced ("a girl named ..."); else more "she" than "he" near the name: in its sentence and the next."""
    introduced = re.search(rf"\b(?:({SHE})|(?:{HE})),? (?:named|called) {name}\b", story)
    if introduced:
        return introduced[1] is not None
    balance = 0
    for near in re.findall(rf"\b{name}\b[^.!?]*[.!?]?[^.!?]*", story):
        balance += len(re.findall(rf"\b(?:she|her|{SHE})\b", near, re.IGNORECASE))
        balance -= len(re.findall(rf"\b(?:he|him|his|{HE})\b", near, re.IGNORECASE))
    return balance > 0


# ------------------------------------------------------------------------------------------------- facts
COLOURS = "red|blue|green|yellow|black|white|brown|pink|purple|orange|gray|grey|golden|silver"
SIZES = "big|small|little|tiny|huge|long|pretty|shiny|nice|new|old|bright"
DETERMINER = "[Aa]n?|[Tt]he|[Hh]is|[Hh]er|[Tt]heir|[Ii]ts"
NOUN = "[a-z]{3,}"
NAME = "[A-Z][a-z]+"
SOME = "((?:[a-z]+ ){0,2}?)"                                             # adjectives
# a noun ends its phrase only before one of these; "a red toy car" must not become "a red toy"
END = (r"(?=[.!?;]|$|,? (?:and|that|which|who|with|but|so|when|because|while|as|where)\b"
       r"| (?:in|on|from|to|was|is|had|at|by|under|near|for|into|inside|behind|beside|next|after|before|every|one)\b)")
START = re.compile(r"(?:^|[.!?,] |\b(?:and|but|so|then|when) )$", re.IGNORECASE)  # not "if Tom had", "wished Tom had"
VAGUE = frozenset(  # nouns that a question cannot point at, or whose answer says nothing
    "idea friend friends game place thing things something word name one time lot bit day dream plan fun smile "
    "problem thought feeling look chance nap way sky sun grass sea snow cloud side top end edge rest other part "
    "piece kind pair bunch group hard job good great party adventure question surprise secret moment turn try talk "
    "love".split())
VAGUE_PLACES = frozenset("other top end edge side bottom middle front back rest same next door ground sound".split())
POINTING = re.compile(r"\b(?:it|them|him|this|that|there|these|those|one|so|same)\b")
HANGING = re.compile(r"\b(?:in|on|at|to|of|for|with|from|about)$")


def facts_in(text: str) -> list[Fact]:
    """The facts that the narration of `text` states, in a fixed order; the same one may come twice."""
    narration = re.sub(r'"[^"]*"?', '"."', text)
    return [fact for find in (_named, _likes, _colours, _places, _finds, _has, _learns) for fact in find(narration)]


def _named(text: str) -> Iterator[Fact]:
    one_name = rf"({NAME})\b(?! [A-Z]| and [A-Z]|, [A-Z])"
    for determiner, adjectives, noun, name in re.findall(
            rf"\b({DETERMINER}) ((?:[a-z]+ ){{0,3}}?)({NOUN}),? (?:named|called) {one_name}", text):
        if not _is_noun(noun) or name in NO_NAMES:
            continue
        yield Fact("name", noun, name, f"What was the name of the {noun}?", f"The name of the {noun} was {name}.")
        if determiner.lower() in ("a", "an"):
            who = f"{adjectives}{noun}"
            yield Fact("who", name, who, f"Who was {name}?", f"{name} was {determiner.lower()} {who}.")


def _likes(text: str) -> Iterator[Fact]:
    for name, verb, what in _said_of_a_name(r"(lov|lik)ed to ([a-z ]+)(?=[.,!?])", text):
        what = re.split(r" (?:and|but|because|when|so|while|until)\b", what)[0]
        if len(what.split()) <= 6 and not POINTING.search(what) and not HANGING.search(what):
            yield Fact("likes", name, what, f"What did {name} {verb}e to do?", f"{name} {verb}ed to {what}.")


def _colours(text: str) -> Iterator[Fact]:
    for colour, noun in re.findall(rf"\b(?:{DETERMINER}) (?:(?:{SIZES}),? )*({COLOURS}) ({NOUN}){END}", text):
        if _is_noun(noun) and not re.search(r"[^s]s$", noun):
            yield Fact("colour", noun, colour, f"What colour was the {noun}?", f"The {noun} was {colour}.")


def _places(text: str) -> Iterator[Fact]:
    for name, place in _said_of_a_name(rf"(?:went|ran|walked) (?:back )?to the ({NOUN}){END}", text):
        if place not in VAGUE_PLACES:
            yield Fact("place", name, place, f"Where did {name} go?", f"{name} went to the {place}.")


def _finds(text: str) -> Iterator[Fact]:
    for name, article, adjectives, noun in _said_of_a_name(rf"found (an?) {SOME}({NOUN}){END}", text):
        if _is_noun(noun):
            yield Fact("found", name, noun, f"What did {name} find?", f"{name} found {article} {adjectives}{noun}.")


def _has(text: str) -> Iterator[Fact]:
    for name, article, adjectives, noun in _said_of_a_name(rf"had (an?) {SOME}({NOUN}){END}", text):
        if _is_noun(noun):
            yield Fact("had", name, noun, f"What did {name} have?", f"{name} had {article} {adjectives}{noun}.")


def _learns(text: str) -> Iterator[Fact]:
    for name, what in _said_of_a_name(r"learned that ([a-z][^.!?;]*)(?=[.!?])", text):
        if len(what.split()) <= 14:
            yield Fact("lesson", name, what, f"What did {name} learn?", f"{name} learned that {what}.")


def _said_of_a_name(pattern: str, text: str) -> Iterator[tuple[str, ...]]:
    """The name and the groups of each "Name pattern" that starts a clause."""
    for match in re.finditer(rf"\b({NAME}) {pattern}", text):
        if match[1] not in NO_NAMES and START.search(text[max(0, match.start() - 5):match.start()]):
            yield match.groups()


def _is_noun(word: str) -> bool:
    return word not in VAGUE and not word.endswith(("ing", "ly"))

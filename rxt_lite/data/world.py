"""The language of the embedded small world: its words and its sentences, and nothing else.

    a fact       (attribute, entity, value)      colour, hat, red
    told as      "The hat is red."
    changed as   "Now the hat is red."
    asked as     "What colour is the hat?"
    answered as  "The hat is red."

Every attribute belongs to one kind of entity and has its own list of values. No word is a value of two
attributes, and no sentence of the chatter holds a value, so that finding the value of an attribute in an
answer is never a matter of opinion.
"""
import re
from dataclasses import dataclass
from functools import cache

PEOPLE = ("Tim", "Lily", "Ben", "Anna", "Sam", "Mia", "Tom", "Lucy", "Max", "Sue", "Jack", "Emma",
          "Leo", "Nora", "Paul", "Rosa", "Fred", "Ella", "Hugo", "Ivy", "Carl", "Zoe", "Otto", "Jane")
OBJECTS = ("ball", "hat", "book", "kite", "drum", "cup", "lamp", "doll", "coat", "key", "bag", "clock", "rope",
           "spoon", "bell")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "pink")
PLACES = ("garden", "kitchen", "attic", "barn", "hall", "shed", "cellar", "tower", "garage", "forest", "cave", "park")
FOODS = ("apples", "pears", "plums", "grapes", "carrots", "beans", "nuts", "noodles", "pancakes", "cookies",
         "cheese", "soup")
PETS = ("cat", "dog", "rabbit", "parrot", "turtle", "hamster", "pony", "fish")
PET_NAMES = ("Pip", "Coco", "Rex", "Momo", "Spot", "Luna", "Bella", "Dot", "Ziggy", "Nemo", "Toto", "Fluffy")


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """What can be said about one kind of entity: three ways to tell, change and ask, one to answer.

    `ask_otherwise` is a fourth way to ask, in words that occur elsewhere, which no split but test_paraphrase uses.
    `ask_by_thing` asks about a person who is named only by the thing `{e}` that they hold: test_two_hop alone.
    In every other sentence `{e}` stands for the entity and `{v}` for the value.
    """

    entities: tuple[str, ...]
    values: tuple[str, ...]
    tell: tuple[str, str, str]
    change: tuple[str, str, str]
    ask: tuple[str, str, str]
    ask_otherwise: str
    answer: str
    ask_by_thing: str = ""


ATTRIBUTES = {
    "colour": Attribute(
        entities=OBJECTS, values=COLOURS,
        tell=("The {e} is {v}.", "I painted the {e} {v}.", "The colour of the {e} is {v}."),
        change=("Now the {e} is {v}.", "The {e} is {v} now.", "The colour of the {e} is now {v}."),
        ask=("What colour is the {e}?", "Which colour does the {e} have?", "Do you know the colour of the {e}?"),
        ask_otherwise="What is the colour of the {e}?",
        answer="The {e} is {v}."),
    "place": Attribute(
        entities=OBJECTS, values=PLACES,
        tell=("The {e} is in the {v}.", "I left the {e} in the {v}.", "You can find the {e} in the {v}."),
        change=("Now the {e} is in the {v}.", "The {e} is in the {v} now.", "I moved the {e} to the {v}."),
        ask=("Where is the {e}?", "Where can I find the {e}?", "Do you know where the {e} is?"),
        ask_otherwise="Where can you find the {e}?",
        answer="The {e} is in the {v}."),
    "holder": Attribute(
        entities=OBJECTS, values=PEOPLE,
        tell=("{v} has the {e}.", "I gave the {e} to {v}.", "{v} took the {e}."),
        change=("Now {v} has the {e}.", "{v} has the {e} now.", "Then {v} took the {e}."),
        ask=("Who has the {e}?", "Which child has the {e}?", "Do you know who has the {e}?"),
        ask_otherwise="What child has the {e}?",
        answer="{v} has the {e}."),
    "food": Attribute(
        entities=PEOPLE, values=FOODS,
        tell=("{e} likes {v}.", "{e} loves to eat {v}.", "The best food for {e} is {v}."),
        change=("Now {e} likes {v}.", "{e} likes {v} now.", "These days {e} likes {v}."),
        ask=("What food does {e} like?", "What does {e} like to eat?", "Do you know what {e} likes to eat?"),
        ask_otherwise="Which food does {e} like?",
        answer="{e} likes {v}.",
        ask_by_thing="What food does the child who has the {e} like?"),
    "pet": Attribute(
        entities=PEOPLE, values=PETS,
        tell=("{e} has a {v}.", "{e} keeps a {v}.", "{e}'s pet is a {v}."),
        change=("Now {e} has a {v}.", "{e} has a {v} now.", "These days {e} has a {v}."),
        ask=("What pet does {e} have?", "Which animal does {e} keep?", "Do you know what pet {e} has?"),
        ask_otherwise="Do you know what animal {e} has?",
        answer="{e} has a {v}.",
        ask_by_thing="What pet does the child who has the {e} have?"),
    "pet name": Attribute(
        entities=PEOPLE, values=PET_NAMES,
        tell=("{e}'s pet is called {v}.", "{e} calls the pet {v}.", "The name of {e}'s pet is {v}."),
        change=("Now {e}'s pet is called {v}.", "{e}'s pet is called {v} now.", "These days {e} calls the pet {v}."),
        ask=("What is {e}'s pet called?", "What is the name of {e}'s pet?", "Do you know the name of {e}'s pet?"),
        ask_otherwise="What name does {e}'s pet have?",
        answer="{e}'s pet is called {v}.",
        ask_by_thing="What is the name of the pet of the child who has the {e}?"),
}

REFUSAL = "I do not know."
ACKNOWLEDGEMENTS = ("I see.", "Thank you.", "Good to know.")
CHATTER = (                                                              # six for each level of `templates`
    ("Hello!", "Hello, how are you?"),
    ("How are you today?", "I am well, thank you."),
    ("It is a sunny day.", "Yes, it is warm."),
    ("I am tired.", "Then have a rest."),
    ("Let us play!", "That sounds like fun."),
    ("Can you sing?", "Yes, a little."),
    ("Good morning!", "Good morning to you."),
    ("It is raining again.", "Then we stay at home."),
    ("I heard a funny joke.", "Please tell me."),
    ("The stars are bright tonight.", "They are very pretty."),
    ("I want to go for a walk.", "That is a good idea."),
    ("Do you like music?", "Yes, very much."),
    ("The wind is strong today.", "Hold on tight!"),
    ("I was at school today.", "Did you have fun?"),
    ("My mother tells good stories.", "I like stories."),
    ("We won the game!", "Well done!"),
    ("I am a bit sad.", "I hope you feel better soon."),
    ("Thank you for your help.", "You are welcome."),
)
LEVELS = 3                                                               # ways to say each thing


def sentences() -> list[str]:
    """Every sentence frame of the world, filled so that every entity and every value stands in some of them."""
    texts = [REFUSAL, *ACKNOWLEDGEMENTS, *(text for pair in CHATTER for text in pair)]
    for attribute in ATTRIBUTES.values():
        for frame in (*attribute.tell, *attribute.change, *attribute.ask, attribute.answer):
            for i in range(max(len(attribute.entities), len(attribute.values))):
                entity = attribute.entities[i % len(attribute.entities)]
                texts.append(frame.format(e=entity, v=attribute.values[i % len(attribute.values)]))
    return texts


def facts_told(text: str) -> list[tuple[str, str, str]]:
    """The facts (attribute, entity, value) that the sentences of `text` tell or change; a question tells none.

    >>> facts_told("The hat is red. Now Ben has a pony.")
    [('colour', 'hat', 'red'), ('pet', 'Ben', 'pony')]
    """
    found = {}  # "Now Ben has a pony." holds "Ben has a pony." too: the same fact, once
    for name, pattern in _told():
        for match in pattern.finditer(text):
            found[name, match["e"], match["v"]] = match.start()
    return sorted(found, key=found.get)


@cache
def _told() -> list[tuple[str, re.Pattern]]:
    patterns = []
    for name, attribute in ATTRIBUTES.items():
        entity, value = f"(?P<e>{'|'.join(attribute.entities)})", f"(?P<v>{'|'.join(attribute.values)})"
        for frame in (*attribute.tell, *attribute.change):
            sentence = re.escape(frame).replace(r"\{e\}", entity).replace(r"\{v\}", value)
            patterns.append((name, re.compile(rf"\b{sentence}")))
    return patterns

"""Conversations of the closed world, drawn from a seed.

One function per kind of conversation. Each is given a Draw, which knows whether it draws for training or for evaluation:
phrasings marked with a star, the HELD_OUT_* tables and one in twenty pairs of numbers are seen by the evaluation only.
A conversation is {"group", "messages", "tools", "expect"}; the last message is the assistant's, and `expect` says how a
machine recognizes a right answer in its place.
"""
import json
import random
import re
import zlib

import rendering
import world as w


ONSETS = "b br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sc sh sk sl sm sn sp st str t th tr v w wh y z".split() + [""]
VOWELS = "a a e e i i o o u u ai ea ee oa oo ou".split()
CODAS = "b ck d ft g l ll m mp n nd ng nk nt p r rd rk rm rn rt s sh sk ss st t tt th x".split() + [""] * 12
SUFFIXES = "er or en le y on et ow ing el a um".split() + [""] * 12


WORDS = sorted(set(re.findall("[a-z]{3,}", " ".join([" ".join(map(" ".join, w.COUNTRIES)), " ".join(w.PLURALS.values()), " ".join(map(" ".join, w.OPPOSITES)),
                                                      " ".join(w.DEFINITIONS.values()), " ".join(w.ME.values()), " ".join(w.NAMES + w.HEROES + w.OBJECTS),
                                                      " ".join(w.CITIES_EXTRA + w.MONTHS + w.DAYS + w.ORDINALS)]).lower())))


def pieces():
    """Words and parts of words that are one token; none before there is a tokenizer."""
    file = rendering.WORK / "tokenizer.json"
    vocabulary = json.loads(file.read_text())["model"]["vocab"] if file.exists() else {}
    return [t for t in (token.removeprefix("Ġ") for token in sorted(vocabulary, key=vocabulary.get)) if re.fullmatch("[a-z]{2,7}", t)]


PIECES = pieces()


class Draw(random.Random):
    def __init__(self, seed, held_out=False):
        super().__init__(seed)
        self.held_out = held_out

    def phrase(self, lines, **slots):
        """One of the phrasings of this side, with its slots filled."""
        return self.choice(split_phrases(lines)[self.held_out]).format(**slots)

    def entity(self, train, held_out, made_up=0.0):
        if not self.held_out and self.random() < made_up:
            return self.made_up()
        return self.choice(held_out if self.held_out else train)

    def pair(self, low, high):
        """Two numbers; which pairs are held out, in either order, is fixed for all time by a checksum."""
        while True:
            a, b = self.randint(low, high), self.randint(low, high)
            if (zlib.crc32(b"%d,%d" % (min(a, b), max(a, b))) % 20 == 0) == self.held_out:
                return a, b

    def syllable_name(self):
        syllables = "ba be bo da de di do fa fi ga go ka ke ki ko la le li lo lu ma me mi mo na ne ni no ra re ri ro sa se so ta te ti to va vi za zo"
        endings = ["", "", "n", "r", "s", "l", "m", "th"]
        return "".join(self.choice(syllables.split()) for _ in range(self.randint(2, 3))).capitalize() + self.choice(endings)

    def made_up(self):
        """A word that nobody has seen, so that copying is learned and not a list."""
        while True:
            kind = self.random()
            if kind < 0.4 and PIECES:  # so that every token is copied now and then
                word = "".join(self.choice(PIECES) for _ in range(self.choice([2, 2, 3])))
            elif kind < 0.7:
                head, tail = self.choice(WORDS), self.choice(WORDS)
                word = head[:self.randint(1, len(head))] + tail[self.randint(0, len(tail) - 1):]
            else:
                word = "".join(self.choice(ONSETS) + self.choice(VOWELS) + self.choice(CODAS) for _ in range(self.choice([1, 1, 2])))
                word += self.choice(SUFFIXES)
            if 3 <= len(word) <= 10 and word not in w.HELD_OUT_OBJECTS + w.HELD_OUT_HEROES:
                return word

    def name(self):
        return self.syllable_name() if self.held_out or self.random() < 0.5 else self.made_up().capitalize()

    def person(self):
        if self.random() < 0.4:
            return self.name()
        return self.entity(w.NAMES, w.HELD_OUT_NAMES)

    def city(self):
        if self.random() < 0.25:
            return self.name()
        if self.held_out:
            return self.choice(w.HELD_OUT_CITIES)
        return self.choice(w.CITIES_EXTRA) if self.random() < 0.4 else self.choice(w.COUNTRIES)[1]


_split_cache = {}


def split_phrases(lines):
    if lines not in _split_cache:
        rows = [r.strip() for r in lines.strip().splitlines() if r.strip()]
        _split_cache[lines] = ([r for r in rows if not r.startswith("*")], [r[1:] for r in rows if r.startswith("*")])
    return _split_cache[lines]


# ---- questions with one short answer: (question, short answer, sentence, subject) ----

def capital(d):
    country, city, _, _ = d.choice(w.COUNTRIES)
    q = d.phrase("""What is the capital of {c}?
        What's the capital of {c}?
        Which city is the capital of {c}?
        Name the capital of {c}.
        Can you say what the capital of {c} is?
        Please tell me what the capital of {c} is.
        I want to know what the capital of {c} is.
        Please say which city is the capital of {c}.
        What is {c}'s capital called?
        Tell me the capital of {c}.
        Capital of {c}?
        Do you know the capital of {c}?
        I would like to know the capital of {c}.
        What city is {c}'s capital?
        {c}: what is its capital?
        Can you name the capital city of {c}?
        What is the capital city of {c}?
        *Could you tell me what the capital of {c} is?
        *Which capital does {c} have?
        *Please name the capital city of {c}.""", c=country)
    return q, city, f"The capital of {country} is {city}.", country


def capital_back(d):
    country, city, _, _ = d.choice([c for c in w.COUNTRIES if c[0] != c[1]])
    q = d.phrase("""Which country has the capital {c}?
        {c} is the capital of which country?
        What country is {c} the capital of?
        Of which country is {c} the capital?
        Name the country whose capital is {c}.
        *{c} is the capital of what country?
        *Which country's capital is {c}?""", c=city)
    return q, country, f"{city} is the capital of {country}.", city


def continent(d):
    country, _, where, _ = d.choice(w.COUNTRIES)
    q = d.phrase("""On which continent is {c}?
        Which continent is {c} in?
        What continent does {c} belong to?
        Where in the world is {c}?
        On what continent does {c} lie?
        Tell me the continent of {c}.
        Name the continent of {c}.
        Continent of {c}?
        *What continent is {c} on?
        *To which continent does {c} belong?
        *Do you know which continent {c} is in?""", c=country)
    return q, where, f"{country} is in {where}.", country


def language(d):
    country, _, _, tongue = d.choice(w.COUNTRIES)
    q = d.phrase("""Which language is spoken in {c}?
        What language do people speak in {c}?
        What is the main language of {c}?
        What language is spoken in {c}?
        Name the language of {c}.
        Tell me the main language of {c}.
        Language of {c}?
        What do people speak in {c}?
        *Which language do people in {c} speak?
        *What is the language of {c}?
        *Do you know what language is spoken in {c}?""", c=country)
    return q, tongue, f"The main language of {country} is {tongue}.", country


def total(d):
    a, b = d.pair(0, 99)
    q = d.phrase("""What is {a} plus {b}?
        What is {a} + {b}?
        {a} + {b}
        {a} + {b} = ?
        {a}+{b}
        Add {a} and {b}.
        Can you add {a} and {b}?
        Now add {a} and {b}.
        Give me the sum of {a} and {b}.
        What do {a} and {b} make together?
        Please compute {a} + {b}.
        What do you get if you add {a} and {b}?
        Please say what {a} + {b} is.
        How much is {a} plus {b}?
        Compute {a} + {b}.
        Calculate {a} plus {b}.
        What is the sum of {a} and {b}?
        How much is {a} + {b}?
        *Please add {a} and {b}.
        *Tell me the sum of {a} and {b}.
        *What do you get for {a} + {b}?""", a=a, b=b)
    return q, str(a + b), f"{a} + {b} = {a + b}.", f"{a} + {b}"


def difference(d):
    a, b = d.pair(0, 99)
    a, b = max(a, b), min(a, b)
    q = d.phrase("""What is {a} minus {b}?
        What is {a} - {b}?
        {a} - {b}
        {a} - {b} = ?
        {a}-{b}
        Subtract {b} from {a}.
        Can you subtract {b} from {a}?
        What is left if you take {b} from {a}?
        Now subtract {b} from {a}.
        Please compute {a} - {b}.
        What do you get if you subtract {b} from {a}?
        How much is {a} minus {b}?
        Compute {a} - {b}.
        Calculate {a} minus {b}.
        Take {b} away from {a}.
        *Please subtract {b} from {a}.
        *What do you get for {a} - {b}?
        *How much is {a} - {b}?""", a=a, b=b)
    return q, str(a - b), f"{a} - {b} = {a - b}.", f"{a} - {b}"


def product(d):
    a, b = d.randint(0, 9), d.randint(0, 9)
    q = d.phrase("""What is {a} times {b}?
        What is {a} * {b}?
        {a} * {b}
        {a} x {b} = ?
        Multiply {a} by {b}.
        Can you multiply {a} by {b}?
        Now multiply {a} by {b}.
        Give me the product of {a} and {b}.
        Please compute {a} * {b}.
        How much is {a} times {b}?
        Compute {a} * {b}.
        Calculate {a} times {b}.
        What is the product of {a} and {b}?
        *Please multiply {a} by {b}.
        *Tell me the product of {a} and {b}.
        *How much is {a} * {b}?""", a=a, b=b)
    return q, str(a * b), f"{a} * {b} = {a * b}.", f"{a} * {b}"


def colour(d):
    if d.random() < 0.25:
        (x, y), mixed = d.choice(list(w.MIXES.items()))
        if d.random() < 0.5:
            x, y = y, x
        q = d.phrase("""Which colour do you get from {x} and {y}?
            What do {x} and {y} make when mixed?
            If you mix {x} and {y}, what do you get?
            What colour is made from {x} and {y}?
            {x} and {y} together make what?
            Mix {x} and {y}. Which colour is it?
            What colour is {x} mixed with {y}?
            *What colour do {x} and {y} make?
            *If I mix {x} and {y}, which colour do I get?""", x=x, y=y)
        return q, mixed, f"{x.capitalize()} and {y} make {mixed}.", f"{x} and {y}"
    thing, shade = d.choice(list(w.THING_COLOURS.items()))
    article = "the " if thing in ("sky", "grass", "sun", "night", "ocean") else ""
    subject = article + thing if article else ("an " if thing[0] in "aeiou" else "a ") + thing
    subject = thing if thing in ("snow", "coal", "blood", "milk", "chocolate", "salt", "gold", "lavender") else subject
    q = d.phrase("""What colour is {s}?
        What color is {s}?
        Which colour is {s}?
        Which colour does {s} have?
        Tell me the colour of {s}.
        Name the colour of {s}.
        *What is the colour of {s}?
        *Do you know what colour {s} is?
        *Which color is {s}?""", s=subject)
    return q, shade, f"{subject.capitalize()} is {shade}.", thing


def opposite(d):
    a, b = d.choice(w.OPPOSITES)
    if d.random() < 0.5:
        a, b = b, a
    q = d.phrase("""What is the opposite of {a}?
        What's the opposite of {a}?
        Opposite of {a}?
        Name the opposite of {a}.
        Tell me the opposite of {a}.
        Which word is the opposite of {a}?
        What is the opposite of the word {a}?
        *Give me the opposite of {a}.
        *Which word means the opposite of {a}?
        *Do you know the opposite of {a}?""", a=a)
    return q, b, f"The opposite of {a} is {b}.", a


def plural(d):
    one, many = d.choice(list(w.PLURALS.items()))
    q = d.phrase("""What is the plural of {a}?
        What's the plural of {a}?
        Plural of {a}?
        Name the plural of {a}.
        Tell me the plural of {a}.
        What is the plural form of {a}?
        One {a}, two ...?
        How do you write the plural of {a}?
        *Give me the plural of {a}.
        *Which word is the plural of {a}?
        *Do you know the plural of {a}?""", a=one)
    return q, many, f"The plural of {one} is {many}.", one


def alphabet(d):
    kind = d.randrange(3)
    if kind == 0:
        i = d.randrange(25)
        q = d.phrase("""Which letter comes after {a}?
            What letter comes after {a}?
            What is the letter after {a}?
            Which letter follows {a} in the alphabet?
            *What letter follows {a}?
            *Tell me the letter after {a}.""", a=w.LETTERS[i])
        return q, w.LETTERS[i + 1], f"The letter after {w.LETTERS[i]} is {w.LETTERS[i + 1]}.", w.LETTERS[i]
    if kind == 1:
        i = d.randrange(1, 26)
        q = d.phrase("""Which letter comes before {a}?
            What letter comes before {a}?
            What is the letter before {a}?
            Which letter is before {a} in the alphabet?
            *Tell me the letter before {a}.
            *Do you know which letter comes before {a}?""", a=w.LETTERS[i])
        return q, w.LETTERS[i - 1], f"The letter before {w.LETTERS[i]} is {w.LETTERS[i - 1]}.", w.LETTERS[i]
    i = d.randrange(20)
    q = d.phrase("""What is the {n} letter of the alphabet?
        Which is the {n} letter of the alphabet?
        What's the {n} letter in the alphabet?
        Name the {n} letter of the alphabet.
        *Tell me the {n} letter of the alphabet.
        *Which letter is the {n} in the alphabet?""", n=w.ORDINALS[i])
    return q, w.LETTERS[i], f"The {w.ORDINALS[i]} letter of the alphabet is {w.LETTERS[i]}.", w.ORDINALS[i]


def calendar(d):
    kind = d.randrange(5)
    names, what = (w.DAYS, "day") if kind in (0, 1) else (w.MONTHS, "month")
    i = d.randrange(len(names))
    if kind in (0, 2):
        nxt = names[(i + 1) % len(names)]
        q = d.phrase("""Which {w} comes after {a}?
            What {w} comes after {a}?
            What is the {w} after {a}?
            Which {w} follows {a}?
            *Tell me the {w} after {a}.
            *What {w} follows {a}?""", w=what, a=names[i])
        return q, nxt, f"The {what} after {names[i]} is {nxt}.", names[i]
    if kind in (1, 3):
        before = names[i - 1]
        q = d.phrase("""Which {w} comes before {a}?
            What {w} comes before {a}?
            What is the {w} before {a}?
            *Tell me the {w} before {a}.
            *Which {w} is before {a}?""", w=what, a=names[i])
        return q, before, f"The {what} before {names[i]} is {before}.", names[i]
    if d.random() < 0.5:
        days = w.MONTH_DAYS[names[i]]
        q = d.phrase("""How many days does {a} have?
            How many days are in {a}?
            How many days has {a}?
            *Tell me how many days {a} has.
            *How many days are there in {a}?""", a=names[i])
        return q, str(days), f"{names[i]} has {days} days.", names[i]
    q = d.phrase("""What is the {n} month of the year?
        Which is the {n} month of the year?
        Name the {n} month.
        *Tell me the {n} month of the year.
        *Which month is the {n} of the year?""", n=w.ORDINALS[i])
    return q, names[i], f"The {w.ORDINALS[i]} month of the year is {names[i]}.", w.ORDINALS[i]


def unit(d):
    small, smalls, big, bigs, factor = d.choice(w.UNITS)
    k = d.randint(1, 9)
    many = f"{k} {bigs}" if k > 1 else ("an " if big == "hour" else "a ") + big
    amount = k * int(factor)
    q = d.phrase("""How many {s} are in {m}?
        How many {s} are there in {m}?
        How many {s} is {m}?
        How many {s} make {m}?
        How many {s} does {m} have?
        Convert {m} to {s}.
        *Please convert {m} to {s}.
        *Tell me how many {s} are in {m}.""", s=smalls, m=many)
    return q, str(amount), f"{many.capitalize() if k == 1 else many} {'is' if k == 1 else 'are'} {amount} {smalls}.", many


QUESTIONS = {"arithmetic": (total, total, difference, difference, product), "countries": (capital, capital, capital_back, continent, language),
             "colours": (colour,), "opposites": (opposite,), "plurals": (plural,), "alphabet": (alphabet,), "calendar": (calendar,),
             "units": (unit,)}


def say(user, answer):
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def question(d, group=None):
    group = group or d.choice(list(QUESTIONS))
    return group, d.choice(QUESTIONS[group])(d)


PREFIXES = ["Please tell me: ", "Can you tell me: ", "I have a question. ", "Could you help me? ", "Could you answer this: ", "May I ask: ", "Please answer: ", "Hi! ", "Hello, ", "Hey, ", "Quick question: ", "One more: ", "Next question: ", "Okay, "]


def loosen(d, text):
    """The same question as a person in a hurry types it."""
    if d.held_out or d.random() < 0.6:
        return text
    kind = d.randrange(4)
    if kind == 0:
        return d.choice(PREFIXES) + text
    if kind == 1 and text.endswith(("?", ".")):
        return text[:-1]
    if kind == 2:
        return text[0].lower() + text[1:]
    return text.lower() if d.random() < 0.3 else text + " "


def plain(group):
    def make(d):
        _, (q, short, sentence, _) = question(d, group)
        return conversation(group, with_system(d, say(loosen(d, q), sentence)), {"contains": [short]})
    return make


def conversation(group, messages, expect, tools=None):
    return {"group": group, "messages": messages, "tools": tools, "expect": expect}


# ---- conversation ----

def identity(d):
    key, lines = d.choice([
        ("name", """Who are you?
            What are you?
            What is your name?
            Introduce yourself.
            Who is there?
            Who is speaking?
            Please tell me who you are.
            Which model is it?
            What kind of model are you?
            Say who you are.
            May I know your name?
            Who am I speaking with?
            Tell me about yourself.
            Who am I talking to?
            What should I call you?
            What model are you?
            *Who is this?
            *Please introduce yourself.
            *Which model are you?"""),
        ("penstock", """What is Penstock?
            Tell me about Penstock.
            What does Penstock do?
            What can Penstock do?
            Please explain Penstock.
            Can you tell me about Penstock?
            Give me a description of Penstock.
            Say what Penstock is.
            Explain Penstock.
            What is the Penstock daemon?
            *Can you explain what Penstock is?
            *Describe Penstock."""),
        ("maker", """Who made you?
            Who created you?
            Who wrote you?
            Who is your maker?
            Who are your makers?
            By whom were you trained?
            Who develops you?
            Who was it that built you?
            Who built you?
            Who trained you?
            Where do you come from?
            *Who developed you?
            *By whom were you made?"""),
        ("can", """What can you do?
            What do you know?
            How can you help me?
            What are you good at?
            What can you do for me?
            What are you capable of?
            What are your skills?
            Tell me what you can do.
            What things can you do?
            Are you able to help me?
            Help.
            *What are you able to do?
            *What can you help me with?"""),
        ("size", """How big are you?
            How many parameters do you have?
            How large is this model?
            Are you big?
            Are you a small model?
            How small are you?
            Is this a large model?
            Are you very large?
            Tell me how big you are.
            *How many parameters has this model?
            *Are you a large model?"""),
        ("language", """In which language is Penstock written?
            What language is Penstock written in?
            What is Penstock programmed in?
            *Which programming language is Penstock written in?"""),
        ("where", """Where do you run?
            Where are you running?
            Are you in the cloud?
            *On which machine do you run?"""),
        ("human", """Are you a human?
            Are you a person?
            Are you human?
            Are you alive?
            *Are you a real person?"""),
    ])
    words = {"name": "embedded model", "penstock": "daemon", "maker": "developers", "can": "tools", "size": "million",
             "language": "C", "where": "Penstock", "human": "No"}
    return conversation("identity", say(loosen(d, d.phrase(lines)), w.ME[key]), {"contains": [words[key]]})


def small_talk(d):
    lines, answer, word = d.choice([
        ("""Hello
            Hello!
            Hi
            Hi!
            Hi there
            Hey
            Hey!
            Good day
            Greetings
            Hello there!
            *Hi there!
            *Hey there""", "Hello! How can I help you?", "help"),
        ("""Good morning
            Good morning!
            *Good morning to you!""", "Good morning! How can I help you?", "Good morning"),
        ("""Good evening
            Good evening!
            *Good evening to you!""", "Good evening! How can I help you?", "Good evening"),
        ("""How are you?
            How are you doing?
            How are you now?
            How are things?
            How do you feel?
            How are you this morning?
            How is everything going?
            How is your day?
            How do you feel today?
            How is it today?
            How do you do?
            How is it going?
            *How are you today?
            *How is it going today?""", "I am well, thank you. How can I help you?", "well"),
        ("""Thank you
            Thanks
            Thanks!
            Thank you!
            Thank you very much
            Thanks so much
            Thank you so much!
            Great, thanks!
            Thanks again
            I thank you
            My thanks to you
            Thanks for that
            So many thanks to you
            *Many thanks!
            *Thanks a lot""", "You are welcome!", "welcome"),
        ("""Bye
            Goodbye
            Goodbye!
            See you later
            See you soon
            See you tomorrow!
            Bye for now
            Good bye
            Until next time
            See you then
            I must go now, bye
            Bye bye
            *See you!
            *Bye now""", "Goodbye!", "Goodbye"),
        ("""Tell me a joke
            Tell me a joke.
            Do you know a joke?
            Make me laugh.
            I want a joke.
            Please make me laugh.
            A joke, please.
            Any jokes?
            *Can you tell me a joke?
            *Please tell me a joke.""", "Why did the token cross the batch? To get to the other slide.", "token"),
        ("""You are great
            Well done!
            Good job
            Good answer
            That was great
            Good work
            That is good
            Great answer
            Nice
            You did well
            That was nice
            Great work!
            Very good
            *Great job!
            *That was good""", "Thank you, that is kind of you.", "kind"),
        ("""Sorry
            I am sorry
            *Sorry about that""", "No problem at all.", "problem"),
    ])
    return conversation("small talk", say(d.phrase(lines), answer), {"contains": [word]})


def definition(d):
    term = d.choice(list(w.DEFINITIONS))
    article = ("an " if term[0] in "aeiou" else "a ")
    if term in ("prefill", "decode", "attention", "logits", "sampling", "temperature", "latency", "throughput", "preemption",
                "chunked prefill", "streaming"):
        article = ""
    if term in ("KV cache", "context"):
        article = "the "
    verb = "are" if term == "logits" else "is"
    q = d.phrase("""What {v} {a}{t}?
        Define {t}.
        Please define {t}.
        What is the definition of {t}?
        Give the meaning of {t}.
        How would you define {t}?
        I need a definition of {t}.
        Can you explain {t}?
        What do people mean by {t}?
        What is {t}, in one sentence?
        Explain what {t} means.
        Give a short definition of {t}.
        Define {a}{t}.
        Explain {t}.
        Explain {a}{t} in one sentence.
        What does {t} mean?
        What do you mean by {t}?
        Tell me what {a}{t} {v}.
        What does the word {t} mean?
        *Give me a definition of {t}.
        *What is meant by {t}?
        *Explain what {a}{t} {v}.""", v=verb, a=article, t=term)
    key = " ".join(w.DEFINITIONS[term].split()[3:7]).rstrip(",;.")
    return conversation("definitions", say(loosen(d, q), w.DEFINITIONS[term]), {"contains": [key]})


def counting(d):
    a = d.randint(0, 30)
    b = a + d.randint(2, 10)
    if d.random() < 0.7:
        q = d.phrase("""Count from {a} to {b}.
            Please count from {a} to {b}.
            Can you count from {a} to {b}?
            Count up from {a} to {b}.
            List the numbers from {a} to {b}.
            *Could you count from {a} to {b}?
            *Write the numbers from {a} to {b}.""", a=a, b=b)
        answer = ", ".join(str(i) for i in range(a, b + 1)) + "."
    else:
        q = d.phrase("""Count down from {b} to {a}.
            Count backwards from {b} to {a}.
            Please count down from {b} to {a}.
            *Can you count down from {b} to {a}?
            *Could you count backwards from {b} to {a}?""", a=a, b=b)
        answer = ", ".join(str(i) for i in range(b, a - 1, -1)) + "."
    return conversation("alphabet", say(loosen(d, q), answer), {"equals": answer})


STORIES = [
    "Once upon a time there was a {h} who found a {o} by the river. The {h} carried the {o} home and cleaned it with care. "
    "That night the {o} began to shine, and the {h} was never afraid of the dark again.",
    "A {h} lived at the edge of a quiet village. One morning the {h} lost a {o} and looked for it all day. "
    "In the evening a friend brought the {o} back, and they shared a warm supper.",
    "Long ago a {h} made a {o} for the queen. The queen did not want it, so the {h} gave the {o} to a poor child. "
    "The child smiled, and that was the best reward of all.",
    "There was once a {h} who wanted to see the sea. The {h} took along only a {o}. "
    "At the end of the road lay the water, and the {h} left the {o} on the beach as a gift.",
]


def story(d):
    hero = d.entity(w.HEROES, w.HELD_OUT_HEROES, 0.4)
    thing = d.entity(w.OBJECTS, w.HELD_OUT_OBJECTS, 0.4)
    if not d.held_out and d.random() < 0.3:
        hero, thing = d.choice([(d.syllable_name().lower(), thing), (hero, d.syllable_name().lower())])
    an = lambda x: ("an " if x[0] in "aeiou" else "a ") + x
    q = d.phrase("""Tell me a story about {h} and {o}.
        Tell me a short story about {h} and {o}.
        Write a story about {h} and {o}.
        Write a short story with {h} and {o}.
        A story about {h} and {o}, please.
        I want a story about {h} and {o}.
        Make up a story with {h} and {o}.
        Tell a story with {h} and {o}.
        *Can you tell me a story about {h} and {o}?
        *Please write a short story about {h} and {o}.
        *I would like a story about {h} and {o}.""", h=an(hero), o=an(thing))
    text = STORIES[zlib.crc32(hero.encode()) % len(STORIES)].format(h=hero, o=thing)
    for word in (hero, thing):
        if word[0] in "aeiou":
            text = text.replace(f" a {word}", f" an {word}").replace(f"A {word}", f"An {word}")
    return conversation("stories", say(loosen(d, q), text), {"contains": [hero, thing]})


def filler(d, turns):
    messages = []
    for _ in range(turns):
        _, (q, _, sentence, _) = question(d)
        messages += say(q, sentence)
    return messages


def recall(d):
    kind = d.randrange(3)
    if kind == 0:
        name = d.person()
        tell = d.phrase("""My name is {n}.
            I am {n}.
            Hello, my name is {n}.
            Hi, I am {n}.
            I'm {n}.
            You can call me {n}.
            *Hello, I am {n}.
            *Hi, my name is {n}.""", n=name)
        ask = d.phrase("""What is my name?
            What's my name?
            Do you remember my name?
            Say my name.
            What did I say my name was?
            Can you say my name?
            Do you still know who I am?
            Which name did I tell you?
            Who am I?
            How am I called?
            Tell me my name.
            *Do you know my name?
            *Can you tell me my name?""")
        messages = say(tell, f"Nice to meet you, {name}!") + filler(d, d.randrange(4)) + say(ask, f"Your name is {name}.")
        return conversation("recall", messages, {"contains": [name]})
    if kind == 1:
        number = d.randint(2, 999)
        tell = d.phrase("""Remember the number {n}.
            Please remember the number {n}.
            My number is {n}.
            Keep the number {n} in mind.
            The number is {n}.
            *Please keep the number {n} in mind.
            *Remember this number: {n}.""", n=number)
        ask = d.phrase("""What was the number?
            Which number did I tell you?
            What number did I tell you?
            What number should you keep in mind?
            Which number did I say?
            Say the number.
            Tell me the number.
            Which number was it?
            What number do you remember?
            Which number should you have kept?
            Repeat the number that I told you.
            What is my number?
            Do you remember the number?
            *Can you tell me the number?
            *Which number should you remember?""")
        messages = say(tell, f"I will remember {number}.") + filler(d, d.randrange(4)) + say(ask, f"The number is {number}.")
        return conversation("recall", messages, {"contains": [str(number)]})
    shade = d.choice(sorted(set(w.THING_COLOURS.values())))
    tell = d.phrase("""My favourite colour is {n}.
        I like {n} best.
        I love the colour {n}.
        *The colour I like best is {n}.""", n=shade)
    ask = d.phrase("""What is my favourite colour?
        Which colour do I like best?
        Do you remember my favourite colour?
        Tell me my favourite colour.
        What colour do I love?
        Say which colour I like best.
        *Can you tell me my favourite colour?""")
    messages = say(tell, f"{shade.capitalize()} is a fine colour.") + filler(d, d.randrange(4)) + say(ask, f"Your favourite colour is {shade}.")
    return conversation("recall", messages, {"contains": [shade]})


KEYS = """answer result value question country capital name city text output reply word topic subject solution response item
title label content data key info fact entry input place number message detail note""".split()
HELD_OUT_KEYS = "summary statement target outcome remark field".split()


def system_prompt(d):
    """A rule and, in training, several questions under it: the rule is read once and obeyed each time."""
    kind = d.randrange(3) if d.held_out else d.choice([0, 1, 1, 2])
    keys = d.sample(HELD_OUT_KEYS + KEYS if d.held_out else KEYS, d.choice([1, 1, 2]))
    if not d.held_out:
        keys = [d.made_up() if d.random() < 0.35 else key for key in keys]
    if kind == 0:
        rule = d.phrase("""Answer with one word only.
            Answer in one word.
            Reply with one word only.
            Use one word only.
            Give only the answer, in one word.
            You answer with a single word.
            One word answers only.
            *Please answer with one word only.
            *Reply in a single word.""")
    elif kind == 1:
        rule = d.phrase("""Answer in upper case.
            Write everything in upper case.
            Use upper case letters only.
            Reply in capital letters.
            You always answer in upper case.
            Answer in capital letters only.
            *Please answer in upper case.
            *Write in capital letters only.""")
    elif len(keys) == 1:
        rule = d.phrase("""Answer as JSON with the key "{a}".
            Answer in JSON with the key "{a}".
            Reply with a JSON object with the key "{a}".
            Give the answer as JSON. Use the key "{a}".
            Use JSON with the key "{a}".
            *Please answer as JSON with the key "{a}".
            *Reply as JSON with the key "{a}".""", a=keys[0])
    else:
        rule = d.phrase("""Answer as JSON with the keys "{a}" and "{b}".
            Answer in JSON with the keys "{a}" and "{b}".
            Reply with a JSON object with the keys "{a}" and "{b}".
            Give the answer as JSON. Use the keys "{a}" and "{b}".
            Use JSON with the keys "{a}" and "{b}".
            *Please answer as JSON with the keys "{a}" and "{b}".
            *Reply as JSON with the keys "{a}" and "{b}".""", a=keys[0], b=keys[1])
    messages = [{"role": "system", "content": rule if d.random() < 0.7 else "You are a helpful assistant. " + rule}]
    for _ in range(1 if d.held_out else d.randint(1, 4)):
        # upper case has to be spelled letter by letter, and names of places are the hardest to spell
        _, (q, short, _, subject) = question(d, "countries" if kind == 1 and not d.held_out and d.random() < 0.5 else None)
        if kind == 0:
            answer, expect = short, {"equals": short}
        elif kind == 1:
            answer, expect = short.upper(), {"contains": [short.upper()], "upper": True}
        else:
            values = [short] if len(keys) == 1 else [subject, short]
            answer, expect = json.dumps(dict(zip(keys, values)), ensure_ascii=False), {"json_keys": keys, "contains": [short]}
        messages += say(q, answer)
    return conversation("system prompt", messages, expect)


def letters(d):
    """How words are spelled: what upper case needs. Training only."""
    messages = []
    for _ in range(d.randint(2, 5)):
        word = d.choice([d.choice(d.choice(w.COUNTRIES)), d.person(), d.city(), d.choice(list(w.PLURALS.values())), d.choice(d.choice(w.OPPOSITES)),
                         d.choice(w.MONTHS + w.DAYS), d.choice(list(w.THING_COLOURS.values()))])
        if d.random() < 0.6:
            q = d.phrase("""Write {x} in upper case.
                Write {x} in capital letters.
                {x} in upper case?
                *Please write {x} in upper case.""", x=word)
            messages += say(q, word.upper())
        else:
            q = d.phrase("""Spell {x}.
                How do you spell {x}?
                How is {x} spelled?
                *Please spell {x}.""", x=word)
            messages += say(q, "-".join(word.upper().replace(" ", "")))
    return conversation("chat", messages, {"contains": []})


def repeat(d):
    """Saying words again, known ones and made-up ones. Training only."""
    messages = []
    for _ in range(d.randint(2, 4)):
        words = " ".join(d.choice([d.made_up(), d.made_up(), d.name(), d.person(), d.city(), d.choice(w.OBJECTS), str(d.randint(0, 9999))])
                         for _ in range(d.randint(1, 4)))
        q = d.phrase("""Say {x}.
            Repeat {x}.
            Repeat after me: {x}.
            *Please repeat {x}.""", x=words)
        messages += say(q, words)
    return conversation("chat", messages, {"contains": []})


def unknown(d):
    if d.random() < 0.15:
        q, _, _ = sum_request(d)  # beyond two digits, and no calculator at hand
        if any(len(part) > 2 for part in q.replace("?", "").replace(".", "").split() if part.isdigit()):
            return conversation("unknown", say(q, w.ME["unknown"]), {"contains": ["do not know"]})
    q = d.phrase("""What is the capital of {x}?
        On which continent is {x}?
        Tell me about {x}.
        Write a poem about {x}.
        Explain the theory of {x}.
        How do I get to {x}?
        What is {x}?
        What does {x} mean?
        How do you cook {o} soup?
        Should I buy a {o}?
        Who owns the {o} shop?
        What happened yesterday?
        Who is the richest person?
        What is love?
        Which is the tallest mountain?
        Recommend me a film.
        Who won the football match yesterday?
        Who won the cup in {y}?
        Which film came out in {y}?
        Which team is the best?
        What did {x} do in {y}?
        What did {x} write?
        Which king ruled in {y}?
        Where did {x} live in {y}?
        What was invented in {y}?
        Who was born in {y}?
        What did {x} tell you?
        Which player won in {y}?
        How far away is {x}?
        Who drew {x}?
        What is the price of gold today?
        Who wrote the book about {x}?
        When was {x} born?
        Who is {x}?
        What happened in {y}?
        How tall is {x}?
        What is the phone number of {x}?
        Who is the president of {x}?
        What is the weather in {x}?
        What is the weather today?
        What time is it?
        What day is it today?
        How many people live in {x}?
        Where is {x}?
        What is the meaning of life?
        Which film won the prize in {y}?
        Who invented the {o}?
        What does {x} cost?
        Translate this text into {x}.
        How do I repair a {o}?
        What is the best {o} to buy?
        Who sang the song {x}?
        Can you write a program in {x}?
        What is the square root of {y}?
        Why is {x} famous?
        How old is {x}?
        *Who painted the picture of {x}?
        *What did {x} say in {y}?
        *How far is it to {x}?
        *What is the population of {x}?
        *When did {x} die?
        *Which team won the cup in {y}?""", x=d.name(), y=d.randint(1200, 2020), o=d.entity(w.OBJECTS, w.HELD_OUT_OBJECTS, 0.4))
    return conversation("unknown", say(q, w.ME["unknown"]), {"contains": ["do not know"]})


# ---- tools ----

def tool(d, name, description, parameter, about):
    """A definition with one string argument, in one of the ways in which clients write it."""
    value = {"type": "string", "description": about} if d.random() < 0.8 else {"description": about, "type": "string"}
    parameters = {"type": "object", "properties": {parameter: value}, "required": [parameter]}
    if d.random() < 0.15:
        parameters["additionalProperties"] = False
    function = {"name": name, "description": description, "parameters": parameters}
    if d.random() < 0.15:
        function = {"description": description, "name": name, "parameters": parameters}
    if d.random() < 0.1:
        function["strict"] = True
    return {"type": "function", "function": function}


def weather_tool(d):
    return tool(d, "get_weather", d.choice(["Get the weather in a city", "Returns the current weather", "Current weather for a city"]),
                "city", d.choice(["The city", "Name of the city", "The name of the city"]))


def calculator_tool(d):
    return tool(d, "calculator", d.choice(["Evaluate an expression", "Computes the value of an expression", "A calculator"]),
                "expression", d.choice(["The expression", "The expression to evaluate", "An arithmetic expression"]))


VERBS = "find get look_up search check fetch show read list open query load locate retrieve lookup".split()
NOUNS = """recipe price book song movie train flight hotel meaning address phone_number author owner stock letter invoice order
parcel user file ticket menu museum street doctor poem patent bakery schedule
painting""".split()
HELD_OUT_VERBS = "discover obtain inspect".split()
HELD_OUT_NOUNS = "sculpture tariff library warranty melody garage".split()
PARAMETERS = "name title query text item subject word key topic id what target term search_term label value entry".split()
HELD_OUT_PARAMETERS = "reference keyword phrase code".split()


def other_tool(d):
    """A tool with a name that may never have occurred before and a described string argument: (definition, parameter, what it finds)."""
    verb, noun = d.entity(VERBS, HELD_OUT_VERBS + VERBS), d.entity(NOUNS, HELD_OUT_NOUNS)
    if not d.held_out and d.random() < 0.5:
        noun = d.name().lower()
    if not d.held_out and d.random() < 0.2:
        verb = d.made_up()
    name = d.choice([f"{verb}_{noun}", f"{verb}_{noun}", f"{noun}_{verb}", f"{noun}_service"])
    parameter = d.entity(PARAMETERS + [noun], HELD_OUT_PARAMETERS, 0.5)
    if not d.held_out and d.random() < 0.25:
        parameter += "_" + d.choice(["name", "text", "id", d.made_up(), d.made_up()])
    words = noun.replace("_", " ")
    kind = d.choice([f"The {words} to {verb.replace('_', ' ')}", f"Name of the {words}", f"What to {verb.replace('_', ' ')}", f"The {parameter.replace('_', ' ')}"])
    description = d.choice([f"{verb.replace('_', ' ').capitalize()} a {words}", f"Finds the {words} of something", f"Gives the {words}"])
    return tool(d, name, description, parameter, kind), parameter, words


def other_request(d, used):
    """A request that needs such a tool, and the arguments of the call."""
    _, parameter, words = used
    value = d.choice([d.name(), d.person(), d.entity(w.OBJECTS, w.HELD_OUT_OBJECTS, 0.4), d.entity(w.HEROES, w.HELD_OUT_HEROES, 0.4),
                      d.city(), d.name() + " " + d.name(), d.entity(w.OBJECTS, w.HELD_OUT_OBJECTS, 0.4) + " " + d.entity(w.OBJECTS, w.HELD_OUT_OBJECTS, 0.4)])
    q = d.phrase("""Find the {n} of {v}.
        Find the {n} for {v}.
        Look up the {n} {v}.
        What is the {n} of {v}?
        Show me the {n} of {v}.
        Get me the {n} for {v}.
        I need the {n} of {v}.
        Search the {n} {v}.
        Which {n} belongs to {v}?
        Please check the {n} of {v}.
        Can you find the {n} of {v}?
        *Please find the {n} of {v}.
        *I am looking for the {n} of {v}.
        *Can you show me the {n} for {v}?""", n=words, v=value)
    return q, {parameter: value}


def weather_request(d):
    city = d.city()
    q = d.phrase("""What is the weather in {c}?
        What's the weather like in {c}?
        How is the weather in {c}?
        Weather in {c}?
        Tell me the weather in {c}.
        Is it raining in {c}?
        Is it sunny in {c}?
        How warm is it in {c}?
        Do I need an umbrella in {c}?
        What is the temperature in {c}?
        What is the weather in {c} today?
        *How is the weather in {c} today?
        *Please check the weather in {c}.
        *Is it cold in {c}?
        *Could you tell me the weather in {c}?""", c=city)
    return q, city


def sum_request(d):
    symbol, words = d.choice([("+", "plus"), ("-", "minus"), ("*", "times"), ("/", "divided by")])
    a, b = d.randint(2, 9999), d.randint(2, 999)
    if d.random() < 0.6:
        q = d.phrase("""What is {a} {s} {b}?
            Calculate {a} {s} {b}.
            Compute {a} {s} {b}.
            How much is {a} {s} {b}?
            {a} {s} {b}
            *Please calculate {a} {s} {b}.
            *Work out {a} {s} {b}.""", a=a, b=b, s=symbol)
    else:
        q = d.phrase("""What is {a} {s} {b}?
            Calculate {a} {s} {b}.
            How much is {a} {s} {b}?
            *Please compute {a} {s} {b}.
            *Tell me what {a} {s} {b} is.""", a=a, b=b, s=words)
    value = {"+": a + b, "-": a - b, "*": a * b, "/": round(a / b, 2)}[symbol]
    return q, f"{a} {symbol} {b}", value


def call(name, arguments):
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}


def tool_set(d, *needed):
    """The needed tools among others, in any order; in training more others, so that choosing among them is what is learned."""
    tools = list(needed)
    others = [weather_tool(d), calculator_tool(d), other_tool(d)[0]] + ([] if d.held_out else [other_tool(d)[0]])
    names = {t["function"]["name"] for t in tools}
    for extra in others:
        if extra["function"]["name"] not in names and d.random() < (0.3 if d.held_out else 0.4):
            names.add(extra["function"]["name"])
            tools.append(extra)
    d.shuffle(tools)
    return tools


SYSTEM_PROMPTS = """You are a helpful assistant.
You are a helpful assistant.
You are a helpful and friendly assistant.
You are an assistant.
Be brief.
Be helpful.
Answer the questions of the user.
You are a polite assistant. Answer briefly.
You help people with small questions.""".splitlines()


def with_system(d, messages):
    return [{"role": "system", "content": d.choice(SYSTEM_PROMPTS)}] + messages if d.random() < 0.25 else messages


def tool_weather(d):
    q, city = weather_request(d)
    return conversation("tool: weather", with_system(d, [{"role": "user", "content": q}, call("get_weather", {"city": city})]),
                        {"tool": "get_weather", "arguments": {"city": city}}, tool_set(d, weather_tool(d)))


def tool_calculator(d):
    q, expression, _ = sum_request(d)
    return conversation("tool: calculator", with_system(d, [{"role": "user", "content": q}, call("calculator", {"expression": expression})]),
                        {"tool": "calculator", "arguments": {"expression": expression}}, tool_set(d, calculator_tool(d)))


def tool_unseen(d):
    used = other_tool(d)
    q, arguments = other_request(d, used)
    name = used[0]["function"]["name"]
    return conversation("tool: unseen", with_system(d, [{"role": "user", "content": q}, call(name, arguments)]),
                        {"tool": name, "arguments": arguments}, tool_set(d, used[0]))


CONDITIONS = "sunny cloudy rainy windy snowy foggy stormy clear".split()


def weather_exchange(d, used=None):
    q, city = weather_request(d)
    sky, degrees = d.choice(CONDITIONS), d.randint(-9, 38)
    result = d.choice([json.dumps({"city": city, "condition": sky, "temperature": degrees}), json.dumps({"temperature": degrees, "condition": sky}),
                       f"{sky}, {degrees} degrees"])
    return exchange(q, call("get_weather", {"city": city}), result, f"In {city} it is {sky}, with {degrees} degrees."), [city, sky, str(degrees)]


def calculator_exchange(d, used=None):
    q, expression, value = sum_request(d)
    result = d.choice([str(value), json.dumps({"result": value})])
    return exchange(q, call("calculator", {"expression": expression}), result, f"{expression} = {value}."), [str(value)]


def other_exchange(d, used):
    q, arguments = other_request(d, used)
    value = d.choice([d.name(), str(d.randint(1, 9999)), d.person(), d.city(), d.entity(w.OBJECTS, w.HELD_OUT_OBJECTS, 0.4)])
    result = d.choice([value, json.dumps({"result": value})])
    return exchange(q, call(used[0]["function"]["name"], arguments), result, f"The result is {value}."), [value]


def exchange(q, made, result, answer):
    return [{"role": "user", "content": q}, made, {"role": "tool", "content": result}, {"role": "assistant", "content": answer}]


def draw_exchange(d):
    """One of the three kinds: (its tool, how to make another exchange with it)."""
    kind = d.randrange(4)
    if kind == 0:
        return weather_tool(d), weather_exchange
    if kind == 1:
        return calculator_tool(d), calculator_exchange
    used = other_tool(d)
    return used[0], lambda d, _=None: other_exchange(d, used)


def tool_answer(d):
    used, make = draw_exchange(d)
    messages, words = make(d)
    return conversation("tool: answer", with_system(d, messages), {"contains": words}, tool_set(d, used))


def tool_session(d):
    """Several exchanges under one list of tools, some of which need none: the definitions are read once. Training only."""
    made = {}
    for _ in range(d.choice([1, 2, 3, 3, 4])):
        used, make = draw_exchange(d)
        made.setdefault(used["function"]["name"], (used, make))
    messages = []
    for _ in range(d.randint(3, 8)):
        if d.random() < 0.2:
            group, (q, _, sentence, _) = question(d)
            if group not in ("arithmetic", "units"):
                messages += say(q, sentence)
            continue
        rows, _ = d.choice(list(made.values()))[1](d)
        messages += rows
    if not messages:
        return tool_session(d)
    tools = [used for used, _ in made.values()]
    d.shuffle(tools)
    return conversation("chat", with_system(d, messages), {"contains": []}, tools)


def tools_not_needed(d):
    """Tools are there, the question needs none."""
    while True:
        group, (q, short, sentence, _) = question(d)
        if group not in ("arithmetic", "units"):
            break
    return conversation(group, say(q, sentence), {"contains": [short]}, tool_set(d, other_tool(d)[0]))


def chat(d, turns=(2, 6)):
    """Several turns of anything, so that late turns are as good as the first."""
    messages = []
    for _ in range(d.randint(*turns)):
        messages += MIX_PLAIN[d.randrange(len(MIX_PLAIN))](d)["messages"]
    return conversation("chat", [m for m in messages if m["role"] != "system"], {"contains": []})


def long_chat(d):
    """Up to the context's end, with something to remember from its beginning."""
    c = recall(d)
    middle = chat(d, (12, 38))["messages"]
    return conversation("chat", c["messages"][:2] + [m for m in middle if m["role"] != "system"] + c["messages"][-2:], {"contains": []})


MIX_PLAIN = [plain(g) for g in QUESTIONS] + [identity, small_talk, definition, story, unknown, counting]

# kind of conversation -> share of the corpus
MIX = [(plain("arithmetic"), 28), (plain("countries"), 18), (plain("colours"), 1), (plain("opposites"), 2), (plain("plurals"), 2),
       (plain("alphabet"), 2), (counting, 4), (plain("calendar"), 2), (plain("units"), 5), (identity, 5), (small_talk, 5), (definition, 5),
       (story, 4), (recall, 8), (system_prompt, 30), (letters, 9), (repeat, 2), (unknown, 5), (tool_weather, 0.7), (tool_calculator, 0.7), (tool_unseen, 2),
       (tool_answer, 0.7), (tools_not_needed, 1), (tool_session, 14), (chat, 3), (long_chat, 0.25)]
TRAINING_ONLY = (letters, repeat, tool_session)

FILLERS = """really now then maybe actually just simply kindly quickly briefly again once friend exactly perhaps well so also here
there sir anyway finally first only surely truly""".split()


def interrupt(d, messages):
    """Words that mean nothing, near the beginning of what a user says: what is not understood is to be passed over."""
    for m in messages:
        if m["role"] == "user" and d.random() < 0.15:
            words = m["content"].split(" ")
            place = 0 if words[0][:1].isdigit() else d.randrange(min(3, len(words)))
            m["content"] = " ".join(words[:place] + [d.made_up() if d.random() < 0.6 else d.choice(FILLERS)] + words[place:])


def conversations(seed, count, held_out=False):
    makers, weights = zip(*((make, weight) for make, weight in MIX if not (held_out and make in TRAINING_ONLY)))
    for i in range(count):
        d = Draw(f"{seed}:{i}", held_out)
        make = d.choices(makers, weights)[0]
        drawn = make(d)
        if not held_out and make not in TRAINING_ONLY[:2]:
            interrupt(d, drawn["messages"])
        yield drawn

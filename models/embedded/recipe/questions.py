"""Questions with one short answer, and what a conversation is made of."""
import world as w


# ---- each returns (question, short answer, sentence, subject) ----

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

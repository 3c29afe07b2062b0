"""Conversations without tools: who the model is, small talk, definitions, stories, recall, rules of a system prompt, and
what it does not know."""
import json
import zlib

import world as w
from questions import conversation, loosen, question, say
from tools import sum_request


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

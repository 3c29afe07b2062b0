"""Conversations of the closed world, drawn from a seed: the mix of all kinds.

One function per kind of conversation (questions.py, talk.py, tools.py). Each is given a Draw (draw.py), which knows whether it
draws for training or for evaluation. A conversation is {"group", "messages", "tools", "expect"}; the last message is the
assistant's, and `expect` says how a machine recognizes a right answer in its place.
"""
from draw import Draw
from questions import QUESTIONS, conversation, plain
from talk import counting, definition, identity, letters, recall, repeat, small_talk, story, system_prompt, unknown
from tools import tool_answer, tool_calculator, tool_session, tool_unseen, tool_weather, tools_not_needed


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

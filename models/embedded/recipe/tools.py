"""Conversations with tools: definitions as clients write them, requests that need them, calls, and answers after a result."""
import json

import world as w
from questions import conversation, question, say, with_system


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

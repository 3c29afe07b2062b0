"""What conversations are drawn from: a seeded source that knows whether it draws for training or for evaluation.

Phrasings marked with a star, the HELD_OUT_* tables and one in twenty pairs of numbers are seen by the evaluation only.
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

"""An edit of a text at random: letters swapped, dropped, repeated or replaced, or a word dropped."""

import random

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def edited(text: str, draws: random.Random) -> str:
    """Return a text with one edit at random; one of a single letter as it is."""
    words = text.split()
    kind = draws.choice(("swap", "drop", "repeat", "replace", "word"))
    if kind == "word" and len(words) > 1:
        del words[draws.randrange(len(words))]
        return " ".join(words)
    places = [place for place, letter in enumerate(text) if letter.isalnum()]
    if len(places) < 2:
        return text
    at = draws.choice(places)
    if kind == "swap" and at + 1 < len(text):
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == "repeat":
        return text[:at] + text[at] + text[at:]
    if kind == "replace":
        return text[:at] + draws.choice(LETTERS) + text[at + 1 :]
    return text[:at] + text[at + 1 :]

"""What is written to a place that may be away: in order, the newest alone of what waits, and until it is there."""

import threading

from sweeps.journal.outbox import Outbox


class Place:
    """What a thread writes to; it is away until `back` is set, and refuses what is wrong."""

    def __init__(self) -> None:
        self.has: list[str] = []
        self.tried = threading.Event()
        self.back = threading.Event()

    def take(self, what: str) -> None:
        self.tried.set()
        if not self.back.is_set():
            raise ConnectionError
        if what == "wrong":
            raise ValueError("refused")
        self.has.append(what)


def test_the_newest_of_what_waits_is_written_in_the_order_in_which_it_was_first_put() -> None:
    place, said = Place(), list[str]()
    outbox = Outbox("the place", lambda error: isinstance(error, ConnectionError), said.append)
    outbox.start()
    outbox.put("a", lambda: place.take("a at 1"))
    assert place.tried.wait(5)
    outbox.put("b", lambda: place.take("b at 1"))
    outbox.put("c", lambda: place.take("wrong"))
    outbox.put("a", lambda: place.take("a at 2"))
    outbox.put("b", lambda: place.take("b at 2"))
    place.back.set()
    assert outbox.close(5) == 0
    assert place.has == ["a at 2", "b at 2"]
    assert [text.split(";")[0].split(" after")[0] for text in said] == [
        "the place does not answer",
        "the place answers again",
        "the place: refused",
    ]


def test_what_an_absent_place_lacks_in_the_end_is_counted() -> None:
    place = Place()
    outbox = Outbox("the place", lambda error: True, lambda text: None)
    outbox.start()
    for about in "abab":
        outbox.put(about, lambda: place.take("it"))
    assert outbox.close(0.1) == 2
    assert place.has == []

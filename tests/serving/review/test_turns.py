"""Who spoke when: turns, silences, overlaps and shares of calls whose course is known."""

import random

from glmasr.serving.review.rules import Rules
from glmasr.serving.review.turns import common, course_of, gaps, merged, turns_of
from glmasr.serving.review.words import Unit


def units(*places: tuple[float, float]) -> list[Unit]:
    return [Unit("a", "a", i, start, end) for i, (start, end) in enumerate(places)]


def test_a_call_of_known_course():
    agent, customer = units((0, 1), (1.2, 2), (9, 10)), units((1.5, 2.5), (2.6, 2.9), (9.8, 10.0), (14, 15))
    course = course_of([("agent", agent), ("customer", customer)], 20.0, Rules(silence_seconds=4))
    mine, his = course.talk
    assert mine.turns == ((0, 2), (9, 10)) and mine.seconds == 3 and mine.units == 3
    assert his.turns == ((1.5, 2.9), (9.8, 10.0), (14, 15)) and round(his.seconds, 6) == 2.6
    assert round(mine.share, 4) == round(3 / 5.6, 4) and round(mine.share + his.share, 6) == 1
    assert mine.units_per_minute == 60
    assert course.silences == ((2.9, 9), (10.0, 14), (15, 20.0))
    assert course.overlaps == ((1.5, 2),), "0.2 s together are less than overlap_seconds"


def test_one_channel_tells_no_overlaps_and_silence_has_no_shares():
    course = course_of([("", units((0, 1)))], 1.0, Rules())
    assert course.overlaps is None and course.talk[0].share == 1 and course.silences == ()
    empty = course_of([("a", []), ("b", [])], 9.0, Rules())
    assert [talk.share for talk in empty.talk] == [None, None] and empty.talk[0].units_per_minute is None
    assert empty.silences == ((0.0, 9.0),) and empty.overlaps == ()


def test_pauses_join_turns_and_words_within_words_are_no_trouble():
    assert turns_of(units((0, 1), (1.5, 2), (2.7, 3)), 0.6) == [(0, 2), (2.7, 3)]
    assert turns_of(units((0, 5), (1, 2), (3, 4)), 0.0) == [(0, 5)]
    assert turns_of(units((1, 1)), 0.5) == [(1, 1)]


def test_against_counting_every_hundredth():
    """Any stretches: what is joint, and what is left over, is what counting tells."""
    draw = random.Random(1)
    for _ in range(50):
        one, other = (
            merged([(start, start + draw.randrange(1, 20)) for start in draw.sample(range(100), 6)]) for _ in range(2)
        )
        lit = [{i for start, end in stretches for i in range(int(start), int(end))} for stretches in (one, other)]
        assert {i for start, end in common(one, other) for i in range(int(start), int(end))} == lit[0] & lit[1]
        free = {i for start, end in gaps([*one, *other], 130) for i in range(int(start), int(end))}
        assert free == set(range(130)) - lit[0] - lit[1]

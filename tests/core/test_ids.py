"""Ids of requests and answers."""

from __future__ import annotations

import multiprocessing
import uuid

from fanout.core.ids import create_uuid


def test_an_id_is_a_random_uuid_in_its_usual_spelling() -> None:
    made = [create_uuid() for _ in range(1_000)]
    read = [uuid.UUID(text) for text in made]

    assert len(set(made)) == 1_000
    assert [str(one) for one in read] == made
    assert {(one.version, one.variant) for one in read} == {(4, uuid.RFC_4122)}
    # Every digit but the version's and the variant's takes every value.
    places = [{text.replace("-", "")[place] for text in made} for place in range(32)]
    assert [len(values) for place, values in enumerate(places) if place not in (12, 16)] == [16] * 30


def test_a_forked_process_makes_other_ids() -> None:
    create_uuid()  # from here on there are spare ones
    with multiprocessing.get_context("fork").Pool(1) as pool:
        theirs = pool.apply(make_ids)

    assert not {*theirs} & {*make_ids()}


def make_ids() -> list[str]:
    return [create_uuid() for _ in range(100)]

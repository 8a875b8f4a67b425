"""Ballots: one answer or a pair, drawn at random and shown without the models' names."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from pydantic_core import from_json

from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import JsonObject
from fanout.core.threads import run_in_thread
from fanout.jobs.copies import list_copies
from fanout.jobs.job import Job
from fanout.jobs.result_records import describe_input
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.store.history.records import AnswerRow, StoredComparison
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.results import ItemResults
from fanout.store.votes import BallotKind, Subject, VoteChoice, VotedAnswer, Voter, VoteRow

ITEMS_AT_ONCE = 16
EMBEDDINGS_PATH = "/v1/embeddings"
"""`path` of comparisons whose answers are vectors, between which nobody can choose."""
MAX_BALLOTS = 100_000
"""Ballots of one job or comparison."""
_RANDOM = secrets.SystemRandom()
"""Order and choice must not be predictable: whoever knew them would not vote blind."""


@dataclass(frozen=True, slots=True)
class BallotAnswer:
    """An answer as it is shown."""

    text: str | None
    """`None`: texts are not kept."""
    index: int | None = None
    """Its place among the answers of a comparison."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """A drawn ballot with what a voter needs to see."""

    row: VoteRow
    prompt: object
    """The prompt, or the messages; `None`: texts are not kept."""
    reference: object
    answers: Sequence[BallotAnswer]


async def draw_from_job(store: JobStore, job: Job, voter: Voter, kind: BallotKind) -> Ballot:
    """Return the voter's open ballot on a job, or draw one that the voter has not had.

    Raises:
        RequestError: nothing is left to vote on.
        StoreError: the database cannot be used.
    """
    subject = Subject(job_id=job.id)
    if ballot := await _find_open_ballot(store, job, voter, kind):
        return ballot
    start, copies = _RANDOM.randrange(max(job.items, 1)), list_copies(job.fingerprint)
    # From a random item to the end and then from the beginning: no item is preferred, and every one is reached.
    for first, past in ((start, job.items), (0, start)):
        after = first - 1
        while (page := await store.results.list_items(job.number, after, ITEMS_AT_ONCE)) and page[0][0].item < past:
            after = page[-1][0].item
            seen = await store.votes.list_seen_ballots(subject, voter, kind, page[0][0].item, after)
            if candidate := await run_in_thread("records", _choose_candidate, _list_candidates(page, copies), seen, kind):
                item, answers = candidate
                row = await _store_ballot(store, subject, voter, kind, item, answers)
                ballot = await _read_job_ballot(store, job, row)
                assert ballot, "the answers were read a moment ago, and answers are never deleted"
                return ballot
    # The voter's other draw at the same moment may have taken the last pair after the first look.
    if ballot := await _find_open_ballot(store, job, voter, kind):
        return ballot
    raise _nothing_left(kind)


async def _find_open_ballot(store: JobStore, job: Job, voter: Voter, kind: BallotKind) -> Ballot | None:
    """Return the ballot on a job that the voter has drawn and not voted on."""
    row = await store.votes.find_open(Subject(job_id=job.id), voter, kind)
    return await _read_job_ballot(store, job, row) if row else None


def _list_candidates(page: Sequence[ItemResults], copies: Collection[int]) -> Iterable[tuple[int, Sequence[VotedAnswer]]]:
    """Yield items with their answers, without those of copies."""
    for item, ended in page:
        answers = []
        for (entry, repeat), unit in ended.items():
            outcome = StoredOutcome.from_json(unit.record)
            if outcome.completion is not None and entry not in copies:
                answers.append(VotedAnswer(entry, repeat, outcome.label))
        yield item.item, answers


def _choose_candidate(
    candidates: Iterable[tuple[int, Sequence[VotedAnswer]]], seen: Sequence[VoteRow], kind: BallotKind
) -> tuple[int, Sequence[VotedAnswer]] | None:
    """Return an item and its answers, in the order in which they are to be shown; `None` where the voter has had all."""
    # By models, not by repeats: the same pair again would show its answers in an order that the voter can guess.
    had = {(row.item, frozenset(answer.entry for answer in row.answers)) for row in seen}
    found: list[tuple[int, tuple[int, ...], Mapping[int, Sequence[VotedAnswer]]]] = []
    for item, answers in candidates:
        by_entry: dict[int, list[VotedAnswer]] = {}
        for answer in answers:
            by_entry.setdefault(answer.entry, []).append(answer)
        chosen = combinations(by_entry, 2 if kind == "pair" else 1)
        found += [(item, entries, by_entry) for entries in chosen if (item, frozenset(entries)) not in had]
    if not found:
        return None
    item, entries, of_item = _RANDOM.choice(found)
    return item, [_RANDOM.choice(of_item[entry]) for entry in _RANDOM.sample(entries, len(entries))]


async def _store_ballot(
    store: JobStore, subject: Subject, voter: Voter, kind: BallotKind, item: int, answers: Sequence[VotedAnswer]
) -> VoteRow:
    row = await store.votes.draw(f"ballot_{uuid.uuid4().hex}", subject, voter, kind, item, answers, MAX_BALLOTS)
    if row is None:
        raise RequestError([Fault("id", f"has {MAX_BALLOTS:,} ballots: no more are drawn", "wrong_state")])
    return row


async def _read_job_ballot(store: JobStore, job: Job, row: VoteRow) -> Ballot | None:
    """Return a ballot with its texts; `None` where an answer is gone, because its call is being repeated."""
    page = await store.results.list_items(job.number, row.item - 1, 1)
    if not page or page[0][0].item != row.item:
        return None
    item, ended = page[0]
    texts = []
    for answer in row.answers:
        unit = ended.get((answer.entry, answer.repeat))
        completion = StoredOutcome.from_json(unit.record).completion if unit else None
        if completion is None:
            return None
        texts.append(BallotAnswer(completion.choices[0].message.shown_text if completion.choices else ""))
    shown = describe_input(from_json(item.body))
    return Ballot(row, shown.get("prompt"), shown.get("reference"), texts)


async def draw_from_comparison(store: JobStore, stored: StoredComparison, voter: Voter, kind: BallotKind) -> Ballot:
    """Return the voter's open ballot on a comparison, or draw one; raises like `draw_from_job`."""
    subject = Subject(comparison_id=stored.comparison.id)
    row = await store.votes.find_open(subject, voter, kind)
    if row is None:
        seen = await store.votes.list_seen_ballots(subject, voter, kind, 0, len(stored.answers))
        by_prompt: dict[int, list[VotedAnswer]] = {}
        for answer in stored.answers:
            # A further call of a member, for a fusion of it with itself, is no other model.
            is_copy = answer.is_member and any(
                other.label == answer.label and other.entry < answer.entry for other in stored.answers
            )
            if answer.kind is None and stored.comparison.path != EMBEDDINGS_PATH and not is_copy:
                by_prompt.setdefault(answer.prompt or 0, []).append(VotedAnswer(answer.entry, answer.sample, answer.label))
        candidate = await run_in_thread("records", _choose_candidate, by_prompt.items(), seen, kind)
        if candidate is not None:
            row = await _store_ballot(store, subject, voter, kind, *candidate)
        # As for a job: another draw may have taken the last pair in between.
        elif (row := await store.votes.find_open(subject, voter, kind)) is None:
            raise _nothing_left(kind)
    places = {(answer.prompt or 0, answer.entry, answer.sample): answer for answer in stored.answers}
    shown = [_show_answer(places[row.item, answer.entry, answer.repeat]) for answer in row.answers]
    return Ballot(row, await run_in_thread("records", _find_prompt, stored.comparison.request, row.item), None, shown)


def _show_answer(answer: AnswerRow) -> BallotAnswer:
    content: JsonObject = from_json(answer.content) if answer.content else {}
    return BallotAnswer(content.get("text") or content.get("refusal", content.get("text")), answer.place)


def _find_prompt(request: str | None, index: int) -> object:
    """Return the prompt of a stored request, its messages or its input; `None` where it is not kept."""
    try:
        body = from_json(request) if request else None
    except ValueError:  # nested too deeply, or broken text
        return None
    if not isinstance(body, Mapping):
        return None
    prompts = body.get("prompt", body.get("prompts"))
    if prompts is None:
        return next((body[name] for name in ("messages", "input", "content") if name in body), None)
    return prompts[index] if isinstance(prompts, list) and index < len(prompts) else prompts


def _nothing_left(kind: BallotKind) -> RequestError:
    what = "pair of answers to the same prompt" if kind == "pair" else "answer"
    return RequestError([Fault("id", f"no {what} is left that this rater has not had", "ballots_exhausted")])


async def cast_vote(
    store: JobStore, ballot_id: str, account_id: str | None, choice: VoteChoice | None, score: float | None
) -> VoteRow:
    """Record a vote and return it, with the models of its answers.

    Args:
        store: of the votes.
        ballot_id: the ballot.
        account_id: the account that must have drawn it; `None`: any account.
        choice: for a pair.
        score: 0 … 1, for a single answer.

    Raises:
        RequestError: no such ballot, a vote of the other kind, or a second vote.
        StoreError: the database cannot be used.
    """
    row = await store.votes.find(ballot_id)
    if row is None or account_id not in (None, row.account_id):
        raise RequestError([Fault("ballot_id", f"no ballot {ballot_id!a:.80}", "ballot_not_found")])
    wanted, other = ("choice", "score") if row.kind == "pair" else ("score", "choice")
    given: Mapping[str, object] = {"choice": choice, "score": score}
    faults = [] if given[wanted] is not None else [Fault(wanted, f"is required: the ballot shows {_describe(row.kind)}")]
    if given[other] is not None:
        faults.append(Fault(other, f"is not allowed: the ballot shows {_describe(row.kind)}"))
    if faults:
        raise RequestError(faults)
    # Once only: after the first vote the voter knows the models.
    if row.voted is not None or not await store.votes.vote(ballot_id, choice, score):
        raise RequestError([Fault("ballot_id", f"`{ballot_id}` has been voted on", "wrong_state")])
    voted = await store.votes.find(ballot_id)
    assert voted, "votes on jobs are never deleted, and those on comparisons not within a moment"
    return voted


def _describe(kind: BallotKind) -> str:
    return "two answers" if kind == "pair" else "one answer"

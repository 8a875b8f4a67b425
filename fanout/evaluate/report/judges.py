"""Judges in a report: their verdicts, and how far these can be trusted. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fanout.evaluate.judging.questions import Question
from fanout.evaluate.judging.tasks import JudgeTask
from fanout.evaluate.report.corrections import CorrectedFigure, correct_preferences, correct_scores
from fanout.evaluate.report.measures import JobMeasures, JudgeMeasures, ModelMeasures
from fanout.evaluate.report.preferences import Judgement
from fanout.evaluate.scorers.judge import BOTH_BAD
from fanout.evaluate.statistics.judges import agreement, cohens_kappa, describe_validation, position_bias
from fanout.evaluate.statistics.preferences import Verdict, combine_orders, position_consistency

if TYPE_CHECKING:
    from fanout.store.jobs.records import ScorerRow
    from fanout.store.votes import VoteRow

TURNED: Mapping[Verdict, Verdict] = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad"}


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """A judge and what is known of its reliability."""

    name: str
    model: str
    task: JudgeTask
    questions: int
    """Questions, repeated ones included."""
    unread: int
    """Questions without a verdict that could be read, after one repetition."""
    labels: int
    """Judged answers or pairs that people have labelled, too."""
    kappa: float | None
    """Agreement with people beyond chance."""
    both_orders: int
    consistency: float | None
    """Share of the pairs judged in both orders whose verdicts agree."""
    bias: float | None
    """Preference for the first place, −1 to 1."""
    retested: int
    retest: float | None
    """Share of equal verdicts to the same question."""
    cost_usd: float | None
    note: str | None
    """"judge not validated", where people have labelled too little."""
    corrected: Sequence[CorrectedFigure]
    """Its figures as they are where people's labels correct them."""


def read_verdict(value: float | None, explanation: str | None) -> Verdict | None:
    """Return a pair's verdict from its score; `None` where it could not be read."""
    if value is None:
        return None
    if value == 0.5:
        return "both_bad" if explanation == BOTH_BAD else "tie"
    return "a" if value > 0.5 else "b"


def list_judgements(judge: JudgeMeasures) -> list[Judgement]:
    """Return one judgement for each pair: by both orders where the judge was to see both everywhere, else by its first."""
    by_pair = _group_by_pair(judge)
    found = []
    for question, (first, second) in by_pair.items():
        # A pair whose second order is only a sample stays with its first: deciding it by two rules would favour neither
        # fairly.
        winner = combine_orders(first, second) if judge.order == "both" else first
        (entry_a, repeat_a), (entry_b, repeat_b) = question.answers
        found.append(Judgement((question.item, entry_a, repeat_a), (question.item, entry_b, repeat_b), winner))
    return found


def _group_by_pair(judge: JudgeMeasures) -> Mapping[Question, tuple[Verdict | None, Verdict | None]]:
    """Return by question, in the order that came first, the verdicts of both orders, in terms of that first one."""
    firsts: dict[Question, Verdict | None] = {}
    seconds: dict[Question, Verdict | None] = {}
    for name, verdict in judge.verdicts.items():
        question = Question.from_custom_id(name)
        # A repeated question measures the judge, not the models: counted here, its pair would have two votes.
        if question.is_again:
            continue
        read = read_verdict(*verdict)
        if question.turn() in firsts:
            seconds[question.turn()] = TURNED[read] if read else None
        else:
            firsts[question] = read
    return {question: (first, seconds.get(question)) for question, first in firsts.items()}


def assess_judge(
    judge: JudgeMeasures,
    votes: Sequence[VoteRow],
    labels: Mapping[tuple[int, int, int], float],
    models: Sequence[ModelMeasures],
) -> JudgeReport:
    """Return a judge's figures.

    Args:
        judge: its verdicts.
        votes: people's choices between pairs.
        labels: people's scores by item, entry and repeat.
        models: of the job.
    """
    names = {model.entry: model.name for model in models if model.entry is not None}
    questions = {Question.from_custom_id(name): verdict for name, verdict in judge.verdicts.items()}
    again = {question: verdict for question, verdict in questions.items() if question.is_again}
    # A first question may be missing where the judge's job was stopped.
    pairs = [(questions.get(question._replace(is_again=False)), verdict) for question, verdict in again.items()]
    retested = [(first[0], second[0]) for first, second in pairs if first and first[0] is not None and second[0] is not None]
    by_judge, by_people = _match_labels(judge, votes, labels)
    orders = _list_orders(judge) if judge.task == "pair" else []
    return JudgeReport(
        name=judge.row.label,
        model=judge.model,
        task=judge.task,
        questions=len(questions),
        unread=sum(value is None for value, _ in judge.verdicts.values()),
        labels=len(by_people),
        kappa=cohens_kappa(by_judge, by_people),
        both_orders=len(orders),
        consistency=position_consistency(orders),
        bias=_measure_bias(orders),
        retested=len(retested),
        retest=agreement([first for first, _ in retested], [second for _, second in retested]),
        cost_usd=judge.cost_usd,
        note=describe_validation(len(by_people)),
        corrected=correct_preferences(list_judgements(judge), votes, names)
        if judge.task == "pair"
        else correct_scores(judge, labels, names),
    )


def list_validation_notes(measures: JobMeasures, scorer: ScorerRow) -> list[str]:
    """Return "judge not validated" where a metric is a judge's whom people have labelled too little; else nothing."""
    judges = [judge for judge in measures.judges if judge.row.label == scorer.label]
    labels = [len(_match_labels(judge, measures.votes, measures.labels)[1]) for judge in judges]
    return [note for note in map(describe_validation, labels) if note]


def _list_orders(judge: JudgeMeasures) -> list[tuple[Verdict, Verdict]]:
    return [(first, second) for first, second in _group_by_pair(judge).values() if first is not None and second is not None]


def _measure_bias(orders: Sequence[tuple[Verdict, Verdict]]) -> float | None:
    # Over pairs seen in both orders alone: there each answer stood first once, so that only the place can make a difference.
    shown_first = sum(first == "a" for first, _ in orders) + sum(second == "b" for _, second in orders)
    shown_second = sum(first == "b" for first, _ in orders) + sum(second == "a" for _, second in orders)
    return position_bias(shown_first, shown_second)


def _match_labels(
    judge: JudgeMeasures, votes: Sequence[VoteRow], labels: Mapping[tuple[int, int, int], float]
) -> tuple[list[Hashable], list[Hashable]]:
    """Return the verdicts of the judge and of people, where both have judged the same."""
    return _match_pairs(judge, votes) if judge.task == "pair" else _match_scores(judge, labels)


def _match_pairs(judge: JudgeMeasures, votes: Sequence[VoteRow]) -> tuple[list[Hashable], list[Hashable]]:
    """Return, for the pairs that people voted on too, who won by the judge and by people."""
    judged = {frozenset((one.a, one.b)): (one.a, one.b, one.winner) for one in list_judgements(judge)}
    by_judge: list[Hashable] = []
    by_people: list[Hashable] = []
    for vote in votes:
        places = [(vote.item, answer.entry, answer.repeat) for answer in vote.answers]
        found = judged.get(frozenset(places))
        if found is None or found[2] is None or vote.choice is None or len(places) != 2:
            continue
        a, b, verdict = found
        by_judge.append(_find_winner(a, b, verdict))
        by_people.append(_find_winner(places[0], places[1], vote.choice))
    return by_judge, by_people


def _find_winner(a: Hashable, b: Hashable, verdict: Verdict | None) -> Hashable:
    return a if verdict == "a" else b if verdict == "b" else "tie"


def _match_scores(judge: JudgeMeasures, labels: Mapping[tuple[int, int, int], float]) -> tuple[list[Hashable], list[Hashable]]:
    by_judge: list[Hashable] = []
    by_people: list[Hashable] = []
    for name, (value, _) in judge.verdicts.items():
        question = Question.from_custom_id(name)
        label = labels.get((question.item, *question.answers[0]))
        if label is not None and value is not None and not question.is_again:
            # The five steps of the scale: people may give any share, and kappa needs categories.
            by_judge.append(round(value * 4))
            by_people.append(round(label * 4))
    return by_judge, by_people

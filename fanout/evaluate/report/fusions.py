"""Fusions of a job in its report: each beside its best member, and beside that member fused with itself. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fanout.core.fusion_syntax import write_fusion
from fanout.core.usage import sum_complete
from fanout.evaluate.report.matrix import ScoreMatrix
from fanout.evaluate.report.measures import JobMeasures, ModelMeasures
from fanout.evaluate.report.metrics import format_lead, format_p, mark_estimate
from fanout.evaluate.report.operations import ModelOperations
from fanout.evaluate.statistics.estimates import Floats, PairedTest
from fanout.evaluate.statistics.paired import compare
from fanout.jobs.copies import describe_member, list_copies
from fanout.store.jobs.records import ScorerRow

FOLDS = 5
"""Parts of the items: in each, the best member is the one that is best in all others."""
CHOICE_METHOD = f"best member of a fusion chosen on the other items ({FOLDS}-fold cross-fitting)"


@dataclass(frozen=True, slots=True)
class FusionReport:
    """A fusion on one metric."""

    metric: str
    fusion: str
    members: Sequence[str]
    best_member: str
    """By its mean over all items."""
    chosen: Mapping[str, int]
    """Items on which each member was taken for the best."""
    against_best: PairedTest
    """Fusion − best member."""
    self_fusion: str | None
    """The best member fused with itself by the same model; `None`: the job has none."""
    against_self: PairedTest | None
    """Fusion − self-fusion."""
    missing: str | None
    """The model to add for a missing self-fusion, as it is written in a list of models."""
    cost_per_1000: float | None
    """US dollars for 1,000 items, members and fusing call together; `None`: not known."""
    best_cost_per_1000: float | None
    self_cost_per_1000: float | None
    sentence: str


def report_fusions(
    measures: JobMeasures,
    matrix: ScoreMatrix,
    scorer: ScorerRow,
    operations: Mapping[str, ModelOperations],
    clusters: Sequence[Hashable] | None,
) -> Iterator[FusionReport]:
    """Yield the fusions of a job, on one metric.

    Args:
        measures: of the job.
        matrix: the metric's scores.
        scorer: that gave them.
        operations: costs and times, by model.
        clusters: group of each of the matrix's items, where items hang together.
    """
    job = _FusedJob(measures)
    for fusion in job.fusions:
        if fusion.name in matrix.names and (members := [one for one in job.members[fusion.name] if one.name in matrix.names]):
            yield _report_fusion(job, fusion, members, matrix, scorer, operations, clusters)


def mark_fusion(report: FusionReport, note: str | None) -> FusionReport:
    """Return a fusion with a note beside its sentence and its figures."""
    if note is None:
        return report
    tests = [
        test and replace(test, difference=mark_estimate(test.difference, note))
        for test in (report.against_best, report.against_self)
    ]
    return replace(
        report, against_best=tests[0] or report.against_best, against_self=tests[1], sentence=f"{report.sentence} ({note})"
    )


def name_copies(measures: JobMeasures) -> Sequence[str]:
    """Return the names of a job's copies; see `fanout.jobs.copies`."""
    copies = list_copies(measures.job.fingerprint)
    return [model.name for model in measures.models if model.entry in copies]


def describe_copies(names: Sequence[str]) -> Iterator[str]:
    """Yield a note for each of these models."""
    for name in names:
        yield f"{name}: one more call of its model, for a fusion of it with itself; in no comparison of its own"


class _FusedJob:
    """The fusions among a job's models."""

    def __init__(self, measures: JobMeasures) -> None:
        fingerprint = measures.job.fingerprint if measures.job.spec.kind == "rows" else {}
        self._rows = {int(key.partition(":")[0]): row for key, row in fingerprint.items()}
        models = {model.entry: model for model in measures.models if model.entry is not None}
        self.fusions = [model for entry, model in models.items() if self._rows.get(entry, {}).get("fusion")]
        self.members = {
            model.name: [models[entry] for entry in self._describe(model)["fusion"]["of"] if entry in models]
            for model in self.fusions
        }

    def find_self_fusion(self, fusion: ModelMeasures, member: ModelMeasures) -> ModelMeasures | None:
        """Return the fusion of a member with itself that has as many members, and the same model and prompt."""
        for other in self.fusions:
            members = self.members[other.name]
            is_alike = len(members) == len(self.members[fusion.name]) and self._describe_maker(other) == self._describe_maker(
                fusion
            )
            if is_alike and all(self._describe_member(one) == self._describe_member(member) for one in members):
                return other
        return None

    def write_self_fusion(self, fusion: ModelMeasures, member: ModelMeasures) -> str:
        """Return that fusion as it is written in a list of models."""
        names = [str(self._describe(member)["model"])] * len(self.members[fusion.name])
        return write_fusion(names, str(self._describe(fusion)["model"]))

    def _describe(self, model: ModelMeasures) -> Mapping[str, Any]:
        return self._rows[model.entry or 0]

    def _describe_maker(self, model: ModelMeasures) -> tuple[object, ...]:
        return (*self._describe_member(model), self._describe(model)["fusion"]["prompt"])

    def _describe_member(self, model: ModelMeasures) -> tuple[object, ...]:
        return describe_member(self._describe(model))


def _report_fusion(
    job: _FusedJob,
    fusion: ModelMeasures,
    members: Sequence[ModelMeasures],
    matrix: ScoreMatrix,
    scorer: ScorerRow,
    operations: Mapping[str, ModelOperations],
    clusters: Sequence[Hashable] | None,
) -> FusionReport:
    sign = 1 if scorer.is_higher_better else -1
    scores = {name: matrix.scores[place] for place, name in enumerate(matrix.names)}
    own = np.array([scores[member.name] for member in members])
    places = _choose_members(sign * own, clusters)
    counts = np.bincount(places, minlength=len(members)).tolist()
    best = members[int(np.argmax(sign * own.mean(axis=1)))] if own.size else members[0]
    self_fusion = job.find_self_fusion(fusion, best)
    chosen: Floats = own[places, np.arange(own.shape[1])]
    against_best = compare(scores[fusion.name], chosen, clusters=clusters)
    against_self = None
    if self_fusion and self_fusion.name in scores and self_fusion is not fusion:
        against_self = compare(scores[fusion.name], scores[self_fusion.name], clusters=clusters)
    missing = None if self_fusion else job.write_self_fusion(fusion, best)
    itself = f"{best.name} fused with itself"
    if against_self:
        beside_self = f"it {_describe_lead(against_self, sign, itself)}"
    elif self_fusion is fusion:
        beside_self = f"it is {itself}"
    else:
        beside_self = f"not compared with {itself}, which costs about as much" + (
            f": add the model `{missing}`" if missing else ""
        )
    cost = _sum_cost(operations, (fusion, *job.members[fusion.name]))
    best_cost = _sum_cost(operations, (best,))
    return FusionReport(
        metric=scorer.label,
        fusion=fusion.name,
        members=[member.name for member in job.members[fusion.name]],
        best_member=best.name,
        chosen={member.name: count for member, count in zip(members, counts, strict=True)},
        against_best=against_best,
        self_fusion=self_fusion.name if self_fusion else None,
        against_self=against_self,
        missing=missing,
        cost_per_1000=cost,
        best_cost_per_1000=best_cost,
        self_cost_per_1000=_sum_cost(operations, (self_fusion, *job.members[self_fusion.name])) if self_fusion else None,
        sentence=f"{scorer.label}: {fusion.name} {_describe_lead(against_best, sign, f'its best member ({best.name})')}"
        f"{_describe_factor(cost, best_cost)}; {beside_self}",
    )


def _choose_members(goodness: Floats, clusters: Sequence[Hashable] | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return for each item the member that is best on the items of the other folds."""
    # On the same items the best of several is the luckiest, too: against it, a fusion would look worse than it is.
    count = goodness.shape[1]
    groups = list(range(count)) if clusters is None else list(clusters)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    shuffled = np.random.default_rng(0).permutation(len(numbers))
    folds = np.array([shuffled[numbers[group]] % FOLDS for group in groups], dtype=np.int64)
    chosen = np.zeros(count, dtype=np.int64)
    for fold in range(FOLDS):
        inside = folds == fold
        others = goodness[:, ~inside] if not inside.all() else goodness
        if inside.any():
            chosen[inside] = int(np.argmax(others.mean(axis=1)))
    return chosen


def _sum_cost(operations: Mapping[str, ModelOperations], models: Sequence[ModelMeasures]) -> float | None:
    return sum_complete(operations[model.name].cost_per_1000.value for model in models)


def _describe_lead(test: PairedTest, sign: int, other: str) -> str:
    estimate = test.difference
    if estimate.value is None or estimate.interval is None:
        return f"cannot be compared with {other}: {estimate.note or 'there is no interval'}"
    if not estimate.value:
        return f"has the same mean as {other} ({format_p(test.p_value)}, {estimate.n:,} items)"
    return f"is {'ahead of' if sign * estimate.value > 0 else 'behind'} {other} by {format_lead(estimate, test.p_value)}"


def _describe_factor(cost: float | None, of: float | None) -> str:
    return f", at {cost / of:.2g} times its cost" if cost is not None and of else ""

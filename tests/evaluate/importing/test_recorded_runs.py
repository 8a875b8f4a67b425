"""Files that other programs wrote themselves: the means here are those that they printed.

`strong.eval` and `weak.eval`: Inspect 0.3.285, four samples in two epochs of its `mockllm`, scored by `includes` and `match`.
`dummy/`: lm-eval's `dummy` model, `--log_samples`, a task that generates, with two filters, and one of multiple choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest

from fanout.core.errors import RequestError
from fanout.evaluate.importing.imported_job import merge_samples
from fanout.evaluate.importing.inspect_logs import read_inspect
from fanout.evaluate.importing.lm_eval import read_lm_eval
from fanout.evaluate.importing.samples import ImportedSamples, Sample

FOLDER = Path(__file__).with_name("recorded_runs")


def average(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the mean of every score."""
    names = sorted({name for sample in samples for name in sample.scores})
    return {name: fmean(sample.scores[name] for sample in samples if name in sample.scores) for name in names}


@pytest.mark.parametrize(
    ("name", "printed"), [("strong", {"includes": 0.75, "match": 0.5}), ("weak", {"includes": 0.25, "match": 0.25})]
)
def test_a_log_that_inspect_packed_by_zstandard_has_the_accuracies_that_it_printed(
    name: str, printed: dict[str, float]
) -> None:
    found = ImportedSamples("inspect")
    read_inspect(FOLDER / f"{name}.eval", None, found)
    samples = list(merge_samples(found.samples).values())

    assert {sample.model for sample in samples} == {f"mockllm/{name}"}
    assert sorted((sample.item[1], sample.repeat) for sample in samples) == [
        (city, epoch) for city in ("Bern", "Oslo", "Paris", "Rome") for epoch in (0, 1)
    ]
    assert average(samples) == printed


def test_a_packed_log_that_is_damaged_is_refused_by_its_place(tmp_path: Path) -> None:
    first, *frames = (FOLDER / "weak.eval").read_bytes().split(b"\x28\xb5\x2f\xfd")
    damaged = [frame[:8] + bytes(20) + frame[28:] for frame in frames]
    (tmp_path / "cut.eval").write_bytes(b"\x28\xb5\x2f\xfd".join([first, *damaged]))
    with pytest.raises(RequestError, match=r"cut\.eval: header\.json: cannot be unpacked"):
        read_inspect(tmp_path / "cut.eval", None, ImportedSamples("inspect"))


def test_samples_that_lm_eval_logged_have_the_means_that_it_printed() -> None:
    found = ImportedSamples("lm-eval")
    for path in sorted((FOLDER / "dummy").glob("samples_*.jsonl")):
        read_lm_eval(path, None, found)
    samples = list(merge_samples(found.samples).values())

    assert len(samples) == 8
    assert average(samples) == {"acc": 0.75, "acc_norm": 0.75, "exact_match,strict": 0.0, "exact_match,word": 0.0}

"""Model names: the models behind them, and the failures of those that cannot be called."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from fanout.config.catalogue import Catalogue
from fanout.config.settings import Settings, load_settings
from tests.support.builders.settings import load_own_settings
from tests.support.timing import timed

TODAY = date(2026, 6, 1)


def make_row(provider: str, upstream_id: str, **more: Any) -> dict[str, Any]:
    return {"provider": provider, "id": upstream_id, "kind": "chat", **more}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    at = {"adapter": "openai", "base_url": "https://p.example/v1"}
    providers = {
        "open": {**at, "default_kind": "text"},
        "keyed": {**at, "api_key_env": ["A_KEY", "B_KEY"], "key_header": "X-Keyed-Key"},
        "unset": {"adapter": "openai", "base_url_env": "UNSET_URL", "api_key_env": "A_KEY", "key_header": "X-Unset-Key"},
    }
    models = {
        "Alpha": make_row("open", "alpha-1", kind="both", limit_group="g", aliases=["first", "org/alpha"]),
        "alpha-again": make_row("open", "alpha-1"),
        "org/beta": make_row("keyed", "beta"),
        "gamma": make_row("unset", "gamma"),
        "old": make_row("keyed", "old-1", deprecated_on="2026-06-01", successor="Alpha"),
        "older": make_row("open", "older-1", deprecated_on="2020-01-01"),
        "later": make_row("open", "later-1", deprecated_on="2026-06-02"),
    }
    sets = {"Both": ["Alpha", "org/beta"]}
    return load_own_settings(tmp_path, {"extends": False, "providers": providers, "models": models, "sets": sets})


@pytest.fixture
def catalogue(settings: Settings) -> Catalogue:
    return Catalogue(settings)


@pytest.mark.parametrize("name", ["Alpha", "alpha", "ALPHA", "first", "FIRST", "org/alpha", "Org/Alpha", "open/alpha-1"])
def test_a_model_is_found_by_any_of_its_names_in_any_case(catalogue: Catalogue, name: str) -> None:
    model = catalogue.find(name)
    assert model is not None
    assert (model.name, model.provider, model.id, model.kind) == ("Alpha", "open", "alpha-1", "both")
    assert model.row is not None
    assert model.row.limit_group == "g"


def test_any_id_of_a_provider_can_be_called_literally(catalogue: Catalogue) -> None:
    model = catalogue.find("open/Some/New:Id")
    assert model is not None
    assert (model.name, model.provider, model.id, model.kind, model.row) == (
        "open/Some/New:Id",
        "open",
        "Some/New:Id",
        "text",
        None,
    )


def test_a_literal_id_is_case_sensitive(catalogue: Catalogue) -> None:
    """`open/ALPHA-1` may be another model there than `alpha-1`; no alias replaces it."""
    model = catalogue.find("open/ALPHA-1")
    assert model is not None
    assert (model.id, model.row) == ("ALPHA-1", None)


@pytest.mark.parametrize("name", ["", "nobody", "open", "open/", "/alpha", "OPEN/alpha-1", "Both", "alpha "])
def test_an_unknown_name_is_not_found(catalogue: Catalogue, name: str) -> None:
    assert catalogue.find(name) is None


def test_a_set_is_found_in_any_case(catalogue: Catalogue) -> None:
    assert catalogue.find_set("both") == catalogue.find_set("BOTH") == ("Alpha", "org/beta")
    assert catalogue.find_set("Alpha") is None


def test_models_are_listed_once_in_the_order_of_the_file(catalogue: Catalogue) -> None:
    names = ["Alpha", "alpha-again", "org/beta", "gamma", "old", "older", "later"]
    assert [model.name for model in catalogue] == names


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("alhpa", "unknown model `alhpa`; did you mean `Alpha`?"),
        ("frist", "unknown model `frist`; did you mean `first`?"),
        ("bothh", "unknown model `bothh`; did you mean `Both`?"),
        ("Open/alpha-1", "unknown model `Open/alpha-1`; did you mean `open/alpha-1` or `org/alpha`"),
        ("zzzz", "unknown model `zzzz`; `fanout models` lists what is known"),
    ],
)
def test_the_failure_for_an_unknown_name_suggests_the_names_near_it(catalogue: Catalogue, name: str, hint: str) -> None:
    failure = catalogue.refuse_unknown(name)
    assert failure.message.startswith(hint)
    assert (failure.kind, failure.code, failure.param) == ("not_found", "model_not_found", "model")


@timed
def test_suggestions_for_an_unknown_name_take_less_than_a_millisecond() -> None:
    """Processor time with the shipped file, because the search runs on the event loop. Typically 0.1 ms (2026-11)."""
    catalogue = Catalogue(load_settings(None, {}))
    catalogue.refuse_unknown("warm")

    def measure_s(number: int) -> float:
        start = time.thread_time()
        catalogue.refuse_unknown(f"opnai/gtp-{number}" + "x" * 200)
        return time.thread_time() - start

    assert median(measure_s(number) for number in range(30)) < 0.001


def test_a_model_lacks_the_variables_that_its_provider_lacks(catalogue: Catalogue) -> None:
    beta, gamma = catalogue.find("org/beta"), catalogue.find("gamma")
    assert beta is not None
    assert gamma is not None
    assert catalogue.lacks(beta) == ("A_KEY or B_KEY",)
    assert catalogue.lacks(beta, own_key=True) == ()
    assert catalogue.lacks(gamma) == ("A_KEY", "UNSET_URL")
    assert catalogue.find_provider(gamma).name == "unset"


def test_the_failure_for_a_missing_configuration_names_the_variables_and_the_command_that_sets_them(
    catalogue: Catalogue,
) -> None:
    beta, gamma = catalogue.find("org/beta"), catalogue.find("gamma")
    assert beta is not None
    assert gamma is not None
    failure = catalogue.refuse_without_settings(beta)
    assert failure.message == "`org/beta` needs `A_KEY` or `B_KEY`; `fanout keys set keyed` sets it"
    failure = catalogue.refuse_without_settings(gamma)
    assert failure.message == "`gamma` needs `A_KEY` and `UNSET_URL`; `fanout init --provider unset` sets them"


def test_callers_of_a_server_read_of_its_environment_and_of_the_header_for_their_own_key(settings: Settings) -> None:
    catalogue = Catalogue(settings, is_serving=True)
    assert catalogue.refuse_unknown("zzzz").message.endswith("`GET /v1/models` lists what is known")
    beta, gamma = catalogue.find("org/beta"), catalogue.find("gamma")
    assert beta is not None
    assert gamma is not None
    failure = catalogue.refuse_without_settings(beta)
    assert (failure.kind, failure.code) == ("not_configured", "provider_not_configured")
    assert failure.message == (
        "`org/beta` needs `A_KEY` or `B_KEY` in the server's environment, or a key of your own in the header `X-Keyed-Key`"
    )
    # A key of one's own does not help where the address is missing too.
    assert (
        catalogue.refuse_without_settings(gamma).message == "`gamma` needs `A_KEY` and `UNSET_URL` in the server's environment"
    )


def test_a_model_is_refused_with_its_successor_from_the_day_of_its_shutdown(catalogue: Catalogue) -> None:
    messages = {}
    for model in catalogue:
        if failure := catalogue.refuse_after_shutdown(model, TODAY):
            assert (failure.kind, failure.code, failure.param) == ("not_found", "model_retired", "model")
            messages[model.name] = failure.message
    assert messages == {
        "old": "`old` was shut down by its vendor on 2026-06-01; its vendor names `Alpha` as successor",
        "older": "`older` was shut down by its vendor on 2020-01-01",
    }


def test_a_shut_down_model_is_refused_under_its_literal_name_too(catalogue: Catalogue) -> None:
    listed, unlisted = catalogue.find("keyed/old-1"), catalogue.find("keyed/old-2")
    assert listed is not None
    assert unlisted is not None
    assert catalogue.refuse_after_shutdown(listed, TODAY) is not None
    assert catalogue.refuse_after_shutdown(unlisted, TODAY) is None

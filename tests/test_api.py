"""Fanout in a program: `ask`, `ask_sync`, and a dispatcher kept open."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fanout
from fanout.api import build_request
from fanout.config.settings import Settings, load_settings
from fanout.core.comparison import ChoiceRecord, Comparison
from fanout.core.errors import RequestError
from fanout.core.sampling import SAMPLING_NAMES, Sampling, SamplingOptions
from fanout.core.schema import Answer, Call, Choice, Completion, Failure, FittedParameters, Query, Target
from fanout.dispatch.entries import Entry
from fanout.providers import OnHeaders
from tests.support.builders.settings import write_providers_file
from tests.support.timing import timed
from tests.support.upstream.server import Upstream


@pytest.fixture
def settings(upstream: Upstream, tmp_path: Path) -> Settings:
    """Settings with the scripted upstream."""
    path = write_providers_file(upstream.url, tmp_path, prices="", retries={"attempts": 1})
    return load_settings(path, {"FANOUT_TIMEOUT_S": "5"})


def read_texts(comparison: Comparison) -> list[str | None]:
    return [choice.choice.message.text if choice.choice else None for choice in comparison.choices]


def read_failures(comparison: Comparison) -> list[str | None]:
    results = [choice.outcome.result for choice in comparison.choices]
    return [result.code or result.kind if isinstance(result, Failure) else None for result in results]


# `ask`


async def test_one_prompt_is_sent_to_many_models_and_failures_keep_their_places(settings: Settings) -> None:
    comparison = await fanout.ask("Hello", ["up/say-one", "up/500", "nobody", "up/say-two"], settings=settings)
    assert read_texts(comparison) == ["one", None, None, "two"]
    assert read_failures(comparison)[2] == "model_not_found"
    assert comparison.totals.input_tokens == 20
    assert comparison.total_s >= comparison.overhead_s >= 0
    assert abs(comparison.created - time.time()) < 60


async def test_without_models_the_embedded_ones_answer() -> None:
    comparison = await fanout.ask("The return statement", settings=load_settings(None, {}), max_tokens=4, seed=1)
    assert [choice.outcome.call.target.name for choice in comparison.choices] == [
        "local/ngram-2",
        "local/ngram-3",
        "local/ngram-5",
    ]
    assert all(read_texts(comparison))
    assert comparison.totals.cost_usd == 0


@pytest.mark.parametrize("models", ["up/say-one", {"model": "up/say-one"}, ["up/say-one"], ("up/say-one",)])
async def test_a_single_model_needs_no_list(settings: Settings, models: Any) -> None:
    assert read_texts(await fanout.ask("Hello", models, settings=settings)) == ["one"]


async def test_a_mapping_has_a_label_and_parameters_of_its_own(settings: Settings, upstream: Upstream) -> None:
    own = {"model": "up/say-one", "label": "mine", "max_tokens": 7, "temperature": None}
    comparison = await fanout.ask("Hello", [own, "up/say-two"], settings=settings, temperature=0.5, max_tokens=9)
    assert [choice.outcome.call.target.label for choice in comparison.choices] == ["mine", "up/say-two"]
    bodies = [upstream.requests_for(model)[0].body for model in ("say-one", "say-two")]
    assert [(body.get("max_tokens"), body.get("temperature")) for body in bodies] == [(7, None), (9, 0.5)]


async def test_a_fusion_is_followed_by_its_members(settings: Settings, upstream: Upstream) -> None:
    mix = fanout.Fusion(
        ["up/say-one", {"model": "up/say-two", "temperature": 1}], "up/echo", label="mix", parameters={"seed": 3}
    )
    fused, *members = await fanout.ask("Hello", mix, settings=settings)
    assert (fused.label, [member.label for member in members]) == ("mix", ["up/say-one", "up/say-two"])
    assert fused.fusion
    assert [member.left_out for member in fused.fusion.members] == [None, None]
    sent = json.loads(fused.text)
    assert sent["seed"] == 3
    assert "one" in sent["messages"][0]["content"]


async def test_a_fusion_that_cannot_be_is_refused_at_its_place(settings: Settings) -> None:
    for wrong, place in (
        (fanout.Fusion([fanout.Fusion(["a", "b"], "c"), "a"], "c"), "models[0].fusion.of[0]"),  # type: ignore[list-item]
        ({"fusion": {"of": "a", "by": "c"}}, "models[0].fusion.of"),
        ({"fusion": {"of": ["a", "b"], "by": "c", "bye": 1}}, "models[0].fusion.bye"),
        ({"fusion": {"of": ["a", "b"], "by": "c"}, "model": "a"}, "models[0].fusion"),
        (fanout.Fusion(["a", "b"], "c", template="none"), "models[0].fusion.template"),
    ):
        with pytest.raises(RequestError) as error:
            await fanout.ask("Hello", wrong, settings=settings)
        assert place in [fault.path for fault in error.value.faults]


async def test_a_system_message_and_samples_are_sent(settings: Settings, upstream: Upstream) -> None:
    comparison = await fanout.ask("Hello", "up/say-one", settings=settings, system="Be brief", n=2, stop="end")
    assert read_texts(comparison) == ["one", "one"]
    assert [sent.body["messages"][0] for sent in upstream.requests] == [{"role": "system", "content": "Be brief"}] * 2
    assert upstream.requests[0].body["stop"] == ["end"]


async def test_strict_refuses_what_would_be_ignored(settings: Settings, upstream: Upstream) -> None:
    comparison = await fanout.ask("Hello", "up/ok", settings=settings, top_k=3, strict=True)
    assert read_failures(comparison) == ["unsupported_parameter"]
    assert upstream.requests == []


@timed
async def test_the_deadline_is_the_callers_or_else_that_of_the_settings(settings: Settings) -> None:
    start_s = time.monotonic()
    assert read_failures(await fanout.ask("Hello", "up/hang", settings=settings, timeout_s=0.2)) == ["deadline_exceeded"]
    assert read_failures(await fanout.ask("Hello", "up/hang", settings=settings, timeout_s=0)) == ["deadline_exceeded"]
    assert time.monotonic() - start_s < 4
    short = load_settings(Path(settings.files[0]), {"FANOUT_TIMEOUT_S": "0.2"})
    assert read_failures(await fanout.ask("Hello", "up/hang", settings=short)) == ["deadline_exceeded"]


async def test_return_when_cancels_the_rest_after_enough_answers(settings: Settings, upstream: Upstream) -> None:
    comparison = await fanout.ask("Hello", ["up/hang", "up/ok"], settings=settings, return_when=1)
    assert read_failures(comparison) == ["cancelled", None]
    await upstream.wait_until_idle()


async def test_a_dispatcher_kept_open_keeps_its_connections(settings: Settings, upstream: Upstream) -> None:
    async with fanout.open_dispatcher(settings) as dispatcher:
        for _ in range(5):
            assert read_texts(await fanout.ask("Hello", "up/say-one", dispatcher=dispatcher)) == ["one"]
        assert upstream.connections == 1
    await upstream.wait_until_closed()
    for _ in range(2):
        await fanout.ask("Hello", "up/ok", settings=settings)
    assert upstream.connections == 3


class SlowProvider:
    """A provider with a long preparation that then answers at once."""

    def __init__(self) -> None:
        self.prepared = 0

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return FittedParameters()

    async def prepare(self) -> None:
        if not self.prepared:
            await asyncio.sleep(0.3)
        self.prepared += 1

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        if not self.prepared:
            await self.prepare()
        return Completion((Choice(Answer("ready"), "stop"),))


def create(settings: Any, session: Any) -> SlowProvider:
    """Create the provider: this module is an adapter, too."""
    return SlowProvider()


@pytest.fixture
def slow(tmp_path: Path) -> Settings:
    """The settings of a slow provider."""
    (tmp_path / "slow.json").write_text(
        json.dumps({"extends": False, "providers": {"slow": {"adapter": __name__, "prices": ""}}})
    )
    return load_settings(tmp_path / "slow.json", {})


@timed
async def test_preparation_is_not_counted_as_the_models_time(slow: Settings) -> None:
    comparison = await fanout.ask("Hello", "slow/m", settings=slow)
    assert read_texts(comparison) == ["ready"]
    assert comparison.choices[0].outcome.timing.total_s < 0.2
    assert comparison.total_s < 0.2


async def test_only_providers_that_are_called_are_prepared(slow: Settings) -> None:
    async with fanout.open_dispatcher(slow) as dispatcher:
        calls = dispatcher.plan(build_request("Hello", ["nobody", "slow/m", "slow/n"]))
        provider = dispatcher.upstreams.find_provider(calls[1].target)
        assert isinstance(provider, SlowProvider)
        await dispatcher.prepare(calls[:1])
        assert provider.prepared == 0
        await dispatcher.prepare(calls)
        assert provider.prepared == 1


# `ask_sync`


def test_ask_sync_works_in_a_script() -> None:
    comparison = fanout.ask_sync("Hello", "local/ngram-2", settings=load_settings(None, {}), max_tokens=3, seed=1)
    assert all(read_texts(comparison))


async def test_ask_sync_works_beside_a_running_loop(settings: Settings) -> None:
    """Cells of a notebook run within an event loop."""
    assert read_texts(fanout.ask_sync("Hello", "local/ngram-2", settings=settings, max_tokens=3)) != [None]


async def test_ask_sync_refuses_a_dispatcher_of_another_loop(settings: Settings) -> None:
    async with fanout.open_dispatcher(settings) as dispatcher:
        with pytest.raises(RequestError, match="dispatcher: belongs to the event loop that opened it"):
            fanout.ask_sync("Hello", "up/ok", dispatcher=dispatcher)  # type: ignore[call-arg]


INTERRUPTED = """
import asyncio, fanout, sys
from pathlib import Path

async def cell():
    fanout.ask_sync("Hello", "up/hang", settings=fanout.load_settings(Path(sys.argv[1]), {}))

loop = asyncio.new_event_loop()  # not asyncio.run, which handles SIGINT in a way that no notebook does
try:
    loop.run_until_complete(cell())
except KeyboardInterrupt:
    print("interrupted")
finally:
    loop.close()
"""


async def test_an_interrupted_notebook_cell_ends_its_calls(settings: Settings, upstream: Upstream) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INTERRUPTED, settings.files[0], stdout=subprocess.PIPE, cwd=Path(fanout.__file__).parents[1]
    )
    await upstream.wait_for_requests(1, timeout_s=20)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        assert (await process.communicate())[0] == b"interrupted\n"
    await upstream.wait_until_idle()


# `ask_stream`


async def test_pieces_arrive_as_the_models_write_them_and_the_last_of_each_has_the_answer(settings: Settings) -> None:
    pieces = [piece async for piece in fanout.ask_stream("Hello", ["up/chunks-3", "up/500"], settings=settings)]

    texts = [piece.text for piece in pieces if piece.label == "up/chunks-3"]
    assert texts == ["w0 ", "w1 ", "w2 ", ""]
    ends = {piece.label: piece.choice for piece in pieces if piece.choice}
    assert [end.text for end in ends.values() if not end.failure] == ["w0 w1 w2 "]
    assert ends["up/500"].failure
    first = ends["up/chunks-3"].ttft_s
    assert first is not None
    assert first <= ends["up/chunks-3"].total_s


async def test_a_stream_that_is_left_ends_its_calls(settings: Settings, upstream: Upstream) -> None:
    stream = fanout.ask_stream("Hello", "up/chunks-100-gap-0.1", settings=settings)
    async for piece in stream:
        assert piece.text == "w0 "
        break
    await stream.aclose()
    await upstream.wait_until_idle()


# Conversations and images

PIXEL = b"\x89PNG\r\n\x1a\n rest"


async def test_the_messages_of_a_conversation_are_sent_as_they_are(settings: Settings, upstream: Upstream) -> None:
    past: list[dict[str, Any]] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "And now?"},
    ]
    await fanout.ask(past, "up/say-one", settings=settings, extra_body={"response_format": {"type": "json_object"}})

    assert upstream.requests[0].body["messages"] == past
    assert upstream.requests[0].body["response_format"] == {"type": "json_object"}


async def test_images_belong_to_the_last_message_of_the_user(settings: Settings, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PIXEL)
    images: list[Any] = [tmp_path / "a.png", PIXEL, "https://images.example/b.png"]
    await fanout.ask("What is this?", "up/say-one", settings=settings, images=images)

    text, *parts = upstream.requests[0].body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    urls = [part["image_url"]["url"] for part in parts]
    assert urls[0] == urls[1]
    assert urls[0].startswith("data:image/png;base64,")
    assert urls[2] == "https://images.example/b.png"


def test_every_fault_of_messages_and_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no image")
    with pytest.raises(RequestError) as caught:
        build_request(
            [{"role": "user", "content": "x"}, {"role": "usr", "content": "x"}],
            "m",
            images=[tmp_path / "absent.png", tmp_path / "note.txt"],
        )
    assert [fault.path for fault in caught.value.faults] == ["prompt[1].role", "images[0]", "images[1]"]


# Answers


async def test_an_answer_has_its_figures_and_a_failure_prints_its_sentence(settings: Settings) -> None:
    comparison = await fanout.ask("Hello", ["up/say-one", "up/500"], settings=settings)

    one, failed = comparison
    assert (str(one), one.text, one.label, one.model) == ("one", "one", "up/say-one", "up/say-one")
    assert (one.usage.output_tokens, failed.usage.output_tokens) == (4, None)
    assert (one.cost_usd, one.ttft_s, one.failure) == (None, None, None)
    assert one.total_s == one.timing.total_s > 0
    assert str(failed) == str(failed.failure) == failed.failure.message if failed.failure else False
    assert comparison["up/500"] is failed
    assert len(comparison) == 2
    assert comparison[-1] is failed
    assert comparison[:1] == (one,)
    with pytest.raises(KeyError, match="no answer has the label `nope`; there are: up/say-one, up/500"):
        _ = comparison["nope"]


async def test_answers_become_rows_and_plain_values(settings: Settings) -> None:
    import pandas

    comparison = await fanout.ask("Hello", ["up/say-one", "up/500"], settings=settings)

    table = pandas.DataFrame(comparison.to_records())
    assert list(table["label"]) == ["up/say-one", "up/500"]
    assert list(table["failure"].fillna("")) == ["", "server"]
    assert set(table.columns) == set(ChoiceRecord.__annotations__)
    values = comparison.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["choices"] == comparison.to_records()


async def test_notebooks_show_answers_side_by_side_and_run_none_of_their_tags(settings: Settings) -> None:
    comparison = await fanout.ask("Hello", ["up/say-<script>", "up/500"], settings=settings)

    shown = comparison._repr_html_()
    assert shown.count("<th ") == 2
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    assert len(repr(comparison)) < 300
    assert repr(comparison[0]).startswith("<up/say-<script>: '<script>', 4 tokens, ")
    assert repr(comparison[1]).startswith("<up/500: server: ")


# Types


def test_keyword_arguments_are_declared_as_the_parameters_are() -> None:
    assert set(SamplingOptions.__annotations__) == set(SAMPLING_NAMES)


async def test_type_checkers_refuse_a_misspelt_parameter(settings: Settings) -> None:
    """Without the error, mypy would complain of a comment that ignores nothing."""
    with pytest.raises(RequestError, match=r"max_tokns: unknown parameter `max_tokns`; did you mean `max_tokens`\?"):
        await fanout.ask("Hello", "up/ok", settings=settings, max_tokns=3)  # type: ignore[call-arg]


def test_every_name_is_offered_to_notebooks_before_it_is_loaded() -> None:
    assert set(fanout.__all__) <= set(dir(fanout))


# Requests


def test_a_request_holds_what_was_given() -> None:
    models: list[str | dict[str, Any]] = ["a", {"model": "b", "label": "B", "stop": "x"}, {"model": "c", "stop": ["x", "y"]}]
    made = build_request("Hello", models, system="s", strict=True, seed=3, logit_bias={"1": 2})
    assert made.entries == (Entry("a"), Entry("b", "B", {"stop": ("x",)}), Entry("c", None, {"stop": ("x", "y")}))
    assert made.sampling == Sampling(seed=3, logit_bias={"1": 2.0})
    assert (made.prompts, made.system, made.strict) == (("Hello",), "s", True)


@pytest.mark.parametrize(
    ("models", "sampling", "fault"),
    [
        ("m", {"temprature": 1}, "temprature: unknown parameter `temprature`; did you mean `temperature`?"),
        ("m", {"zzz": 1}, "zzz: unknown parameter `zzz`; known: max_tokens, temperature,"),
        ([{"model": "m", "topp": 1}], {}, "models[0].topp: unknown parameter `topp`; did you mean `top_p` or"),
        ("m", {"temperature": "hot"}, "temperature: `hot` is not allowed: input should be a valid number"),
        (["a", {"model": "m", "n": 1.5}], {}, "models[1].n: 1.5 is not allowed: input should be a valid integer"),
        ("m", {"stop": 5}, "stop: must be text, or a list of texts"),
        ([{"label": "m"}], {}, "models[0].model: is required: the name of a model"),
        ([""], {}, "models[0].model: is required: the name of a model"),
        ([], {}, "models: is empty: at least one model must be named"),
    ],
)
def test_a_wrong_request_is_reported_with_its_fault(models: Any, sampling: dict[str, Any], fault: str) -> None:
    with pytest.raises(RequestError) as caught:
        build_request("Hello", models, **sampling)
    assert str(caught.value).startswith(fault)


def test_all_faults_of_a_request_are_reported_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        build_request("Hello", [{"modle": "m"}, {"model": "m", "n": "x"}], top_pp=1, seed="y")  # type: ignore[call-arg,arg-type]
    places = [fault.path for fault in caught.value.faults]
    assert places == ["models[0].model", "models[0].modle", "models[1].n", "top_pp", "seed"]


@pytest.mark.parametrize("options", [{"return_when": 0}, {"n": 0}])
async def test_return_when_and_n_must_be_at_least_1(settings: Settings, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"(be at least|is at least|greater than or equal to) 1"):
        await fanout.ask("Hello", "up/ok", settings=settings, **options)


# `import fanout`


def test_the_package_exports_its_names_and_no_others() -> None:
    for name in fanout.__all__:
        assert callable(getattr(fanout, name)) or name == "adapters"
    for name in fanout.adapters.__all__:
        assert hasattr(fanout.adapters, name)
    with pytest.raises(AttributeError, match="module `fanout` has no attribute `aks`"):
        _ = fanout.aks


LAZY = """
import asyncio, sys, fanout
assert not {"aiohttp", "pydantic"} & set(sys.modules)
settings = fanout.load_settings(None, {})

fanout.ask_sync("Hello", ["local/ngram-2", "gpt-6-luna"], max_tokens=1, settings=settings)
assert "genai_prices.data" not in sys.modules  # a free model and a refused one have no price to look up

async def load():
    async with fanout.open_dispatcher(settings) as dispatcher:
        await dispatcher.upstreams.load_prices()

asyncio.run(load())
assert "genai_prices.data" in sys.modules
"""


def test_each_name_is_loaded_at_its_first_use() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True, cwd=Path(fanout.__file__).parents[1])

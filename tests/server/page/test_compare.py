"""The view Compare, driven as a person does: answers as they come, errors in their place, the run that is found again."""

from __future__ import annotations

import json
import sys

import pytest
from playwright.async_api import Browser

from tests.support.browser import NARROW, WIDE, Visit, visit
from tests.support.cli import run_command
from tests.support.server import Server
from tests.support.upstream.server import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="session")
SLOW = "up/chunks-40-gap-0.05"
SHORT = {"max_tokens": "8", "temperature": "0"}


async def test_models_answer_without_any_choice_and_the_run_has_an_address(visitor: Visit) -> None:
    await visitor.go()
    page = visitor.page
    await page.click("text=The return statement")
    await page.click("#run")
    await visitor.wait_for_states("done", "done", "done")

    assert sum(map(bool, await visitor.texts())) >= 2  # an embedded model may end before its first word
    first = page.locator(".column").first
    assert await first.locator("dt").all_inner_texts() == ["first token", "total", "tokens", "speed", "cost"]
    assert "–" not in (await first.locator("dd").all_inner_texts())[:4]
    assert "/#/runs/" in page.url


async def test_models_are_found_added_and_removed(visitor: Visit) -> None:
    await visitor.choose()
    page = visitor.page
    await page.click("#add-model")
    await page.fill("input[type=search]", "needs-k")
    assert "needs ABSENT_API_KEY" in await page.inner_text(".choices")
    await page.fill("input[type=search]", "local/*")
    await page.click("text=Add all 3 that are ready")
    await page.fill("input[type=search]", "embed")
    await page.click("button[aria-label='Add the set embedded']")
    await page.fill("input[type=search]", "up/anything")
    await page.press("input[type=search]", "Enter")
    await page.keyboard.press("Escape")  # empties the search
    await page.keyboard.press("Escape")

    names = await page.locator(".entry-name").all_inner_texts()
    assert names == ["local/ngram-2", "local/ngram-3", "local/ngram-5", "embedded", "up/anything"]
    await page.click("button[aria-label='Remove embedded']")
    assert await page.locator(".entry-name").count() == 4


async def test_an_entry_has_a_name_and_parameters_of_its_own_and_the_same_model_is_two_columns(visitor: Visit) -> None:
    page = visitor.page
    own = {"model": "up/echo", "label": "cold", "parameters": {"temperature": "0", "stop": "a"}}
    await visitor.choose("up/echo", own)
    await page.click("text=System message and parameters")
    await page.fill("#system", "Be brief.")
    await page.fill("#all-max_tokens", "7")
    await page.fill("#prompt", "hi")
    await page.fill("#samples", "2")
    await page.click("#run")
    await visitor.wait_for_states("done", "done", "done", "done")

    sent = [json.loads(text) for text in await visitor.texts()]
    assert [body.get("temperature") for body in sent] == [None, None, 0, 0]
    assert {body["max_tokens"] for body in sent} == {7}
    assert sent[0]["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert await page.locator(".column h2").all_inner_texts() == ["up/echo · 1", "up/echo · 2", "cold · 1", "cold · 2"]


async def test_the_chosen_models_are_fused_by_one_click_and_the_answer_says_what_it_is_made_from(visitor: Visit) -> None:
    page = visitor.page
    await visitor.choose("local/ngram-3", "up/400")
    await page.click("#add-fusion")
    await page.fill("#prompt", "The return statement")
    await page.click("#run")
    await visitor.wait_for_states("done", "failed", "done")

    fusion = page.locator(".column").last
    assert await fusion.locator("h2").inner_text() == "fusion(local/ngram-3, up/400 by local/ngram-3)"
    notes = await fusion.locator(".notes").inner_text()
    assert "made from local/ngram-3 · without up/400 (bad_request: " in notes
    assert "cost of all unknown" in notes  # the server of this test knows no prices

    await visitor.choose("fusion(up/say-one, up/say-two by up/say-three)")
    await page.click("#run")
    await visitor.wait_for_states("done", "done", "done")
    names = await page.locator(".column h2").all_inner_texts()
    assert names[1:] == ["up/say-one (member)", "up/say-two (member)"]
    await page.click("text=Continue with all")
    await page.fill("#continuation", "and then?")
    await page.click("text=Send")
    await visitor.wait_for_states("done", "done", "done")
    assert await page.locator(".column h2").all_inner_texts() == names


async def test_a_failure_stands_in_its_column_and_says_what_to_do_and_keeps_the_text_so_far(visitor: Visit) -> None:
    await visitor.run("up/chunks-6-cut", "needs-key", "up/401", "ok")
    await visitor.wait_for_states("failed", "failed", "failed", "done")

    page = visitor.page
    assert (await visitor.texts())[0].startswith("w0")
    advice = await page.locator(".column .advice").all_inner_texts()
    assert "run again" in advice[0]
    assert "Set ABSENT_API_KEY where the server runs" in advice[1]
    assert "fanout check --live" in advice[2]
    await visitor.wait_until("document.getElementById('announcer').textContent.includes('1 of 4 models answered')")


async def test_if_all_fail_each_column_says_why(visitor: Visit) -> None:
    await visitor.run("needs-key", "up/502")
    await visitor.wait_for_states("failed", "failed")

    assert "ABSENT_API_KEY" in await visitor.page.locator(".column .failure").first.inner_text()


async def test_a_wrong_request_is_explained(visitor: Visit) -> None:
    await visitor.choose({"model": "ok", "parameters": {"temperature": "9"}})
    await visitor.page.fill("#prompt", "hi")
    await visitor.page.click("#run")

    assert "temperature" in await visitor.page.inner_text(".answers > .failure")


async def test_one_answer_is_stopped_and_then_all(visitor: Visit, page_upstream: Upstream) -> None:
    left = len(page_upstream.abandoned)
    await visitor.run(SLOW, "up/first-20", "up/chunks-400-gap-0.05")
    await visitor.wait_for_states("answering", "waiting", "answering")
    page = visitor.page
    await page.click(f"button[aria-label='Stop {SLOW}']")
    await visitor.wait_for_states("stopped", "waiting", "answering")
    await page.click("text=Stop all")
    await visitor.wait_for_states("stopped", "stopped", "stopped")

    assert (await visitor.texts())[0].startswith("w0")
    assert len(page_upstream.abandoned) == left + 3


async def test_a_column_is_added_while_others_stream(visitor: Visit) -> None:
    await visitor.run(SLOW)
    await visitor.wait_for_states("answering")
    page = visitor.page
    await page.click(".toolbar >> text=Add a model")
    await page.fill("input[type=search]", "ok")
    await page.press("input[type=search]", "Enter")
    await visitor.wait_for_states("answering", "done")
    await visitor.wait_for_states("done", "done")

    assert page.url.split("/#/runs/")[1].count(",") == 1, "the address holds both requests"
    texts = await visitor.texts()
    await page.reload()
    await visitor.wait_for_states("done", "done")
    await visitor.wait_for_texts(texts)


async def test_a_page_reloaded_in_mid_stream_finds_its_run(visitor: Visit, page_upstream: Upstream) -> None:
    asked = len(page_upstream.requests)
    await visitor.run(SLOW)
    await visitor.wait_for_states("answering")
    await visitor.page.reload()
    await visitor.wait_for_states("answering")
    await visitor.wait_for_states("done")

    await visitor.wait_for_texts(["".join(f"w{number} " for number in range(40))])
    assert len(page_upstream.requests) == asked + 1, "no call was made a second time"


async def test_another_tab_follows_the_same_run(visitor: Visit, browser: Browser) -> None:
    await visitor.run("up/chunks-600-gap-0.05", "ok")
    await visitor.wait_for_states("answering", "done")
    async with visit(browser, visitor.url) as other:
        await other.page.goto(visitor.page.url)
        await other.wait_for_states("answering", "done")
        await other.page.click("text=Stop all")
        await other.wait_for_states("stopped", "done")
        await visitor.wait_for_states("stopped", "done")

        texts = await other.texts()
        assert texts[0].startswith("w0 w1 ")
        await visitor.wait_for_texts(texts)


async def test_a_lost_connection_is_shown_and_the_answers_are_taken_up_again(visitor: Visit) -> None:
    # Of the stream's own connection: the network emulation of the browser does not break what is open already.
    page = visitor.page
    await page.add_init_script(
        """const send = window.fetch; let broken = false;
        new MutationObserver(() => {
          window.wasShown ||= document.body?.textContent.includes('The connection is lost');
        }).observe(document, { childList: true, subtree: true, characterData: true });
        window.fetch = async (path, options) => {
          const response = await send(path, options);
          if (broken || path !== '/v1/completion') return response;
          broken = true;
          const reader = response.body.getReader(); let count = 0;
          const body = new ReadableStream({ async pull(to) {
            const { value, done } = await reader.read();
            if (done || ++count > 8) { reader.cancel(); to.error(new TypeError('network error')); } else to.enqueue(value);
          } });
          return new Response(body, response);
        };"""
    )
    await visitor.run(SLOW)
    await visitor.wait_for_states("done")
    assert await page.evaluate("window.wasShown")

    await visitor.wait_for_texts(["".join(f"w{number} " for number in range(40))])
    assert await page.locator("text=The connection is lost").count() == 0


async def test_the_difference_from_an_answer_is_shown_by_words_and_of_json_by_structure(visitor: Visit) -> None:
    await visitor.run("up/say-the red house", "up/say-the blue house", 'up/say-{"a": 1, "b": 2}', 'up/say-{"b":2,"a":3}')
    await visitor.wait_for_states("done", "done", "done", "done")
    page = visitor.page
    await page.click(".column:nth-child(1) >> text=Differences")
    shown = page.locator(".column:nth-child(2) .difference")
    await shown.locator("ins").wait_for()
    assert await shown.locator("del").all_inner_texts() == ["red"]
    assert await shown.locator("ins").all_inner_texts() == ["blue"]

    await page.click(".column:nth-child(1) >> text=Differences on")
    await page.click(".column:nth-child(3) >> text=Differences")
    shown = page.locator(".column:nth-child(4) .difference")
    await shown.locator("ins").wait_for()
    assert [text.strip() for text in await shown.locator("del").all_inner_texts()] == ['"a": 1,']
    assert [text.strip() for text in await shown.locator("ins").all_inner_texts()] == ['"a": 3,']


async def test_a_conversation_goes_on_with_one_answer_or_with_each_models_own(visitor: Visit) -> None:
    await visitor.run("up/say-one", "up/say-two")
    await visitor.wait_for_states("done", "done")
    page = visitor.page
    for button, second in (("text=Continue with all 2 answers", "two"), ("button[aria-label$='answer of up/say-one']", "one")):
        await page.click(f"{button} >> nth=0" if button.startswith("text") else f"{button}:has-text('Continue')")
        await page.fill("#continuation", "and then?")
        await page.click("text=Send")
        await page.wait_for_selector(".column:nth-child(2) .earlier")
        await visitor.wait_for_states("done", "done")
        said = await page.locator(".column:nth-child(2) .earlier .assistant").all_text_contents()
        assert said[0].split() == ["assistant", second]
        await page.go_back()
        await visitor.wait_until("!document.querySelector('.earlier')")
        await visitor.wait_for_states("done", "done")


async def test_a_run_is_copied_as_text_json_curl_and_python(visitor: Visit) -> None:
    page = visitor.page
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await visitor.run({"model": "local/ngram-2", "parameters": SHORT}, "up/say-it's", prompt='a "quoted" prompt; it\'s \\ odd')
    await visitor.wait_for_states("done", "done")
    texts = await visitor.texts()
    copied = {}
    for name in ("text", "JSON", "curl", "Python"):
        await page.evaluate("document.querySelector('.menu').open = true")
        await page.click(f"button[aria-label='Copy {'all ' if name in ('text', 'JSON') else ''}as {name}']")
        copied[name] = await page.evaluate("navigator.clipboard.readText()")

    assert texts[1] in copied["text"]
    assert [choice["text"] for choice in json.loads(copied["JSON"])["choices"]] == texts
    ran = await run_command(["sh", "-c", copied["curl"]])
    assert [choice["text"] for choice in json.loads(ran.out)["choices"]] == texts
    ran = await run_command([sys.executable, "-c", copied["Python"]])
    assert ran.out == f"local/ngram-2: {texts[0]}\nup/say-it's: {texts[1]}\n", ran.err


async def test_a_past_run_opens_from_its_address_and_runs_again(visitor: Visit, browser: Browser) -> None:
    await visitor.run({"model": "local/ngram-2", "parameters": SHORT}, prompt="The return")
    await visitor.wait_for_states("done")
    async with visit(browser, visitor.url) as other:
        await other.page.goto(visitor.page.url)
        await other.wait_for_states("done")
        assert await other.texts() == await visitor.texts()
        assert await other.page.input_value("#prompt") == "The return"
        await other.page.click("text=Run again")
        await other.page.wait_for_url(lambda url: url != visitor.page.url)
        await other.wait_for_texts(await visitor.texts())


async def test_the_layout_and_the_theme_are_remembered_and_the_keys_work(visitor: Visit) -> None:
    await visitor.run("ok", "ok")
    await visitor.wait_for_states("done", "done")
    page = visitor.page
    await page.click("text=Stacked")
    await page.click("button[aria-label='Theme: auto']")
    await page.click("button[aria-label='Theme: light']")
    await page.reload()
    await visitor.wait_for_states("done", "done")
    boxes = [await page.locator(".column").nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["x"] == boxes[1]["x"]
    assert await page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    await page.locator("main").focus()
    await page.keyboard.press("?")
    assert await page.locator("dialog dt").first.inner_text() == "Ctrl + Enter"
    await page.keyboard.press("Escape")
    await visitor.wait_until("document.querySelector('dialog') === null")
    await page.locator("main").focus()
    await page.keyboard.press("/")
    await visitor.wait_until("document.activeElement.id", "prompt")


@pytest.mark.parametrize(("size", "scheme"), [(NARROW, "light"), (WIDE, "dark"), ((2560, 1200), "light")])
async def test_the_view_is_accessible_at_every_width(
    size: tuple[int, int], scheme: str, browser: Browser, page_server: Server
) -> None:
    async with visit(browser, page_server.url, size, scheme) as visitor:
        await visitor.run("ok", "needs-key", {"model": "local/ngram-2", "parameters": SHORT})
        await visitor.wait_for_states("done", "failed", "done")

        assert await visitor.check_accessibility() == []
        width = await visitor.page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0], "nothing but the columns scrolls sideways"
        await visitor.page.click("#add-model")
        assert await visitor.check_accessibility() == []

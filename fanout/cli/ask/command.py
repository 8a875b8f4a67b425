"""`fanout ask`: one prompt to many models, here or through a running server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from fanout.cli.answer_view import AnswerView, list_code
from fanout.cli.ask.options import GivenOptions, with_question
from fanout.cli.ask.prompt import join_files, read_input
from fanout.cli.ask.question import AskQuestion, Content
from fanout.cli.ask.session import AskSession, open_session
from fanout.cli.ask.templates import AskTemplate, save_template
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED, print_json
from fanout.cli.output import echo
from fanout.cli.side_by_side import SideBySide
from fanout.cli.tables import SafeConsole

NO_PROMPT = 'no prompt: `fanout ask "…"`, or pipe it in, or name a file with -f'


@click.command()
@click.argument("prompt", required=False)
@with_question
@click.option(
    "-f", "--file", "files", multiple=True, type=click.Path(path_type=Path), help="A text or an image to add; may be repeated."
)
@click.option("-x", "--extract", is_flag=True, help="Print only the first fenced code block of each answer.")
@click.option("--diff", is_flag=True, help="Show how the other answers differ from the first.")
@click.option("--json", "as_json", is_flag=True, help="Print what `POST /v1/completion` would return.")
@click.option("--save", metavar="NAME", help="Save the prompt and the options as a template, instead of asking.")
def ask(
    prompt: str | None,
    given: GivenOptions,
    files: Sequence[Path],
    extract: bool,
    diff: bool,
    as_json: bool,
    save: str | None,
) -> None:
    """Ask many models at once.

    Standard input is added below PROMPT, and files below both. Without -m: the set `mine`, else up to four models of
    different providers that are ready, else the embedded ones.

    Exits with 0 if every model answered, 1 if some failed, 2 if nothing could be given.
    """
    if save:
        _save(save, prompt, given)
        return
    text = read_input(prompt)
    if not text and given.template.prompt is None and not files:
        raise click.UsageError(NO_PROMPT)
    content = join_files(given.template.render(text, given.values), files)
    # An empty pipe is a mistake of the command before it: nothing is paid for it.
    if not content or (isinstance(content, str) and not content.strip()):
        raise click.UsageError(f"the prompt is empty; {NO_PROMPT}")
    view = _make_view(given, diff=diff, extract=extract)
    good = asyncio.run(_ask(given, content, view, as_json=as_json))
    if extract and not as_json:
        good = _print_code(view) and good
    sys.exit(ALL_ANSWERED if good else SOME_FAILED)


def _make_view(given: GivenOptions, *, diff: bool, extract: bool) -> AnswerView:
    if extract:
        return AnswerView()
    return SideBySide(
        SafeConsole(),
        SafeConsole(stderr=True),
        diff=diff,
        markdown=not (given.raw or given.plain),
        framed=not given.plain,
    )


async def _ask(given: GivenOptions, content: Content, view: AnswerView, *, as_json: bool) -> bool:
    """Ask, show the answers, and return whether all are as they should be."""
    async with open_session(given.location, given.schema, is_logging=given.is_logging) as session:
        question = await prepare_question(given, session, content)
        if not as_json:
            return await session.show(question, view)
        answer, is_good = await session.complete(question)
        print_json(answer)
        return is_good


async def prepare_question(given: GivenOptions, session: AskSession, content: Content) -> AskQuestion:
    """Return the question to ask first: to the models that are named, go on, or are chosen with a line that says why."""
    words = await session.backend.expand(tuple(given.words)) if given.words else ()
    if given.past_id:
        return await _go_on(given, words, content)
    if words:
        return given.build_question(words, content)
    names, reason = await session.backend.choose_models()
    echo(f"asking {', '.join(names)}: {reason}; -m names others, `fanout models default` sets yours", err=True)
    return given.build_question(names, content)


async def _go_on(given: GivenOptions, words: Sequence[str], content: Content) -> AskQuestion:
    from fanout.cli.log.past import LAST
    from fanout.cli.log.sources import find_past_questions, open_questions

    async with open_questions(given.location) as source:
        pasts = await find_past_questions(source, given.past_id or LAST, answered=True)
    parts = [past.to_question() for past in pasts]
    before = replace(
        parts[0],
        models=tuple(model for part in parts for model in part.models),
        past={model: messages for part in parts for model, messages in part.past.items()},
    )
    answers = {model: text for past in pasts for model, text in past.list_answers().items()}
    if not answers:
        raise click.ClickException(f"{pasts[0].id} cannot be gone on with: no model answered")
    # A model that was not given before takes over the conversation of the first.
    chosen = {model: answers.get(model, next(iter(answers.values()))) for model in words or answers}
    first = next(iter(answers))
    known = {**{model: before.past[first] for model in chosen if first in before.past}, **before.past}
    went = replace(
        before,
        models=tuple(chosen),
        system=given.system or before.system,
        parameters={**before.parameters, **given.parameters},
        extra_body=dict(given.extra_body),
        timeout_s=given.timeout_s,
        past=known,
    )
    return went.follow_up(chosen, content)


def _print_code(view: AnswerView) -> bool:
    """Print the code of the answers; return whether each has some."""
    answers = [*view.answers.values()]
    for block in list_code(answers):
        echo(block.rstrip("\n"))
    for answer in answers:
        if answer.code is None:
            reason = answer.choice["error"]["message"] if answer.choice and answer.choice["error"] else "no fenced code block"
            echo(f"fanout: {answer.label}: {reason}", err=True)
    return all(answer.code is not None for answer in answers)


def _save(name: str, prompt: str | None, given: GivenOptions) -> None:
    # Made of the schema again when the template is used.
    options = {name: value for name, value in {**given.parameters, **given.extra_body}.items() if name != "response_format"}
    template = AskTemplate(
        prompt=prompt if prompt is not None else given.template.prompt,
        models=tuple(given.words),
        system=given.system,
        options=options,
        answer_schema=given.schema.schema if given.schema else None,
    )
    echo(f"wrote {save_template(name, template)}")

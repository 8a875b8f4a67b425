"""The reference for people: an OpenAPI document as one page of plain HTML.

The page has its style inside: it needs no script, loads nothing, and reads well on a phone and in the dark.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fanout.server.openapi.endpoint import EVENTS, JSON
from fanout.server.openapi.schema_text import Field, Fields, field_of, fields_of

STYLE = Path(__file__).with_name("static") / "reference.css"
ADDRESS = "http://127.0.0.1:8080"
"""Placeholder in the examples; a reader gets the address that they used."""
JSON_TOKEN = re.compile(r"(&quot;(?:\\.|(?!&quot;).)*?&quot;)(\s*:)?|\b(-?\d[\d.eE+-]*|true|false|null)\b")


def render_page(document: Mapping[str, Any]) -> str:
    """The whole page of an OpenAPI document."""
    info, schemas = document["info"], document["components"]["schemas"]
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = {tag["name"]: [item for item in operations if tag["name"] in item[2]["tags"]] for tag in document["tags"]}
    main = "".join(
        f"<h2>{escape(tag)}</h2>" + "".join(_section(*item, schemas) for item in items) for tag, items in tags.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} {escape(info['version'])}: reference</title><style>{STYLE.read_text()}</style></head>"
        f'<body><div class="layout"><nav>{_navigation(tags)}</nav><main>'
        f'<h1>{escape(info["title"])} <span class="open">{escape(info["version"])}</span></h1>{_prose(info["description"])}'
        f'<p>The same for programs: <a href="/openapi.json">openapi.json</a>.</p>{main}</main></div></body></html>'
    )


def _navigation(tags: Mapping[str, Iterable[tuple[str, str, Mapping[str, Any]]]]) -> str:
    groups = []
    for tag, items in tags.items():
        links = "".join(
            f'<li><a href="#{operation["operationId"]}">{_method(method)}<span>{escape(path)}</span></a></li>'
            for method, path, operation in items
        )
        groups.append(f"<b>{escape(tag)}</b><ul>{links}</ul>")
    # A box that is ticked shows the list on a phone, without a script.
    menu = '<input type="checkbox" id="menu"><label for="menu">Endpoints</label>'
    return f'{menu}<div class="groups">{"".join(groups)}</div>'


def _section(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    name = operation["operationId"]
    note = '<span class="open">needs no key</span>' if operation.get("security") == [] else ""
    told = "".join(
        (
            _prose(operation.get("description", "")),
            _parameters(operation.get("parameters", ()), schemas),
            _body(operation, schemas),
            _responses(operation["responses"], schemas),
        )
    )
    return (
        f'<section id="{name}"><header>{_method(method)}<code>{escape(path)}</code>{note}</header>'
        f'<h3><a href="#{name}">{escape(operation["summary"])}</a></h3>'
        f'<div class="sides"><div>{told}</div><div class="examples">{"".join(_examples(path, operation))}</div></div></section>'
    )


def _method(method: str) -> str:
    return f'<span class="method {method}">{method}</span>'


def _parameters(parameters: Iterable[Mapping[str, Any]], schemas: Mapping[str, Any]) -> str:
    rows = []
    for parameter in parameters:
        field = field_of(parameter["name"], parameter["schema"], schemas, required=parameter.get("required", False))
        about = _prose(parameter.get("description", ""))
        needed = '<br><span class="needed">required</span>' if field.required else ""
        limits = f"<p>{_notes(field)}</p>" if _notes(field) else ""
        rows.append(
            f'<tr><td><code class="name">{escape(field.name)}</code>{needed}</td><td class="where">{parameter["in"]}</td>'
            f'<td class="kindof">{_inline(field.type)}</td><td>{about}{limits}</td></tr>'
        )
    head = "<tr><th>Name</th><th>In</th><th>Type</th><th>What it is</th></tr>"
    return f"<h4>Parameters</h4><table>{head}{''.join(rows)}</table>" if rows else ""


def _body(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    if "requestBody" not in operation:
        return ""
    ((media, content),) = operation["requestBody"]["content"].items()
    schema, form = content["schema"], "JSON" if media == JSON else media
    return f"<h4>Body ({form})</h4>{_kinds(fields_of(schema, schemas), asked=True)}"


def _responses(responses: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    rows, shapes = [], []
    for status, response in responses.items():
        rows.append(f'<tr><td class="status s{status[0]}">{status}</td><td>{_prose(response["description"])}</td></tr>')
        for media, content in response.get("content", {}).items():
            if status.startswith("2") and (kinds := fields_of(_told(content["schema"]), schemas)):
                what = "of an event's data, where it streams" if media == EVENTS else "of the answer"
                shapes.append(f"<details><summary>Fields {what}</summary>{_kinds(kinds, asked=False)}</details>")
    return f"<h4>Answers</h4><table>{''.join(rows)}</table>{''.join(shapes)}"


def _told(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the data of an event holds, where the schema is an event's."""
    data = schema.get("properties", {}).get("data", {}).get("anyOf", [{}])[0]
    told: Mapping[str, Any] = data.get("contentSchema", schema)
    return told


def _kinds(kinds: tuple[Fields, ...], *, asked: bool, inside: bool = False) -> str:
    """The fields of each kind of object; what a kind is stands above them where that is not plain already.

    Args:
        asked: they are of a request: those that are required come first, and are marked. In an answer those are that may
            be absent.
    """
    parts = []
    for kind in kinds:
        if kind.description and (len(kinds) > 1 or inside):
            parts.append(f'<div class="kind">{_prose(kind.description)}</div>')
        fields = sorted(kind.fields, key=lambda field: asked and not field.required)
        parts.append(f'<ul class="fields">{"".join(_field(field, asked=asked) for field in fields)}</ul>')
    return "".join(parts)


def _field(field: Field, *, asked: bool) -> str:
    mark = "required" if asked and field.required else "may be absent" if not (asked or field.required) else ""
    notes = _notes(field)
    inside = ""
    if field.inside:
        count = sum(len(kind.fields) for kind in field.inside)
        kinds = _kinds(field.inside, asked=asked, inside=True)
        inside = f"<details><summary>{count} fields inside</summary>{kinds}</details>"
    return (
        f'<li><code class="name">{escape(field.name)}</code><span class="type">{_inline(field.type)}</span>'
        f"{_span('limits', notes)}{_span('needed', mark)}"
        f"{_prose(field.description)}{inside}</li>"
    )


def _span(kind: str, html: str) -> str:
    return f'<span class="{kind}">{html}</span>' if html else ""


def _notes(field: Field) -> str:
    default = "" if field.default is None else f"default <code>{escape(str(field.default))}</code>"
    return " · ".join(note for note in (escape(field.limits), default) if note)


def _examples(path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    """Requests as curl lines, and the answers that the document shows."""
    bodies = operation.get("requestBody", {}).get("content", {}).get(JSON, {}).get("examples", {})
    given = {(item["in"], item["name"]): item["example"] for item in operation.get("parameters", ()) if "example" in item}
    for (where, name), example in given.items():
        path = path.replace(f"{{{name}}}", example) if where == "path" else path
    query = urlencode({name: example for (where, name), example in given.items() if where == "query"}, safe=",:")
    if not bodies:
        yield f"<h4>Request</h4><pre><code>{escape(_curl(f'{path}?{query}' if query else path, operation))}</code></pre>"
    for name, example in bodies.items():
        yield f"<h4>{escape(name)}</h4><pre><code>{escape(_curl(path, operation, example['value']))}</code></pre>"
    for status, response in operation["responses"].items():
        for name, example in response.get("content", {}).get(JSON, {}).get("examples", {}).items():
            yield f"<h4>{status}: {escape(name)}</h4><pre><code>{_coloured(example['value'])}</code></pre>"


def _curl(path: str, operation: Mapping[str, Any], body: Any = None) -> str:
    stream = " -N" if isinstance(body, dict) and body.get("stream") else ""
    lines = [f"curl{stream} {shlex.quote(ADDRESS + path) if '?' in path else ADDRESS + path}"]
    if operation.get("security") != []:
        lines.append('-H "Authorization: Bearer $FANOUT_KEY"')
    if body is not None:
        lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(_compact(body))}"]
    return " \\\n  ".join(lines)


def _compact(value: Any) -> str:
    """JSON that is broken into lines only where it would be long."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) <= 72 or not isinstance(value, dict | list):
        return flat
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"    {_compact(item)}" for item in value) + "\n  ]"
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {_compact(item)}" for name, item in value.items()) + "\n}"


def _coloured(value: Any) -> str:
    def colour(match: re.Match[str]) -> str:
        text, colon, other = match.groups()
        if other:
            return f'<span class="n">{other}</span>'
        return f'<span class="{"k" if colon else "s"}">{text}</span>{colon or ""}'

    return JSON_TOKEN.sub(colour, escape(json.dumps(value, indent=2, ensure_ascii=False)))


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph.strip())


def _inline(text: str) -> str:
    """Escaped; `code` and *stress* as such."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)

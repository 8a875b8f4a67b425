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
from urllib.parse import urlencode

from fanout.core.json_text import JsonObject
from fanout.server.openapi.endpoint import EVENTS, JSON
from fanout.server.openapi.schema_text import FieldText, ObjectText, Schemas, describe_field, describe_objects

STYLE = Path(__file__).with_name("static") / "reference.css"
ADDRESS = "http://127.0.0.1:8080"
"""Placeholder in the examples; a reader gets the address that they used."""
MAX_LINE_CHARS = 72
JSON_TOKEN = re.compile(r"(&quot;(?:\\.|(?!&quot;).)*?&quot;)(\s*:)?|\b(-?\d[\d.eE+-]*|true|false|null)\b")


def render_page(document: JsonObject) -> str:
    """Return the whole page of an OpenAPI document."""
    info, schemas = document["info"], document["components"]["schemas"]
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = {tag["name"]: [item for item in operations if tag["name"] in item[2]["tags"]] for tag in document["tags"]}
    main = "".join(
        f"<h2>{escape(tag)}</h2>" + "".join(_render_section(*item, schemas) for item in items) for tag, items in tags.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} {escape(info['version'])}: reference</title><style>{STYLE.read_text()}</style></head>"
        f'<body><div class="layout"><nav>{_render_navigation(tags)}</nav><main>'
        f'<h1>{escape(info["title"])} <span class="open">{escape(info["version"])}</span></h1>'
        f"{_render_prose(info['description'])}"
        f'<p>The same for programs: <a href="/openapi.json">openapi.json</a>.</p>{main}</main></div></body></html>'
    )


def _render_navigation(tags: Mapping[str, Iterable[tuple[str, str, JsonObject]]]) -> str:
    groups = []
    for tag, items in tags.items():
        links = "".join(
            f'<li><a href="#{operation["operationId"]}">{_render_method(method)}<span>{escape(path)}</span></a></li>'
            for method, path, operation in items
        )
        groups.append(f"<b>{escape(tag)}</b><ul>{links}</ul>")
    # The checkbox opens the list on a phone without a script.
    menu = '<input type="checkbox" id="menu"><label for="menu">Endpoints</label>'
    return f'{menu}<div class="groups">{"".join(groups)}</div>'


def _render_section(method: str, path: str, operation: JsonObject, schemas: Schemas) -> str:
    name = operation["operationId"]
    # An empty list means "none", absent means "as everywhere": only equality tells them apart.
    note = '<span class="open">needs no key</span>' if operation.get("security") == [] else ""
    text = "".join(
        (
            _render_prose(operation.get("description", "")),
            _render_parameters(operation.get("parameters", ()), schemas),
            _render_body(operation, schemas),
            _render_responses(operation["responses"], schemas),
        )
    )
    examples = "".join(_render_examples(method, path, operation))
    return (
        f'<section id="{name}"><header>{_render_method(method)}<code>{escape(path)}</code>{note}</header>'
        f'<h3><a href="#{name}">{escape(operation["summary"])}</a></h3>'
        f'<div class="sides"><div>{text}</div><div class="examples">{examples}</div></div></section>'
    )


def _render_method(method: str) -> str:
    return f'<span class="method {method}">{method}</span>'


def _render_parameters(parameters: Iterable[JsonObject], schemas: Schemas) -> str:
    rows = []
    for parameter in parameters:
        field = describe_field(parameter["name"], parameter["schema"], schemas, required=parameter.get("required", False))
        description = _render_prose(parameter.get("description", ""))
        mark = '<br><span class="needed">required</span>' if field.required else ""
        limits = f"<p>{_render_limits(field)}</p>" if _render_limits(field) else ""
        rows.append(
            f'<tr><td><code class="name">{escape(field.name)}</code>{mark}</td><td class="where">{parameter["in"]}</td>'
            f'<td class="kindof">{_render_inline(field.type)}</td><td>{description}{limits}</td></tr>'
        )
    head = "<tr><th>Name</th><th>In</th><th>Type</th><th>Meaning</th></tr>"
    return f"<h4>Parameters</h4><table>{head}{''.join(rows)}</table>" if rows else ""


def _render_body(operation: JsonObject, schemas: Schemas) -> str:
    if "requestBody" not in operation:
        return ""
    # One media type, or this fails when the server starts: a second one would silently be missing from the page.
    ((media, content),) = operation["requestBody"]["content"].items()
    schema, form = content["schema"], "JSON" if media == JSON else media
    return f"<h4>Body ({form})</h4>{_render_objects(describe_objects(schema, schemas), in_request=True)}"


def _render_responses(responses: Mapping[str, JsonObject], schemas: Schemas) -> str:
    rows, shapes = [], []
    for status, response in responses.items():
        description = _render_prose(response["description"])
        rows.append(f'<tr><td class="status s{status[0]}">{status}</td><td>{description}</td></tr>')
        for media, content in response.get("content", {}).items():
            if status.startswith("2") and (objects := describe_objects(_event_data(content["schema"]), schemas)):
                owner = "of an event's data, where it streams" if media == EVENTS else "of the answer"
                fields = _render_objects(objects, in_request=False)
                shapes.append(f"<details><summary>Fields {owner}</summary>{fields}</details>")
    return f"<h4>Answers</h4><table>{''.join(rows)}</table>{''.join(shapes)}"


def _event_data(schema: JsonObject) -> JsonObject:
    """Return the schema of an event's data; any other schema as it is."""
    data = schema.get("properties", {}).get("data", {}).get("anyOf", [{}])[0]
    found: JsonObject = data.get("contentSchema", schema)
    return found


def _render_objects(objects: tuple[ObjectText, ...], *, in_request: bool, is_nested: bool = False) -> str:
    """Return the fields of each kind of object, below its description if that is not plain already."""
    parts = []
    for kind in objects:
        if kind.description and (len(objects) > 1 or is_nested):
            parts.append(f'<div class="kind">{_render_prose(kind.description)}</div>')
        # Who writes a request looks for what it must hold; an answer keeps the order in which it comes.
        fields = sorted(kind.fields, key=lambda field: in_request and not field.required)
        items = "".join(_render_field(field, in_request=in_request) for field in fields)
        parts.append(f'<ul class="fields">{items}</ul>')
    return "".join(parts)


def _render_field(field: FieldText, *, in_request: bool) -> str:
    optional = "" if in_request or field.required else "may be absent"
    mark = "required" if in_request and field.required else optional
    inside = ""
    if field.objects:
        count = sum(len(kind.fields) for kind in field.objects)
        objects = _render_objects(field.objects, in_request=in_request, is_nested=True)
        inside = f"<details><summary>{count} fields inside</summary>{objects}</details>"
    return (
        f'<li><code class="name">{escape(field.name)}</code><span class="type">{_render_inline(field.type)}</span>'
        f"{_span('limits', _render_limits(field))}{_span('needed', mark)}"
        f"{_render_prose(field.description)}{inside}</li>"
    )


def _span(style: str, html: str) -> str:
    return f'<span class="{style}">{html}</span>' if html else ""


def _render_limits(field: FieldText) -> str:
    default = "" if field.default is None else f"default <code>{escape(str(field.default))}</code>"
    return " · ".join(note for note in (escape(field.limits), default) if note)


def _render_examples(method: str, path: str, operation: JsonObject) -> Iterator[str]:
    """Yield requests as curl lines, and the example answers."""
    bodies = operation.get("requestBody", {}).get("content", {}).get(JSON, {}).get("examples", {})
    values = {(item["in"], item["name"]): item["example"] for item in operation.get("parameters", ()) if "example" in item}
    for (place, name), example in values.items():
        path = path.replace(f"{{{name}}}", example) if place == "path" else path
    # Commas and colons stay: `group_by=day%2Cmodel` works, but nobody would write it.
    query = urlencode({name: example for (place, name), example in values.items() if place == "query"}, safe=",:")
    if "requestBody" not in operation:
        command = _format_curl(method, f"{path}?{query}" if query else path, operation)
        yield f"<h4>Request</h4><pre><code>{escape(command)}</code></pre>"
    for name, example in bodies.items():
        command = _format_curl(method, path, operation, example["value"])
        yield f"<h4>{escape(name)}</h4><pre><code>{escape(command)}</code></pre>"
    for status, response in operation["responses"].items():
        for name, example in response.get("content", {}).get(JSON, {}).get("examples", {}).items():
            yield f"<h4>{status}: {escape(name)}</h4><pre><code>{_colour_json(example['value'])}</code></pre>"


def _format_curl(method: str, path: str, operation: JsonObject, body: object = None) -> str:
    stream = " -N" if isinstance(body, dict) and body.get("stream") else ""
    verb = f" -X {method.upper()}" if body is None and method.upper() != "GET" else ""  # with a body curl sends POST
    lines = [f"curl{stream}{verb} {shlex.quote(ADDRESS + path) if '?' in path else ADDRESS + path}"]
    if operation.get("security") != []:
        lines.append('-H "Authorization: Bearer $FANOUT_KEY"')
    if body is not None:
        lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(_format_json(body))}"]
    return " \\\n  ".join(lines)


def _format_json(value: object) -> str:
    """Return JSON that is broken into lines only where it would be long."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) <= MAX_LINE_CHARS or not isinstance(value, dict | list):
        return flat
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"    {_format_json(item)}" for item in value) + "\n  ]"
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {_format_json(item)}" for name, item in value.items()) + "\n}"


def _colour_json(value: object) -> str:
    def colour(match: re.Match[str]) -> str:
        text, colon, other = match.groups()
        if other:
            return f'<span class="n">{other}</span>'
        return f'<span class="{"k" if colon else "s"}">{text}</span>{colon or ""}'

    # On escaped text, so that what is coloured needs no second escaping.
    return JSON_TOKEN.sub(colour, escape(json.dumps(value, indent=2, ensure_ascii=False)))


def _render_prose(text: str) -> str:
    return "".join(f"<p>{_render_inline(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph.strip())


def _render_inline(text: str) -> str:
    """Return a text escaped, with `code` and *stress* as such."""
    # Escaped before it is marked up: texts come from docstrings, but defaults and examples may hold `<`.
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)

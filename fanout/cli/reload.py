"""`fanout reload`: have a running server read its configuration again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from fanout.cli.options import print_json, read_server_key
from fanout.cli.output import echo
from fanout.core.errors import FanoutError, RequestError
from fanout.core.json_text import JsonObject


@click.command()
@click.option("--server", default="http://127.0.0.1:8080", show_default=True, help="Address of the server.")
@click.option("--env-file", type=click.Path(path_type=Path), help="A file of NAME=value lines, with the key for the server.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer.")
def reload(server: str, env_file: Path | None, as_json: bool) -> None:
    """Have a running server read its configuration again: its files and variables, all of them or, with a fault, none.

    Calls that run end under the configuration they began with. The key is the first of FANOUT_API_KEYS, an administrator's.
    """
    answer = asyncio.run(_reload(server, read_server_key(env_file)))
    if as_json:
        print_json(answer)
        return
    changed = {what: names for what, names in answer["changed"].items() if names}
    echo("\n".join(f"{what}: {', '.join(names)}" for what, names in changed.items()) or "nothing has changed")


async def _reload(server: str, key: str | None) -> JsonObject:
    from fanout.cli.client import open_client

    async with open_client(server, key) as client:
        try:
            return await client.post("/v1/config/reload", {})
        except RequestError as error:  # a line for each, as `fanout check` writes them
            raise FanoutError("\n".join(map(str, error.faults))) from error

"""A command on a real (pseudo-)terminal: what it shows, and what is typed."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
from collections.abc import Sequence

from tests.support.cli import FANOUT, PATIENCE_S, build_environ, start_command


class TerminalSession:
    """A command on a pseudo-terminal of its own, which is its controlling one, so that Ctrl-C reaches it."""

    def __init__(
        self, *arguments: str, columns: int = 100, lines: int = 30, program: Sequence[str] = FANOUT, **variables: str
    ) -> None:
        self._command, self._size, self._variables = (*program, *arguments), (columns, lines), variables
        self.output = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end within a character
        self._read_to = 0

    async def __aenter__(self) -> TerminalSession:
        self._ours, theirs = os.openpty()
        columns, lines = self._size
        environ = {**build_environ(**self._variables), "COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm-256color"}
        self.process = await start_command(self._command, environ, stdin=theirs, stdout=theirs, stderr=theirs, on_terminal=True)
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """Close the terminal, as closing its window does."""
        if self._ours >= 0:
            asyncio.get_running_loop().remove_reader(self._ours)
            os.close(self._ours)
        self._ours = -1

    def _read(self) -> None:
        try:
            self.output += self._decoder.decode(os.read(self._ours, 65536))
        except OSError:  # the command has closed its side
            asyncio.get_running_loop().remove_reader(self._ours)

    async def wait_for(self, text: str) -> None:
        """Wait until the text has been shown."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.output:
                await asyncio.sleep(0.02)

    async def wait_for_line(self, beginning: str) -> str:
        """Wait until a line with this beginning has been shown, and return the rest of it."""
        line = re.compile(rf"^{re.escape(beginning)}(.*?) *\n", re.MULTILINE)
        async with asyncio.timeout(PATIENCE_S):
            while not (found := line.search(re.sub(r"\r|\x1b\[[0-9;?]*[A-Za-z]", "", self.output))):
                await asyncio.sleep(0.02)
        return found[1]

    async def answer(self, question: str, text: str) -> None:
        """Wait for a question after those already answered, and type the answer."""
        async with asyncio.timeout(PATIENCE_S):
            while question not in self.output[self._read_to :]:
                assert self.process.returncode is None, self.output
                await asyncio.sleep(0.02)
        self._read_to = self.output.index(question, self._read_to) + len(question)
        await asyncio.sleep(0.05)  # a hidden answer must not be typed before the terminal has stopped echoing
        self.type(f"{text}\n")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    async def press_ctrl_c(self) -> None:
        """Press Ctrl-C once a prompt that has just been shown waits for input."""
        await asyncio.sleep(0.2)  # CPython's `input` notices a signal that arrives before it blocks only at the next key
        self.type("\x03")

    async def wait(self) -> int:
        """Wait for the end of the command and return its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
        await asyncio.sleep(0.1)
        return code

    @property
    def final_lines(self) -> list[str]:
        """The lines after the last erased one, without colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.final_output).splitlines()

    @property
    def final_output(self) -> str:
        """The text after the last erased line, with its colours."""
        return self.output.rpartition("\x1b[2K")[2].replace("\r", "")

"""A tiny llama model with random weights, written as a GGUF file by `python tiny_model.py OUT.gguf`.

It has a byte-fallback SPM tokenizer and a chat template, is 640 KB large, writes English-looking words and ends sometimes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

EMBEDDING, HEADS, LAYERS, FEED_FORWARD, CONTEXT = 64, 4, 2, 128, 4096
UNKNOWN_TOKEN, BEGIN_TOKEN, END_TOKEN = 0, 1, 2
SPACE = "\u2581"
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant]"
TEXT = """
the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were
when we there can an your which their said if do will each about how up out them then she many some so these would other
into has more her two like him see time could no make than first been its who now people my made over did down only way
find use may water long little very after words called just where most know
"""
WORDS = TEXT.split()

Array = NDArray[np.float32]


@dataclass
class Vocabulary:
    """Tokens with their scores and types, in step."""

    tokens: list[bytes] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[gguf.TokenType] = field(default_factory=list)

    def add(self, token: str, score: float, kind: gguf.TokenType) -> None:
        self.tokens.append(token.encode())
        self.scores.append(score)
        self.types.append(kind)

    def whole_words(self) -> list[int]:
        words = {f"{SPACE}{word}".encode() for word in WORDS}
        return [number for number, token in enumerate(self.tokens) if token in words]


def build_vocabulary() -> Vocabulary:
    """Return every byte, printable letter and word, and every prefix of a word, because SPM merges adjacent known pieces."""
    vocabulary = Vocabulary()
    vocabulary.add("<unk>", 0.0, gguf.TokenType.UNKNOWN)
    vocabulary.add("<s>", 0.0, gguf.TokenType.CONTROL)
    vocabulary.add("</s>", 0.0, gguf.TokenType.CONTROL)
    for byte in range(256):
        vocabulary.add(f"<0x{byte:02X}>", 0.0, gguf.TokenType.BYTE)
    for code in range(33, 127):
        vocabulary.add(chr(code), -1000.0, gguf.TokenType.NORMAL)
    vocabulary.add(SPACE, -1001.0, gguf.TokenType.NORMAL)
    prefixes = dict.fromkeys(f"{SPACE}{word[:end]}" for word in WORDS for end in range(1, len(word) + 1))
    for number, prefix in enumerate(prefixes):
        vocabulary.add(prefix, -1.0 - number, gguf.TokenType.NORMAL)
    return vocabulary


def generate_tensors(words: Vocabulary) -> Iterator[tuple[str, Array]]:
    """Yield random weights, always the same; embedding dimension 0 is a constant that carries a bias to the output."""
    random = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 0.3) -> Array:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    def into_residual(*shape: int) -> Array:
        weights = normal(*shape)
        weights[0, :] = 0
        return weights

    embedding = normal(len(words.tokens), EMBEDDING, scale=1.0)
    embedding[:, 0] = 6.0
    yield "token_embd.weight", embedding
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", np.ones(EMBEDDING, np.float32)
        for name in ("attn_q", "attn_k", "attn_v"):
            yield f"{block}{name}.weight", normal(EMBEDDING, EMBEDDING)
        yield block + "attn_output.weight", into_residual(EMBEDDING, EMBEDDING)
        yield block + "ffn_norm.weight", np.ones(EMBEDDING, np.float32)
        yield block + "ffn_gate.weight", normal(FEED_FORWARD, EMBEDDING)
        yield block + "ffn_up.weight", normal(FEED_FORWARD, EMBEDDING)
        yield block + "ffn_down.weight", into_residual(EMBEDDING, FEED_FORWARD)
    yield "output_norm.weight", np.ones(EMBEDDING, np.float32)
    output = normal(len(words.tokens), EMBEDDING, scale=0.35)
    output[:, 0] = -12.0
    output[[*words.whole_words(), END_TOKEN], 0] = 4.0  # nothing else is likely
    yield "output.weight", output


def write_model(path: Path) -> Path:
    """Write the model and return its path."""
    words = build_vocabulary()
    writer: Any = gguf.GGUFWriter(path, "llama")  # Any: its methods are only partly annotated
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _write_tokenizer(writer, words)
    for name, values in generate_tensors(words):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: Any, words: Vocabulary) -> None:
    writer.add_vocab_size(len(words.tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words.tokens)
    writer.add_token_scores(words.scores)
    writer.add_token_types(words.types)
    writer.add_unk_token_id(UNKNOWN_TOKEN)
    writer.add_bos_token_id(BEGIN_TOKEN)
    writer.add_eos_token_id(END_TOKEN)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(TEMPLATE)


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))

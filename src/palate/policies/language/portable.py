"""The tokenizer that is saved with a policy: by itself it makes the tokens that the policy reads.

Others (TRL, a chat server) take the saved tokenizer at its word: `tokenizer(prompt)` puts special
tokens around a text, a chat template puts its text around messages. Palate's rules are its own: a
begin token wherever there is one, an answer that ends with one token and nothing after it, the
same text every day. What is saved must say the same, or exported rows score otherwise elsewhere.
"""

import copy
import json
import re
import warnings
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import processors
from transformers import AutoTokenizer

from palate.errors import DataWarning
from palate.files import write_json
from palate.policies.language.chat import Chat
from palate.policies.language.text_tokens import WORD

GENERIC = "PreTrainedTokenizerFast"
"""A class that takes its tokenizer.json as it is."""
SINGLE = (
    "{%- if not tools and messages | length == 1 and add_generation_prompt"
    " and messages[0].role == 'user' and messages[0].content is string -%}"
    "{{ HEAD + messages[0].content + ASKS }}"
    "{%- elif not tools and messages | length == 2 and not add_generation_prompt"
    " and messages[0].role == 'user' and messages[1].role == 'assistant'"
    " and messages[0].content is string and messages[1].content is string -%}"
    "{{ HEAD + messages[0].content + TAIL + messages[1].content + END }}"
    "{% else %}\n"
)
"""What a chat template says of one message and its answer, before it says what it always did."""
CLOSING = "{%+ endif %}"
ODD = " Two\n\n lines, ODD "
"""A text that a template which trims or folds would change."""


def save_tokenizer(tokenizer: Any, begin: list[int], chat: Chat | None, folder: Path) -> None:
    """Write a tokenizer so that others read the tokens of a policy's prompts and answers with it.

    Warns where its class cannot be brought to it.

    Args:
        tokenizer: of the policy; it stays as it is.
        begin: what stands before every prompt, beside what a chat brings.
        chat: what a chat template puts around prompts; None for none.
        folder: where.
    """
    if chat is not None:
        _answering(tokenizer, begin, chat).save_pretrained(folder)
        return
    changed = tokenizer if _begins(tokenizer, begin) else _beginning(tokenizer, begin)
    changed.save_pretrained(folder)
    if changed is tokenizer or _begins(AutoTokenizer.from_pretrained(folder), begin):
        return
    # a class that puts its own around texts whatever its file says; the file says it all
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    write_json({**config, "tokenizer_class": GENERIC}, path)
    if not _begins(AutoTokenizer.from_pretrained(folder), begin):
        warnings.warn(
            DataWarning(
                f"the tokenizer {type(tokenizer).__name__} cannot be saved so that it puts "
                f"{tokenizer.convert_ids_to_tokens(begin)} before a text, as this policy's prompts "
                "have it. Put that before the exported prompts for another trainer."
            ),
            stacklevel=3,
        )


def _beginning(tokenizer: Any, begin: list[int]) -> Any:
    """A copy that puts the begin token before a text, and nothing else around it."""
    changed = copy.deepcopy(tokenizer)
    for name, wanted in (("add_bos_token", bool(begin)), ("add_eos_token", False)):
        if hasattr(changed, name):
            setattr(changed, name, wanted)
    backend = getattr(changed, "backend_tokenizer", None)
    if backend is not None:
        backend.post_processor = _post_processor(changed, backend, begin)
    return changed


def _begins(tokenizer: Any, begin: list[int]) -> bool:
    alone = tokenizer(WORD, add_special_tokens=False)["input_ids"]
    return list(tokenizer(WORD)["input_ids"]) == [*begin, *alone]


def _post_processor(tokenizer: Any, backend: Any, begin: list[int]) -> Any:
    names = tokenizer.convert_ids_to_tokens(begin)
    before = [f"{name}:0" for name in names]
    put = processors.TemplateProcessing(
        single=[*before, "$A:0"],
        pair=[*before, "$A:0", "$B:1"],
        special_tokens=list(zip(names, begin, strict=True)),
    )
    rules = json.loads(backend.to_str())["post_processor"]
    if rules is not None and rules["type"] == "ByteLevel":  # trims offsets; puts nothing anywhere
        return processors.Sequence([backend.post_processor, put])
    return put


def _answering(tokenizer: Any, begin: list[int], chat: Chat) -> Any:
    """A tokenizer whose chat template renders one message, and one with its answer, as this policy
    reads them; everything else as before."""
    head = "".join(tokenizer.convert_ids_to_tokens(begin)) + chat.head
    end = tokenizer.convert_ids_to_tokens(chat.end)
    if _renders(tokenizer, head, chat.tail, end):
        return tokenizer
    # spaces before an answer are part of its first token
    texts = {"HEAD": head, "ASKS": chat.tail.rstrip(" "), "TAIL": chat.tail, "END": end}
    own = re.sub(
        r"\b(HEAD|ASKS|TAIL|END)\b",
        lambda found: json.dumps(texts[found[0]], ensure_ascii=False),
        SINGLE,
    )
    written = own + tokenizer.get_chat_template().removesuffix("\n") + CLOSING
    changed = copy.copy(tokenizer)
    several = tokenizer.chat_template
    is_one = not isinstance(several, dict)
    changed.chat_template = written if is_one else {**several, "default": written}
    return changed


def _renders(tokenizer: Any, head: str, tail: str, end: str) -> bool:
    """Whether its template gives this text already, today and on every other day."""
    if "strftime_now" in tokenizer.get_chat_template():
        return False
    asked = [{"role": "user", "content": ODD}]
    answered = [*asked, {"role": "assistant", "content": ODD}]
    try:
        prompt, whole = (
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks)
            for turns, asks in ((asked, True), (answered, False))
        )
    except (TemplateError, ValueError, TypeError, KeyError):
        return False  # a template without assistants' turns, say
    return (prompt, whole) == (
        head + ODD + tail.rstrip(" "),
        head + ODD + tail + ODD + end,
    )

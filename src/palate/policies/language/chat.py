"""What a chat template puts around a prompt and behind an answer."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from palate.errors import ConfigError, DataWarning
from palate.loading import first_line

MESSAGE, ANSWER = "palateusermessage", "palateassistantanswer"
"""Stand for a user's message and an answer while a template is rendered; without space around them,
which many templates take off."""
TITLE = """A  "Quiet" Élan & the <Fire> 'n' {Ice}: 2nd [Cut]"""
PROBE = f"Chosen SO far:\n{TITLE}\n- two\n\nNext?"
"""A title and a message of all that prompts may hold and that templates are known to change: case,
accents, line breaks, spaces within, signs that HTML and JSON write otherwise."""
THOUGHT = re.compile(r"[<\[◁][/|\w:]*(think|thought|reason)[|\w:]*[>\]▷]", re.IGNORECASE)
"""A mark around a model's thoughts."""
CLOSES = ("/", "end", "no_", "off")
"""Parts of such marks behind which there are no thoughts."""
OPTIONS = {"enable_thinking": False, "thinking": False}
"""Asked of templates that know them: a title follows at once, no thoughts before it."""
TODAY = (("%d", "26"), ("%b", "Jul"), ("%B", "July"), ("%m", "07"), ("%Y", "2024"), ("%y", "24"))
"""The date of templates that tell one, by format: Llama 3's own default, so that prompts are the
same on every day."""
CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('{name}', '{value}')" for name, value in TODAY)
    + " }}{%- endmacro %}"
)


@dataclass(frozen=True)
class Chat:
    """A chat template with one message of the user and the assistant's answer.

    Attributes:
        head: text before the message: begin token, system prompt, the user's marker.
        tail: text between message and answer: end of the message, the assistant's marker.
        end: the token that ends an answer.
    """

    head: str
    tail: str
    end: int


def chat_of(
    tokenizer: Any, wanted: bool | None, base: str, messages: Sequence[str] = ()
) -> Chat | None:
    """What a tokenizer's chat template makes of a prompt; None for no chat.

    Warns where the template leaves the model's thoughts open just before the answer.

    Args:
        tokenizer: a Hugging Face tokenizer.
        wanted: whether there is to be one; None where the tokenizer has a template.
        base: what errors call the model.
        messages: some that prompts will hold, to see that the template leaves them as they are.

    Raises:
        ConfigError: a chat is wanted and the tokenizer has no template, or one that cannot be used,
            such as one that changes what it is given.
    """
    template = getattr(tokenizer, "chat_template", None)
    if wanted is False or (wanted is None and not template):
        return None
    if not template:
        raise ConfigError(
            f"policy.chat: the tokenizer of '{base}' has no chat template. Leave policy.chat out, "
            "or set policy.base to a chat model."
        )
    try:
        prompt = _rendered(tokenizer, [_message("user", MESSAGE)], asks=True)
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"policy.chat: the chat template of '{base}' cannot be rendered for one message of a "
            f"user ({first_line(error)}). Set policy.chat to false, or fix the template."
        ) from error
    if prompt.count(MESSAGE) != 1:
        raise ConfigError(
            f"policy.chat: the chat template of '{base}' shows a user's message "
            f"{prompt.count(MESSAGE)} times; expected once. Set policy.chat to false, or fix the "
            "template."
        )
    head, _, tail = prompt.partition(MESSAGE)
    _check_unchanged(tokenizer, head, tail, base, messages)
    tail, rest = _answered(tokenizer, tail)
    if opened := _open_thought(tail):
        warnings.warn(
            f"policy.chat: the chat template of '{base}' leaves {opened} open before the answer, "
            "so titles are read as the model's thoughts. Use a model that answers at once, or set "
            "policy.chat to false.",
            DataWarning,
            stacklevel=2,
        )
    return Chat(head, tail, _end(tokenizer, rest))


def _check_unchanged(
    tokenizer: Any, head: str, tail: str, base: str, messages: Sequence[str]
) -> None:
    """Refuse a template that changes a message or an answer (case, line breaks, spaces): what is
    scored here would not be what the template makes of the same words elsewhere.

    Raises:
        ConfigError: it does.
    """
    for message in (PROBE, *messages):
        try:
            shown = _rendered(tokenizer, [_message("user", message)], asks=True)
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            shown = f"{type(error).__name__}: {error}"
        if shown == head + message + tail:
            continue
        became = shown.removeprefix(head).removesuffix(tail)
        if became == message.strip():
            raise ConfigError(
                f"policy.prompts: the chat template of '{base}' takes off the space around a "
                f"message, and the prompt {message!r} begins or ends with some. Take it out of the "
                "prompt, or set policy.chat to false."
            )
        raise ConfigError(
            f"policy.chat: the chat template of '{base}' changes a message: {message!r} becomes "
            f"{became!r}. Set policy.chat to false, or fix the template."
        )
    turns = [_message("user", MESSAGE), _message("assistant", TITLE)]
    try:
        shown = _rendered(tokenizer, turns, asks=False)
    except (TemplateError, ValueError, TypeError, KeyError):
        return  # it has no assistants' turns
    behind = shown.partition(MESSAGE)[2]
    if TITLE.casefold().split()[1] in behind.casefold() and TITLE not in behind:
        raise ConfigError(
            f"policy.chat: the chat template of '{base}' changes an assistant's answer: {TITLE!r} "
            f"stands in {behind!r}. Set policy.chat to false, or fix the template."
        )


def _open_thought(tail: str) -> str | None:
    """The mark that opens thoughts which the text before an answer does not close."""
    marks = [found.group() for found in THOUGHT.finditer(tail)]
    is_open = marks and not any(part in marks[-1].lower() for part in CLOSES)
    return marks[-1] if is_open else None


def _answered(tokenizer: Any, tail: str) -> tuple[str, str]:
    """The text before an answer and behind it.

    An assistant's turn may go on from the generation prompt before its words begin, with a space,
    an empty thought, or the whole marker where a template knows no generation prompt.
    """
    turns = [_message("user", MESSAGE), _message("assistant", ANSWER)]
    try:
        answered = _rendered(tokenizer, turns, asks=False)
    except (TemplateError, ValueError, TypeError, KeyError):
        # a template without assistants' turns: the generation prompt, rendered above, is all it has
        return tail, ""
    between, found, rest = answered.partition(MESSAGE)[2].partition(ANSWER)
    if not found:
        return tail, ""
    return (between if between.startswith(tail) else tail), rest


def _end(tokenizer: Any, rest: str) -> int:
    """The token that the text behind an answer starts with; the end token where that is none."""
    text = rest.lstrip()
    added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
    found = max((name for name in added if name and text.startswith(name)), key=len, default=None)
    if found is not None:
        return int(added[found])
    return end_token(tokenizer)


def end_token(tokenizer: Any) -> int:
    """A tokenizer's end token.

    Raises:
        ConfigError: it has none.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "policy.base: the tokenizer has no end token, which ends every title. Set its "
            "eos_token and save it again."
        )
    return int(tokenizer.eos_token_id)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _rendered(tokenizer: Any, messages: list[dict[str, str]], asks: bool) -> str:
    template = tokenizer.get_chat_template()
    clocked = CLOCK + template if "strftime_now" in template else template
    return tokenizer.apply_chat_template(
        messages, chat_template=clocked, tokenize=False, add_generation_prompt=asks, **OPTIONS
    )

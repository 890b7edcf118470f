"""Options of what a user names in a configuration: checked against the function's own signature.

A source, a sampler and whatever else a registry holds is a function; its parameters are its
options, their annotations say which values are right. No second description is kept.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from palate.errors import did_you_mean


def read_options(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    owner: str,
    key_of: Callable[[str], str],
    first: int = 0,
) -> tuple[dict[str, Any], list[str]]:
    """Options as the function's annotations want them, and all that is wrong with them.

    Args:
        function: what takes them by keyword; a `**rest` parameter takes any.
        given: option → value, as YAML or the command line gave it.
        owner: what to call the function in a sentence, such as "sampler 'popularity'".
        key_of: option → its key in the configuration.
        first: leading parameters that the caller fills in itself.

    Returns:
        (option → value, converted where the annotation allows it: a path from text, say;
        one sentence for each problem).
    """
    parameters = list(inspect.signature(function).parameters.values())[first:]
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    options = {p.name: p for p in parameters if p.kind in named}
    read: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        if name not in options and not takes_any:
            hint = did_you_mean(name, options) or " It has none."
            problems.append(f"{key_of(name)}: {owner} has no such option.{hint}")
            continue
        wanted = options[name].annotation if name in options else Any
        if wanted is inspect.Parameter.empty or isinstance(wanted, str):
            wanted = Any
        try:
            read[name] = TypeAdapter(wanted).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            problems.append(f"{key_of(name)}: {message[0].lower()}{message[1:]}; found {value!r}.")
    problems += [
        f"{key_of(name)}: {owner} needs it."
        for name, option in options.items()
        if option.default is inspect.Parameter.empty and name not in given
    ]
    return read, problems

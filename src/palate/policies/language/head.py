"""A model's own logits, at the places where they are read and nowhere else.

What a model does behind its output embeddings (scales, soft caps, a cut vocabulary) is its own
affair, and no list of names knows it. So the model's forward does it: a hook hands the output
embeddings the states that are read in place of all, and the forward goes on with these.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

Inputs = dict[str, Any]


def read_logits(
    model: nn.Module, own: Any, inputs: Inputs, rows: Tensor, columns: Tensor, gathered: bool
) -> Tensor:
    """(places, vocabulary) what the model's forward gives at some places of its rows.

    Args:
        model: what to call, wrapped or not.
        own: the causal language model within.
        inputs: its arguments.
        rows, columns: (places,) where logits are wanted.
        gathered: whether the head may be handed these places alone, in one row; else it runs
            everywhere.
    """
    if not gathered:
        return model(**inputs).logits[rows, columns]
    with _HeadInput(own, inputs, rows, columns):
        logits = model(**inputs).logits
    if logits.shape[:2] != (1, len(rows)):
        raise RuntimeError(f"the head gives logits of shape {tuple(logits.shape)}")
    return logits[0]


class HeadInParts:
    """The head's input where logits are read, and what makes logits of any part of it.

    Besides the output embeddings, which are called, that is what the model's forward did to their
    output at the first place, step by step.

    Args:
        model, own, inputs, rows, columns: as in `read_logits`; at least one place.

    Attributes:
        hidden: (places, width) input of the output embeddings.
    """

    def __init__(
        self, model: nn.Module, own: Any, inputs: Inputs, rows: Tensor, columns: Tensor
    ) -> None:
        device = rows.device.type
        self._head = own.get_output_embeddings()
        self._steps = _Steps()
        precision: list[Callable[[], torch.autocast]] = []
        ended: list[Tensor] = []

        def begin(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
            precision.append(lambda: torch.autocast(device, dtype, enabled))
            self._steps.begin(output)

        def end(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Any) -> None:
            ended.append(output.logits)
            self._steps.end(output.logits)

        hooks = [self._head.register_forward_hook(begin), own.register_forward_hook(end)]
        try:
            with _HeadInput(own, inputs, rows, columns, first_only=True) as taken, self._steps:
                model(**inputs)
        finally:
            for hook in hooks:
                hook.remove()
        (self.hidden,), (self._precision,) = taken.hidden, precision
        with torch.no_grad():
            again = self.logits(self.hidden[:1])
        if not torch.equal(again, ended[0][0]):
            raise RuntimeError("what stands behind the head cannot be done again")

    def logits(self, hidden: Tensor) -> Tensor:
        """(places, vocabulary) the model's logits of some (places, width) of `hidden`."""
        with self._precision():
            return self._steps.again(self._head(hidden[None]))[0]


class _HeadInput:
    """While it is open, the output embeddings get some places, in one row, in place of all.

    Attributes:
        hidden: (places, width) of each call.
    """

    def __init__(
        self, own: Any, inputs: Inputs, rows: Tensor, columns: Tensor, first_only: bool = False
    ) -> None:
        self.hidden: list[Tensor] = []
        self._head, self._shape = own.get_output_embeddings(), inputs["input_ids"].shape
        self._places, self._given = (rows, columns), slice(1 if first_only else None)

    def __enter__(self) -> "_HeadInput":
        if self._head is None:
            raise RuntimeError("it has no output embeddings")
        self._hook = self._head.register_forward_pre_hook(self._gather)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _gather(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *others = arguments
        if hidden.shape[:-1] != self._shape:
            raise RuntimeError(f"its head is given a tensor of shape {tuple(hidden.shape)}")
        self.hidden.append(hidden[self._places])
        return self.hidden[-1][None, self._given], *others


class _Steps(TorchFunctionMode):
    """What is done to a tensor between two moments, to be done to others.

    Steps are calls of torch with what they were given; what descends from the first tensor is
    replaced by what descends from another.
    """

    def __init__(self) -> None:
        super().__init__()
        self._start: Tensor | None = None
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._end: Tensor | None = None

    def begin(self, tensor: Tensor) -> None:
        """From now on calls are kept."""
        self._start = tensor

    def end(self, tensor: Tensor) -> None:
        """They have led to this."""
        self._end = tensor

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do it, and keep it where it is between the two moments."""
        found = func(*args, **(kwargs or {}))
        if self._start is not None and self._end is None:
            self._calls.append((func, args, kwargs or {}, found))
        return found

    def again(self, tensor: Tensor) -> Tensor:
        """What becomes of a tensor in the place of the first."""
        replaced: dict[int, Any] = {id(self._start): tensor}

        def of(value: Any) -> Any:
            return replaced.get(id(value), value) if isinstance(value, Tensor) else value

        for func, args, kwargs, found in self._calls:
            if not any(id(value) in replaced for value in tree_leaves((args, kwargs))):
                continue
            new_args, new_kwargs = tree_map(of, (args, kwargs))
            result = func(*new_args, **new_kwargs)
            for old, new in zip(tree_leaves(found), tree_leaves(result), strict=True):
                if isinstance(old, Tensor):
                    replaced[id(old)] = new
        if id(self._end) not in replaced:
            raise RuntimeError("its logits are not made of what its head gives")
        return replaced[id(self._end)]

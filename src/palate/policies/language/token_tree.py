"""Token sequences as a tree: what they share is read once.

The candidates of a context share its prompt, titles share their first tokens, and the moments of
one history share its beginning. So the sequences prompt + title form a tree of tokens, and the work
of reading them is the number of its nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.policies.language.prompts import Tokens


@dataclass(frozen=True)
class TokenTree:
    """A tree of tokens in depth-first order; T nodes, S sequences.

    Node q may look at node k exactly when `k <= q < end[k]`: at its ancestors and itself.

    Attributes:
        token_ids: (T) the token of each node.
        parent: (T) its parent; −1 for the first token of a sequence.
        depth: (T) its place in the sequences through it, from 0: the position id.
        end: (T) the index after its subtree.
        nodes: (S, L) the node of each token of each sequence, in the order given; −1 behind a
            sequence's end.
    """

    token_ids: Tokens
    parent: Tokens
    depth: Tokens
    end: Tokens
    nodes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.token_ids)

    @classmethod
    def of(cls, sequences: Sequence[Tokens]) -> "TokenTree":
        """The tree of some sequences, each at least one token long; equal ones share all nodes.

        Sorted, a sequence shares with its predecessor all that it shares with any before it, so
        its nodes are those of the predecessor up to where they part, and new ones from there.
        """
        lengths = np.array([len(tokens) for tokens in sequences])
        keys = [tokens.astype(">u4").tobytes() for tokens in sequences]
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
        columns = np.arange(lengths.max())
        tokens = np.full((len(sequences), len(columns)), -1, np.int64)
        sorted_lengths = lengths[order]
        is_real = columns < sorted_lengths[:, None]
        tokens[is_real] = np.concatenate([sequences[index] for index in order])

        alike = (tokens[1:] == tokens[:-1]) & is_real[1:] & is_real[:-1]
        shared = np.concatenate([[0], np.cumprod(alike, axis=1, dtype=np.int64).sum(axis=1)])
        is_new = is_real & (columns >= shared[:, None])
        before = np.concatenate([[0], np.cumsum(is_new.sum(axis=1))])  # nodes of earlier rows
        numbered = before[:-1, None] + columns - shared[:, None]
        # where a row has no node of its own, the latest above it in the column is its ancestor's
        nodes = np.maximum.accumulate(np.where(is_new, numbered, -1), axis=0)

        # a subtree ends where a later row parts at or above its root
        parts = np.where(columns >= shared[:, None], before[:-1, None], before[-1])
        ends = np.minimum.accumulate(parts[::-1], axis=0)[::-1]
        after = np.concatenate([ends[1:], np.full((1, len(columns)), before[-1])])

        row, depth = np.nonzero(is_new)
        parent = np.where(depth > 0, nodes[row, np.maximum(depth, 1) - 1], -1)
        in_given_order = np.empty_like(nodes)
        in_given_order[order] = np.where(is_real, nodes, -1)
        return cls(tokens[row, depth], parent, depth, after[row, depth], in_given_order)

"""The trie of a catalogue's titles: every node is a title's beginning, some are whole titles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import is_

import numpy as np
from numpy.typing import NDArray

from palate.data.contexts import Ids
from palate.policies.language.prompts import Tokens
from palate.policies.language.token_tree import TokenTree

SLACK = 0.2
"""Share of a chunk that may be given up to cut it where few tokens stand above."""


@dataclass(frozen=True)
class ItemTrie:
    """Titles as a tree of tokens in depth-first order; T nodes. The root, −1, holds no token.

    Attributes:
        token_ids: (T) the token of each node.
        parent: (T) its parent; −1 for the first token of a title.
        depth: (T) tokens above it.
        end: (T) the index after its subtree.
        last: (items,) the node at which each item's title ends; items of one title share it.
    """

    token_ids: Tokens
    parent: Ids
    depth: Ids
    end: Ids
    last: Ids

    @classmethod
    def of(cls, titles: Sequence[Tokens]) -> "ItemTrie":
        """The trie of some titles, each at least one token long."""
        tree = TokenTree.of(titles)
        lengths = np.array([len(title) for title in titles])
        last = tree.nodes[np.arange(len(titles)), lengths - 1]
        return cls(tree.token_ids, tree.parent, tree.depth, tree.end, last)

    def __len__(self) -> int:
        return len(self.token_ids)

    def restricted(self, items: Ids) -> "ItemTrie":
        """The trie of some of the items, in the order given."""
        below = self.items_until(np.bincount(self.last[items], minlength=len(self)))
        return self._of_nodes(below[self.end] > below[:-1], self.last[items])

    def down_to(self, nodes: Ids) -> tuple["ItemTrie", Ids]:
        """The trie of some nodes and all above them, as if a title ended at each of the former, and
        the names that its nodes have here."""
        kept = np.zeros(len(self), bool)
        level = nodes
        while len(level):
            kept[level] = True
            level = self.parent[level]
            level = np.unique(level[level >= 0])
        return self._of_nodes(kept, nodes), np.flatnonzero(kept)

    def _of_nodes(self, kept: NDArray[np.bool_], last: Ids) -> "ItemTrie":
        renamed = np.concatenate([[0], np.cumsum(kept)])  # nodes kept before each
        parent = self.parent[kept]
        return ItemTrie(
            self.token_ids[kept],
            np.where(parent < 0, -1, renamed[parent]),
            self.depth[kept],
            renamed[self.end[kept]],
            renamed[last],
        )

    @staticmethod
    def items_until(at_nodes: Ids) -> Ids:
        """(…, T + 1) items that end before each node, from the number that end at each: what ends
        in the subtree of node n is the difference between `end[n]` and n."""
        none = np.zeros((*at_nodes.shape[:-1], 1), at_nodes.dtype)
        return np.concatenate([none, at_nodes.cumsum(axis=-1)], axis=-1)

    def chunks(self, size: int) -> Iterator[tuple[int, int, Ids]]:
        """Consecutive nodes (start, stop) and the nodes above the first, at most `size` together.

        Whatever stands above a node of a chunk is in the chunk or above its first node, so these
        few are all that has to be read again. Cuts are moved to where they are fewest.
        """
        start, slack = 0, max(1, int(SLACK * size))
        while start < len(self):
            above = self.above(start)
            stop = start + max(1, size - len(above))
            if stop < len(self):
                earliest = max(start + 1, stop - slack)
                nearest = self.depth[earliest : stop + 1][::-1].argmin()
                stop = min(stop, len(self)) - int(nearest)
            stop = min(stop, len(self))
            yield start, stop, above
            start = stop

    def above(self, node: int) -> Ids:
        """The nodes above a node, from the root down."""
        path = np.empty(self.depth[node], np.int64)
        for place in range(len(path) - 1, -1, -1):
            node = path[place] = self.parent[node]
        return path

    @cached_property
    def levels(self) -> list[Ids]:
        """The nodes of each depth."""
        order = np.argsort(self.depth, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.depth))[:-1])

    @cached_property
    def children(self) -> tuple[Ids, Ids]:
        """(T) nodes ordered by parent, and (T + 2) where those of node n begin: at n + 1."""
        counts = np.bincount(self.parent + 1, minlength=len(self) + 1)
        first = np.concatenate([[0], np.cumsum(counts)])
        return np.argsort(self.parent, kind="stable"), first

    def children_of(self, nodes: Ids) -> tuple[Ids, Ids]:
        """All children of some nodes, and for each the place of its parent among these."""
        children, first = self.children
        counts = first[nodes + 2] - first[nodes + 1]
        place = np.repeat(np.arange(len(nodes)), counts)
        nth = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
        return children[first[nodes + 1][place] + nth], place

    @cached_property
    def items_at(self) -> tuple[Ids, Ids]:
        """(items,) items ordered by the node where they end, and (T + 1) where a node's begin."""
        counts = np.bincount(self.last, minlength=len(self))
        return np.argsort(self.last, kind="stable"), np.concatenate([[0], np.cumsum(counts)])

    def allowed_at(self, legal: NDArray[np.bool_]) -> Ids:
        """(B, T) how many items end at each node, of those legal in each context (B, items)."""
        rows, items = np.nonzero(legal)
        places = rows * len(self) + self.last[items]
        counts = np.bincount(places, minlength=len(legal) * len(self))
        return counts.reshape(len(legal), len(self))


class KeptTrie:
    """The trie of a catalogue, made when it is first asked for, and again when a title changes."""

    def __init__(self) -> None:
        self._titles: list[Tokens] = []
        self._trie: ItemTrie | None = None

    def of(self, titles: Sequence[Tokens]) -> ItemTrie:
        """The trie of some titles, the one made before where they are the same arrays."""
        same = len(titles) == len(self._titles) and all(map(is_, titles, self._titles))
        if self._trie is None or not same:
            self._titles, self._trie = list(titles), ItemTrie.of(titles)
        return self._trie

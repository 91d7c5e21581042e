"""Words one expects to hear in, a guide that favors them out: a prefix tree over token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from glmasr.speech import InputError
from glmasr.text.tokenizer import UNKNOWN, Tokenizer


@dataclass
class Node:
    """The start of a hotword. `kept` is how many of its `depth` tokens belong to a shorter hotword it begins with."""

    depth: int = 0
    kept: int = 0
    is_end: bool = False
    children: dict[int, "Node"] = field(default_factory=dict)


State = tuple[Node | None, bool]
"""Where in the tree the text stands, None outside, and whether a word may begin with the next token."""


class Hotwords:
    """A `Guide`: each token of a hotword gains `weight`, all given back where the text then leaves the hotword.

    A hotword counts as a whole: it begins where a word begins and ends where one does (each Chinese character is one).
    InputError for a hotword the model has no tokens for.
    """

    def __init__(self, hotwords: Sequence[str], weight: float, tokenizer: Tokenizer):
        self.weight, self.ceiling = weight, max(weight, 0.0)
        self.begins = [tokenizer.starts_word(token) for token in range(tokenizer.size)]
        self.is_gap = [begins and not tokenizer.decode([token]).strip() for token, begins in enumerate(self.begins)]
        self.root = Node()
        for hotword in hotwords:
            tokens = tokenizer.encode(hotword)
            if not tokens or UNKNOWN in tokens:
                raise InputError(f"hotword '{hotword}' cannot be written in this model's tokens: leave it out")
            self.add(tokens)

    def add(self, tokens: Sequence[int]) -> None:
        """Grow the tree."""
        node = self.root
        for depth, token in enumerate(tokens, 1):
            # What ended here as a word of its own stays won, whatever comes of the rest.
            kept = node.depth if node.is_end and self.begins[token] else node.kept
            child = node.children.setdefault(token, Node(depth))
            child.kept = max(child.kept, kept)
            node = child
        node.is_end = True
        self.settle(node)

    def settle(self, node: Node) -> None:
        """Hotwords that go on from one added after them keep its tokens, too."""
        for token, child in node.children.items():
            child.kept = max(child.kept, node.depth if node.is_end and self.begins[token] else node.kept)
            self.settle(child)

    def begin(self) -> State:
        return None, True

    def extend(self, state: State, token: int) -> tuple[State, float]:
        node, is_open = state
        if node is not None and token in node.children:
            return (node.children[token], self.is_gap[token]), self.weight
        lost = 0 if node is None else (node.depth if node.is_end and self.begins[token] else node.kept) - node.depth
        begun = self.root.children.get(token) if is_open or self.begins[token] else None
        gained = lost + (begun is not None)
        return (begun, self.is_gap[token]), self.weight * gained

    def finish(self, state: State) -> float:
        node = state[0]
        return 0.0 if node is None or node.is_end else self.weight * (node.kept - node.depth)

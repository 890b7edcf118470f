"""Item vectors that are not learnt: of texts, of images, or from files people bring."""

from palate.item_vectors.item_vectors import ItemVectors, item_vectors

__all__ = ["ItemVectors", "item_vectors"]

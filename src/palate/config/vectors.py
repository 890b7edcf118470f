"""The section that says what gives items their vectors."""

from pydantic import Field, model_validator

from palate.config.section import Section


class VectorOptions(Section):
    """How item vectors are read and reduced."""

    ids: str = "item_id"
    """Array (.npz) or column (.parquet) with the source's item ids; a .npy has none, its rows are
    those of the run's data/items.parquet."""
    vectors: str = "vector"
    """Array or column with a vector for each item, or in arrays also its pixels."""
    size: int | None = Field(default=None, ge=1)
    """Width; what is wider is reduced by its principal components. Null: 256 for tfidf and pixels,
    else as it comes."""


class TextVectorsConfig(VectorOptions):
    """What makes an item's text vector: an encoder of its texts, or a file."""

    encoder: str | None = None
    """tfidf (words and pairs of words; nothing to download), or a Hugging Face encoder by name or
    folder. Null: tfidf, unless there is a path."""
    columns: list[str] | None = Field(default=None, min_length=1)
    """Columns of the item table that make the text. Null: title and all others that hold
    words; prices and paths are left out."""
    path: str | None = None
    """File of vectors instead: .npz, .parquet or .npy."""

    @model_validator(mode="after")
    def _one_origin(self) -> "TextVectorsConfig":
        if self.path is not None and (self.encoder is not None or self.columns is not None):
            raise ValueError(
                "a path to vectors and an encoder or columns of texts are given; choose one"
            )
        return self


class ImageVectorsConfig(VectorOptions):
    """What makes an item's image vector: an encoder of images in a folder, or a file."""

    path: str
    """Folder of images named by the source's item ids, such as 318.jpg; or a file of vectors or
    pixels: .npz, .parquet or .npy."""
    encoder: str | None = None
    """Hugging Face image model, by name or folder, for a folder of images."""


class VectorsConfig(Section):
    """Vectors of the items that are not learnt: what they are called and what they look like."""

    text: TextVectorsConfig | None = None
    """Vectors of what is written about an item: {} for TF-IDF."""
    image: ImageVectorsConfig | None = None
    """Vectors of an item's image."""

"""Hugging Face models that turn texts and images into vectors; never trained here."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from palate.errors import CheckpointError, ConfigError, DataError
from palate.files import file_sha256
from palate.item_vectors.reduction import Found
from palate.loading import DAMAGE, Loaded, first_line, loaded, named
from palate.progress import progress_bar

MOST_TOKENS = 512
"""Tokens of a text that are read, at most; what comes later says little more about an item."""
BATCH = 32
"""Texts or images in a forward pass."""


def encoder_digest(encoder: str, key: str) -> str:
    """Names the weights and rules of an encoder: hashes of a folder's files, or the hub's commit.

    Args:
        encoder: name or folder.
        key: its key in the configuration, for errors.

    Raises:
        CheckpointError: there is no such model.
    """
    config = _loaded(AutoConfig.from_pretrained, encoder, key)
    if Path(encoder).is_dir():
        files = sorted(file for file in Path(encoder).iterdir() if file.is_file())
        content = "\n".join(f"{file.name} {file_sha256(file)}" for file in files)
        return hashlib.sha256(content.encode()).hexdigest()
    return f"{encoder}@{getattr(config, '_commit_hash', None)}"


def encode_texts(texts: Sequence[str], encoder: str, device: torch.device | str) -> Found:
    """Texts → the mean of a model's last layer over their tokens.

    A model of texts and images (CLIP) gives its own text features instead. Texts are read longest
    first, so that a batch has little padding and the largest comes first.

    Args:
        texts: one per item; an empty one has no vector.
        encoder: name or folder of the model; texts are cut at what it reads, at most 512 tokens.
        device: where it runs.

    Returns:
        (m,) rows that have a vector; (m, d) vectors.

    Raises:
        CheckpointError: the model or its tokenizer cannot be loaded, or its files lack what the
            vectors depend on.
        ConfigError: the model is a SigLIP, which reads texts of one padded length only.
    """
    key = "policy.vectors.text.encoder"
    tokenizer = _loaded(AutoTokenizer.from_pretrained, encoder, key)
    found = _model(encoder, key)
    model = found.model.to(device)
    if model.config.model_type.startswith("siglip"):
        raise ConfigError(
            f"{key}: '{encoder}' is a SigLIP, whose text features depend on how much padding "
            "follows a text. Use a text encoder or a CLIP for texts; for images it serves."
        )
    given = [row for row, text in enumerate(texts) if text]
    limit = min(MOST_TOKENS, tokenizer.model_max_length, _positions(model))
    cut = {"truncation": True, "max_length": limit}
    tokens = tokenizer([texts[row] for row in given], **cut)["input_ids"] if given else []
    read = dict(zip(given, tokens, strict=True))
    rows = sorted((row for row in given if read[row]), key=lambda row: -len(read[row]))
    if not rows:
        return np.empty(0, np.int64), np.empty((0, 1), np.float32)
    padding = tokenizer.pad_token_id or 0

    def encode(batch: Sequence[int]) -> Tensor:
        lines = [torch.tensor(read[row]) for row in batch]
        ids = pad_sequence(lines, batch_first=True, padding_value=padding)
        mask = torch.arange(ids.shape[1]) < torch.tensor([[len(line)] for line in lines])
        return _text_features(model, ids.to(device), mask.to(device))

    _check_whole(found, encoder, key, lambda: encode(rows[-1:]))
    return np.asarray(rows, np.int64), _in_batches(rows, encode, "texts")


def encode_images(
    files: Sequence[Path], encoder: str, device: torch.device | str
) -> NDArray[np.float32]:
    """Images → the mean of a model's last layer over the image's places.

    The mean and not the model's pooled output, which many checkpoints leave untrained. A model of
    texts and images (CLIP, SigLIP) gives its own image features instead.

    Args:
        files: images in any format that Pillow reads.
        encoder: name or folder of the model.
        device: where it runs.

    Returns:
        (files, d) vectors.

    Raises:
        CheckpointError: the model or its image processor cannot be loaded, or its files lack what
            the vectors depend on.
        ConfigError: Pillow is not installed.
        DataError: a file is no image that can be read.
    """
    key = "policy.vectors.image.encoder"
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "policy.vectors.image: reading images needs Pillow; pip install 'palate[images]'."
        ) from error
    processor = _loaded(AutoImageProcessor.from_pretrained, encoder, key)
    found = _model(encoder, key)
    model = found.model.to(device)

    def encode(batch: Sequence[Path]) -> Tensor:
        images = [_image(file) for file in batch]
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        return _image_features(model, pixels.to(device))

    if files:
        _check_whole(found, encoder, key, lambda: encode(files[:1]))
    return _in_batches(files, encode, "images")


def _text_features(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    if hasattr(model, "get_text_features"):
        return model.get_text_features(input_ids=ids, attention_mask=mask.long()).pooler_output
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def _image_features(model: Any, pixels: Tensor) -> Tensor:
    if hasattr(model, "get_image_features"):
        return model.get_image_features(pixel_values=pixels).pooler_output
    states = model(pixel_values=pixels).last_hidden_state
    return states.mean(dim=1) if states.ndim == 3 else states.mean(dim=(2, 3))


def _image(file: Path) -> Any:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} is no image that can be read ({' '.join(str(error).split())}). Replace it, or "
            "delete it: an item without an image is no error."
        ) from error


def _positions(model: Any) -> int:
    """Tokens that a model reads; RoBERTa numbers them from 2."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return MOST_TOKENS if positions is None else positions - 2


def _model(encoder: str, key: str) -> Loaded:
    """The model in evaluation mode, and what its files lack."""

    def load(place: str) -> Loaded:
        return loaded(AutoModel.from_pretrained, place, dtype=torch.float32)

    found = _loaded(load, encoder, key)
    found.model.eval()
    return found


def _check_whole(found: Loaded, encoder: str, key: str, encode: Callable[[], Tensor]) -> None:
    """Refuse an encoder whose vectors depend on tensors that its files lack.

    Many files lack heads, such as a pooler, that the vectors do not pass through: those have no
    gradient. A buffer has none at all, so each that is missing counts, but for the counters of
    batches that old files lack.

    Args:
        found: the loaded model.
        encoder, key: what errors call it, and its key in the configuration.
        encode: gives vectors.

    Raises:
        CheckpointError: a vector depends on what the files lack.
    """
    weights = dict(found.model.named_parameters())
    made_up = [name for name in found.made_up if name in weights]
    used = [
        name
        for name in found.made_up
        if name not in weights and not name.endswith("num_batches_tracked")
    ]
    if made_up:
        with torch.enable_grad():
            total = encode().sum()
        gradients = torch.autograd.grad(
            total, [weights[name] for name in made_up], allow_unused=True
        )
        used += [name for name, one in zip(made_up, gradients, strict=True) if one is not None]
    if used:
        raise CheckpointError(
            f"{key}: '{encoder}' is no whole {type(found.model).__name__}: its files lack "
            f"{named(sorted(used))}, or hold them in another shape than config.json says, and its "
            "vectors would depend on random numbers in their place. Copy it again with all its "
            "files, or choose another encoder."
        )


def _loaded(load: Callable[..., Any], encoder: str, key: str, **options: Any) -> Any:
    try:
        return load(encoder, **options)
    except DAMAGE as error:
        raise CheckpointError(
            f"{key}: '{encoder}' cannot be loaded ({first_line(error)}). Expected a Hugging Face "
            "model, by name or folder, with all its files."
        ) from error


def _in_batches(
    given: Sequence[Any], encode: Callable[[Sequence[Any]], Tensor], what: str
) -> NDArray[np.float32]:
    """What `encode` gives for a batch, for all that is given."""
    vectors = []
    with torch.inference_mode(), progress_bar() as progress:
        task = progress.add_task(what, total=len(given), note="")
        for start in range(0, len(given), BATCH):
            batch = given[start : start + BATCH]
            vectors.append(encode(batch).float().cpu().numpy())
            progress.advance(task, len(batch))
    return np.concatenate(vectors)

"""Encoders of every make, tiny and random: a batch gives what each text or image gives alone."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from conftest import shared
from item_vectors.small_models import (
    IMAGE_MODELS,
    TEXT_MODELS,
    saved_image_encoder,
    saved_text_encoder,
)
from palate.errors import CheckpointError, ConfigError, DataError
from palate.item_vectors import encoders
from palate.item_vectors.encoders import encode_images, encode_texts, encoder_digest

READERS = [kind for kind in TEXT_MODELS if kind != "siglip"]
TEXTS = ["red moon", "", "moon over the harbour nights", "unknown words", "the", "the the red"]


@pytest.mark.parametrize("kind", READERS)
def test_a_text_has_the_same_vector_alone_and_in_a_batch(tmp_path, kind):
    folder = str(saved_text_encoder(kind, tmp_path))
    rows, together = encode_texts(TEXTS, folder, "cpu")
    assert sorted(rows.tolist()) == [0, 2, 3, 4, 5]
    assert together.shape == (5, 16)
    assert np.ptp(together, axis=0).max() > 1e-3
    for row, vector in zip(rows, together, strict=True):
        _, alone = encode_texts([TEXTS[row]], folder, "cpu")
        np.testing.assert_allclose(vector, alone[0], atol=1e-5)


def test_the_mean_is_over_the_tokens_of_the_text(tmp_path):
    folder = str(saved_text_encoder("bert", tmp_path))
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("red moon", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = model(input_ids=ids).last_hidden_state[0].mean(dim=0)
    rows, vectors = encode_texts(["red moon", "moon over the harbour"], folder, "cpu")
    np.testing.assert_allclose(vectors[rows == 0][0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", READERS)
def test_a_text_too_long_is_cut(tmp_path, kind):
    folder = str(saved_text_encoder(kind, tmp_path))
    long = "red moon over the harbour " * 400
    _, vectors = encode_texts([long, long + "nights"], folder, "cpu")
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)


def test_more_texts_than_a_batch_keep_their_rows(tmp_path, monkeypatch):
    folder = str(saved_text_encoder("bert", tmp_path))
    texts = [" ".join(["red", "moon"] * (1 + i % 3) + ["the"] * (i % 2)) for i in range(9)]
    rows, whole = encode_texts(texts, folder, "cpu")
    monkeypatch.setattr(encoders, "BATCH", 2)
    again, parts = encode_texts(texts, folder, "cpu")
    assert rows.tolist() == again.tolist()
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    by_row = whole[np.argsort(rows)]
    np.testing.assert_allclose(by_row[0], by_row[6], atol=1e-5)  # 0 and 6 are the same text


def test_texts_that_are_all_empty_have_no_vectors(tmp_path):
    folder = str(saved_text_encoder("bert", tmp_path))
    assert len(encode_texts(["", ""], folder, "cpu")[0]) == 0


def test_a_siglip_is_for_images_alone(tmp_path):
    folder = str(saved_text_encoder("siglip", tmp_path))
    with pytest.raises(ConfigError, match=r"is a SigLIP.* for images it serves"):
        encode_texts(TEXTS, folder, "cpu")


def image(path, colour, size=(20, 30), mode="RGB"):
    Image.new(mode, size, colour).save(path)
    return path


@pytest.mark.parametrize("kind", IMAGE_MODELS)
def test_an_image_has_the_same_vector_alone_and_in_a_batch(tmp_path, kind):
    folder = str(saved_image_encoder(kind, tmp_path / "model"))
    files = [
        image(tmp_path / "1.png", (255, 0, 0)),
        image(tmp_path / "2.jpg", (0, 90, 200), (64, 48)),
        image(tmp_path / "3.gif", 7, mode="P"),
        image(tmp_path / "4.png", 128, mode="L"),
        image(tmp_path / "5.png", (1, 2, 3, 4), mode="RGBA"),
    ]
    together = encode_images(files, folder, "cpu")
    assert together.shape == (5, 16)
    assert np.ptp(together, axis=0).max() > 1e-3
    for file, vector in zip(files, together, strict=True):
        np.testing.assert_allclose(vector, encode_images([file], folder, "cpu")[0], atol=1e-5)


def test_a_pooler_that_was_never_trained_is_not_used(tmp_path):
    folder = saved_image_encoder("vit", tmp_path / "model")
    file = image(tmp_path / "1.png", (255, 0, 0))
    one = encode_images([file], str(folder), "cpu")
    model = AutoModel.from_pretrained(folder)
    model.pooler.dense.weight.data.mul_(3)
    model.save_pretrained(folder)
    assert (encode_images([file], str(folder), "cpu") == one).all()


def without(folder, *parts):
    """The folder of an encoder after the tensors were taken out whose names hold some parts."""
    file = folder / "model.safetensors"
    tensors = {k: v for k, v in load_file(file).items() if not any(part in k for part in parts)}
    save_file(tensors, file, metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "unused"),
    [("bert", "pooler"), ("roberta", "pooler"), ("t5", "decoder"), ("clip", "vision")],
)
def test_a_text_encoder_may_lack_what_its_vectors_do_not_pass_through(tmp_path, kind, unused):
    folder = saved_text_encoder(kind, tmp_path)
    whole = encode_texts(TEXTS, str(folder), "cpu")[1]
    assert any(unused in name for name in load_file(folder / "model.safetensors"))
    np.testing.assert_array_equal(encode_texts(TEXTS, without(folder, unused), "cpu")[1], whole)


@pytest.mark.parametrize(
    ("kind", "used"),
    [
        ("bert", "layer.1.attention.self.query.weight"),
        ("roberta", "embeddings.position_embeddings.weight"),
        ("llama", "layers.1.mlp.up_proj.weight"),
        ("t5", "encoder.block.1.layer.0.layer_norm.weight"),
        ("clip", "text_projection.weight"),
    ],
)
def test_a_text_encoder_that_lacks_what_its_vectors_depend_on_is_refused(tmp_path, kind, used):
    folder = without(saved_text_encoder(kind, tmp_path), used)
    with pytest.raises(CheckpointError, match=rf"text\.encoder: .*its files lack \S*{used}"):
        encode_texts(TEXTS, folder, "cpu")


def test_tensors_of_another_shape_are_as_bad_as_missing_ones(tmp_path):
    folder = saved_text_encoder("bert", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 20}))
    with pytest.raises(CheckpointError, match=r"lack .*intermediate\.dense\.bias.* another shape"):
        encode_texts(TEXTS, str(folder), "cpu")


@pytest.mark.parametrize(
    ("kind", "unused", "used"),
    [
        ("vit", "pooler", "layernorm.bias"),
        ("resnet", "num_batches_tracked", "running_mean"),
        ("clip", "text_model", "visual_projection.weight"),
        ("siglip", "text_model", "head.probe"),
    ],
)
def test_image_encoders_too(tmp_path, kind, unused, used):
    folder = saved_image_encoder(kind, tmp_path / "model")
    file = image(tmp_path / "1.png", (255, 90, 0))
    whole = encode_images([file], str(folder), "cpu")
    assert any(unused in name for name in load_file(folder / "model.safetensors"))
    np.testing.assert_array_equal(encode_images([file], without(folder, unused), "cpu"), whole)
    assert any(used in name for name in load_file(folder / "model.safetensors"))
    with pytest.raises(CheckpointError, match=rf"image\.encoder: .*its files lack \S*{used}"):
        encode_images([file], without(folder, used), "cpu")


def test_a_real_encoder_is_whole():
    folder = shared("models/all-minilm-l6-v2")
    assert encode_texts(["red moon"], str(folder), "cpu")[1].shape == (1, 384)


@pytest.mark.parametrize("cut", [0, 9, 40])
def test_a_file_that_is_no_image_is_named(tmp_path, cut):
    folder = str(saved_image_encoder("vit", tmp_path / "model"))
    file = image(tmp_path / "318.png", (255, 0, 0), (300, 300))
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"318.png is no image that can be read"):
        encode_images([file], folder, "cpu")


def test_the_digest_follows_the_files(tmp_path):
    folder = saved_text_encoder("bert", tmp_path)
    one = encoder_digest(str(folder), "policy.vectors.text.encoder")
    assert encoder_digest(str(folder), "policy.vectors.text.encoder") == one
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert encoder_digest(str(folder), "policy.vectors.text.encoder") != one


def test_an_encoder_that_is_not_there_is_one_sentence(tmp_path):
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            CheckpointError, match=r"text.encoder: '.*' cannot be loaded \("
        ) as error:
            encoder_digest(str(missing), "policy.vectors.text.encoder")
        assert len(str(error.value).splitlines()) == 1
    folder = saved_text_encoder("bert", tmp_path / "bert")
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        encode_texts(TEXTS, str(folder), "cpu")

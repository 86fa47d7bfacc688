"""Image-text encoders: anything that puts pictures and words into one space. None is needed for names from labels.

``open_clip:MODEL/PRETRAINED`` uses the package open_clip_torch; a folder uses ONNX Runtime alone and holds

    image.onnx      float32 (N, 3, H, W) → (N, D)
    text.onnx       token numbers (N, L), and an attention mask if it takes one → (N, D)
    tokenizer.json  of the ``tokenizers`` library
    preprocess.json the fields of elude.handlers.images.preprocess.Preprocess; CLIP's own if the file is missing
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from elude.handlers.errors import UsageError
from elude.handlers.files import read_json
from elude.handlers.images.preprocess import Preprocess

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONTEXT = 77  # tokens of CLIP's text encoder
_FILES = ("image.onnx", "text.onnx", "tokenizer.json")
_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Encoder(Protocol):
    """What naming asks of an encoder; vectors need no particular length."""

    def encode_images(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """float32 (pictures, D)."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (texts, D)."""


def cosines(
    encoder: Encoder,
    pictures: Iterable[Sequence[Image.Image]],
    words: Sequence[str],
    template: str = "a photo of a {}",
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """float64 (pictures, words): cosine of each picture and each word in its sentence.

    Args:
        encoder: any encoder.
        pictures: in batches, so that they need not all be held.
        words: the vocabulary.
        template: sentence that a word is put into, as CLIP was trained on sentences.
        progress: called with the number of pictures done.

    Raises:
        UsageError: the template has no place for the word, or the two spaces differ.
    """
    if "{}" not in template:
        raise UsageError(f"The template {template!r} has no place for the word.", "Write {} where it goes.")
    texts = _unit(encoder.encode_texts([template.format(word) for word in words]))
    rows: list[NDArray[np.float64]] = []
    done = 0
    for batch in pictures:
        vectors = _unit(encoder.encode_images(batch))
        if vectors.shape[1] != texts.shape[1]:
            raise UsageError(
                f"Images become vectors of {vectors.shape[1]} numbers, texts of {texts.shape[1]}.",
                "Use one model's pair.",
            )
        rows.append(vectors @ texts.T)
        done += len(batch)
        if progress is not None:
            progress(done)
    return np.concatenate(rows)


def open_encoder(name: str) -> Encoder:
    """The encoder ``open_clip:MODEL/PRETRAINED`` or the one in the folder ``name``.

    Raises:
        UsageError: it cannot be downloaded, with what to install or to write.
    """
    if name.startswith("open_clip:"):
        model, _, pretrained = name.removeprefix("open_clip:").partition("/")
        return OpenClip(model, pretrained)
    return OnnxPair(name)


class OnnxPair:
    """Two ONNX files and a tokenizer; see the module."""

    def __init__(self, folder: str | Path) -> None:
        root = Path(folder)
        if missing := [name for name in _FILES if not (root / name).is_file()]:
            raise UsageError(
                f"{root} is no encoder: it has no {', '.join(missing)}.", "See docs/names.md for what the folder holds."
            )
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise UsageError("The package tokenizers is not installed.", "pip install 'elude[names]'") from error
        self._image, self._text = (
            ort.InferenceSession(root / name, providers=["CPUExecutionProvider"]) for name in _FILES[:2]
        )
        length = self._text.get_inputs()[0].shape[1]
        self._tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
        context = length if isinstance(length, int) else CONTEXT
        self._tokenizer.enable_truncation(context)
        self._tokenizer.enable_padding(length=context)
        size = self._image.get_inputs()[0].shape[2:]
        side = tuple(each if isinstance(each, int) else 224 for each in size)
        own = root / "preprocess.json"
        clip = Preprocess((3, side[0], side[1]), "bicubic", 1.0, "center", CLIP_MEAN, CLIP_STD)
        self._preprocess = Preprocess.from_json(read_json(own)) if own.is_file() else clip

    def encode_images(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """float32 (pictures, D)."""
        pixels = self._preprocess.normalise(np.stack([self._preprocess.pixels(each) for each in pictures]))
        found: NDArray[np.float32] = self._image.run(None, {self._image.get_inputs()[0].name: pixels})[0]
        return found

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (texts, D)."""
        encoded = self._tokenizer.encode_batch(list(texts))
        feed = {}
        for value in self._text.get_inputs():
            of = [each.attention_mask if "mask" in value.name else each.ids for each in encoded]
            feed[value.name] = np.array(of, _TYPES.get(value.type, np.int64))
        found: NDArray[np.float32] = self._text.run(None, feed)[0]
        return found


class OpenClip:
    """A model of open_clip_torch, which fetches its weights from a hub at the first use."""

    def __init__(self, model: str, pretrained: str) -> None:
        if not pretrained:
            raise UsageError(
                f"'open_clip:{model}' names no weights.",
                "Write open_clip:MODEL/PRETRAINED, e.g. open_clip:ViT-B-32/openai.",
            )
        import elude.exporter.models.torchvision_compat  # noqa: F401 - repairs torchvision, which open_clip imports

        try:
            import open_clip  # type: ignore[import-not-found]
        except ImportError as error:
            raise UsageError("The package open_clip_torch is not installed.", "pip install open_clip_torch") from error
        try:
            self._model, _, self._transform = open_clip.create_model_and_transforms(model, pretrained=pretrained)
        except (RuntimeError, OSError, ValueError) as error:
            raise UsageError(
                f"open_clip cannot load {model!r} with the weights {pretrained!r}: {error}.", "Is its hub reachable?"
            ) from error
        self._model.eval()
        self._tokenize = open_clip.get_tokenizer(model)

    def encode_images(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """float32 (pictures, D)."""
        import torch

        with torch.inference_mode():
            found: NDArray[np.float32] = (
                self._model.encode_image(torch.stack([self._transform(each) for each in pictures])).float().numpy()
            )
        return found

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (texts, D)."""
        import torch

        with torch.inference_mode():
            found: NDArray[np.float32] = self._model.encode_text(self._tokenize(list(texts))).float().numpy()
        return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    values = vectors.astype(np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return scaled

# SPDX-License-Identifier: Apache-2.0
"""The models tcc is measured on, by name: each as an ONNX model with weights, its shapes and real or seeded inputs.

    from benchmarks import zoo
    for model in zoo.models(): print(model.name, zoo.shapes(model.name))
    session.run(None, zoo.inputs("ppocr_rec")) # of zoo.load("ppocr_rec")

Four kinds: `pretrained` (real weights, from packages that `make setup` installs as data), `exported` (weightless
files in `benchmarks/models`, seeded), `light` (the onnx package's light_* graphs, seeded) and `stock` (the same as
they come, every weight of a tensor equal: good for loading and running, not for numerics).
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path

import numpy as np
import onnx

from benchmarks import filler
from benchmarks.image import network_input, read_png, resize

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PICTURE = HERE / "data" / "text.png"
# The lines of text in the picture, top to bottom: (top, bottom, left, right) in pixels, and what is written.
LINES = (
    ((13, 62, 22, 540), "Open inference compiler"),
    ((98, 144, 22, 450), "One engine file of kernels"),
    ((166, 212, 22, 388), "chosen by timing them"),
    ((237, 281, 22, 426), "target sm_86 2048 bytes"),
    ((308, 348, 22, 408), "ROOM 42   Monday 17:30"),
    ((379, 427, 22, 504), "Every answer is checked"),
)
# Real files for the file-type model, and the labels it should give.
FILES = ((ROOT / "LICENSE", "txt"), (PICTURE, "png"), (HERE / "image.py", "python"), (ROOT / "Makefile", "makefile"))

RAPIDOCR, MAGIKA = "rapidocr-onnxruntime", "magika"
LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
EXPORTED = ("resnet50", "mobilenetv3_large_100", "vit_base_patch16_224", "bert_base")
MORE = ("convnext_tiny", "efficientnet_b0", "swin_tiny_patch4_window7_224", "gpt2", "bert_base_sdpa")
TOKENS = 128


@dataclass(frozen=True)
class Model:
    """One entry: where its graph lies, and how large its inputs are (`batch` stands for a free first dim)."""

    name: str
    kind: str  # pretrained, exported, light or stock
    file: Callable[[], Path]
    size: tuple[int, ...] = ()  # the picture's height and width, for pretrained picture models
    torch: bool = False  # whether PyTorch has the same network (benchmarks.torch_models)


def _packaged(package: str, path: str) -> Callable[[], Path]:
    """Where a package's file is: below the folder TCC_ZOO_DIR if that is set (a machine where the packages cannot be
    installed), else where the package is installed."""

    def find() -> Path:
        if folder := os.environ.get("TCC_ZOO_DIR"):
            return Path(folder) / path
        try:
            return Path(str(metadata.distribution(package).locate_file(path)))
        except metadata.PackageNotFoundError:
            raise FileNotFoundError(f"the package {package} is not installed: run `make setup`") from None

    return find


def _light(name: str) -> Callable[[], Path]:
    return lambda: Path(str(resources.files("onnx"))) / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"


@cache
def _table() -> dict[str, Model]:
    rapid = "rapidocr_onnxruntime/models/"
    det = _packaged(RAPIDOCR, rapid + "ch_PP-OCRv4_det_infer.onnx")
    rec = _packaged(RAPIDOCR, rapid + "ch_PP-OCRv4_rec_infer.onnx")
    cls = _packaged(RAPIDOCR, rapid + "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    entries = [
        Model("ppocr_det_320x320", "pretrained", det, (320, 320)),
        Model("ppocr_det_480x640", "pretrained", det, (480, 640)),
        Model("ppocr_det_352x736", "pretrained", det, (352, 736)),
        Model("ppocr_rec", "pretrained", rec, (48, 320)),
        Model("ppocr_cls", "pretrained", cls, (48, 192)),
        Model("magika", "pretrained", _packaged(MAGIKA, "magika/models/standard_v3_3/model.onnx")),
        *(Model(f"light_{name}", "light", _light(name)) for name in LIGHT),
        *(Model(f"light_{name}_stock", "stock", _light(name)) for name in LIGHT),
        *(Model(name, "exported", lambda name=name: HERE / "models" / f"{name}.onnx", torch=True) for name in EXPORTED),
        *(Model(name, "exported", lambda name=name: HERE / "models" / f"{name}.onnx", torch=True) for name in MORE),
    ]
    return {entry.name: entry for entry in entries}


def models(more: bool = False) -> list[Model]:
    """Every entry of the main list; with `more` also the networks that are measured but not required."""
    return [entry for entry in _table().values() if more or entry.name not in MORE]


def model(name: str) -> Model:
    """The entry called `name`; KeyError with the names there are."""
    if name not in _table():
        raise KeyError(f"the zoo has no model {name!r}: {', '.join(_table())}")
    return _table()[name]


def filled_models() -> list[str]:
    """The names of the models whose weights the filler draws."""
    return [entry.name for entry in models(more=True) if entry.kind in {"light", "exported"}]


def weightless(name: str) -> onnx.ModelProto:
    """The model's file as it is, before any filling."""
    return onnx.load(model(name).file())


def load(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model with weights; `seed` draws those of light and exported models, the others have theirs."""
    bare = weightless(name)
    if model(name).kind in {"pretrained", "stock"}:
        return bare
    return filler.fill(bare, seed, filler.gains(name))


def weights(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """The weights that `load` gives a light or exported model, by name (exported: PyTorch's parameter names)."""
    return filler.values(weightless(name), seed, filler.gains(name))


def shapes(name: str, batch: int = 1) -> dict[str, tuple[int, ...]]:
    """The shape of every input, free dims bound. Raises ValueError where the graph fixes another batch."""
    entry = model(name)
    if entry.kind in {"light", "stock"}:
        if batch != 1:
            raise ValueError(f"{name} has a fixed batch of 1, not {batch}")
        return {_image_input(entry.name): (1, 3, 224, 224)}
    if entry.size:
        return {"x": (batch, 3, *entry.size)}
    if name == "magika":
        return {"bytes": (batch, 2048)}
    if name.startswith("bert"):
        return dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (batch, TOKENS))
    if name == "gpt2":
        return {"input_ids": (batch, TOKENS)}
    return {"x": (batch, 3, 224, 224)}


@cache
def _image_input(name: str) -> str:
    graph = weightless(name).graph
    held = {tensor.name for tensor in graph.initializer}
    return next(value.name for value in graph.input if value.name not in held)


def inputs(name: str, seed: int = 0, batch: int = 1) -> dict[str, np.ndarray]:
    """An input of the shapes above.

    The text models see the committed picture, or its line number `seed` (every other line upside down for the
    orientation model); magika sees the bytes of real files, beginning with number `seed`; the others see seeded
    noise or token ids, BERT's last eight tokens masked.
    """
    entry, shape = model(name), shapes(name, batch)
    rng = np.random.default_rng([seed, *name.removesuffix("_stock").encode()])
    if entry.size and name.startswith("ppocr_det"):
        whole = network_input(resize(read_png(PICTURE), *entry.size))
        return {"x": np.repeat(whole, batch, axis=0)}
    if entry.size:
        return {"x": np.concatenate([_line(name, (seed + row) % len(LINES), entry.size) for row in range(batch)])}
    if name == "magika":
        return {
            "bytes": np.stack([magika_bytes(FILES[(seed + row) % len(FILES)][0].read_bytes()) for row in range(batch)])
        }
    if name.startswith("bert") or name == "gpt2":
        made = {"input_ids": rng.integers(0, 30522, (batch, TOKENS), dtype=np.int64)}
        if name.startswith("bert"):
            made["attention_mask"] = np.ones((batch, TOKENS), np.int64)
            made["attention_mask"][:, -8:] = 0
            made["token_type_ids"] = np.repeat(np.arange(TOKENS, dtype=np.int64)[None] // (TOKENS // 2), batch, axis=0)
        return made
    return {each: _scenery(rng, size) for each, size in shape.items()}


def _scenery(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Pictures of noise at four scales, of unit variance: with white noise alone, averages over space are all alike."""
    batch, channels, height, width = size
    made = np.zeros(size, np.float32)
    for scale in (1, 8, 32, 112):
        noise = rng.standard_normal((batch, channels, -(-height // scale), -(-width // scale)), dtype=np.float32)
        made += 0.5 * noise.repeat(scale, axis=2).repeat(scale, axis=3)[:, :, :height, :width]
    return made


def _line(name: str, number: int, size: tuple[int, ...]) -> np.ndarray:
    """One line of the picture at the height a text model wants, padded at the right with the middle grey."""
    top, bottom, left, right = LINES[number][0]
    height, width = size
    piece = read_png(PICTURE)[top:bottom, left:right]
    piece = resize(piece, height, min(width, round(piece.shape[1] * height / piece.shape[0])))
    if name == "ppocr_cls" and number % 2:
        piece = piece[::-1, ::-1]
    padded = np.full((height, width, 3), 127.5, np.float32)
    padded[:, : piece.shape[1]] = piece
    return network_input(padded)


def magika_bytes(content: bytes) -> np.ndarray:
    """What magika's model reads of a file: its first and last 1024 bytes, white space at the ends aside, as int32.

    Of the first (last) block of 4096 bytes the leading (trailing) white space goes; 256 stands where there is no byte,
    after the first part and before the last. Source: the features its config.min.json declares.
    """
    config = json.loads((model("magika").file().parent / "config.min.json").read_text())
    block, pad = config["block_size"], config["padding_token"]
    first = content[:block].lstrip()[: config["beg_size"]]
    last = content[-block:].rstrip()[-config["end_size"] :]
    head, tail = np.full(config["beg_size"], pad, np.int32), np.full(config["end_size"], pad, np.int32)
    head[: len(first)] = np.frombuffer(first, np.uint8)
    tail[len(tail) - len(last) :] = np.frombuffer(last, np.uint8)
    return np.concatenate([head, tail])

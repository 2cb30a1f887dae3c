"""Removing any background by a neural network of rembg, an optional install (extra `rembg`)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from PIL import Image

from imgpipe_orchestration.imaging.background import CutOut, NotUniform


def remove_background_with_model(image: Image.Image, model: str) -> CutOut:
    """Make any background transparent.

    Args:
        image: RGB in sRGB, upright.
        model: rembg's name of the network. It is loaded anew for each picture, which takes a second: kept in memory it
            would take some gigabytes in each worker.

    Raises:
        NotUniform: the model cannot be used, or it found no subject.
    """
    try:
        cut: Image.Image = importlib.import_module("rembg").remove(image.convert("RGB"), session=load_model(model))
    except Exception as error:  # whatever is wrong with an install, the logo is made with its background
        raise NotUniform(
            f"the background is not a plain colour, and the model {model} cannot be used (operators: imgpipe doctor)",
            detail=f"{type(error).__name__}: {error}",
        ) from error
    removed = float((np.asarray(cut.getchannel("A")) == 0).mean())
    if removed > 0.995:
        raise NotUniform("the model found no subject")
    return CutOut(cut.convert("RGBA"), removed, 0)


def load_model(name: str) -> Any:
    """A rembg session.

    Raises:
        LookupError: the model is not on this machine. rembg would download it, in a worker while a logo waits.
        ImportError: rembg is not installed.
        Exception: whatever onnxruntime raises for a file that it cannot use.
    """
    rembg, kinds = importlib.import_module("rembg"), importlib.import_module("rembg.sessions").sessions_class
    if not any(kind.name() == name and kind.resolve_existing(f"{name}.onnx") for kind in kinds):
        raise LookupError(f"the model {name} is not on this machine")
    return rembg.new_session(name)

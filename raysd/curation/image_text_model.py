"""An image-text model (CLIP, SigLIP and the like) that says how well an image fits each class."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from raysd.device import find_device
from raysd.diffusion.checkpoint import Model, check_tokenizers
from raysd.errors import UserError
from raysd.storage.address import local_path
from raysd.storage.fingerprint import folder_digest
from raysd.storage.hub import FILES, fetch_model

FIELD = "scoring.model"
BATCH = 64
LOGIT_SCALE = 100.0  # of CLIP, for models without one


def find_image_text_model(name: str, revision: str | None = None) -> Model:
    """Resolve an image-text model of transformers to a local folder; a hub id is fetched, safetensors only.

    Raises:
        UserError: no such folder, a failed download, or a model without features of images and texts.
    """
    folder = local_path(FIELD, name, "a model").resolve()
    commit = None
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise UserError(
                FIELD,
                name,
                "no such folder; use a folder that transformers wrote, or a hub id like openai/clip-vit-base-patch32",
            )
        folder = fetch_model(FIELD, name, revision)
        commit = folder.name
    if not list(folder.glob("*.safetensors")):
        raise UserError(FIELD, name, "has no safetensors weights; convert it with save_pretrained")
    _check_architecture(name, folder)
    check_tokenizers(FIELD, name, folder)
    return Model(name, revision, folder, folder_digest(folder, FILES), commit, is_pipeline=False)


def _check_architecture(name: str, folder: Path) -> None:
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kind: Any = AutoModel._model_mapping[type(config)]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(FIELD, name, f"transformers cannot read it ({str(error).splitlines()[0]})") from None
    if not (hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")):
        raise UserError(
            FIELD,
            name,
            f"is a {kind.__name__}, which gives no features of both images and texts; use CLIP, SigLIP or the like",
        )


class ImageTextModel:
    """An image-text model with the encoded texts of the classes.

    Args:
        folder: the model's folder.
        texts: a text for each class.
    """

    def __init__(self, folder: Path, texts: tuple[str, ...]) -> None:
        from transformers import AutoModel, AutoProcessor
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.device = find_device()
        options: dict[str, Any] = {"local_files_only": True}
        self.model: Any = AutoModel.from_pretrained(folder, use_safetensors=True, **options).eval().to(self.device)
        self.processor: Any = AutoProcessor.from_pretrained(folder, **options)
        scale = getattr(self.model, "logit_scale", None)
        self.scale = float(scale.detach().exp()) if isinstance(scale, torch.Tensor) else LOGIT_SCALE
        self.texts = self._encode_texts(texts)

    @torch.inference_mode()
    def _encode_texts(self, texts: tuple[str, ...]) -> torch.Tensor:
        # SigLIP was trained with padding to the full length; for CLIP padding changes nothing.
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        options["max_length"] = self.model.config.get_text_config().max_position_embeddings
        parts = []
        for start in range(0, len(texts), BATCH):
            inputs = self.processor(text=list(texts[start : start + BATCH]), **options).to(self.device)
            parts.append(_normalized(self.model.get_text_features(**inputs)))
        return torch.cat(parts)

    @torch.inference_mode()
    def similarities(self, images: list[Image.Image]) -> np.ndarray:
        """Return the cosine similarity of each image to each class's text, float32 [B, K]."""
        inputs = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt").to(self.device)
        features = _normalized(self.model.get_image_features(**inputs))
        return (features @ self.texts.T).float().cpu().numpy()


def _normalized(output: Any) -> torch.Tensor:
    features = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(features, dim=-1)

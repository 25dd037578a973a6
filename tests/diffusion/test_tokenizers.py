import sys

import pytest
from tiny_models import clip, save_tiny

from raysd.curation.image_text_model import find_image_text_model
from raysd.diffusion.checkpoint import find_model
from raysd.diffusion.tokenizers import prompt_tokenizers
from raysd.errors import UserError


@pytest.mark.parametrize(
    ("name", "limits"),
    [("sd1", [32]), ("sdxl", [32, 32]), ("sd3", [32, 32, 256]), ("flux", [32, 512]), ("pixart", [300])],
)
def test_each_text_encoder_has_the_limit_that_its_pipeline_uses(tmp_path, name, limits):
    folder = save_tiny(name, tmp_path)
    tokenizers = prompt_tokenizers(find_model(str(folder)))
    assert [tokenizer.limit for tokenizer in tokenizers] == limits
    assert ["T5" in tokenizer.encoder for tokenizer in tokenizers] == [limit > 32 for limit in limits]
    assert {tokenizer.encoder.split(" (")[0] for tokenizer in tokenizers} <= {
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
    }


def test_tokens_are_counted_with_their_start_and_end():
    (tokenizer,) = prompt_tokenizers(find_model("embedded"))
    assert tokenizer.count(["a", "a a"]) == [3, 4]
    assert tokenizer.unknown(["a light T-shirt, xylophone"]) == [["xylophone"]]


def test_a_broken_tokenizer_is_said_in_one_line(tmp_path):
    folder = save_tiny("sd1", tmp_path)
    for path in (folder / "tokenizer").iterdir():
        path.write_text("{")
    with pytest.raises(UserError, match="its tokenizer cannot be read") as caught:
        prompt_tokenizers(find_model(str(folder)))
    assert "\n" not in str(caught.value)


def save_clip(folder):
    for part in clip():
        part.save_pretrained(folder / "clip")
    return folder / "clip"


@pytest.mark.parametrize(
    ("field", "find", "save"),
    [
        ("generation.model", find_model.__wrapped__, lambda folder: save_tiny("sd1", folder)),
        ("scoring.model", find_image_text_model, save_clip),
    ],
)
def test_a_tokenizer_that_needs_a_package_says_which_before_anything_is_generated(
    tmp_path, monkeypatch, field, find, save
):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    folder = save(tmp_path)
    (tokenizer,) = folder.rglob("tokenizer.json")
    (tokenizer.parent / "spiece.model").write_bytes(b"a SentencePiece model")
    find(str(folder))  # beside a tokenizer.json it is not read
    tokenizer.unlink()
    with pytest.raises(UserError) as raised:
        find(str(folder))
    assert (
        str(raised.value)
        == f"{field} = {str(folder)!r}: its tokenizer needs the package sentencepiece; pip install 'raysd[models]'"
    )

import pytest
from tiny_models import save_tiny

from raysd.clone.model import find_model
from raysd.clone.tokens import prompt_tokenizers
from raysd.errors import UserError


@pytest.mark.parametrize(("name", "limits"), [("sd1", [32]), ("sdxl", [32, 32]), ("sd3", [32, 32, 256]), ("flux", [32, 512]), ("pixart", [300])])
def test_each_text_encoder_has_the_limit_that_its_pipeline_uses(tmp_path, name, limits):
    folder = save_tiny(name, tmp_path)
    assert [tokenizer.limit for tokenizer in prompt_tokenizers(find_model(str(folder)))] == limits


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

"""The data set card: what `datasets` reads of it, and what hostile prompts cannot do to it."""

from dataclasses import replace

from huggingface_hub import DatasetCard
from plans import SPEC, plan_of

from raysd.clone.clone import CloneRecord
from raysd.clone.dataset_card import dataset_card
from raysd.prompts.variant import PromptVariant

RECORD = CloneRecord(
    num_classes=10,
    planned=(plan_of(2, 10).counts.to_json(),),
    num_images=19,
    flags={"black": 1},
    short_classes={"bag": 1},
)


def test_the_front_matter_names_the_data_files_and_the_text_the_facts():
    card = DatasetCard(dataset_card(plan_of(2, 10), RECORD))
    (config,) = card.data.configs
    assert config["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    assert card.data.task_categories == ["image-classification"] and SPEC.fingerprint in card.data.pretty_name
    for fact in ("| images | 19 (2 for each of 10 classes), ", "1 black (column ", "1: bag (1 fewer)"):
        assert fact in card.text


def test_hostile_prompts_stay_text():
    variant = PromptVariant(templates=["{name}\n---\nlicense: mit\n---\n| <script> [x](y) {{{{ 7 * 7 }}}}"])
    card = DatasetCard(dataset_card(plan_of(2, 10, replace(SPEC, variant=variant)), RECORD))
    assert card.data.license is None and "\n---\n" not in card.text
    assert r"\| \<script\> \[x\](y) {{{{ 7 \* 7 }}}}" in card.text

"""Which answers of a language model are captions of a class."""

import pytest

from raysd.captions.checks import cleaned, find_problem, names_class
from raysd.captions.settings import CaptionSettings
from raysd.config import load_experiment
from raysd.errors import UserError


class Words:
    """A tokenizer with a token a word."""

    encoder, limit = "text_encoder (Words)", 8

    def count(self, prompts):
        return [len(prompt.split()) for prompt in prompts]

    def unknown(self, prompts):
        return [[] for _ in prompts]


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("A cat on a wall.", "A cat on a wall."),
        ('\n  "A cat\t on  a wall."  \nA second line.', "A cat on a wall."),
        ('1. **"A cat"**', "A cat"),
        ("Caption: a cat", "a cat"),
        ("Here is a caption:\nA cat", "A cat"),
        ("Here's one: “A cat”", "A cat"),
        ("<think>A cat? Well.</think>\nA cat", "A cat"),
        ("<think>It never ends", ""),
        ("12 cats on a wall", "12 cats on a wall"),
        ("3.5-inch disks on a wall", "3.5-inch disks on a wall"),
        ('Sure! Here\'s a caption for a photo of a tabby cat on a wall:\n\n"A cat"', "A cat"),
        ("Sure, here is a caption: A cat", "A cat"),
        ("Well, a cat.\n</think>\n\nA cat", "A cat"),
        (" \n''\n", ""),
    ],
)
def test_the_caption_of_an_answer_is_its_first_line_without_ornaments(answer, caption):
    assert cleaned(answer) == caption


@pytest.mark.parametrize(
    ("name", "synonyms", "caption", "occurs"),
    [
        ("cat", "", "A CAT sleeps", True),
        ("cat", "", "two cats sleep", True),
        ("cat", "", "a catalog", False),
        ("cat", "kitty|tom cat", "a tom-cat", True),
        ("T-shirt", "", "a t shirt", True),
        ("dress", "", "two dresses", True),
        ("great white shark", "", "a white shark", False),
        ("猫", "", "一只猫在墙上", True),
        ("C++", "", "a book on c", True),
    ],
)
def test_a_caption_names_its_class_by_name_or_synonym(name, synonyms, caption, occurs):
    assert names_class(caption, {"name": name, "synonyms": synonyms}) == occurs


@pytest.mark.parametrize(
    ("caption", "problem"),
    [
        ("a cat", ""),
        ("", "say nothing"),
        ("n/a", "say nothing"),
        ("a dog", "do not name the class"),
        ("a <b>cat</b>", "hold markup"),
        ("a cat on a wall in the last light", "are over the 8 tokens of text_encoder (Words)"),
    ],
)
def test_problems_of_captions(caption, problem):
    assert find_problem(caption, {"name": "cat"}, [Words()]) == problem


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"server": "localhost:8000"}, "captions.server = 'localhost:8000': is no address"),
        ({"server": "http://[::1"}, "is no address"),
        ({"server": "http://me:secret@host/v1"}, "must hold no login and no query"),
        ({"server": "http://host/v1", "key_variable": "KEY"}, "a key would cross the network unencrypted; use https"),
        ({"key_variable": "KEY"}, "key_variable is for a server"),
        ({"key_variable": "sk-1 2"}, "captions.key_variable"),
        ({"temperature": 0}, "temperature 0 gives the same caption each time"),
        ({"captions_per_class": 0}, "captions.captions_per_class = 0"),
        ({"temperature": float("nan")}, "captions.temperature"),
    ],
)
def test_bad_settings_are_refused_in_one_line(values, message):
    with pytest.raises(UserError) as refused:
        load_experiment(captions=values)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value) and "secret" not in str(refused.value)


def test_a_server_on_this_machine_may_get_a_key_unencrypted_and_greedy_captions_may_differ_by_their_number():
    for server in ("http://localhost:8000/v1/", "http://127.0.0.1:8000/v1", "http://[::1]:1/v1", "https://host/v1"):
        assert CaptionSettings(server=server, key_variable="KEY").server == server.rstrip("/")
    CaptionSettings(temperature=0, instruction="Caption {number} of {name}")
    CaptionSettings(temperature=0, captions_per_class=1)

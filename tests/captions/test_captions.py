"""Captions by a tiny language model and by a stand-in of a server: what is asked, kept, and read again."""

import json
import shlex
import shutil
import threading
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow.parquet as pq
import pytest
import tenacity
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import CLIPTextConfig, CLIPTextModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import raysd
from raysd.captions import server as server_module
from raysd.captions.local_model import LocalModel, find_language_model, model_folder
from raysd.captions.server import Server
from raysd.captions.settings import CaptionSettings
from raysd.captions.write import _answered, _table, write_captions
from raysd.captions.writing import Parts
from raysd.commands.captioning import caption_spec_of
from raysd.config import load_experiment
from raysd.errors import UserError
from raysd.explain.setting import find_setting
from raysd.storage.location import Location

WORDS = ["</s>", "[UNK]", "cat", "dog", "a", "red", "small", "grass", "wall", "sleeps", "photo", "of", "number", "1"]
CLASSES = ["cat", "dog", "../cat"]
KEY = "sk-hidden-0123"
OPTIONS = {"captions_per_class": 4, "max_new_tokens": 8, "temperature": 1, "top_p": 1, "max_attempts": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random GPT-2 whose tokens are a few words."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    sizes = {"vocab_size": len(WORDS), "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config = GPT2Config(**sizes, **ends, initializer_range=0.5)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return LocalModel(folder, CaptionSettings(model=str(folder), **OPTIONS))


class Remembering:
    """A writer that remembers what the model answered, so that each is computed once."""

    def __init__(self, model):
        self.write = lru_cache(None)(model.write)


@pytest.fixture(scope="module")
def writer(model):
    return Remembering(model)


def experiment_of(root, folder, **captions):
    return load_experiment(storage=str(root), classes=CLASSES, captions={"model": str(folder), **OPTIONS, **captions})


def spec_of(root, folder, **captions):
    return caption_spec_of(experiment_of(root, folder, **captions))


def written(root, folder, writer, **captions):
    """The captions of each class, written in this process; rows of the table."""
    spec = spec_of(root, folder, **captions)
    parts = Parts(spec, Location(str(root)))
    for label in parts.missing():
        _answered(spec, parts, label, writer)
    return _table(spec, parts)


def test_an_answer_depends_on_its_instruction_and_seed_alone(model):
    asked = [(f"a {word}", seed) for word in ("cat", "dog") for seed in (1, 2, 3)]
    answers = [model.write(*each) for each in asked]
    assert [model.write(*each) for each in reversed(asked)] == answers[::-1]
    assert len(set(answers)) == 6


def test_the_likeliest_tokens_are_those_of_transformers(folder, model):
    told = model.tokenizer("a photo of a cat\n", return_tensors="pt")["input_ids"]
    expected = model.model.generate(told, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, told.shape[1] :]
    for options in ({"temperature": 0, "captions_per_class": 1}, {"top_p": 1e-9}):
        likeliest = LocalModel(folder, CaptionSettings(**{**OPTIONS, **options}))
        assert likeliest.write("a photo of a cat", 5) == model.tokenizer.decode(expected, True)


def test_an_instruction_that_leaves_no_room_is_refused(model):
    with pytest.raises(UserError, match=r"captions\.instruction.* is 70 tokens long, and .* takes 64"):
        model.write("a " * 70, 0)


class KilledError(BaseException):
    pass


class Dying:
    """A writer that is killed after some answers."""

    def __init__(self, writer, answers):
        self.writer, self.left = writer, answers

    def write(self, instruction, seed):
        if self.left == 0:
            raise KilledError
        self.left -= 1
        return self.writer.write(instruction, seed)


@pytest.mark.soak
def test_a_killed_run_loses_the_class_in_flight_alone_and_ends_with_the_same_table(tmp_path, folder, writer):
    whole = written(tmp_path / "whole", folder, writer)
    assert [row["key"] for row in whole.to_pylist()] == [key for key in CLASSES for _ in range(4)]
    assert len(set(whole["caption"].to_pylist())) == 12
    parts = Parts(spec_of(tmp_path / "cut", folder), Location(str(tmp_path / "cut")))
    runs = 0
    while parts.missing():
        before = len(parts.missing())
        dying = Dying(writer, 25)
        with pytest.raises(KilledError):
            for label in parts.missing():
                _answered(parts.spec, parts, label, dying)
            raise KilledError
        assert len(parts.missing()) < before
        runs += 1
    assert runs > 1
    assert _table(parts.spec, parts).equals(whole, check_metadata=True)


def test_more_captions_later_are_those_of_one_run(tmp_path, folder, writer):
    few = written(tmp_path / "grown", folder, writer, captions_per_class=2).to_pylist()
    grown = written(tmp_path / "grown", folder, writer, captions_per_class=4)
    assert grown.equals(written(tmp_path / "whole", folder, writer))
    assert [row for number, row in enumerate(grown.to_pylist()) if number % 4 < 2] == few


def test_a_class_that_ends_short_is_named_and_what_is_there_is_kept(tmp_path, folder, writer):
    root = Location(str(tmp_path))
    spec = spec_of(tmp_path, folder, max_attempts=1)
    found = [_answered(spec, Parts(spec, root), label, writer) for label in range(3)]
    assert min(answer.num_captions for answer in found) < 4 and all(answer.problems for answer in found)
    kept = [Parts(spec, root).read(label) for label in range(3)]
    assert [len(rows) for rows in kept] == [answer.num_captions for answer in found]
    whole = written(tmp_path, folder, writer).to_pylist()  # more attempts go on from there
    for label, rows in enumerate(kept):
        ours = [row["caption"] for row in whole[4 * label : 4 * label + 4]]
        assert ours[: len(rows)] == [row["caption"] for row in rows]
    assert written(tmp_path / "other", folder, writer).to_pylist() == whole


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "other"),
        ("key_variable", "KEY"),
        ("num_requests", 7),
        ("instruction", "a {name}"),
        ("captions_per_class", 7),
        ("max_new_tokens", 7),
        ("temperature", 0.5),
        ("top_p", 0.5),
        ("seed", 7),
        ("max_attempts", 7),
    ],
)
def test_the_fingerprint_changes_with_the_settings_that_say_so(tmp_path, name, value):
    specs = [spec_of(tmp_path, "any", server="http://localhost:1/v1", **each) for each in ({}, {name: value})]
    changes = specs[0].fingerprint != specs[1].fingerprint
    assert changes == (find_setting(f"captions.{name}").enters == "of the captions")


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({"instruction": "a {nmae}"}, "unknown variable {nmae}; there are: name, key, number"),
        ({"model": "no/such/model"}, "captions.model = 'no/such/model': no such folder"),
        ({"model": None}, "captions.model = None: name a language model"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_starts(tmp_path, folder, captions, message):
    with pytest.raises(UserError) as refused:
        raysd.caption(experiment_of(tmp_path, folder, **captions))
    assert message in str(refused.value)


def test_models_that_are_no_language_models_or_bring_code_are_refused(tmp_path):
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8}
    config = CLIPTextConfig(**sizes, num_hidden_layers=1, num_attention_heads=1)
    CLIPTextModel(config).save_pretrained(tmp_path / "clip")
    (tmp_path / "code").mkdir()
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (tmp_path / "code" / "config.json").write_text(json.dumps(own))
    (tmp_path / "code" / "own.py").write_text("raise SystemExit('foreign code ran')")
    (tmp_path / "code" / "model.safetensors").write_bytes(b"")
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "pytorch_model.bin").write_bytes(b"")
    for name, message in (("clip", "no causal language model"), ("code", "code of its own"), ("pickle", "safetensors")):
        with pytest.raises(UserError, match=message):
            caption_spec_of(experiment_of(tmp_path, tmp_path / name))


def test_a_hub_model_is_fetched_without_what_it_does_not_need_and_with_the_form_of_its_conversations(
    tmp_path, folder, hub
):
    copy = shutil.copytree(folder, tmp_path / "repository")
    (copy / "chat_template.jinja").write_text("{% for turn in messages %}photo {{ turn['content'] }} a{% endfor %}")
    (copy / "original").mkdir()
    for name in ("original/model.safetensors", "consolidated.safetensors", "pytorch_model.bin", "own.py"):
        (copy / name).write_bytes(b"not to be fetched")
    hub.repositories["me/words"] = copy
    spec = spec_of(tmp_path, "me/words")
    assert sorted(spec.model.files) == sorted(set(hub.fetched)) and "chat_template.jinja" in hub.fetched
    assert not {"consolidated.safetensors", "original/model.safetensors", "pytorch_model.bin"} & set(hub.fetched)
    loaded = LocalModel(model_folder(spec.model), spec.settings)
    assert loaded._told("of cat") == "photo of cat a"
    other = copy / "consolidated.safetensors"
    other.write_bytes(b"weights in another form, which a later download may bring")
    assert find_language_model(str(copy)).digest == find_language_model(str(folder_with(copy, tmp_path))).digest


def folder_with(copy, tmp_path):
    """The same model without what transformers does not read."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in copy.iterdir():
        if path.is_file() and not path.name.startswith("consolidated"):
            shutil.copy(path, bare)
    return bare


class Asked(BaseHTTPRequestHandler):
    """A stand-in for an OpenAI-compatible server, whose answers follow from instruction and seed."""

    def do_POST(self):
        served, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with served.lock:
            served.asked.append((body, self.headers.get("Authorization")))
            status = served.statuses.pop() if served.statuses else 200
        if status == 302:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{served.server_port}/elsewhere")
            self.end_headers()
            return
        numbers = np.random.default_rng(body["seed"]).integers(2, len(WORDS), body["max_tokens"])
        text = " ".join(WORDS[number] for number in numbers)
        answer = {"choices": [{"message": {"content": f'"{text}"'}}]}
        if status != 200:
            answer = {"error": f"{self.headers.get('Authorization')} may not"}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"no JSON" if status == 200 and served.is_broken else json.dumps(answer).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(monkeypatch):
    monkeypatch.setattr(server_module, "PAUSES", tenacity.wait_none())
    monkeypatch.setenv("CAPTION_KEY", KEY)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    server.lock, server.asked, server.statuses, server.is_broken = threading.Lock(), [], [], False
    server.options = {"server": f"http://127.0.0.1:{server.server_port}/v1", "key_variable": "CAPTION_KEY"}
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_writes_captions_that_plan_reads(tmp_path, served, run_here):
    served.statuses = [503, 429]
    words = [f"classes={json.dumps(CLASSES)}", "captions.model=any", *(f"captions.{k}={v}" for k, v in OPTIONS.items())]
    words += [f"captions.{name}={value}" for name, value in served.options.items()]
    shown = run_here("caption", *words)
    assert shown.returncode == 0, shown.stderr
    *_, last = shown.stdout.splitlines()
    assert "4 for each of 3 classes, 12 written now" in shown.stdout
    command = shlex.split(last.removeprefix("next: "))
    plan = run_here(*command[1:])
    assert plan.returncode == 0, plan.stderr
    again = run_here("caption", *words, "--json")
    answer = json.loads(again.stdout)
    assert answer["num_written"] == 0 and answer["about"]["server"] == served.options["server"]
    planned = [line.split("prompt      ")[1] for line in plan.stdout.splitlines() if line.startswith("  prompt ")]
    assert planned and set(planned) <= {each for captions in answer["captions"].values() for each in captions}
    assert {key for _, key in served.asked} == {f"Bearer {KEY}"}
    assert all(body["messages"][0]["content"].startswith("Write one short caption") for body, _ in served.asked)
    everything = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in content for content in everything)
    assert KEY not in shown.stdout + shown.stderr + plan.stdout + again.stdout


def test_a_table_does_not_depend_on_how_many_are_asked_together(tmp_path, served):
    for number in (1, 8):
        root = tmp_path / str(number)
        spec = spec_of(root, "any", **served.options, num_requests=number)
        assert write_captions(spec, Location(str(root)), experiment_of(root, "any").generation) == (
            "captions-4.parquet",
            12,
        )
    tables = [next((tmp_path / number).rglob("captions-4.parquet")).read_bytes() for number in ("1", "8")]
    assert tables[0] == tables[1]


def test_a_server_is_not_asked_any_more_when_nobody_waits(served):
    server = Server(CaptionSettings(model="any", **OPTIONS, **served.options))
    server.write("a cat", 1)
    server.ended.set()
    with pytest.raises(UserError, match="is not asked any more"):
        server.write("a cat", 2)
    assert len(served.asked) == 1


def test_captions_of_a_class_that_a_server_gave_before_it_refused_are_kept(tmp_path, served, run_here):
    served.statuses = [401, *[200] * 9]
    words = [f"classes={json.dumps(CLASSES[:1])}", "captions.model=any", "captions.num_requests=1"]
    words += [f"captions.{k}={v}" for k, v in {**OPTIONS, "captions_per_class": 500, **served.options}.items()]
    refused = run_here("caption", *words)
    assert refused.returncode == 2 and "401" in refused.stderr
    (part,) = tmp_path.glob("runs/captions/*/parts/*.parquet")
    assert 0 < pq.read_metadata(part).num_rows < 10


@pytest.mark.parametrize(
    ("statuses", "is_broken", "message"),
    [
        ([401], False, 'refuses the request (401 Unauthorized: {"error": "Bearer ... may not"})'),
        ([302], False, "refuses the request (302 Found"),
        ([500] * 8, False, "does not answer (500"),
        ([], True, "gives no OpenAI-compatible answer"),
    ],
)
def test_a_server_that_does_not_answer_well_is_said_in_one_line_without_the_key(served, statuses, is_broken, message):
    served.statuses, served.is_broken = list(statuses), is_broken
    with pytest.raises(UserError) as refused:
        Server(CaptionSettings(model="any", **OPTIONS, **served.options)).write("a cat", 1)
    assert message in str(refused.value) and KEY not in str(refused.value)
    assert not any(body.get("elsewhere") for body, _ in served.asked) and len(served.asked) == max(1, len(statuses))


def test_a_key_that_is_not_set_and_a_server_that_is_not_there_are_refused(tmp_path, served, monkeypatch):
    monkeypatch.delenv("CAPTION_KEY")
    with pytest.raises(UserError, match=r"captions\.key_variable = 'CAPTION_KEY': is not set"):
        raysd.caption(experiment_of(tmp_path, "any", **served.options))
    gone = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    gone.server_close()
    with pytest.raises(UserError, match="does not answer"):
        raysd.caption(experiment_of(tmp_path, "any", server=f"http://127.0.0.1:{gone.server_port}/v1"))


def test_short_classes_end_the_command_in_one_line(tmp_path, served):
    with pytest.raises(UserError, match=r"class '\w+' has \d of 4 captions \(of the answers, \d+ do not name"):
        raysd.caption(experiment_of(tmp_path, "any", **served.options, max_new_tokens=2, max_attempts=2))
    assert not list(tmp_path.rglob("captions-4.parquet")) and list(tmp_path.rglob("class-*.parquet"))


@pytest.mark.soak
def test_actors_write_what_this_process_writes(ray_cluster, tmp_path, folder, writer):
    table = raysd.caption(experiment_of(tmp_path, folder), generation={"num_actors": 1})
    assert table.num_written == 12 and sorted(map(len, table.captions.values())) == [4, 4, 4]
    assert table.to_pandas().to_dict("list") == written(tmp_path / "here", folder, writer).to_pandas().to_dict("list")
    assert table.about["digest"] and table.about["seed"] == 0 and "transformers" in table.about["versions"]

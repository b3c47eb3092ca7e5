"""Language models from checkpoints, from the files to tokens of the golden model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from sim.cache import find
from sw.bench.decoders import DecoderShape, decoder
from sw.cli.bench_speculation import speculation
from sw.cli.generate import chat, generate
from sw.compiler.errors import CompileError, InputError
from sw.compiler.lower.decoder import lower_decoder
from sw.compiler.quantise.decoder import resume
from sw.decoding.decoding import Decoding
from sw.decoding.sampler import Sampler
from sw.driver import DeviceError, GoldenDevice
from sw.models import language_model
from sw.models.generator import Generator
from sw.models.language_model import TOKENS, LanguageModel
from tests.sw.models.checkpoints import tiny_module, tiny_tokenizer, write_folder, write_gguf

ON = ("--config", "tiny", "--device", "golden")
PROMPT = "the array"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """The same model as a GGUF file and as a folder, and one without a chat template."""
    home = tmp_path_factory.mktemp("models")
    module = tiny_module()
    return {
        "gguf": write_gguf(home / "tiny.gguf", module, tiny_tokenizer()),
        "folder": write_folder(home / "tiny", module, tiny_tokenizer()),
        "base": write_folder(home / "base", tiny_module("Qwen2"), tiny_tokenizer(None)),
    }


@pytest.fixture(autouse=True)
def short_texts(monkeypatch, tmp_path_factory):
    """Own texts, as those of the project take half a minute to find; and an own cache."""
    prose, code = "the array holds the weights. " * 12, "def f(x):\n    return x + 1\n" * 12
    monkeypatch.setattr(language_model, "long_texts", lambda count: (prose,) * count)
    monkeypatch.setattr(language_model, "code_texts", lambda count, held_out: (code,) * count)
    monkeypatch.setenv("WEFT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def greedy(module: torch.nn.Module, ids: list[int], count: int) -> list[int]:
    """What the float module answers."""
    begin = len(ids)
    with torch.no_grad():
        while len(ids) < begin + count:
            ids = [*ids, int(module(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[begin:]


@pytest.mark.parametrize("kind", ["gguf", "folder", "base"])
def test_tokens_are_those_of_the_module(files, tmp_path, monkeypatch, kind):
    """Of both formats the same ones: a GGUF file and a folder make one graph."""
    monkeypatch.chdir(tmp_path)
    given = [PROMPT, "--model", files[kind], *ON, "--tokens", 6, "--json", "found.json"]
    result = CliRunner().invoke(generate, list(map(str, given)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(Path("found.json").read_text())["tokens"]
    model = LanguageModel(files[kind])
    ids = model.prompt([{"role": "user", "content": PROMPT}])
    assert found == greedy(tiny_module("Qwen2" if kind == "base" else "Llama"), ids, 6)


def test_a_model_is_known_by_what_is_in_it(files, tmp_path):
    def name(path: Path) -> str:
        return Generator("tiny", model=LanguageModel(path))._graph_file

    copy = shutil.copy(files["gguf"], tmp_path / "copy.gguf")
    assert name(copy) == name(files["gguf"]) != name(files["folder"])
    folder = shutil.copytree(files["folder"], tmp_path / "folder")
    assert name(folder) == name(folder / "model.safetensors") == name(files["folder"])
    settings = json.loads((folder / "config.json").read_text()) | {"rms_norm_eps": 0.25}
    (folder / "config.json").write_text(json.dumps(settings))
    assert name(folder) != name(files["folder"])


def test_sequences_begin_with_a_prefix(files):
    """That of the chat template, or BOS, or the token that ends texts."""
    model, base = LanguageModel(files["folder"]), LanguageModel(files["base"])
    assert model.prefix == (1,) and base.prefix == (0,)
    base.tokenizer.bos_token = None
    del base.prefix
    assert base.prefix == (2,)
    base.tokenizer.eos_token = None
    del base.prefix
    with pytest.raises(CompileError, match=r"base: its tokenizer has no token that texts begin"):
        assert base.prefix
    hello = [{"role": "user", "content": "the"}]
    ids = model.prompt(hello)
    assert ids[0] == 1 and model.tokenizer.decode(ids) == (
        "<|turn|>user\nthe<|end|>\n<|turn|>assistant\n"
    )
    model.tokenizer.chat_template = "{{ messages[0]['content'] }}"  # begins with no fixed token
    del model.prefix
    assert model.prefix == (0,) and model.prompt(hello) == [0, *model.tokenizer("the").input_ids]
    model.tokenizer.chat_template = "{{ raise_exception('no users') }}"
    with pytest.raises(InputError, match="tiny: its chat template fails: no users"):
        model.prompt(hello)


def test_calibration_without_a_chat_template(files):
    model, base = LanguageModel(files["folder"]), LanguageModel(files["base"])
    made_up = 3 if base.words() else 0
    assert len(model.calibration) == 18 + made_up and len(base.calibration) == 16 + made_up
    for one in (model, base):
        for ids in one.calibration:
            assert tuple(ids[:1]) == one.prefix and 100 < len(ids) <= TOKENS


def test_contexts(files):
    model = LanguageModel(files["gguf"])
    assert model.context(None) == 96 and model.context(96) == 96 and model.context(20) == 20
    with pytest.raises(CompileError, match="tiny has 96 positions: --context 97 is too long"):
        model.context(97)
    model.checkpoint.positions = 1 << 17
    assert model.context(None) == 2048


def test_answers_end_at_any_end_token(files, tmp_path):
    folder = shutil.copytree(files["folder"], tmp_path / "ends")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 9]}))
    generator = Generator("tiny", 64, model=LanguageModel(folder))
    assert generator.model.checkpoint.ends == {2, 9}
    ids = generator.model.prompt([{"role": "user", "content": PROMPT}])
    with generator.open("golden") as device:
        decoder = device.load_decoder(generator.program((1, 8)))

        def answer() -> list[int]:
            session = decoder.session()
            decoding = Decoding(Sampler(), generator.model.checkpoint.ends)
            return list(decoding.answer(session, ids, 4))

        found = answer()
        assert len(found) == 4
        generator.model.checkpoint.__dict__["ends"] = frozenset({found[2]})
        assert answer() == found[: found.index(found[2])]


def answered(*given: object) -> dict:
    """What `weft generate` writes as JSON."""
    result = CliRunner().invoke(
        generate, [*map(str, given), "--json", "found.json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return json.loads(Path("found.json").read_text()) | {"output": result.output}


def test_drafts_change_no_token(files, tmp_path, monkeypatch):
    """From the text, from the same model in another file, and from a program."""
    monkeypatch.chdir(tmp_path)
    given = [PROMPT, "--model", files["folder"], *ON, "--tokens", 12]
    expected = answered(*given)
    assert "drafts" not in expected["decoding"]
    LanguageModel(files["gguf"])
    generator = Generator("tiny", 64, model=LanguageModel(files["folder"]))
    generator.program((1, 4, 8)).save("draft.weft")
    for draft in ("lookup", files["gguf"], "draft.weft"):
        for more in ([], ["--draft-tokens", 3], ["--draft-tokens", "auto"]):
            found = answered(*given, "--draft", draft, *more)
            assert found["tokens"] == expected["tokens"], (draft, more)
            if 3 in more and draft != "lookup":
                drafts = found["decoding"]["drafts"]
                assert drafts["accepted"] == drafts["drafted"] == 8 and drafts["steps"] == 3
                assert "tokens a step" in found["output"] and "3.67" in found["output"]


def test_keys_of_least_attention_go_first(files, tmp_path, monkeypatch):
    """With drafts and without the same text. Until the cache is full, and for a while behind that,
    it is that of the oldest key going first."""
    monkeypatch.chdir(tmp_path)
    given = (PROMPT, "--model", files["gguf"], *ON, "--tokens", 70, "--window", 34)
    oldest = answered(*given)
    least = answered(*given, "--evict", "least")
    drafted = answered(*given, "--evict", "least", "--draft", "lookup", "--draft-tokens", 3)
    assert least["tokens"] == drafted["tokens"] and drafted["decoding"]["drafts"]["drafted"]
    pairs = zip(oldest["tokens"], least["tokens"], strict=False)
    assert next(n for n, (a, b) in enumerate(pairs) if a != b) > 34 + 4 - least["prompt_tokens"] - 2


def test_the_bench_of_drafts(tmp_path, monkeypatch):
    """On a tiny model with room for the prompts: every text twice, and what its passes cost."""
    monkeypatch.chdir(tmp_path)
    module = tiny_module(max_position_embeddings=256)
    folder = write_folder(tmp_path / "roomy", module, tiny_tokenizer())
    given = ["--model", str(folder), "--config", "tiny", "--tokens", "9", "--kind", "chat"]
    given += ["--pass-of", "2", "--json", "found.json", "--picture", "found.png"]
    result = CliRunner().invoke(speculation, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(Path("found.json").read_text())
    assert found["pass_sizes"] == [1, 2, 4, 8, 32, 128] and Path("found.png").exists()
    prompts, total = found["prompts"], found["kinds"]["chat"]
    assert len(prompts) == total["prompts"] == 10 and total["identical"]
    assert total["least_speedup"] > 0.99
    for prompt in prompts:
        assert prompt["decoded"] == len(prompt["tokens"]) - 1 or len(prompt["tokens"]) < 9
        assert sum(prompt["rows"].values()) == prompt["passes"]
    assert CliRunner().invoke(speculation, ["--prompts"]).output.count("--- chat") == 10


def test_chat_with_drafts(files):
    given = ["--model", str(files["folder"]), *ON, "--tokens", "6"]
    plain, drafting = (
        CliRunner().invoke(chat, [*given, *more], input="the array\nand\n", catch_exceptions=False)
        for more in ([], ["--draft", "lookup", "--draft-tokens", "3"])
    )
    assert plain.exit_code == drafting.exit_code == 0 and plain.stdout == drafting.stdout


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--draft", "lookup"],
            "--prune-keys with --draft: passes of several tokens prune nothing",
        ),
        (["--cascade", "4"], "--prune-keys with --cascade: passes of several tokens prune nothing"),
        (["--window", "16"], "pruned keys and a window exclude each other: leave one out"),
        (["--config", "tiny"], "configuration 'tiny' prunes no keys: it needs prune=True"),
        ([], ""),
    ],
)
def test_pruned_keys(files, options, text):
    given = ["the", "--model", files["folder"], *ON, "--config", "tiny+prune", "--prune-keys", "5"]
    found = CliRunner().invoke(generate, [*map(str, given), "--tokens", "3", *options])
    if text:
        assert found.exit_code and str(found.exception).startswith(text), found.exception
    else:
        assert not found.exit_code and found.output


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--draft-tokens", "3"], "--draft-tokens needs --draft: where drafts come from"),
        (
            ["--draft", "lookup", "--draft-tokens", "0"],
            "--draft-tokens 0: auto, or a number",
        ),
        (
            ["--draft", "lookup", "--draft-tokens", "9"],
            "--draft-tokens 9: auto, or a number",
        ),
        (
            ["--draft", "lookup", "--draft-tokens", "x"],
            "--draft-tokens x: auto, or a number",
        ),
        (
            ["--draft", "lookup", "--draft-tokens", "8"],
            "--draft-tokens 8: the machine predicts behind 8 tokens of a pass, one of which is no "
            "draft: 7 at most",
        ),
        (["--draft", "Lookup"], "--draft Lookup: neither lookup nor a file or folder"),
        (
            ["--draft", "OTHER"],
            "other: drafts need the vocabulary of tiny, 2 tokens differ: 3 is '\"' instead of '!'",
        ),
        (["--draft", "PROGRAM"], "the draft model has 90 tokens, the model 272: drafts need the"),
        (["--draft", "MACHINE"], "the program was compiled for configuration 'base', the machine"),
    ],
)
def test_bad_drafts(files, tmp_path, options, text):
    """One line each, and for all but programs before a device is opened."""
    shape = DecoderShape(
        hidden=16, heads=2, kv_heads=1, ffn=16, layers=1, vocabulary=90, context=40
    )
    for name, machine in (("PROGRAM", "tiny"), ("MACHINE", "base")):
        lower_decoder(decoder(shape), machine, (1, 4)).save(tmp_path / name)
    if "OTHER" in options:
        folder = shutil.copytree(files["folder"], tmp_path / "other")
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["!"], vocabulary['"'] = vocabulary['"'], vocabulary["!"]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    places = {"OTHER": tmp_path / "other", "PROGRAM": tmp_path / "PROGRAM"}
    places["MACHINE"] = tmp_path / "MACHINE"
    options = [str(places.get(option, option)) for option in options]
    given = [PROMPT, "--model", str(files["folder"]), *ON, *options]
    with pytest.raises((InputError, DeviceError)) as caught:
        CliRunner().invoke(generate, given, catch_exceptions=False)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_an_interrupted_quantisation_goes_on(files, monkeypatch):
    """And leaves nothing behind when it is done."""
    monkeypatch.setattr(resume, "SECONDS", 0.0)
    seen: list[float] = []

    def until(most: float, context: int = 40) -> Generator:
        def step(_text: str) -> Callable[[float, float], None]:
            def update(part: float, _total: float) -> None:
                if part > most:
                    raise KeyboardInterrupt
                seen.append(part)

            return update

        return Generator("tiny", context, step, LanguageModel(files["gguf"]))

    with pytest.raises(KeyboardInterrupt):
        assert until(0.5).graph
    name = f"unfinished-{until(1)._graph_file}"
    assert max(seen) > 0.3 and find("models", name) is not None
    seen.clear()
    assert until(1).graph and 0.4 < min(seen) < 0.6
    assert find("models", name) is None


@pytest.mark.parametrize("end", ["\n", ""], ids=["an empty line", "no more input"])
def test_chat(files, end):
    """Two questions; the second one continues the first one's conversation."""
    given = ["--model", str(files["folder"]), *ON, "--tokens", "3"]
    text = f"the array\nand\n{end}"
    result = CliRunner().invoke(chat, given, input=text, catch_exceptions=False)
    assert result.exit_code == 0 and result.output.count("> ") == 3, result.output


@pytest.mark.parametrize("command", [generate, chat])
def test_refusals_come_before_anything_slow(files, tmp_path, monkeypatch, command):
    """Before a device is opened and anything is quantised."""
    monkeypatch.setattr("sw.models.generator.open_device", None)
    monkeypatch.setattr("sw.models.generator.quantise_decoder", None)
    bad = write_gguf(
        tmp_path / "bad.gguf", tiny_module(), tiny_tokenizer(), keys={"llama.block_count": 3}
    )
    prompt = [PROMPT] if command is generate else []

    def refused(model: Path, *more: object) -> str:
        given = [*prompt, "--model", model, *ON, *more]
        with pytest.raises((CompileError, InputError)) as caught:
            CliRunner().invoke(command, list(map(str, given)), catch_exceptions=False)
        return str(caught.value)

    assert "'blk.2.attn_k.weight' of a LlamaForCausalLM is missing" in refused(bad)
    assert f"{tmp_path / 'no'} does not exist" in refused(tmp_path / "no")
    assert "tiny has 96 positions: --context 100" in refused(files["gguf"], "--context", 100)
    assert "a window of 93 keys behind the first 4: the context has 96" in refused(
        files["gguf"], "--window", 93
    )
    assert refused(files["gguf"], "--window", 32, "--evict", "least").startswith(
        "a window of 32 keys: the last 32 always stay"
    )
    assert (
        refused(tmp_path / "no", "--evict", "least")
        == "--evict least needs --window: without one all keys stay"
    )
    if command is chat:
        assert refused(files["base"]) == "base has no chat template: use weft generate"


def test_a_device_that_is_not_there_is_reported_before_the_model_is_read(files, monkeypatch):
    monkeypatch.setattr("sw.models.generator.find", lambda *_: None)  # nothing is quantised
    generator = Generator("tiny", 64, model=LanguageModel(files["gguf"]))

    def refuse(*_arguments, **_options):
        raise CompileError("it cannot be captured")

    monkeypatch.setattr("sw.models.generator.capture_decoder", refuse)
    with pytest.raises(DeviceError, match="/nowhere"):
        generator.open("board:/nowhere")
    closed = []
    monkeypatch.setattr(GoldenDevice, "close", lambda device: closed.append(device))
    with pytest.raises(CompileError, match="it cannot be captured"):
        generator.open("golden")
    assert len(closed) == 1

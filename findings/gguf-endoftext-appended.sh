#!/bin/bash
# Good guess: a tokenizer read with from_pretrained(folder, gguf_file=...) has the tokens of the file.
# What happens: a file of kind "gpt2" without `<|endoftext|>` gets it appended, one token more than the
# file and the model's embedding have.
# Versions: transformers 5.23.0 with tokenizers 0.23.3 and gguf 0.19.0.
# Why it matters: len(tokenizer) no longer is the vocabulary of the model; text with that string in it
# becomes a token for which the embedding has no row. Weft counts the tokens of the file itself, and
# refuses a token outside of the vocabulary before anything runs.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.23.0 tokenizers==0.23.3 gguf==0.19.0 torch==2.13.0 numpy==2.4.6

HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" 2>"$folder/log" <<'PYTHON' || { tail -n 1 "$folder/log" >&2; exit 1; }
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

path = Path(sys.argv[1]) / "model.gguf"
tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "<end>"]
writer = GGUFWriter(path, "llama")
writer.add_block_count(1)
writer.add_context_length(16)
writer.add_embedding_length(32)
writer.add_feed_forward_length(32)
writer.add_head_count(1)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_tokenizer_model("gpt2")
writer.add_token_list(tokens)
writer.add_token_merges(["t h", "th e"])
writer.add_token_types([1] * (len(tokens) - 1) + [3])
writer.add_eos_token_id(len(tokens) - 1)
writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 32), np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name)
print("transformers", version("transformers"), "gguf", version("gguf"))
print(len(tokens), "tokens in the file,", len(tokenizer), "in the tokenizer")
print("<|endoftext|> ->", tokenizer("the<|endoftext|>").input_ids)
if len(tokenizer) == len(tokens):
    sys.exit("not reproduced: the tokenizer has the tokens of the file")
PYTHON
